"""How a pump stands."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["Counts", "PumpStatus", "State"]

State = Literal["running", "waiting", "paused", "gone", "closed"]


@dataclass
class Counts:
    """What a pump counts."""

    delivered: int = 0
    failed: int = 0
    refused: int = 0
    timed_out: int = 0
    last_error: str | None = None
    last_error_at: datetime | None = None


@dataclass(frozen=True)
class PumpStatus:
    """How a pump stands.

    Attributes:
        name: the consumer's name.
        stream: the stream's.
        sink: what the messages go to, without secrets.
        state: `"running"`; `"waiting"`: after failures, or because the receiver asked for it;
            `"paused"`; `"gone"`: the receiver wants nothing any more; `"closed"`.
        delivered: messages that the receiver took.
        failed: attempts that failed, message by message.
        refused: messages that became dead letters.
        timed_out: calls of the sink that took too long.
        stuck: calls that took too long and have not come back.
        in_hand: messages that were fetched and are neither acknowledged nor given back.
        failures_in_row: calls that failed since the last one that did not.
        wait_s: for how long nothing is sent, in seconds.
        last_error: what went wrong last.
        last_error_at: when that was.
        lag: messages of the stream that the consumer has not reached; None if it can't be asked.
        pending: messages that the consumer handed out, or is to hand out again; None likewise.

    """

    name: str
    stream: str
    sink: str
    state: State
    delivered: int
    failed: int
    refused: int
    timed_out: int
    stuck: int
    in_hand: int
    failures_in_row: int
    wait_s: float
    last_error: str | None = field(default=None)
    last_error_at: datetime | None = field(default=None)
    lag: int | None = field(default=None)
    pending: int | None = field(default=None)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures by name."""
        return asdict(self)
