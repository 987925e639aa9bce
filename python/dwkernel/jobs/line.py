"""Jobs that wait: which is next. No clock, no lock, no I/O.

The most urgent goes first, and among equals the one that was submitted first. So that nobody waits
for ever behind what is more urgent, every eighth turn takes the one that has been ready longest.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwkernel.jobs.entry import Entry

__all__ = ["RELIEF", "Line"]

RELIEF = 8
# A heap is tidied when it holds more than twice what is really there, and this besides.
_SLACK = 64


class Line:
    """The jobs that wait to be run, now or later."""

    def __init__(self) -> None:
        """Begin empty."""
        # Which ticket of a job counts; others in the heaps are left over.
        self._tickets: dict[str, int] = {}
        self._ticket = 0
        self._turn = 0
        self._urgent: list[tuple[int, str, int, Entry]] = []
        self._oldest: list[tuple[int, str, int, Entry]] = []
        self._later: list[tuple[int, str, int, Entry]] = []
        # What is ready and cannot go, by the reason.
        self._parked: dict[str, dict[str, Entry]] = {}

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._tickets) + sum(len(those) for those in self._parked.values())

    def add(self, entry: Entry) -> None:
        """Let a job wait until it is due."""
        self._ticket += 1
        record = entry.record
        self._tickets[record.id] = self._ticket
        heapq.heappush(self._later, (record.due_ms, record.id, self._ticket, entry))
        self._tidy()

    def remove(self, job_id: str) -> None:
        """Let it wait no more."""
        self._tickets.pop(job_id, None)
        for those in self._parked.values():
            those.pop(job_id, None)

    def pick(self, now_ms: int, hindrance: Callable[[Entry], str | None]) -> Entry | None:
        """Take the next one out that is due and that nothing hinders."""
        self._promote(now_ms)
        self._turn += 1
        heap = self._oldest if self._turn % RELIEF == 0 else self._urgent
        while (entry := self._pop(heap)) is not None:
            why = hindrance(entry)
            if why is None:
                return entry
            self._parked.setdefault(why, {})[entry.record.id] = entry
        # Nothing was taken: the turn is somebody's still.
        self._turn -= 1
        return None

    def free(self, why: str) -> None:
        """Let those wait in line again that were hindered by `why`."""
        for entry in self._parked.pop(why, {}).values():
            self._ready(entry)

    def due_ms(self) -> int | None:
        """Return when the next one is due: in the past if it is; None if none waits."""
        if self._ready_count():
            return 0
        while self._later and not self._counts(self._later[0]):
            heapq.heappop(self._later)
        return self._later[0][0] if self._later else None

    def _ready_count(self) -> bool:
        while self._urgent and not self._counts(self._urgent[0]):
            heapq.heappop(self._urgent)
        return bool(self._urgent)

    def _promote(self, now_ms: int) -> None:
        while self._later and (self._later[0][0] <= now_ms or not self._counts(self._later[0])):
            one = heapq.heappop(self._later)
            if self._counts(one):
                self._ready(one[3])

    def _ready(self, entry: Entry) -> None:
        self._ticket += 1
        record, ticket = entry.record, self._ticket
        self._tickets[record.id] = ticket
        heapq.heappush(self._urgent, (-record.priority, record.id, ticket, entry))
        since = max(record.due_ms, record.submitted_ms)
        heapq.heappush(self._oldest, (since, record.id, ticket, entry))

    def _pop(self, heap: list[tuple[int, str, int, Entry]]) -> Entry | None:
        while heap:
            one = heapq.heappop(heap)
            if self._counts(one):
                del self._tickets[one[1]]
                return one[3]
        return None

    def _counts(self, one: tuple[int, str, int, Entry]) -> bool:
        return self._tickets.get(one[1]) == one[2]

    def _tidy(self) -> None:
        limit = 2 * len(self._tickets) + _SLACK
        for heap in (self._urgent, self._oldest, self._later):
            if len(heap) > limit:
                heap[:] = [one for one in heap if self._counts(one)]
                heapq.heapify(heap)
