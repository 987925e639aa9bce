"""`dwkernel bus …`: durable streams and their consumers from the command line.

- `places`: a store or a broker, opened for one command or looked at again and again;
- `subjects`: which messages are meant: patterns, filters, numbers, times;
- `shown`: a message as a line, and as JSON;
- everything else: commands.
"""

from collections.abc import Callable

import typer

from dwkernel.cli.bus import (
    consumers,
    letters,
    publishing,
    replaying,
    tailing,
    topics,
)

__all__ = ["app"]

app = typer.Typer(
    help="Durable streams: publish, read, look after consumers. In a store, or on a broker.",
    epilog="Where a store's path is asked for, a broker's URL does as well: nats://host:4222, "
    "redis://host:6379/0. A store has one writer or many readers at a time: what a running program "
    "has open is asked in that program, kernel.bus.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
_consumer = typer.Typer(
    help="Make, delete, pause or resume one consumer.", no_args_is_help=True, rich_markup_mode=None
)

# In the order in which help shows them.
_COMMANDS: tuple[Callable[..., None], ...] = (
    topics.topics,
    topics.create,
    topics.delete,
    publishing.publish,
    tailing.tail,
    replaying.replay,
    consumers.consumers,
    consumers.lag,
    letters.dead,
    letters.redrive,
)
for _command in _COMMANDS:
    app.command()(_command)
_ON_CONSUMERS: tuple[Callable[..., None], ...] = (
    consumers.create,
    consumers.delete,
    consumers.pause,
    consumers.resume,
)
for _command in _ON_CONSUMERS:
    _consumer.command()(_command)
app.add_typer(_consumer, name="consumer")
