"""`publish`: one message, or each line of a file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from dwkernel import errors
from dwkernel._progress import showing
from dwkernel.bus.stream import Stream
from dwkernel.cli import files
from dwkernel.cli.arguments import Force, Json, utf8
from dwkernel.cli.bus.arguments import Place
from dwkernel.cli.bus.places import bus_at, is_broker
from dwkernel.cli.bus.subjects import matches
from dwkernel.cli.output import Output
from dwkernel.reports import Report, counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from dwkernel.bus import Bus

__all__ = ["Batch", "last_number", "publish_batch"]

# What one commit takes: as many as fit well into the journal.
BATCH_MESSAGES = 500
BATCH_BYTES = 1 << 20
# How far back the end of a stream is searched for what a run before has published.
_SEARCH_MESSAGES = 100_000

# A longer line is no message: it is refused as soon as that is known.
_LINE_BYTES = (1 << 20) + 2

_AT = "@"
_STOPPED_LINES = (
    "stopped: what was published is there; with the same --id-prefix the next run goes on behind it"
)

# Fields of a message as `Stream.publish_many` takes them all.
Batch = list[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Lines(Report):
    """What became of lines.

    Attributes:
        stream: where they went.
        lines: how many were read.
        skipped: how many a run before had published.
        published: how many were added.
        duplicates: how many were there already.
        last_sequence: the last message's number; None if none was added.

    """

    stream: str
    lines: int
    skipped: int
    published: int
    duplicates: int
    last_sequence: int | None

    def __str__(self) -> str:
        """Print for people."""
        told = [f"{counted(self.published, 'message')} published in {self.stream}"]
        if self.last_sequence is not None:
            told.append(f"the last is {self.last_sequence}")
        there = self.skipped + self.duplicates
        if there:
            told.append(f"{there:,} were there")
        return ", ".join(told)


@dataclass(frozen=True)
class _Fields:
    """What every message of a run has."""

    subject: str
    headers: dict[str, str] | None
    key: str | None
    schema: str | None
    priority: int

    def named(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "subject"}

    def row(self, data: bytes, message_id: str | None) -> tuple[Any, ...]:
        given = (self.headers, self.key, self.schema, self.priority)
        return (self.subject, data, *given, None, message_id)


def publish(  # noqa: PLR0913, PLR0917 - each option stands alone
    store: Place,
    subject: Annotated[
        str, typer.Argument(metavar="SUBJECT", help="such as orders.eu", callback=utf8)
    ],
    data: Annotated[
        str,
        typer.Argument(metavar="DATA", help="the text itself, @file, or - for standard input"),
    ] = "-",
    headers: Annotated[
        list[str] | None,
        typer.Option("--header", "-H", metavar="NAME=VALUE", show_default=False),
    ] = None,
    key: Annotated[str | None, typer.Option(show_default=False)] = None,
    message_id: Annotated[
        str | None, typer.Option("--id", help="taken once under this id", show_default=False)
    ] = None,
    delay: Annotated[
        str | None, typer.Option(help="durable now, in the stream then: 1h", show_default=False)
    ] = None,
    priority: Annotated[int, typer.Option(min=0, max=255)] = 0,
    schema: Annotated[str | None, typer.Option(show_default=False)] = None,
    stream: Annotated[
        str | None,
        typer.Option(help="only there; by default wherever it is taken", show_default=False),
    ] = None,
    lines: Annotated[
        bool, typer.Option("--lines", "-l", help="each line of the data is a message")
    ] = False,
    id_prefix: Annotated[
        str | None,
        typer.Option(
            help="with --lines: PREFIX:1, PREFIX:2, … are the ids, so a repeated run adds nothing",
            show_default=False,
        ),
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Publish a message, or with --lines many. Prints its number in each stream that takes it."""
    out = Output(as_json=as_json)
    fields = _Fields(subject, _headers(headers), key, schema, priority)
    if lines and (message_id or delay):
        raise typer.BadParameter("--id and --delay are for one message")  # noqa: TRY003
    if id_prefix is not None and not lines:
        raise typer.BadParameter("--id-prefix goes with --lines")  # noqa: TRY003
    with out.errors_told():
        source = _source(data)
    stopped = _STOPPED_LINES if lines else "stopped: the message is published whole or not at all"
    with bus_at(store, out, writes=True, force=force, stopped=stopped) as bus:
        takers = _takers(bus, subject, stream)
        if lines:
            target = _only(takers, subject)
            out.done(_publish_lines(target, fields, source(), id_prefix, out))
            return
        with source() as file:
            content = file.read()
        if not takers and is_broker(store):
            bus.publish(subject, content, **fields.named())
            out.done([], "published; no stream keeps it")
            return
        told = _publish_one(bus, takers, fields, content, message_id, delay)
        out.done(told, "\n".join(_told(one) for one in told))


def _headers(given: list[str] | None) -> dict[str, str] | None:
    headers = {}
    for one in given or []:
        name, equals, value = one.partition("=")
        if not equals:
            raise typer.BadParameter(f"--header {one!r}: write NAME=VALUE")  # noqa: EM102, TRY003
        headers[name] = value
    return headers or None


def _source(data: str) -> Callable[[], BinaryIO]:
    """Return what opens the data; what cannot be read is told of before a store is opened."""
    if data == files.STANDARD:
        file = files.standard_input()
        return lambda: file
    if data.startswith(_AT):
        path = Path(data.removeprefix(_AT))
        files.check_source(path)
        return lambda: path.open("rb")
    from io import BytesIO  # noqa: PLC0415 - as the other two

    return lambda: BytesIO(os.fsencode(data))


