"""`replay`: messages of a stream as lines of JSON, or published again in another stream."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dwkernel._progress import showing
from dwkernel.cli.arguments import Force, Json, utf8
from dwkernel.cli.bus.arguments import FilterOption, Place, StreamName, SubjectsOption
from dwkernel.cli.bus.places import bus_at
from dwkernel.cli.bus.publishing import batches, last_number, publish_batch
from dwkernel.cli.bus.shown import plain_message
from dwkernel.cli.bus.subjects import Wanted, moment_of
from dwkernel.cli.output import Output
from dwkernel.reports import Report, counted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from dwkernel.bus import Bus, Message, Stream

_STOPPED = "stopped: what was published is there; the next run goes on behind it"
_SUBJECT = "{subject}"


@dataclass(frozen=True, slots=True)
class Replayed(Report):
    """What became of messages that were published again.

    Attributes:
        stream: where they came from.
        into: where they went.
        behind: the number behind which it began, as a run before had come that far.
        published: how many were added.
        duplicates: how many were there already.
        last_sequence: the last one's number where it came from; None if there was none.

    """

    stream: str
    into: str
    behind: int
    published: int
    duplicates: int
    last_sequence: int | None

    def __str__(self) -> str:
        """Print for people."""
        first = f"{counted(self.published, 'message')} of {self.stream} published in {self.into}"
        told = [first]
        if self.duplicates:
            told.append(f"{self.duplicates:,} were there")
        if self.last_sequence is not None:
            told.append(f"the last was {self.last_sequence}")
        return ", ".join(told)


@dataclass(frozen=True)
class _Span:
    """Which part of a stream is meant."""

    from_sequence: int | None
    from_time: datetime | None
    to_sequence: int | None
    to_time: datetime | None

    def read(self, stream: Stream, wanted: Wanted, behind: int) -> Iterator[Message]:
        """Yield what is wanted of it behind a number, up to what is there now."""
        last = stream.status().last_sequence
        last = last if self.to_sequence is None else min(last, self.to_sequence)
        begin: dict[str, Any] = {"from_sequence": self.from_sequence, "from_time": self.from_time}
        if behind and (self.from_sequence or 0) <= behind:
            begin = {"from_sequence": behind + 1}
        for message in stream.replay(**begin):
            if (message.sequence or 0) > last or self._is_over(message):
                return
            if self._is_early(message):
                continue
            if wanted.takes(message):
                yield message

    def _is_over(self, message: Message) -> bool:
        return self.to_time is not None and message.published_at >= self.to_time

    def _is_early(self, message: Message) -> bool:
        return self.from_time is not None and message.published_at < self.from_time


def replay(  # noqa: PLR0913, PLR0917 - each option stands alone
    store: Place,
    stream: StreamName,
    from_sequence: Annotated[
        int | None, typer.Option(min=0, help="begin with this number", show_default=False)
    ] = None,
    from_time: Annotated[
        str | None,
        typer.Option(help="begin at 2026-11-26T10:00Z, or 2h ago: 2h", show_default=False),
    ] = None,
    to_sequence: Annotated[
        int | None, typer.Option(min=0, help="end with this number", show_default=False)
    ] = None,
    to_time: Annotated[
        str | None, typer.Option(help="end before this moment", show_default=False)
    ] = None,
    subjects: SubjectsOption = None,
    filter_: FilterOption = None,
    into: Annotated[
        str | None,
        typer.Option(
            metavar="STREAM", help="publish there instead of printing", show_default=False
        ),
    ] = None,
    into_store: Annotated[
        str | None,
        typer.Option(
            metavar="STORE",
            help="where that stream is, if it is elsewhere: a path or a URL",
            show_default=False,
            callback=utf8,
        ),
    ] = None,
    subject_as: Annotated[
        str,
        typer.Option(
            "--as", metavar="SUBJECT", help="with --into: another subject, such as old.{subject}"
        ),
    ] = _SUBJECT,
    again: Annotated[
        bool, typer.Option("--again", help="with --into: also what a run before has published")
    ] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Print messages as JSON lines, or publish them again.

    With --into each has the id STREAM:NUMBER, and a run goes on behind what the last one published:
    so one that was stopped can be repeated, and adds nothing twice.
    """
    out = Output(as_json=as_json)
    if into is None and (into_store or again or subject_as != _SUBJECT):
        raise typer.BadParameter("--into-store, --as and --again go with --into")  # noqa: TRY003
    if into == stream and into_store is None and subject_as == _SUBJECT:
        raise typer.BadParameter("a stream is not replayed into itself")  # noqa: TRY003
    with out.errors_told():
        wanted = Wanted.of(subjects, filter_)
        span = _Span(from_sequence, moment_of(from_time), to_sequence, moment_of(to_time))
    if into is None:
        with bus_at(store, out, force=force) as bus:
            _print(span.read(bus.stream(stream), wanted, 0), out)
        return
    writes = into_store is None
    with bus_at(store, out, writes=writes, force=force, stopped=_STOPPED) as bus:
        source = bus.stream(stream)
        with _target(bus, into_store, out, force=force) as other:
            copying = _Copying(source, other.stream(into), subject_as, again=again)
            out.done(copying.run(span, wanted, out))


def _print(messages: Iterator[Message], out: Output) -> None:
    last = 0
    # Lines on a terminal say themselves how far it is.
    shown = out.progress() and not out.console.is_terminal
    try:
        with showing(shown, "replay", "messages", None) as tell:
            for count, message in enumerate(messages, 1):
                out.json_line(plain_message(message), flush=False)
                last = message.sequence or last
                if tell is not None:
                    tell(count, None)
    except KeyboardInterrupt:
        out.note(f"the last was {last}: --from-sequence {last + 1} goes on behind it")
        raise


@contextlib.contextmanager
def _target(bus: Bus, place: str | None, out: Output, *, force: bool) -> Iterator[Bus]:
    if place is None:
        yield bus
        return
    with bus_at(place, out, writes=True, force=force, stopped=_STOPPED) as other:
        yield other


class _Copying:
    """Publishes messages of a stream in another one."""

    def __init__(self, source: Stream, target: Stream, subject: str, *, again: bool) -> None:
        self._source = source
        self._target = target
        self._subject = subject
        self._again = again

    def run(self, span: _Span, wanted: Wanted, out: Output) -> Replayed:
        source, target = self._source, self._target
        behind = 0 if self._again else last_number(target, source.name)
        if behind:
            out.note(f"going on behind {behind:,}, which a run before has published; or --again")
        before, published, duplicates, last = target.status().last_sequence, 0, 0, None
        with showing(out.progress(), "replay", "messages", None) as tell:
            rows = (self._row(message) for message in span.read(source, wanted, behind))
            for batch in batches(rows):
                numbers = publish_batch(target, batch)
                new = sum(number > before for number in numbers)
                published, duplicates = published + new, duplicates + len(batch) - new
                last = self._last
                if tell is not None:
                    tell(published + duplicates, None)
        return Replayed(source.name, target.name, behind, published, duplicates, last)

    def _row(self, message: Message) -> tuple[Any, ...]:
        self._last = message.sequence
        subject = self._subject.replace(_SUBJECT, message.subject)
        message_id = None if self._again else f"{self._source.name}:{message.sequence}"
        given = (message.headers or None, message.key, message.schema, message.priority)
        return (subject, message.data, *given, message.correlation_id, message_id)
