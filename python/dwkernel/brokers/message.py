"""A message of a broker, as a handler has it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from dwkernel import errors
from dwkernel.brokers.fields import data_of
from dwkernel.units import Duration, parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from typing_extensions import Buffer

__all__ = ["Delivery", "Message"]

_DELAY_MAX_S = 30 * 86_400.0


class Delivery(Protocol):
    """One delivery of a message by a consumer. Each method raises `stream.ack` if it is over."""

    def ack(self, *, durable: bool) -> None:
        """Say that the message is done."""

    def nak(self, delay_s: float | None) -> None:
        """Give it back, for `delay_s` or what the consumer's backoff says."""

    def term(self, why: str) -> None:
        """Give it up."""

    def in_progress(self) -> None:
        """Begin `ack_wait` anew."""


@dataclass(eq=False, slots=True)
class Message:
    """A message; the same attributes and verbs as `dwkernel.bus.Message`.

    Attributes:
        subject: what it is about.
        data: its content.
        headers: names and values.
        id: its identity.
        published_ns: when it was published (in a stream: committed), in nanoseconds since 1970.
        correlation_id: ties it to the operation that it belongs to: 32 hexadecimal digits, or None.
        principal: who published it, as the publisher says.
        tenant: in whose namespace.
        sequence: its number in the stream, from 1; None if it is not in one.
        key: messages with the same key belong together.
        schema: how the data is to be read.
        priority: 0 to 255.
        reply_to: where an answer is expected.
        deliveries: how often a consumer has delivered it, this time included; None if none has.

    """

    subject: str
    data: bytes
    headers: dict[str, str]
    id: str
    published_ns: int
    correlation_id: str | None = None
    principal: str | None = None
    tenant: str | None = None
    sequence: int | None = None
    key: str | None = None
    schema: str | None = None
    priority: int = 0
    reply_to: str | None = None
    deliveries: int | None = None
    # Of a consumer's delivery, and of a question: how the broker is told.
    delivery: Delivery | None = field(default=None, repr=False)
    answer: Callable[[bytes], bool] | None = field(default=None, repr=False)
    failed: Callable[[str], None] | None = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _is_over: bool = field(default=False, repr=False)

    @property
    def published_at(self) -> datetime:
        """When it was published, in UTC, to the microsecond."""
        from dwkernel.objects import moment  # noqa: PLC0415 - only who asks

        return moment(self.published_ns)

    def ack(self, *, durable: bool = False) -> None:
        """Say to the consumer that the message is done.

        Args:
            durable: return when the broker has confirmed that; else it is told, and if that gets
                lost the message comes once more.

        Raises:
            State: `stream.ack`: this delivery is over, or there was none; `bus.closed`
            Unavailable: `broker.lost`

        """
        with self._lock:
            self._ending().ack(durable=durable)
            self._is_over = True

    def nak(self, delay: Duration | None = None) -> None:
        """Give the message back to the consumer: it is delivered again.

        Args:
            delay: after so long, up to 30 days; by default after the consumer's backoff.

        Raises:
            State: `stream.ack`, `bus.closed`
            Invalid: `stream.option`, `unit.invalid`
            Unavailable: `broker.lost`

        """
        delay_s = None if delay is None else parse_duration(delay)
        if delay_s is not None and delay_s > _DELAY_MAX_S:
            raise errors.new("stream.option", "delay: give at most 30 days", option="delay")
        with self._lock:
            self._ending().nak(delay_s)
            self._is_over = True

    def term(self, why: str = "") -> None:
        """Give the message up: it becomes a dead letter, or is dropped.

        Args:
            why: the reason, of which 256 bytes are kept.

        Raises:
            State: `stream.ack`, `bus.closed`
            Unavailable: `broker.lost`

        """
        kept = why.encode()[:256].decode(errors="ignore")
        with self._lock:
            self._ending().term(kept)
            self._is_over = True

    def in_progress(self) -> None:
        """Say to the consumer that it takes longer: `ack_wait` begins anew.

        Raises:
            State: `stream.ack`, `bus.closed`
            Unavailable: `broker.lost`

        """
        with self._lock:
            self._ending().in_progress()

    def reply(self, data: Buffer) -> bool:
        """Answer a question.

        Args:
            data: any contiguous buffer.

        Returns:
            False if it was no question.

        Raises:
            Invalid: `bus.message_size`, `buffer.type`
            Unavailable: `broker.lost`

        """
        content = data_of(data)
        return self.answer is not None and self.answer(content)

    def _ending(self) -> Delivery:
        """Return the delivery, unless it is over."""
        if self.delivery is None:
            text = "the message was not delivered by a consumer: there is nothing to acknowledge"
            raise errors.new("stream.ack", text)
        if self._is_over:
            text = f"message {self.sequence}, delivery {self.deliveries}, is not out"
            raise errors.new("stream.ack", text)
        return self.delivery

    def __repr__(self) -> str:
        """Return what it is about."""
        return f"<Message {self.subject} of {len(self.data)} bytes>"
