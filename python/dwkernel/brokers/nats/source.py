"""Where a consumer's messages come from, and how a delivery ends."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from dwkernel import errors
from dwkernel.brokers.nats.config import nanoseconds
from dwkernel.brokers.nats.headers import message_of
from dwkernel.brokers.nats.letters import Letter

if TYPE_CHECKING:
    from dwkernel.brokers.message import Message
    from dwkernel.brokers.nats.arrived import Arrived
    from dwkernel.brokers.nats.config import Kept
    from dwkernel.brokers.nats.connection import Connection
    from dwkernel.brokers.nats.done import Done
    from dwkernel.brokers.nats.letters import Letters
    from dwkernel.brokers.nats.pull import Pull

__all__ = ["NatsDelivery", "Source"]

_WORK_S = 5.0
_CONFIRM_S = 2.0


class Source:
    """Deliveries of one consumer of JetStream: the stream's messages, or redriven copies."""

    def __init__(
        self,
        connection: Connection,
        pull: Pull,
        done: Done,
        letters: Letters,
        kept: Kept,
        *,
        is_again: bool,
    ) -> None:
        """Take from `pull` what is not `done`."""
        self.connection = connection
        self.pull = pull
        self.done = done
        self.letters = letters
        self.kept = kept
        self.is_again = is_again

    @property
    def covers(self) -> bool:
        """Whether an acknowledgement covers what came before."""
        return self.kept.ack == "all" and not self.is_again

    @property
    def is_done_at_once(self) -> bool:
        """Whether what is handed out is done."""
        return self.kept.ack == "none"

    async def now(
        self, limit: int, deadline: float, *, is_never_full: bool = False
    ) -> list[Arrived]:
        """Return what is there at once and is to be handed out."""
        while True:
            arrived = await self.pull.now(limit, deadline, is_never_full=is_never_full)
            wanted = await self._wanted(arrived, deadline)
            if wanted or not arrived:
                return wanted

    async def later(self, patience_s: float, deadline: float) -> list[Arrived]:
        """Return a message that comes soon and is to be handed out."""
        return await self._wanted(await self.pull.later(patience_s, deadline), deadline)

    def letter_of(self, arrived: Arrived) -> Letter:
        """Return what is known of a delivery's message."""
        if self.is_again:
            found = Letter.of(arrived.message.headers).__dict__
            return Letter(**{**found, "deliveries": arrived.deliveries})
        return Letter(
            arrived.subject,
            arrived.sequence,
            arrived.published_ns,
            arrived.deliveries,
            None,
            (),
        )

    def message_of(self, arrived: Arrived) -> Message:
        """Return the message as a handler has it."""
        headers = arrived.message.headers
        if self.is_again:
            message = Letter.of(headers).message(arrived.message.data, headers)
        else:
            subject, data = arrived.subject, arrived.message.data
            message = message_of(subject, data, headers, arrived.published_ns)
            message.sequence = arrived.sequence
        message.deliveries = arrived.deliveries
        if not self.is_done_at_once:
            message.delivery = NatsDelivery(self, arrived)
        return message

    async def give_up(
        self, arrived: Arrived, deadline: float, how: str, reason: str | None = None
    ) -> None:
        """Deliver a message no more: kept as a dead letter first, if that is wanted."""
        letter = self.letter_of(arrived)
        if how == "expired":
            # This delivery was one too many, and is not handed out.
            letter = Letter(**{**letter.__dict__, "deliveries": arrived.deliveries - 1})
        if self.kept.dead_letters:
            await self.letters.bury(arrived.message, letter, deadline, how, reason)
        await self.done.record([arrived.sequence], deadline)
        self.end(arrived, b"+TERM")

    async def confirm(self, arrived: Arrived, deadline: float) -> None:
        """Have a message done for good: on record, and known to the server.

        A delivery of an older connection cannot be: a server that was killed meanwhile may have
        forgotten it, and may have delivered it to somebody else.

        Raises:
            State: `stream.ack`
            Unavailable: `broker.lost`

        """
        if arrived.epoch != self.connection.epoch:
            text = f"message {arrived.sequence}: the connection broke since it was delivered"
            raise errors.new("stream.ack", text)
        until = min(deadline, asyncio.get_running_loop().time() + _CONFIRM_S)
        epoch, reply = arrived.epoch, arrived.message.reply
        recorded, _ = await asyncio.gather(
            self.done.record([arrived.sequence], deadline, up_to=self.covers, epoch=epoch),
            # Servers since 2.10 leave some without an answer; the record is what counts.
            self.connection.request(reply, b"+ACK", until, epoch=epoch),
            return_exceptions=True,
        )
        if isinstance(recorded, BaseException):
            raise recorded
        self._forget(arrived)

    def acknowledge(self, arrived: Arrived) -> None:
        """Tell the server that a message is done; on the loop's thread."""
        self.done.acknowledged(arrived.sequence, up_to=self.covers)
        # It may be closed by now: then closing has put it on record.
        with contextlib.suppress(errors.State):
            self.end(arrived, b"+ACK")

    def end(self, arrived: Arrived, verdict: bytes) -> None:
        """Tell the server how a delivery ended."""
        self.connection.post(arrived.message.reply, verdict)
        if verdict in {b"+ACK", b"+TERM"}:
            self._forget(arrived)

    def _forget(self, arrived: Arrived) -> None:
        if self.is_again:
            sequence = Letter.of(arrived.message.headers).sequence
            self.letters.forget_again(sequence, arrived.sequence)

    async def _wanted(self, arrived: list[Arrived], deadline: float) -> list[Arrived]:
        """Leave out what is done already, and what was delivered too often."""
        # Also whoever waits for no time wants it done.
        deadline = max(deadline, asyncio.get_running_loop().time() + _WORK_S)
        if not self.done.is_fresh:
            await self.done.refresh(deadline)
        wanted: list[Arrived] = []
        most = self.kept.max_deliver
        for one in arrived:
            if one.sequence in self.done:
                self.end(one, b"+ACK")
            elif most is not None and one.deliveries > most:
                await self.give_up(one, deadline, "expired")
            else:
                wanted.append(one)
        if wanted and self.is_done_at_once:
            await self.done.record([one.sequence for one in wanted], deadline)
            if self.is_again:
                for one in wanted:
                    self.end(one, b"+ACK")
        return wanted


