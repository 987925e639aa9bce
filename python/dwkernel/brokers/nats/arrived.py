"""A delivery of JetStream, as its reply subject describes it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nats.aio.msg import Msg

__all__ = ["Arrived"]

# $JS.ACK.<stream>.<consumer>.<deliveries>.<stream seq>.<consumer seq>.<time>.<pending>; since 2.11
# possibly with domain and account before the stream and a token behind (ADR-15).
_FIELDS = 9
_FIELDS_WITH_DOMAIN = 11


@dataclass(frozen=True, slots=True)
class Arrived:
    """A delivery.

    Attributes:
        message: what came.
        subject: what it is about.
        sequence: its number in the stream.
        order: its number among the consumer's deliveries.
        deliveries: how often it was delivered, this time included.
        published_ns: when it was committed.
        pending: how many messages the consumer has not delivered yet.
        received_s: when it came, on the monotonic clock.
        epoch: on which connection.

    """

    message: Msg
    subject: str
    sequence: int
    order: int
    deliveries: int
    published_ns: int
    pending: int
    received_s: float
    epoch: int = 0

    @classmethod
    def of(cls, message: Msg, epoch: int) -> Arrived | None:
        """Return the delivery that a message is; None if it is none."""
        tokens = message.reply.split(".")
        if tokens[:2] != ["$JS", "ACK"] or len(tokens) < _FIELDS:
            return None
        first = 4 if len(tokens) < _FIELDS_WITH_DOMAIN else 6
        deliveries, sequence, order, published_ns, pending = map(int, tokens[first : first + 5])
        now_s, subject = time.monotonic(), message.subject
        return cls(
            message, subject, sequence, order, deliveries, published_ns, pending, now_s, epoch
        )
