"""What carries messages away: the port that every sink implements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dwkernel._native import Message
    from dwkernel.sinks.outcome import Outcome

__all__ = ["Order", "Sink"]

Order = Literal["none", "key", "stream"]


class Sink(ABC):
    """A place that messages are carried to.

    A class of your own needs `deliver`; it may come from several threads, as many as `in_flight`
    says. The attributes are its wishes, which `attach` follows unless it is told otherwise.

    Attributes:
        batch: messages that it takes in one call, at most.
        batch_bytes: about how many bytes of content they have, at most; one message may have more.
        in_flight: how many calls may be under way.
        order: what has to stay in order: nothing, messages of the same key, or the whole stream. A
            sink of the last kind gets one call at a time and takes a batch from its beginning on.
        timeout_s: a call that takes longer counts as failed.

    """

    batch: int = 1
    batch_bytes: int = 4 << 20
    in_flight: int = 1
    order: Order = "none"
    timeout_s: float = 60.0

    @abstractmethod
    def deliver(self, messages: Sequence[Message]) -> Iterable[Outcome]:
        """Carry messages away; return what became of each, in their order.

        Anything that it raises means that all of them failed and are sent again, but
        `sink.refused` means that they are refused, and `sink.gone` that the receiver is gone.
        Messages may come more than once: `message.id` stays the same.
        """

    def attached(self, stream: str) -> None:  # noqa: B027 - most sinks don't care
        """Hear from which stream the messages come, before the first one does."""

    def close(self) -> None:  # noqa: B027 - most sinks hold nothing
        """Let go what it holds; no call is under way, and none follows."""
