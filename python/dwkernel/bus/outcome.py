"""What became of a message that was published."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Published:
    """What became of messages that were published.

    Attributes:
        matched: subscriptions whose pattern and filter matched, over all messages; a group is one.
        queued: how often a message was taken in.
        dropped: messages that slow-consumer policies dropped meanwhile, these or older ones.

    """

    matched: int
    queued: int
    dropped: int

    def to_dict(self) -> dict[str, int]:
        """Return the figures by name."""
        return asdict(self)


@dataclass(frozen=True)
class Failure:
    """A subscription that did not handle a message.

    Attributes:
        subscription: its name.
        code: `bus.handler`, `bus.full`, `bus.timeout` or `bus.closed`.
        why: a sentence.

    """

    subscription: str
    code: str
    why: str


@dataclass(frozen=True)
class Outcome:
    """What became of a message whose publisher waited for its handlers.

    Attributes:
        published: what became of it at first.
        handled: how many subscriptions handled it.
        failures: those that did not, and why.

    """

    published: Published
    handled: int
    failures: list[Failure]
