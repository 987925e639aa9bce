"""A message as a line for people, and as JSON."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from rich.text import Text

from dwkernel.cli.times import stamp
from dwkernel.reports import rfc3339
from dwkernel.units import format_duration, format_size

if TYPE_CHECKING:
    from dwkernel.bus import Message
    from dwkernel.cli.output import Output

__all__ = ["Lines", "ago", "data_text", "period", "plain_message", "stamp"]

# Of data that is no text so many bytes are shown.
_HEX_BYTES = 24
_SUBJECT_WIDTH_MAX = 32
# A subject takes no more of a line than one part of so many.
_SUBJECT_SHARE = 3
_HEADERS_SHARE = 4
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86_400
# Text has fewer control characters than one of so many, line ends and tabs not counted.
_ODD_SHARE = 10


def plain_message(message: Message) -> dict[str, Any]:
    """Return a message as JSON has it: its data as text if it is UTF-8, in Base64 if not."""
    data = message.data
    whole: dict[str, Any] = {
        "sequence": message.sequence,
        "published_at": rfc3339(message.published_at),
        "published_ns": message.published_ns,
        "subject": message.subject,
        "headers": message.headers,
        "key": message.key,
        "schema": message.schema,
        "priority": message.priority,
        "id": message.id,
        # What other brokers keep of a message has no such field.
        "message_id": getattr(message, "message_id", None),
        "correlation_id": message.correlation_id,
        "principal": message.principal,
        "size": len(data),
    }
    try:
        return {**whole, "data": data.decode()}
    except UnicodeDecodeError:
        return {**whole, "data_base64": base64.b64encode(data).decode()}


def data_text(data: bytes) -> str:
    """Return data in one line: as text if it is text, else its first bytes and its size.

    >>> data_text("café".encode()), data_text(bytes([0, 1]))
    ('café', '0001 (2 B)')
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return _hex(data)
    odd = sum(not letter.isprintable() for letter in text)
    plain = odd - sum(map(text.count, "\n\r\t"))
    if plain * _ODD_SHARE > len(text):
        return _hex(data)
    return text if not odd else "".join(map(_escaped, text))


def _escaped(letter: str) -> str:
    return letter if letter.isprintable() else letter.encode("unicode_escape").decode()


def _hex(data: bytes) -> str:
    more = "…" if len(data) > _HEX_BYTES else ""
    return f"{data[:_HEX_BYTES].hex()}{more} ({format_size(len(data))})"


def headers_text(headers: dict[str, str]) -> str:
    """Return headers in one line."""
    return " ".join(f"{name}={data_text(value.encode())}" for name, value in headers.items())


def ago(seconds: float) -> str:
    """Return an age in its largest unit.

    >>> [ago(s) for s in (0.2, 59, 61, 7300, 200_000)]
    ['0 s', '59 s', '1 min', '2 h', '2 d']
    """
    for size, unit in ((_DAY_S, "d"), (_HOUR_S, "h"), (_MINUTE_S, "min")):
        if seconds >= size:
            return f"{int(seconds / size)} {unit}"
    return f"{max(0, int(seconds))} s"


def period(seconds: float) -> str:
    """Return a duration that people chose.

    >>> [period(s) for s in (0.25, 90, 3600, 604_800)]
    ['250.0 ms', '90 s', '1 h', '7 d']
    """
    for size, unit in ((_DAY_S, "d"), (_HOUR_S, "h"), (_MINUTE_S, "min"), (1, "s")):
        if seconds >= size and seconds % size == 0:
            return f"{int(seconds / size)} {unit}"
    return format_duration(seconds)


class Lines:
    """Messages, one a line: in columns and colours on a terminal, tabs in a pipe, or as JSON."""

    def __init__(self, out: Output, *, full: bool) -> None:
        """Print to `out`; with `full` a line on a terminal may be longer than that."""
        self._out = out
        self._full = full
        self._sequence_width = 0
        self._subject_width = 0

    def show(self, message: Message) -> None:
        """Print a message."""
        if self._out.as_json:
            self._out.json_line(plain_message(message))
            return
        terminal = self._out.console.is_terminal
        cells = (
            stamp(message.published_at, short=terminal),
            str(message.sequence),
            message.subject,
            headers_text(message.headers),
            data_text(message.data),
        )
        if not terminal:
            print("\t".join(cells), flush=True)  # noqa: T201 - that is its work
            return
        self._print(*cells)

    def _print(self, when: str, sequence: str, subject: str, headers: str, data: str) -> None:
        name, width = self._out.name, self._out.console.width
        about = Text(name(subject), style="cyan")
        if not self._full:
            about.truncate(width // _SUBJECT_SHARE, overflow="ellipsis")
        # Columns grow with what comes: what is shown already stays as it is.
        self._sequence_width = max(self._sequence_width, len(sequence))
        self._subject_width = min(max(self._subject_width, about.cell_len), _SUBJECT_WIDTH_MAX)
        about.pad_right(self._subject_width - about.cell_len)
        line = Text.assemble((when, "dim"), f"  {sequence:>{self._sequence_width}}  ", about)
        content, more = Text(f"  {name(data)}"), Text(f"  {name(headers)}" if headers else "")
        if not self._full:
            # Headers have some room also behind long data.
            room = max(0, width - line.cell_len)
            kept = min(more.cell_len, width // _HEADERS_SHARE)
            content.truncate(max(room - kept, 0), overflow="ellipsis")
            more.truncate(max(room - content.cell_len, 0), overflow="ellipsis")
        more.stylize("yellow")
        self._out.console.print(Text.assemble(line, content, more))
