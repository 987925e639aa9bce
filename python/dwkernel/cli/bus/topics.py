"""`topics`, `create`, `delete`: which streams there are, and what is in them."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dwkernel._progress import showing
from dwkernel.cli.arguments import Force, Json, utf8
from dwkernel.cli.bus.arguments import Place, StreamName
from dwkernel.cli.bus.counting import Counted, count_subjects
from dwkernel.cli.bus.places import bus_at, looks
from dwkernel.cli.bus.shown import ago, period
from dwkernel.cli.bus.subjects import Wanted, check, overlap
from dwkernel.cli.output import Output
from dwkernel.cli.times import stamp
from dwkernel.reports import counted, rfc3339
from dwkernel.units import format_size, parse_duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dwkernel.bus import Bus, Message, Stream

Pattern = Annotated[
    str,
    typer.Argument(
        metavar="PATTERN",
        help="only streams that take such subjects; `*` is one token, a last `>` one and more",
        show_default=False,
        callback=utf8,
    ),
]


def topics(  # noqa: PLR0913, PLR0917 - each option stands alone
    store: Place,
    pattern: Pattern = ">",
    subjects: Annotated[
        bool, typer.Option("--subjects", help="count each subject, by reading everything")
    ] = False,
    top: Annotated[
        int, typer.Option(min=1, help="with --subjects: so many of them, the others together")
    ] = 20,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="look again and again, with rates")
    ] = False,
    every: Annotated[str, typer.Option(help="with --watch: how often")] = "2s",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """List streams: what they take, hold, and how long they keep it."""
    out = Output(as_json=as_json)
    if subjects and watch:
        raise typer.BadParameter("give --subjects or --watch, not both")  # noqa: TRY003
    if watch:
        with out.errors_told("stopped"):
            check([pattern])
            _watch(out, store, pattern, every_s=parse_duration(every), force=force)
        return
    with bus_at(store, out, force=force) as bus:
        check([pattern])
        if subjects:
            _by_subject(out, bus, pattern, top)
            return
        found = [_about(stream) for stream in _matching(bus, pattern)]
        if as_json:
            out.done(found)
        else:
            _show(out, found)


def _matching(bus: Bus, pattern: str) -> list[Stream]:
    def fits(stream: Stream) -> bool:
        return any(overlap(pattern, taken) for taken in stream.subjects)

    return [stream for stream in bus.streams() if fits(stream)]


def _about(stream: Stream) -> dict[str, Any]:
    """Return what is known of a stream, with the times of its first and last message."""
    status = stream.status()
    settings = getattr(stream, "settings", None)
    first = last = None
    if status.messages:
        first = _at(stream, status.first_sequence)
        last = _at(stream, status.last_sequence)
    return {
        **status.to_dict(),
        "first_at": None if first is None else rfc3339(first.published_at),
        "last_at": None if last is None else rfc3339(last.published_at),
        "settings": None if settings is None else settings.to_dict(),
    }


def _at(stream: Stream, sequence: int) -> Message | None:
    return next(stream.replay(from_sequence=sequence), None)


def _show(out: Output, found: list[dict[str, Any]], rates: Mapping[str, str] | None = None) -> None:
    head = ["stream", "messages", "bytes", "first", "last", "oldest", "newest", "takes", "limits"]
    right = {1, 2, 3, 4, 5, 6}
    rows = [_row(one, short=out.console.is_terminal) for one in found]
    if rates is not None:
        head.insert(2, "rate")
        right.add(7)
        for row in rows:
            row.insert(2, rates.get(row[0], ""))
    out.table(head, rows, right)
    for one in found:
        if one.get("failure"):
            out.note(f"{one['name']}: {one['failure']}")
        if one.get("delayed"):
            out.note(f"{one['name']}: {counted(one['delayed'], 'message')} more, not due yet")


def _row(one: dict[str, Any], *, short: bool) -> list[str]:
    def when(text: str | None) -> str:
        if text is None:
            return ""
        moment = datetime.fromisoformat(text)
        if not short:
            return stamp(moment, short=False)
        return ago((datetime.now(UTC) - moment).total_seconds())

    count = f"{one['messages']:,}" if short else str(one["messages"])
    return [
        one["name"],
        count,
        format_size(one["bytes"]) if short else str(one["bytes"]),
        str(one["first_sequence"]),
        str(one["last_sequence"]),
        when(one["first_at"]),
        when(one["last_at"]),
        " ".join(one["subjects"]),
        _limits(one["settings"] or {}),
    ]


def _limits(settings: Mapping[str, Any]) -> str:
    told = []
    if settings.get("max_age_s"):
        told.append(period(settings["max_age_s"]))
    if settings.get("max_bytes"):
        told.append(format_size(settings["max_bytes"]))
    if settings.get("max_messages"):
        told.append(f"{settings['max_messages']:,} messages")
    if settings.get("discard") == "new":
        told.append("refuses new ones")
    if settings.get("retention", "limits") != "limits":
        told.append(settings["retention"].replace("_", " "))
    if settings.get("keep_last_per_key"):
        told.append("last of each key")
    return ", ".join(told)


def _by_subject(out: Output, bus: Bus, pattern: str, top: int) -> None:
    wanted = Wanted([] if pattern == ">" else [pattern])
    found: dict[str, Counted] = {}
    for stream in _matching(bus, pattern):
        total = stream.status().messages
        with showing(out.progress(), f"reading {stream.name}", "messages", total) as tell:
            found[stream.name] = count_subjects(stream.replay(), wanted, top, tell)
    if out.as_json:
        out.done(found)
        return
    rows = [row for name, one in found.items() for row in _subject_rows(name, one)]
    out.table(("stream", "subject", "messages", "bytes"), rows, {2, 3})
    if not all(one.is_exact for one in found.values()):
        out.note("there are too many subjects to count each: the figures are the least there are")


def _subject_rows(name: str, found: Counted) -> list[tuple[str, str, str, str]]:
    rows = [
        (name, one.subject, f"{one.messages:,}", format_size(one.bytes)) for one in found.subjects
    ]
    if found.others:
        size = format_size(found.other_bytes)
        rows.append((name, "(others)", f"{found.others:,}", size))
    return rows


def _watch(out: Output, store: str, pattern: str, *, every_s: float, force: bool) -> None:
    before: dict[str, tuple[float, int]] = {}
    for bus in looks(store, out, every_s=every_s, force=force):
        now = time.monotonic()
        found = [_about(stream) for stream in _matching(bus, pattern)]
        rates: dict[str, str] = {}
        for one in found:
            name, last = one["name"], one["last_sequence"]
            if name in before:
                then, number = before[name]
                one["messages_per_s"] = (last - number) / (now - then)
                rates[name] = f"{one['messages_per_s']:,.1f}/s"
            before[name] = (now, last)
        if out.as_json:
            out.json_line(found)
            continue
        if out.console.is_terminal:
            out.console.clear()
        _show(out, found, rates)


def create(  # noqa: PLR0913, PLR0917 - each option stands alone
    store: Place,
    stream: StreamName,
    subjects: Annotated[
        list[str],
        typer.Option("--subject", "-s", metavar="PATTERN", help="what it takes; may be repeated"),
    ],
    max_age: Annotated[str | None, typer.Option(help="such as 7d", show_default=False)] = None,
    max_bytes: Annotated[
        str | None, typer.Option(help="such as '10 GiB'", show_default=False)
    ] = None,
    max_messages: Annotated[int | None, typer.Option(show_default=False)] = None,
    discard: Annotated[
        Literal["old", "new"], typer.Option(help="what goes, or is refused, at the limits")
    ] = "old",
    retention: Annotated[
        Literal["limits", "interest", "work_queue"],
        typer.Option(help="what else lets messages go: that consumers have done them"),
    ] = "limits",
    keep_last_per_key: Annotated[
        bool, typer.Option("--keep-last-per-key", help="older messages of the same key go")
    ] = False,
    duplicate_window: Annotated[
        str, typer.Option(help="so long an id is taken once, up to 24h")
    ] = "2min",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Make a stream."""
    out = Output(as_json=as_json)
    with bus_at(store, out, writes=True, force=force) as bus:
        made = bus.stream(
            stream,
            subjects=subjects,
            max_age=max_age,
            max_bytes=max_bytes,
            max_messages=max_messages,
            discard=discard,
            retention=retention,
            keep_last_per_key=keep_last_per_key,
            duplicate_window=duplicate_window,
            create=True,
        )
        out.done(_about(made), f"{made.name} takes {' '.join(made.subjects)}")


def delete(store: Place, stream: StreamName, force: Force = False, as_json: Json = False) -> None:
    """Delete a stream, its messages and its consumers."""
    out = Output(as_json=as_json)
    with bus_at(store, out, writes=True, force=force) as bus:
        messages = bus.stream(stream).status().messages
        bus.delete_stream(stream)
        done = {"deleted": stream, "messages": messages}
        out.done(done, f"{stream} is gone, with {messages:,} messages")
