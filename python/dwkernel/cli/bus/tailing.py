"""`tail`: the last messages of a stream, and those that come."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Annotated

import typer

from dwkernel.cli.arguments import Force, Json
from dwkernel.cli.bus.arguments import FilterOption, Place, StreamName, SubjectsOption
from dwkernel.cli.bus.places import bus_at, is_broker, looks
from dwkernel.cli.bus.shown import Lines
from dwkernel.cli.bus.subjects import Wanted
from dwkernel.cli.output import Output
from dwkernel.units import parse_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dwkernel.bus import Message, Stream

# So many messages more are read each time that too few of the last ones were wanted.
_SPAN_FACTOR = 8


def tail(  # noqa: PLR0913, PLR0917 - each option stands alone
    store: Place,
    stream: StreamName,
    count: Annotated[int, typer.Option("--count", "-n", min=0, help="so many of the last")] = 10,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="and what comes from now on, until Ctrl-C")
    ] = False,
    subjects: SubjectsOption = None,
    filter_: FilterOption = None,
    full: Annotated[
        bool, typer.Option("--full", help="do not cut lines at the terminal's width")
    ] = False,
    every: Annotated[
        str, typer.Option(help="with --follow: how often a store is looked at")
    ] = "1s",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Show the last messages of a stream.

    With --json each is a line of JSON, in full.

    A store has one writer or many readers at a time. So --follow opens a store for a moment, again
    and again: others write in between, and while somebody has it open for long, it waits.
    """
    out = Output(as_json=as_json)
    lines = Lines(out, full=full)
    with out.errors_told("stopped"):
        wanted, every_s = Wanted.of(subjects, filter_), parse_duration(every)
    if not follow:
        with bus_at(store, out, force=force) as bus:
            for message in _last(bus.stream(stream), count, wanted):
                lines.show(message)
        return
    with out.errors_told("stopped"):
        behind: int | None = None
        for bus in looks(store, out, every_s=every_s, force=force):
            found = bus.stream(stream)
            if behind is None:
                behind = found.status().last_sequence
                for message in _last(found, count, wanted):
                    lines.show(message)
            # A broker tells of what comes; a store is looked at again.
            behind = _show_new(found, behind, wanted, lines, follow=is_broker(store))


def _show_new(stream: Stream, behind: int, wanted: Wanted, lines: Lines, *, follow: bool) -> int:
    """Show what came behind a number; return the last one that was read."""
    for message in stream.replay(from_sequence=behind + 1, follow=follow):
        behind = message.sequence or behind
        if wanted.takes(message):
            lines.show(message)
    return behind


def _last(stream: Stream, count: int, wanted: Wanted) -> Iterator[Message]:
    """Yield the last messages that are wanted, in their order; reads no more than it has to.

    In a stream that holds few of them it reads a longer part each time, and in the end everything;
    in memory are never more than `count`.
    """
    status = stream.status()
    end, span = status.last_sequence, count
    found: deque[Message] = deque(maxlen=count)
    while count and status.messages:
        begin = max(status.first_sequence, end + 1 - span)
        found.clear()
        for message in stream.replay(from_sequence=begin):
            if message.sequence is not None and message.sequence > end:
                break
            if wanted.takes(message):
                found.append(message)
        if len(found) == count or begin <= status.first_sequence:
            break
        span *= _SPAN_FACTOR
    yield from found
