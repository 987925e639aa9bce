"""The kind `door`. What is said at a door is its protocol's; that it opens and closes is tested."""

from __future__ import annotations

import time

from dwkernel.conformance.plugins import fake
from dwkernel.conformance.plugins.core import Cases, Subject, hold

__all__ = ["CASES"]

CASES = Cases("door")
_AT_ONCE_S = 2.0
_DEADLINE_S = 5.0
_GRACE_S = 1.0


@CASES.claim("Listen on a thread of your own, and return the address as text.")
def it_opens_at_once_and_says_where(subject: Subject) -> None:
    """`open` returns an address for people within two seconds."""
    with fake.kernel() as kernel, subject.running() as running, running.used() as it:
        began = time.perf_counter()
        where = it.open(kernel)
        took = time.perf_counter() - began
        it.close(_DEADLINE_S)
        hold(isinstance(where, str) and where.strip(), f"the address is {where!r}")
        hold(took <= _AT_ONCE_S, f"open took {took:.1f} s")


@CASES.claim("End those who are in at the deadline, and return.")
def it_closes_by_its_deadline(subject: Subject) -> None:
    """`close` returns within its deadline, with nobody inside."""
    with fake.kernel() as kernel, subject.running() as running, running.used() as it:
        it.open(kernel)
        began = time.perf_counter()
        it.close(_DEADLINE_S)
        took = time.perf_counter() - began
    hold(took <= _DEADLINE_S + _GRACE_S, f"close took {took:.1f} s of {_DEADLINE_S:g}")


@CASES.claim("Let go the port and all threads in close(): SO_REUSEADDR lets it be bound anew.")
def it_can_be_opened_again(subject: Subject) -> None:
    """What was closed can be opened again, three times over."""
    with fake.kernel() as kernel, subject.running() as running, running.used() as it:
        for _ in range(3):
            it.open(kernel)
            it.close(_DEADLINE_S)


@CASES.claim("Let close() do nothing when nothing is open.")
def it_can_be_closed_when_it_is_not_open(subject: Subject) -> None:
    """`close` before `open`, and a second one, do nothing."""
    with fake.kernel() as kernel, subject.running() as running, running.used() as it:
        it.close(_DEADLINE_S)
        it.open(kernel)
        it.close(_DEADLINE_S)
        it.close(_DEADLINE_S)