class NatsDelivery:
    """One delivery, and the verbs that end it."""

    def __init__(self, source: Source, arrived: Arrived) -> None:
        """It is out."""
        self._source = source
        self._arrived = arrived
        self._until_s = arrived.received_s + source.kept.ack_wait_s

    def ack(self, *, durable: bool) -> None:
        """Say that the message is done."""
        source, arrived = self._source, self._arrived
        self._check()
        if durable:
            source.connection.call(lambda deadline: source.confirm(arrived, deadline))
        else:
            source.connection.soon(source.acknowledge, arrived)

    def nak(self, delay_s: float | None) -> None:
        """Give it back."""
        source, arrived = self._source, self._arrived
        self._check()
        most = source.kept.max_deliver
        if most is not None and arrived.deliveries >= most:
            source.connection.call(lambda deadline: source.give_up(arrived, deadline, "returned"))
            return
        wait_s = source.kept.wait_s(arrived.deliveries) if delay_s is None else delay_s
        verdict = b"-NAK"
        if wait_s:
            verdict += b' {"delay": %d}' % nanoseconds(wait_s)
        source.end(arrived, verdict)

    def term(self, why: str) -> None:
        """Give it up."""
        source, arrived = self._source, self._arrived
        self._check()
        source.connection.call(
            lambda deadline: source.give_up(arrived, deadline, "terminated", why)
        )

    def in_progress(self) -> None:
        """Begin `ack_wait` anew."""
        self._check()
        self._source.end(self._arrived, b"+WPI")
        self._until_s = time.monotonic() + self._source.kept.ack_wait_s

    def give_back(self) -> None:
        """Keep it for whoever fetches next: nobody has seen it."""
        self._source.pull.keep([self._arrived])

    def _check(self) -> None:
        """Refuse what comes too late: the server would take it for the next delivery.

        Raises:
            State: `stream.ack`, `bus.closed`, `bus.forked`

        """
        self._source.connection.check()
        if time.monotonic() >= self._until_s:
            text = f"message {self._arrived.sequence}, delivery {self._arrived.deliveries}: "
            raise errors.new("stream.ack", f"{text}its ack_wait is over")
