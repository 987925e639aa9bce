"""How streams and consumers on a broker stand."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dwkernel.brokers.message import Message

__all__ = ["BrokerConsumerStatus", "BrokerDeadLetter", "BrokerStreamStatus"]


@dataclass(frozen=True)
class BrokerStreamStatus:
    """What a stream holds.

    Attributes:
        name: its name.
        subjects: patterns of the subjects that it takes.
        first_sequence: the first message that is there, or the next one if there is none.
        last_sequence: the last message that was committed; 0 if there never was one.
        messages: how many are there.
        bytes: about how many bytes these are.

    """

    name: str
    subjects: list[str]
    first_sequence: int
    last_sequence: int
    messages: int
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return the figures by name."""
        return asdict(self)


@dataclass(frozen=True)
class BrokerConsumerStatus:
    """How a consumer stands.

    Attributes:
        name: its name.
        stream: the stream's.
        lag: messages of the stream that it has not reached.
        pending: messages that are out and not acknowledged; also those that wait to be delivered
            again, where the broker does not tell these apart.
        scheduled: messages that wait to be delivered again, where it does.
        redelivered: messages, of these two, that were delivered more than once.
        floor_sequence: every message up to this number is done.
        delivered_sequence: the highest number that was delivered.
        is_paused: True if it hands nothing out.
        dead: how many dead letters it has.

    """

    name: str
    stream: str
    lag: int
    pending: int
    scheduled: int
    redelivered: int
    floor_sequence: int
    delivered_sequence: int
    is_paused: bool
    dead: int

    def to_dict(self) -> dict[str, Any]:
        """Return the figures by name."""
        return asdict(self)


@dataclass(frozen=True)
class BrokerDeadLetter:
    """A message that a consumer delivers no more; see `dwkernel.bus.DeadLetter`.

    Attributes:
        consumer: the consumer's name.
        sequence: the message's number.
        deliveries: how often it was delivered.
        reason: what `term` was given; None if it was delivered as often as it may be.
        history: when its last deliveries ended (milliseconds since 1970), and how, as far as the
            broker tells.
        message: the message; None if it is not there any more.

    """

    consumer: str
    sequence: int
    deliveries: int
    reason: str | None
    history: list[tuple[int, str]]
    message: Message | None
