"""How commands say what they did: for people on a terminal, plain in a pipe, JSON on demand."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import sys
import traceback
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dwkernel import errors
from dwkernel.cli.times import second
from dwkernel.reports import Report, counted, plain
from dwkernel.units import format_size

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from dwkernel.reports import PoolStatus

FAILED = 1
WRONG_USE = 2
INTERRUPTED = 130

_STYLES = {
    **dict.fromkeys(("ok", "full", "met"), "green"),
    **dict.fromkeys(("suspect", "stale", "degraded", "draining"), "yellow"),
    **dict.fromkeys(("missing", "failed", "lost", "foreign", "not met"), "red"),
}
# What moves the cursor, rings or begins an escape sequence: names from anywhere may hold it.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_CONTROL_IN_TEXT = re.compile(_CONTROL.pattern.replace(r"\x00-\x1f", r"\x00-\x09\x0b-\x1f"))
# Commands as the pool's advice names them, in the words that a shell takes.
_COMMAND = re.compile(r"`(drive replace|rebuild|scrub)\b( [^`]*)?`")


class Output:
    """Where a command's results go."""

    def __init__(self, *, as_json: bool) -> None:
        """Choose JSON, or lines for people."""
        self.as_json = as_json
        # Who reads results line by line reads an error so, too.
        self._compact = False
        self.console = _console()
        self.notes = _console(stderr=True)

    def done(self, result: object, text: str | None = None) -> None:
        """Say what came out."""
        if self.as_json:
            _print_json(plain(result))
        else:
            self.lines(str(result) if text is None else text)

    def json_line(self, value: object, *, flush: bool = True) -> None:
        """Print JSON in one line: one of many results, seen at once with `flush`."""
        self._compact = True
        _print_json(plain(value), compact=True, flush=flush)

    def lines(self, text: str) -> None:
        """Print lines for people."""
        self.console.print(Text(self.shown(text)))

    def shown(self, text: str) -> str:
        """Return text as it can be printed: on a terminal its lines move no cursor."""
        return _shown(text, self.console, _CONTROL_IN_TEXT)

    def name(self, text: str) -> str:
        """Return a key or a path as it can be printed: on a terminal it moves no cursor."""
        return _shown(text, self.console, _CONTROL)

    def note(self, text: str) -> None:
        """Say something beside the result."""
        if not self.as_json:
            self.notes.print(Text(_shown(text, self.notes, _CONTROL_IN_TEXT)))

    def table(
        self,
        head: Sequence[str],
        rows: Iterable[Sequence[str]],
        right: set[int],
        whole: Collection[int] = (),
    ) -> None:
        """Print a table: columns on a terminal, those in `whole` unbroken, and tabs in a pipe.

        A pipe gets each row when it comes.
        """
        if not self.console.is_terminal:
            for row in rows:
                print("\t".join(row))  # noqa: T201 - that is its work
            return
        table = Table(box=None, pad_edge=False, header_style="dim", show_header=any(head))
        for index, name in enumerate(head):
            justify: Literal["left", "right"] = "right" if index in right else "left"
            table.add_column(name, justify=justify, overflow="fold", no_wrap=index in whole)
        for row in rows:
            table.add_row(*(_cell(self.name(cell)) for cell in row))
        self.console.print(table)

    def progress(self) -> bool:
        """Whether long work shows how far it is."""
        return not self.as_json

    @contextlib.contextmanager
    def errors_told(self, stopped: str = "stopped") -> Iterator[None]:
        """Turn an error into a line and an exit status; `stopped` is what Ctrl-C leaves behind."""
        try:
            yield
        except KeyboardInterrupt:
            self.note(stopped)
            raise typer.Exit(INTERRUPTED) from None
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            raise typer.Exit(self.tell(error)) from None

    def tell(self, error: Exception) -> int:
        """Tell any error in one line, or as JSON; return the exit status."""
        if os.environ.get("DWKERNEL_TRACEBACK") == "1":
            traceback.print_exception(error)
        if hasattr(error, "format_message"):
            return self._tell_wrong_use(error)
        if isinstance(error, BrokenPipeError):
            _say_no_more()
            return FAILED
        if isinstance(error, errors.DwError):
            self._tell(_described(error))
            wrong = isinstance(error, errors.Invalid) and error.code != "source.failed"
            return WRONG_USE if wrong else FAILED
        if isinstance(error, OSError):
            self._tell(_plain_error("os", os_text(error)) | {"errno": error.errno})
            return FAILED
        text = f"{type(error).__name__}: {error} (a bug; DWKERNEL_TRACEBACK=1 shows where)"
        self._tell(_plain_error("internal", text.replace("\n", " ")))
        return FAILED

    def _tell_wrong_use(self, error: Any) -> int:
        # The class of these has moved between versions of typer; what it can do has not.
        if self.as_json:
            self._tell(_plain_error("usage", error.format_message()))
        else:
            error.show()
        return int(error.exit_code)

    def _tell(self, whole: dict[str, Any]) -> None:
        if self.as_json:
            _print_json({"error": whole}, compact=self._compact)
            return
        self.note(f"error: {whole['message']}")
        if whole["code"] == "store.locked" and "since" in whole["details"]:
            self.note(locked_by(whole["details"]).rstrip())


