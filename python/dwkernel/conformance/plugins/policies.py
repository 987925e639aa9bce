"""The kind `policy`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dwkernel.conformance.plugins import fake
from dwkernel.conformance.plugins.asked import verdicts_of

if TYPE_CHECKING:
    from dwkernel.conformance.plugins.core import Subject

__all__ = ["CASES"]

CASES = verdicts_of("policy", "before")


@CASES.claim("Take in after() what ended well and what did not, also what before() never saw.")
def it_hears_how_anything_ended(subject: Subject) -> None:
    """`after` takes batches of any size, with and without codes and notes."""
    with subject.running() as running, running.used() as it:
        for size in (0, 1, 200):
            it.after(fake.finished(fake.requests(size, seed=size)))
