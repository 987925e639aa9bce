"""Consumers of durable streams: each message until it is acknowledged.

>>> import dwkernel as dw
>>> drives = [f"memory://doc-consumer-{n}" for n in range(3)]
>>> with dw.open(drives=drives, geometry="2+1", create=True) as kernel:
...     stream = kernel.bus.stream("orders", subjects=["orders.>"], create=True)
...     consumer = stream.consumer("billing", create=True)
...     _ = stream.publish("orders.eu", b"1")
...     for message in consumer.fetch(100, timeout="1s"):
...         print(message.data, message.deliveries)
...         message.ack()
b'1' 1
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel.bus.settings import ConsumerSettings
from dwkernel.units import parse_duration

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Callable, Iterator

    from dwkernel._closing import Companions
    from dwkernel._native import BusConsumer, Message
    from dwkernel.units import Duration

__all__ = ["Consumer", "ConsumerStatus", "DeadLetter"]

_PAGE = 100
# A task that is cancelled leaves a thread that waits for no longer than this.
_SLICE_S = 0.25


@dataclass(frozen=True)
class ConsumerStatus:
    """How a consumer stands.

    Attributes:
        name: its name.
        stream: the stream's.
        lag: messages of the stream that it has not reached.
        pending: messages that are out and not acknowledged.
        scheduled: messages that wait to be delivered again.
        redelivered: messages, of these two, that were delivered more than once.
        floor_sequence: every message up to this number is done.
        delivered_sequence: the highest number that was delivered.
        oldest_s: how long ago the oldest of what is not done was first delivered, in seconds.
        is_paused: True if it hands nothing out.
        deliveries: how many deliveries there were.
        acknowledged: how many messages were acknowledged.
        dead: how many became dead letters.

    """

    name: str
    stream: str
    lag: int
    pending: int
    scheduled: int
    redelivered: int
    floor_sequence: int
    delivered_sequence: int
    oldest_s: float | None
    is_paused: bool
    deliveries: int
    acknowledged: int
    dead: int

    def to_dict(self) -> dict[str, Any]:
        """Return the figures by name."""
        return asdict(self)


@dataclass(frozen=True)
class DeadLetter:
    """A message that a consumer delivers no more.

    Attributes:
        consumer: the consumer's name.
        sequence: the message's number.
        deliveries: how often it was delivered.
        reason: what `term` was given; None if it was delivered as often as it may be.
        history: when its last deliveries ended (milliseconds since 1970), and how: `"expired"`,
            `"returned"`, `"restarted"`, `"terminated"` or `"withdrawn"` (it never left the store).
        message: the message; None if the stream had let it go before, or could not read it.

    """

    consumer: str
    sequence: int
    deliveries: int
    reason: str | None
    history: list[tuple[int, str]]
    message: Message | None


class Consumer:
    """A durable reader of a stream, under a name: at least once.

    Several threads, and several parts of a program, may fetch from it: each message goes to one of
    them. What is not acknowledged within `ack_wait` is delivered again, also after a crash, with
    its count. That a message is handed out is durable before it is; an acknowledgement is durable
    soon (with the next fetch, within 100 ms if more come, and at closing) or at once with
    `ack(durable=True)`. What was acknowledged durably is never delivered again.
    """

    def __init__(
        self,
        native: BusConsumer,
        stream: str,
        limit: Callable[[Duration | None], float],
        companions: Companions | None = None,
    ) -> None:
        """Made by `Stream.consumer`."""
        self._native = native
        self._stream = stream
        self._limit = limit
        # Sinks that fetch from it: its bus closes them before itself.
        self._companions = companions

    @property
    def name(self) -> str:
        """Its name."""
        return self._native.name

    @property
    def settings(self) -> ConsumerSettings:
        """What it was made with."""
        return ConsumerSettings.of(self._native.config())

    def fetch(self, limit: int, timeout: Duration | None = None) -> list[Message]:
        """Take up to `limit` messages as soon as there is one; none if there is none in time.

        Args:
            limit: how many at most.
            timeout: seconds or text such as "30s"; None waits for ever.

        Returns:
            Messages with `.sequence`, `.deliveries`, `.ack()`, `.nak(delay)`, `.term(why)` and
            `.in_progress()`.

        Raises:
            NotFound: `stream.not_found`, `stream.consumer_not_found`: it was deleted
            Corrupt: what comes next cannot be read; `skip` goes on behind it
            State: `store.closed`

        """
        return self._native.fetch(self._limit(None), limit, timeout)

    async def afetch(
        self,
        limit: int,
        timeout: Duration | None = None,  # noqa: ASYNC109 - as `fetch`
    ) -> list[Message]:
        """Do `fetch` without holding the event loop up.

        Cancelled, it has taken nothing: what comes to it in that moment is given back at once.
        """
        from asyncio import CancelledError, ensure_future, shield  # noqa: PLC0415 - who awaits

        from dwkernel._queue_threads import run  # noqa: PLC0415 - threads alone do not need it

        end = None if timeout is None else time.monotonic() + parse_duration(timeout)
        while True:
            left = _SLICE_S if end is None else min(_SLICE_S, max(0.0, end - time.monotonic()))
            fetching = ensure_future(run(self.fetch, limit, left))
            try:
                messages = await shield(fetching)
            except CancelledError:
                fetching.add_done_callback(_give_back)
                raise
            if messages or (end is not None and time.monotonic() >= end):
                return messages

    def __iter__(self) -> Iterator[Message]:
        """Yield messages one by one, for ever; the loop acknowledges them."""
        while True:
            yield from self.fetch(1)

    def flush(self) -> None:
        """Make every acknowledgement durable."""
        self._native.steer(self._limit(None), "flush")

    def pause(self) -> None:
        """Hand nothing out until `resume`; durable on return."""
        self._native.steer(self._limit(None), "pause")

    def resume(self) -> None:
        """Hand out again; durable on return."""
        self._native.steer(self._limit(None), "resume")

    def skip(self) -> None:
        """Pass over messages that cannot be read; they are not delivered."""
        self._native.steer(self._limit(None), "skip")

    def status(self) -> ConsumerStatus:
        """Return how it stands."""
        return ConsumerStatus(self.name, self._stream, **self._native.status(self._limit(None)))

    def dead_letters(self) -> Iterator[DeadLetter]:
        """Yield what it delivers no more, in the order of the stream.

        Raises:
            Corrupt: `format.damaged`, `data.corrupt`
            State: `store.closed`

        """
        after = 0
        while True:
            page = self._native.dead_letters(self._limit(None), after, _PAGE)
            for sequence, deliveries, reason, history, message in page:
                after = sequence
                yield DeadLetter(self.name, sequence, deliveries, reason, history, message)
            if not page:
                return

    def redrive(self, sequence: int | None = None) -> int:
        """Deliver dead letters again, their count from the beginning: all, or one.

        What the stream has let go meanwhile is published again.

        Args:
            sequence: the message's number.

        Returns:
            How many there were.

        Raises:
            Full: `stream.full`: as many messages are out as may be

        """
        letters = [one.sequence for one in self.dead_letters()] if sequence is None else [sequence]
        limit = self._limit(None)
        return sum(self._native.redrive(limit, number) for number in letters)

    def __repr__(self) -> str:
        """Return its name."""
        return f"<Consumer {self.name!r} of {self._stream!r}>"


def _give_back(fetching: Future[list[Message]]) -> None:
    if fetching.cancelled() or fetching.exception() is not None:
        return
    for message in fetching.result():
        # Its time may be over by now: then it comes again by itself.
        with contextlib.suppress(errors.DwError):
            message.nak(0)
