"""The kind `metrics_exporter`."""

from __future__ import annotations

import time

from dwkernel.conformance.plugins import fake
from dwkernel.conformance.plugins.core import Cases, Subject, hold
from dwkernel.metrics import Snapshot

__all__ = ["CASES"]

CASES = Cases("metrics_exporter")
# It is called every few seconds, and a late call is skipped.
_LIMIT_S = 2.0


@CASES.claim("Take every family and kind of figure; skip what you don't know, and raise nothing.")
def it_takes_the_figures_of_a_store(subject: Subject) -> None:
    """A real store's snapshot is taken, again and again."""
    with subject.running() as running, running.used() as it:
        for _ in range(2):
            hold(it.export(fake.snapshot()) is None, "export returned something: it is not read")


@CASES.claim("Look families up by name, and expect none of them to be there.")
def it_takes_a_snapshot_without_figures(subject: Subject) -> None:
    """A snapshot with nothing in it is taken, too."""
    full = fake.snapshot()
    with subject.running() as running, running.used() as it:
        it.export(Snapshot(full.taken_at, full.seconds, []))


@CASES.claim("Hand figures to a thread of your own, and let go what could not be sent.")
def it_takes_no_longer_than_until_the_next(subject: Subject) -> None:
    """A call returns within two seconds."""
    figures = fake.snapshot()
    with subject.running() as running, running.used() as it:
        began = time.perf_counter()
        it.export(figures)
        took = time.perf_counter() - began
    hold(took <= _LIMIT_S, f"it took {took:.1f} s")
