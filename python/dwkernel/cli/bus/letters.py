"""`dead`, `redrive`: messages that a consumer gave up, and another try for them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from dwkernel._progress import showing
from dwkernel.cli.arguments import Force, Json, utf8
from dwkernel.cli.bus.arguments import Place, StreamName
from dwkernel.cli.bus.places import bus_at
from dwkernel.cli.bus.shown import ago, data_text, plain_message
from dwkernel.cli.output import Output
from dwkernel.cli.times import stamp
from dwkernel.reports import counted, rfc3339

if TYPE_CHECKING:
    from dwkernel.bus import Consumer, DeadLetter, Stream

MaybeConsumer = Annotated[
    str | None,
    typer.Argument(metavar="CONSUMER", help="only of this one", show_default=False, callback=utf8),
]
_STOPPED = "stopped: what was put back is delivered again, the others are where they were"
_EXHAUSTED = "delivered as often as it may be"


def dead(
    store: Place,
    stream: StreamName,
    consumer: MaybeConsumer = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Show dead letters: why they were given up.

    With what happened to them before, and what is in them; with --json each is a line of JSON.
    """
    out = Output(as_json=as_json)
    with bus_at(store, out, force=force) as bus:
        found = bus.stream(stream)
        count = 0
        for one in _consumers(found, consumer):
            for letter in one.dead_letters():
                count += 1
                _show(out, letter)
        if not count:
            out.note("no dead letters")


def _consumers(stream: Stream, name: str | None) -> list[Consumer]:
    return stream.consumers() if name is None else [stream.consumer(name)]


def _show(out: Output, letter: DeadLetter) -> None:
    if out.as_json:
        out.json_line(_plain(letter))
        return
    message = letter.message
    subject = "" if message is None else message.subject
    data = "(the stream has let it go)" if message is None else data_text(message.data)
    why = letter.reason or _EXHAUSTED
    if not out.console.is_terminal:
        cells = (letter.consumer, str(letter.sequence), str(letter.deliveries), why, subject, data)
        print("\t".join(data_text(cell.encode()) for cell in cells), flush=True)  # noqa: T201
        return
    name = out.name
    first = Text.assemble(
        (f"{letter.sequence}", "bold"),
        ("  ", ""),
        (name(subject), "cyan"),
        f"  {letter.consumer}, {_deliveries(letter)}: ",
        (name(why), "red"),
    )
    for line in (first, Text(f"  {name(data)}"), Text(f"  {_history(letter)}", style="dim")):
        line.truncate(out.console.width, overflow="ellipsis")
        out.console.print(line)


def _deliveries(letter: DeadLetter) -> str:
    return "1 delivery" if letter.deliveries == 1 else f"{letter.deliveries:,} deliveries"


def _history(letter: DeadLetter) -> str:
    now = datetime.now(UTC)

    def told(unix_ms: int, ending: str) -> str:
        moment = datetime.fromtimestamp(unix_ms / 1000, UTC)
        return f"{ending} {ago((now - moment).total_seconds())} ago ({stamp(moment, short=True)})"

    return ", ".join(told(*event) for event in letter.history)


def _plain(letter: DeadLetter) -> dict[str, Any]:
    history = [
        {"at": rfc3339(datetime.fromtimestamp(unix_ms / 1000, UTC)), "ending": ending}
        for unix_ms, ending in letter.history
    ]
    message = None if letter.message is None else plain_message(letter.message)
    return {
        "consumer": letter.consumer,
        "sequence": letter.sequence,
        "deliveries": letter.deliveries,
        "reason": letter.reason,
        "history": history,
        "message": message,
    }


def redrive(
    store: Place,
    stream: StreamName,
    consumer: MaybeConsumer = None,
    sequence: Annotated[
        int | None,
        typer.Option(min=1, help="only this message; with a consumer", show_default=False),
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Deliver dead letters again, their count from the beginning."""
    out = Output(as_json=as_json)
    if sequence is not None and consumer is None:
        raise typer.BadParameter("--sequence needs a consumer: the letter is one consumer's")  # noqa: TRY003
    with bus_at(store, out, writes=True, force=force, stopped=_STOPPED) as bus:
        found = bus.stream(stream)
        count = 0
        with showing(out.progress(), "redrive", "letters", None) as tell:
            for one in _consumers(found, consumer):
                wanted = [sequence] if sequence is not None else _sequences(one)
                for number in wanted:
                    count += one.redrive(number)
                    if tell is not None:
                        tell(count, None)
        out.done({"stream": stream, "redriven": count}, f"{_letters(count)} delivered again")
        if sequence is not None and not count:
            out.note(f"{consumer} has no dead letter {sequence}: `dwkernel bus dead` lists them")
            raise typer.Exit(1)


def _sequences(consumer: Consumer) -> list[int]:
    return [letter.sequence for letter in consumer.dead_letters()]


def _letters(count: int) -> str:
    return counted(count, "dead letter")
