"""Consumers of streams on NATS."""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel.brokers.nats.config import companion_of, kept_of
from dwkernel.brokers.nats.done import Done
from dwkernel.brokers.nats.letters import Letters
from dwkernel.brokers.nats.promises import promises_of
from dwkernel.brokers.nats.pull import Pull
from dwkernel.brokers.nats.source import NatsDelivery, Source
from dwkernel.brokers.settings import refuse
from dwkernel.brokers.status import BrokerConsumerStatus, BrokerDeadLetter
from dwkernel.units import Duration, parse_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dwkernel.brokers.message import Message
    from dwkernel.brokers.nats.arrived import Arrived
    from dwkernel.brokers.nats.connection import Connection

__all__ = ["NatsConsumer"]

# How often a consumer looks whether something was redriven for it by another program.
_AGAIN_S = 1.0
# How long reading what is done may take, also for who would wait less.
_REFRESH_S = 3.0


class NatsConsumer:
    """A durable reader of a stream on NATS, under a name: at least once.

    What is the same as with `dwkernel.bus.Consumer` is described there. Any number of programs may
    fetch from it. An acknowledgement is told to the server, which writes it down about 0.1 s later;
    with `ack(durable=True)`, or after `flush`, it is on record and holds whatever happens.
    """

    def __init__(
        self, connection: Connection, stream: str, info: dict[str, Any], made: str
    ) -> None:
        """Made by `NatsStream.consumer`.

        Args:
            connection: where.
            stream: the stream's name.
            info: what the server says about the consumer.
            made: when the hidden consumer of redriven messages was made.

        """
        self._connection = connection
        self._stream = stream
        self._name: str = info["name"]
        kept = kept_of(info["config"])
        self._letters = Letters(connection, stream, self._name)
        companion, name, wait_s = companion_of(stream), self._name, kept.ack_wait_s
        self._main = Source(
            connection,
            Pull(connection, stream, name, wait_s),
            Done(connection, stream, name, info["created"]),
            self._letters,
            kept,
            is_again=False,
        )
        self._again = Source(
            connection,
            Pull(connection, companion, name, wait_s),
            Done(connection, stream, f"{name}.again", made),
            self._letters,
            kept,
            is_again=True,
        )
        # Who is let go must not be listened for.
        self._finalizer = weakref.finalize(self, _let_go, self._main, self._again)
        self._finalizer.atexit = False
        self._look_again_s = 0.0
        # The last fetch was filled: there may be more.
        self._is_busy = False

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    def fetch(self, limit: int, timeout: Duration | None = None) -> list[Message]:
        """Take up to `limit` messages as soon as there is one; none if there is none in time.

        Args:
            limit: how many at most.
            timeout: seconds or text such as "30s"; None waits for ever.

        Raises:
            NotFound: `stream.not_found`, `stream.consumer_not_found`: it was deleted
            Unavailable: `broker.lost`: nobody answers in time, or in the connection's `timeout`
            State: `bus.closed`, `bus.forked`

        """
        patience_s = None if timeout is None else parse_duration(timeout)
        if limit < 1:
            return []
        future = self._connection.start(lambda _: self._fetch(limit, patience_s), 0)
        try:
            return self._connection.wait(future, None)
        except errors.DwError:
            raise
        except BaseException:
            # Ctrl-C in the moment when they came.
            future.add_done_callback(_give_back)
            raise

    async def afetch(
        self,
        limit: int,
        timeout: Duration | None = None,  # noqa: ASYNC109 - as `fetch`
    ) -> list[Message]:
        """Do `fetch` without holding the event loop up. Cancelled, it has taken nothing."""
        patience_s = None if timeout is None else parse_duration(timeout)
        if limit < 1:
            return []
        future = self._connection.start(lambda _: self._fetch(limit, patience_s), 0)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            future.add_done_callback(_give_back)
            # The connection's end takes it along; or it was whoever waits here.
            self._connection.check()
            raise

    def __iter__(self) -> Iterator[Message]:
        """Yield messages one by one, for ever; the loop acknowledges them."""
        while True:
            yield from self.fetch(1)

    def flush(self) -> None:
        """Make every acknowledgement durable."""
        for source in (self._main, self._again):
            done, covers = source.done, source.covers
            self._connection.call(lambda deadline: done.flush(deadline, up_to=covers))  # noqa: B023 - done by then

    def pause(self) -> None:
        """Refuse: nats-server 2.9 cannot.

        Raises:
            Unsupported: `broker.unsupported`

        """
        refuse(promises_of(self._connection.max_payload, 1).pause, "pause")

    def resume(self) -> None:
        """Refuse: nats-server 2.9 cannot.

        Raises:
            Unsupported: `broker.unsupported`

        """
        refuse(promises_of(self._connection.max_payload, 1).pause, "resume")

    def status(self) -> BrokerConsumerStatus:
        """Return how it stands.

        Raises:
            NotFound: `stream.consumer_not_found`, `stream.not_found`
            Unavailable: `broker.lost`

        """
        return self._connection.call(self._status)

    def dead_letters(self) -> Iterator[BrokerDeadLetter]:
        """Yield what it delivers no more, in the order of the stream.

        Raises:
            Unavailable: `broker.lost`

        """
        letters = self._letters
        for sequence in self._connection.call(letters.sequences):
            found = self._connection.call(lambda deadline: letters.get(sequence, deadline))  # noqa: B023 - done by then
            if found is not None:
                yield found

    def redrive(self, sequence: int | None = None) -> int:
        """Deliver dead letters again, their count from the beginning: all, or one.

        Args:
            sequence: the message's number.

        Returns:
            How many there were.

        """
        letters, count = self._letters, 0
        wanted = self._connection.call(letters.sequences) if sequence is None else [sequence]
        for one in wanted:
            count += self._connection.call(lambda deadline: letters.redrive(one, deadline))  # noqa: B023 - done by then
        self._look_again_s = 0.0
        return count

    def close(self) -> None:
        """Record what was acknowledged, and give back what nobody took; done with the bus."""
        self.flush()
        self._finalizer()

    def __repr__(self) -> str:
        """Return its name."""
        return f"<NatsConsumer {self._name!r} of {self._stream!r}>"

    # --- on the loop's thread --------------------------------------------------------------------

    async def _fetch(self, limit: int, patience_s: float | None) -> list[Message]:
        found: list[tuple[Source, Arrived]] = []
        try:
            await self._gather(found, limit, patience_s)
        except BaseException:
            for source, arrived in found:
                source.pull.keep([arrived])
            raise
        return [source.message_of(arrived) for source, arrived in found]

    async def _gather(
        self, found: list[tuple[Source, Arrived]], limit: int, patience_s: float | None
    ) -> None:
        time_of = asyncio.get_running_loop().time
        end = None if patience_s is None else time_of() + patience_s
        # A network needs a moment, also where there is none to lose.
        limit_s = self._connection.options.timeout_s
        while True:
            deadline = time_of() + limit_s if end is None else max(end, time_of())
            await self.refresh(max(deadline, time_of() + _REFRESH_S))
            if time_of() >= self._look_again_s:
                again = await self._again.now(limit, deadline, is_never_full=True)
                found += [(self._again, one) for one in again]
                if len(again) < limit:
                    self._look_again_s = time_of() + _AGAIN_S
            left_s = _AGAIN_S if end is None else end - time_of()
            if not (found or self._is_busy or left_s <= 0):
                # Nobody knows that something is there: one, then those that came with it.
                main = await self._main.later(left_s, deadline)
                found += [(self._main, one) for one in main]
                if not main:
                    continue
            if len(found) < limit:
                main = await self._main.now(limit - len(found), deadline)
                found += [(self._main, one) for one in main]
            self._is_busy = len(found) == limit
            if found or left_s <= 0:
                return

    async def refresh(self, deadline: float) -> None:
        """Read what is on record as done, if the connection was made anew."""
        for source in (self._main, self._again):
            if not source.done.is_fresh:
                await source.done.refresh(deadline)

    async def _status(self, deadline: float) -> BrokerConsumerStatus:
        name = f"CONSUMER.INFO.{self._stream}.{self._name}"
        info = await self._connection.api(name, None, deadline)
        name = f"CONSUMER.INFO.{companion_of(self._stream)}.{self._name}"
        again = await self._connection.api(name, None, deadline)
        return BrokerConsumerStatus(
            name=self._name,
            stream=self._stream,
            lag=info["num_pending"],
            pending=info["num_ack_pending"],
            scheduled=again["num_ack_pending"] + again["num_pending"],
            redelivered=info["num_redelivered"] + again["num_redelivered"],
            floor_sequence=info["ack_floor"]["stream_seq"],
            delivered_sequence=info["delivered"]["stream_seq"],
            is_paused=False,
            dead=len(await self._letters.sequences(deadline)),
        )


def _let_go(*sources: Source) -> None:
    for source in sources:
        source.pull.close()
        source.done.close()


def _give_back(future: Any) -> None:
    if future.cancelled() or future.exception() is not None:
        return
    for message in future.result():
        if isinstance(message.delivery, NatsDelivery):
            message.delivery.give_back()