def _takers(bus: Bus, subject: str, stream: str | None) -> list[Stream]:
    if stream is not None:
        return [bus.stream(stream)]

    def takes(one: Stream) -> bool:
        return any(matches(pattern, subject) for pattern in one.subjects)

    return [one for one in bus.streams() if takes(one)]


def _only(takers: list[Stream], subject: str) -> Stream:
    if not takers:
        raise errors.new("stream.subject", f"no stream takes {subject}", subject=subject)
    if len(takers) > 1:
        names = ", ".join(one.name for one in takers)
        raise typer.BadParameter(f"{names} take {subject}: say which with --stream")  # noqa: EM102, TRY003
    return takers[0]


def _publish_one(
    bus: Bus,
    takers: list[Stream],
    fields: _Fields,
    content: bytes,
    message_id: str | None,
    delay: str | None,
) -> list[dict[str, Any]]:
    if len(takers) > 1 and delay is None:
        with bus.group() as group:
            group.publish(fields.subject, content, message_id=message_id, **fields.named())
        return [one._asdict() for one in group.published]
    only = _only(takers, fields.subject)
    if delay is not None:
        given = {**fields.named(), "message_id": message_id, "delay": delay}
        only.publish(fields.subject, content, **given)
        return [{"stream": only.name, "sequence": None, "duplicate": False, "delay": delay}]
    before = only.status().last_sequence if message_id else 0
    number = only.publish(fields.subject, content, message_id=message_id, **fields.named())
    duplicate = message_id is not None and number is not None and number <= before
    return [{"stream": only.name, "sequence": number, "duplicate": duplicate}]


def _told(one: dict[str, Any]) -> str:
    if one["sequence"] is None:
        return f"{one['stream']}  in {one['delay']}"
    there = "  (it was there)" if one["duplicate"] else ""
    return f"{one['stream']}  {one['sequence']}{there}"


def _publish_lines(
    stream: Stream, fields: _Fields, source: BinaryIO, id_prefix: str | None, out: Output
) -> Lines:
    skipped = 0 if id_prefix is None else last_number(stream, id_prefix)
    if skipped:
        out.note(f"going on behind line {skipped:,}, which a run before has published")
    read, before = 0, stream.status().last_sequence
    last, published, duplicates = None, 0, 0

    def rows() -> Iterator[tuple[Any, ...]]:
        nonlocal read
        for read, line in enumerate(iter(lambda: source.readline(_LINE_BYTES), b""), 1):
            if read > skipped:
                message_id = None if id_prefix is None else f"{id_prefix}:{read}"
                yield fields.row(line.rstrip(b"\n").removesuffix(b"\r"), message_id)

    try:
        with source, showing(out.progress(), "publish", "messages", None) as tell:
            for batch in batches(rows()):
                for number in publish_batch(stream, batch):
                    if number > before:
                        last, published = number, published + 1
                    else:
                        duplicates += 1
                if tell is not None:
                    tell(published + duplicates, None)
    except errors.DwError:
        out.note(f"lines up to {skipped + published + duplicates:,} are published")
        raise
    return Lines(stream.name, read, min(skipped, read), published, duplicates, last)


def batches(rows: Iterable[tuple[Any, ...]]) -> Iterator[Batch]:
    """Yield rows in lists that one commit takes."""
    batch: Batch = []
    size = 0
    for row in rows:
        batch.append(row)
        size += len(row[1])
        if len(batch) >= BATCH_MESSAGES or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def publish_batch(stream: Stream, batch: Batch) -> list[int]:
    """Publish rows with all fields of a message, in order; return their numbers."""
    kept: object = stream
    if isinstance(kept, Stream):
        return kept.publish_many(batch)
    each = getattr(stream, "publish_each", None)
    if each is not None and not any(any(row[3:7]) for row in batch):
        # A broker that commits each by itself takes the next before the one before is confirmed.
        numbers: list[int] = each([(*row[:3], row[7]) for row in batch])
        return numbers
    return [_publish_row(stream, *row) for row in batch]


def _publish_row(  # noqa: PLR0913, PLR0917 - each field of a message is one
    stream: Any,
    subject: str,
    data: bytes,
    headers: dict[str, str] | None,
    key: str | None,
    schema: str | None,
    priority: int,
    correlation_id: str | None,
    message_id: str | None,
) -> int:
    # What is not given is left out: a broker may have no place for it.
    given = {
        "headers": headers,
        "key": key,
        "schema": schema,
        "priority": priority or None,
        "correlation_id": correlation_id,
        "message_id": message_id,
    }
    number: int = stream.publish(
        subject, data, **{name: value for name, value in given.items() if value is not None}
    )
    return number


def last_number(stream: Stream, prefix: str) -> int:
    """Return the last N of the ids `prefix:N` among a stream's last messages; 0 if there is none.

    Runs publish in order: so everything up to it is there. It looks back at 100,000 messages.
    """
    status = stream.status()
    end, span = status.last_sequence, 1000
    begin = end + 1
    while begin > max(status.first_sequence, end - _SEARCH_MESSAGES):
        upper, begin = begin, max(1, end + 1 - span)
        window = islice(stream.replay(from_sequence=begin), upper - begin)
        found = 0
        for message in window:
            if message.sequence is None or message.sequence >= upper:
                break
            found = max(found, _number_of(message, prefix))
        if found or begin == 1:
            return found
        span *= 10
    return 0


def _number_of(message: Any, prefix: str) -> int:
    name, _, number = (getattr(message, "message_id", None) or "").rpartition(":")
    return int(number) if name == prefix and number.isdecimal() else 0
