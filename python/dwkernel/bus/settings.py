"""What streams and consumers were made with."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ConsumerSettings", "StreamSettings"]


@dataclass(frozen=True)
class StreamSettings:
    """How long a stream keeps what; the options of `Bus.stream`.

    Attributes:
        max_age_s: messages go when they are older, in seconds; None for never.
        max_bytes: the oldest go, or new ones are refused, when they are more bytes; None for never.
        max_messages: the same when there are more.
        discard: which of the two: `"old"` or `"new"`.
        retention: what else lets them go: `"limits"` (nothing), `"interest"`, `"work_queue"`.
        keep_last_per_key: older messages of the same key go.
        duplicate_window_s: for so many seconds a `message_id` is taken once.

    """

    max_age_s: float | None
    max_bytes: int | None
    max_messages: int | None
    discard: str
    retention: str
    keep_last_per_key: bool
    duplicate_window_s: float

    def to_dict(self) -> dict[str, Any]:
        """Return them by name."""
        return asdict(self)


@dataclass(frozen=True)
class ConsumerSettings:
    """What a consumer wants, and how long it may take for it; the options of `Stream.consumer`.

    Attributes:
        ack: `"explicit"`, `"none"` or `"all"`.
        ack_wait_s: after so many seconds without one a message is delivered again.
        max_deliver: how often at most; None for as often as it takes.
        backoff_s: how many seconds each redelivery waits; the last one repeats.
        max_ack_pending: so many may be out at a time.
        filter: an expression, or None.
        subjects: only messages about one of these patterns; none for all.
        start: where it began: `"first"`, `"last"`, `"new"`, `"sequence"` or `"time"`.
        start_at: the number, or the moment in nanoseconds since 1970; None for the others.
        priority_window: of so many that wait the most urgent goes first; 0: in order.
        dead_letters: whether what it gives up is kept.
        inactive_after_s: it is removed when nobody uses it for so many seconds; None for never.

    """

    ack: str
    ack_wait_s: float
    max_deliver: int | None
    backoff_s: list[float]
    max_ack_pending: int
    filter: str | None
    subjects: list[str]
    start: str
    start_at: int | None
    priority_window: int
    dead_letters: bool
    inactive_after_s: float | None

    @classmethod
    def of(cls, native: Mapping[str, Any]) -> Self:
        """Return those that the native part names."""
        start, start_at = native["start"]
        return cls(**{**native, "start": start, "start_at": start_at})

    def to_dict(self) -> dict[str, Any]:
        """Return them by name."""
        return asdict(self)
