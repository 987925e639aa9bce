"""`consumers`, `consumer …`, `lag`: who reads a stream, and how far they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dwkernel.cli.arguments import Force, Json, utf8
from dwkernel.cli.bus.arguments import Place, StreamName
from dwkernel.cli.bus.places import bus_at
from dwkernel.cli.bus.shown import ago, period
from dwkernel.cli.bus.subjects import moment_of
from dwkernel.cli.output import FAILED, Output
from dwkernel.reports import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from dwkernel.bus import Bus, Consumer, ConsumerStatus

MaybeStream = Annotated[
    str | None,
    typer.Argument(metavar="STREAM", help="only of this one", show_default=False, callback=utf8),
]
ConsumerName = Annotated[
    str, typer.Argument(metavar="CONSUMER", help="the consumer's name", callback=utf8)
]


def consumers(
    store: Place, stream: MaybeStream = None, force: Force = False, as_json: Json = False
) -> None:
    """List consumers: how they stand, and what they were made with."""
    out = Output(as_json=as_json)
    with bus_at(store, out, force=force) as bus:
        found = [_about(one) for one in _all(bus, stream)]
        if as_json:
            out.done(found)
            return
        head = ("stream", "consumer", "state", "lag", "pending", "done", "wait", "tries", "wants")
        rows = [_row(one, _numbers(out)) for one in found]
        out.table(head, rows, {3, 4, 5, 6, 7})


def _all(bus: Bus, stream: str | None) -> Iterator[Consumer]:
    streams = bus.streams() if stream is None else [bus.stream(stream)]
    for one in streams:
        yield from one.consumers()


def _about(consumer: Consumer) -> dict[str, Any]:
    settings = getattr(consumer, "settings", None)
    given = None if settings is None else settings.to_dict()
    return {**consumer.status().to_dict(), "settings": given}


def _oldest(status: ConsumerStatus) -> str:
    # A broker does not know it.
    oldest_s: float | None = getattr(status, "oldest_s", None)
    return "" if oldest_s is None else ago(oldest_s)


def _numbers(out: Output) -> Callable[[int], str]:
    return "{:,}".format if out.console.is_terminal else str


def _row(one: dict[str, Any], number: Callable[[int], str]) -> list[str]:
    settings = one["settings"] or {}
    wants = [*settings.get("subjects", ()), settings.get("filter") or ""]
    tries = settings.get("max_deliver")
    return [
        one["stream"],
        one["name"],
        "paused" if one["is_paused"] else "ok",
        number(one["lag"]),
        number(one["pending"]),
        number(one["acknowledged"]) if "acknowledged" in one else "",
        period(settings["ack_wait_s"]) if settings else "",
        "" if tries is None else str(tries),
        " ".join(text for text in wants if text) or "everything",
    ]


def lag(
    store: Place,
    stream: MaybeStream = None,
    max_lag: Annotated[
        int | None,
        typer.Option(
            min=0, help="exit 1 if a consumer is further behind: for monitoring", show_default=False
        ),
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Show how far each consumer is behind. With --max-lag the exit status says it, too."""
    out = Output(as_json=as_json)
    with bus_at(store, out, force=force) as bus:
        found = [one.status() for one in _all(bus, stream)]
        late = [one for one in found if max_lag is not None and one.lag > max_lag]
        if as_json:
            out.done([{**one.to_dict(), "is_late": one in late} for one in found])
        else:
            head = ("stream", "consumer", "lag", "pending", "scheduled", "redelivered", "oldest")
            number = _numbers(out)
            rows = [
                (
                    one.stream,
                    one.name,
                    *(number(n) for n in (one.lag, one.pending, one.scheduled, one.redelivered)),
                    _oldest(one),
                    number(one.dead),
                    "late" if one in late else "paused" if one.is_paused else "ok",
                )
                for one in found
            ]
            out.table((*head, "dead", ""), rows, {2, 3, 4, 5, 6, 7})
        for one in late:
            out.note(f"{one.stream}/{one.name} is {one.lag:,} messages behind, {max_lag:,} allowed")
        if late:
            raise typer.Exit(FAILED)


def create(  # noqa: PLR0913, PLR0917 - each option stands alone
    store: Place,
    stream: StreamName,
    consumer: ConsumerName,
    ack: Annotated[
        Literal["explicit", "none", "all"], typer.Option(help="what counts as done")
    ] = "explicit",
    ack_wait: Annotated[str, typer.Option(help="without one it is delivered again")] = "30s",
    max_deliver: Annotated[
        int | None, typer.Option(min=1, help="how often at most", show_default=False)
    ] = None,
    backoff: Annotated[
        list[str] | None,
        typer.Option(help="how long redeliveries wait: once for each", show_default=False),
    ] = None,
    max_ack_pending: Annotated[int, typer.Option(help="so many may be out at a time")] = 1000,
    subjects: Annotated[
        list[str] | None,
        typer.Option("--subject", "-s", metavar="PATTERN", show_default=False),
    ] = None,
    filter_: Annotated[
        str | None, typer.Option("--filter", metavar="EXPRESSION", show_default=False)
    ] = None,
    start: Annotated[
        str, typer.Option(help="first, last, new, a number, or a moment: 2026-11-26T10:00Z")
    ] = "first",
    priority_window: Annotated[
        int, typer.Option(help="of so many that wait the most urgent goes first")
    ] = 0,
    dead_letters: Annotated[
        bool, typer.Option("--dead-letters/--no-dead-letters", help="keep what it gives up")
    ] = True,
    inactive_after: Annotated[
        str | None,
        typer.Option(help="it is removed when nobody uses it for so long", show_default=False),
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Make a consumer."""
    out = Output(as_json=as_json)
    with bus_at(store, out, writes=True, force=force) as bus:
        made = bus.stream(stream).consumer(
            consumer,
            ack=ack,
            ack_wait=ack_wait,
            max_deliver=max_deliver,
            backoff=backoff or (),
            max_ack_pending=max_ack_pending,
            subjects=subjects or (),
            filter=filter_,
            start=_start(start),
            priority_window=priority_window,
            dead_letters=dead_letters,
            inactive_after=inactive_after,
            create=True,
        )
        about = _about(made)
        out.done(about, f"{made.name} of {stream}: {counted(about['lag'], 'message')} before it")


def _start(text: str) -> Any:
    if text in {"first", "last", "new"}:
        return text
    if text.isdecimal():
        return int(text)
    moment: datetime | None = moment_of(text)
    return moment


def delete(
    store: Place,
    stream: StreamName,
    consumer: ConsumerName,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Delete a consumer and its dead letters."""
    out = Output(as_json=as_json)
    with bus_at(store, out, writes=True, force=force) as bus:
        bus.stream(stream).delete_consumer(consumer)
        out.done({"deleted": f"{stream}/{consumer}"}, f"{consumer} of {stream} is gone")


def pause(
    store: Place,
    stream: StreamName,
    consumer: ConsumerName,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Hand nothing out until it is resumed."""
    out = Output(as_json=as_json)
    with bus_at(store, out, writes=True, force=force) as bus:
        found = bus.stream(stream).consumer(consumer)
        found.pause()
        out.done(_about(found), f"{consumer} of {stream} is paused")


def resume(
    store: Place,
    stream: StreamName,
    consumer: ConsumerName,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Hand out again."""
    out = Output(as_json=as_json)
    with bus_at(store, out, writes=True, force=force) as bus:
        found = bus.stream(stream).consumer(consumer)
        found.resume()
        out.done(_about(found), f"{consumer} of {stream} hands out again")