@dataclass(slots=True)
class Deleted(Report):
    """What was deleted.

    Attributes:
        deleted: keys.
        containers: containers that went with all they held.
        failed: what was not deleted, with the reason.

    """

    deleted: list[str] = field(default_factory=list)
    containers: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Print for people."""
        first = f"{counted(len(self.deleted), 'object')} deleted"
        if self.containers:
            first += f", and {counted(len(self.containers), 'container')}"
        return "\n".join(
            [first, *(f"not deleted: {name}: {why}" for name, why in self.failed.items())]
        )


def prepare() -> None:
    """Let standard output and error take any name: what cannot be encoded is written escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def wants_json(arguments: Sequence[str]) -> bool:
    """Return whether a command line asks for JSON: a wrong one is answered before it is parsed."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in options


def os_text(error: OSError) -> str:
    """Return what the system said of which file, without Python's numbers."""
    text = error.strerror or str(error)
    names = [name for name in (error.filename, error.filename2) if name is not None]
    return f"{' -> '.join(str(name) for name in names)}: {text}" if names else text


def _console(*, stderr: bool = False) -> Console:
    return Console(stderr=stderr, highlight=False, soft_wrap=True, emoji=False, markup=False)


def _print_json(value: object, *, compact: bool = False, flush: bool = False) -> None:
    # A lone surrogate is written as `\udcff`, by `prepare`: JSON's own escape.
    exact = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "") == "utf8"
    text = json.dumps(value, ensure_ascii=not exact, indent=None if compact else 2)
    print(text, flush=flush)  # noqa: T201 - that is its work


def _say_no_more() -> None:
    # Who read our output has gone; nothing more may be written, not even at exit.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _shown(text: str, console: Console, control: re.Pattern[str]) -> str:
    if not console.is_terminal:
        return text
    return control.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _cell(cell: str) -> Text:
    return Text(cell, style=_STYLES.get(cell, ""))


def _plain_error(code: str, message: str) -> dict[str, Any]:
    return {
        "code": code,
        "message": message,
        "retryable": False,
        "details": {},
        "correlation_id": None,
    }


def _described(error: errors.DwError) -> dict[str, Any]:
    return {
        "code": error.code,
        "message": str(error),
        "retryable": error.retryable,
        "details": error.details,
        "correlation_id": error.correlation_id,
    }


def locked_by(details: dict[str, str]) -> str:
    """Return a sentence that says who holds a store and since when; empty if nobody knows."""
    pid = details.get("pid")
    if pid is None:
        return ""
    since = details.get("since", "")
    with contextlib.suppress(ValueError):
        since = second(datetime.fromtimestamp(int(since) / 1e9, UTC))
    host, program = details.get("host", ""), details.get("program", "")
    what = f" ({program})" if program else ""
    where = f" on {host}" if host else ""
    when = f" since {since}" if since else ""
    return f"process {pid}{what}{where} has the store open{when}. "


def show_status(output: Output, status: PoolStatus, store: str) -> None:
    """Print how the pool of the store at `store` is."""
    if output.as_json:
        output.done(replace(status, advice=[advised(text, store) for text in status.advice]))
        return
    used, usable = format_size(status.used_bytes), format_size(status.usable_bytes)
    output.lines(f"pool {status.id}")
    output.console.print(
        Text.assemble(
            f"{status.geometry}, redundancy ",
            _cell(status.redundancy),
            f", {used} of {usable} used, {status.objects} objects and containers, "
            f"{counted(status.stripes, 'stripe')}",
        )
    )
    rows = [
        (
            drive.id,
            drive.state,
            format_size(drive.used_bytes),
            format_size(drive.capacity_bytes),
            "journal" if drive.journal else "",
            drive.path,
        )
        for drive in status.drives
    ]
    output.table(("drive", "state", "used", "capacity", "", "path"), rows, right={2, 3})
    for text in status.advice:
        output.console.print(Text(f"! {output.name(advised(text, store))}", style="bold"))
    for text in status.warnings:
        output.console.print(Text(f"  {output.name(text)}", style="dim"))


def advised(text: str, store: str) -> str:
    """Return advice with its commands as a shell takes them: "`dwkernel scrub store`"."""

    def whole(found: re.Match[str]) -> str:
        return f"`dwkernel {found[1]} {shlex.quote(store)}{found[2] or ''}`"

    return _COMMAND.sub(whole, text)
