"""The kind `sink`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dwkernel.conformance.plugins import fake
from dwkernel.conformance.plugins.core import Cases, Subject, hold
from dwkernel.conformance.plugins.drives import together

if TYPE_CHECKING:
    from dwkernel.sinks import Outcome

__all__ = ["CASES"]

CASES = Cases("sink")
# What `dwkernel.sinks.attach` follows.
_MOST = {"batch": 4096, "batch_bytes": 1 << 31, "in_flight": 64}
_KINDS = ("taken", "failed", "refused", "gone")


@CASES.claim("Return an Outcome for each message, in their order; also for none and for many.")
def each_message_has_an_outcome(subject: Subject) -> None:
    """Batches of any size, of any content, are answered with an outcome each."""
    with subject.running() as running, running.used() as it:
        most = getattr(it, "batch", 1)
        for size in sorted({0, 1, most}):
            messages = fake.messages(min(size, 200), seed=size)
            _are_outcomes(list(it.deliver(messages)), len(messages))


def _are_outcomes(found: list[Outcome], count: int) -> None:
    from dwkernel.sinks import Outcome  # noqa: PLC0415 - who sends pays for it

    hold(len(found) == count, f"it answered {len(found)} of {count} messages")
    given: list[object] = list(found)  # a plugin without a type checker returns anything
    for one in given:
        is_good = isinstance(one, Outcome) and one.kind in _KINDS
        hold(is_good, f"{one!r:.100} is no outcome")


@CASES.claim("Answer Outcome.taken() for a message that came before: it may come more than once.")
def a_message_may_come_twice(subject: Subject) -> None:
    """The same message again has the same outcome."""
    with subject.running() as running, running.used() as it:
        given = fake.messages(1, seed=5)
        first, second = (list(it.deliver(given)) for _ in range(2))
        kinds = [one.kind for one in (*first, *second)]
        hold(len(set(kinds)) == 1, f"the outcomes are {' and then '.join(kinds)}")


@CASES.claim("Set in_flight, batch, order and timeout_s to what deliver() really keeps up with.")
def its_wishes_can_be_followed(subject: Subject) -> None:
    """What it says of batches, calls under way, order and time is in range, where it says it."""
    with subject.running() as running, running.used() as it:
        for name, most in _MOST.items():
            value = getattr(it, name, 1)
            hold(type(value) is int and 1 <= value <= most, f"{name} is {value!r}, not 1 to {most}")
        timeout_s = getattr(it, "timeout_s", 60.0)
        hold(isinstance(timeout_s, int | float) and timeout_s > 0, f"timeout_s is {timeout_s!r}")
        order = getattr(it, "order", "none")
        hold(order in ("none", "key", "stream"), f"order is {order!r}")
        alone = order != "stream" or getattr(it, "in_flight", 1) == 1
        hold(alone, "it takes the stream in order, and wants several calls under way")


@CASES.claim("Guard what threads share, or say in_flight = 1.")
def calls_under_way_do_not_mix(subject: Subject) -> None:
    """As many threads as `in_flight` allows deliver at once, and each gets its own outcomes."""
    with subject.running() as running, running.used() as it:
        batches = [fake.messages(number + 1, seed=number) for number in range(3)]
        count = min(8, getattr(it, "in_flight", 1))

        def work(number: int) -> None:
            for turn in range(10):
                given = batches[(number + turn) % 3]
                _are_outcomes(list(it.deliver(given)), len(given))

        together(work, count)


@CASES.claim("Let close() be called when nothing was delivered, and twice.")
def it_can_be_closed_at_any_time(subject: Subject) -> None:
    """`close` lets go what is held, if there is something or not."""
    with subject.running() as running, running.used() as it:
        it.close()
        it.close()
