"""What a receiver made of a message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dwkernel import errors
from dwkernel.units import parse_duration

if TYPE_CHECKING:
    from dwkernel.units import Duration

__all__ = ["Outcome", "outcome_of"]

# Dead letters keep no more of a reason.
_REASON_LETTERS = 200


@dataclass(frozen=True)
class Outcome:
    """What a receiver made of a message.

    Attributes:
        kind: `"taken"`; `"failed"`: try again; `"refused"`: the message itself is wrong, it becomes
            a dead letter; `"gone"`: the receiver wants nothing any more, everything pauses.
        reason: a sentence for people; never a secret.
        after_s: the receiver wants nothing at all for so many seconds.

    """

    kind: Literal["taken", "failed", "refused", "gone"]
    reason: str = ""
    after_s: float | None = None

    @staticmethod
    def taken() -> Outcome:
        """Return that it has the message, as durable as it keeps things."""
        return _TAKEN

    @staticmethod
    def failed(reason: str, after: Duration | None = None) -> Outcome:
        """Return that the message is to be sent again, nothing before `after`.

        Raises:
            Invalid: `unit.invalid`

        """
        return Outcome("failed", reason, None if after is None else parse_duration(after))

    @staticmethod
    def refused(reason: str) -> Outcome:
        """Return that the message will never be taken."""
        return Outcome("refused", reason)

    @staticmethod
    def gone(reason: str) -> Outcome:
        """Return that nothing will be taken any more."""
        return Outcome("gone", reason)


_TAKEN = Outcome("taken")


def outcome_of(error: BaseException) -> Outcome:
    """Return what an error of a sink means: try again, unless its code says more."""
    code = error.code if isinstance(error, errors.DwError) else None
    text = f"{type(error).__name__}: {error}" if code is None else str(error)
    text = text[:_REASON_LETTERS]
    if code == "sink.refused":
        return Outcome.refused(text)
    return Outcome.gone(text) if code == "sink.gone" else Outcome.failed(text)
