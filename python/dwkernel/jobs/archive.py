"""Jobs that have ended: which are remembered, in which order, for how long."""

from __future__ import annotations

import bisect
import threading
from typing import TYPE_CHECKING

from dwkernel.units import parse_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dwkernel.jobs.core import Core
    from dwkernel.jobs.entry import Entry
    from dwkernel.jobs.record import JobRecord

__all__ = ["Archive"]

# Jobs are forgotten when so many are too many, or at the timekeeper's round: not one by one.
SLACK = 64

_Place = tuple[int, str, str, str]


class Archive:
    """An index of the finished jobs, in the order in which they ended."""

    def __init__(self, core: Core) -> None:
        """Begin with nothing read."""
        self._core = core
        self._places: list[_Place] = []
        self._is_loaded = False
        self._lock = threading.Lock()
        self._load_lock = threading.Lock()

    def load(self) -> None:
        """Read what the store has, once."""
        with self._load_lock:
            if self._is_loaded:
                return
            found = [_place(entry.record) for entry in self._core.ledger.finished()]
            with self._lock:
                self._places = sorted({*found, *self._places})
                self._is_loaded = True

    def add(self, record: JobRecord) -> None:
        """Remember a job that has ended just now."""
        with self._lock:
            bisect.insort(self._places, _place(record))

    def newest(self, kind: str | None, state: str | None) -> Iterator[Entry]:
        """Iterate over finished jobs, the last one first."""
        self.load()
        with self._lock:
            places = list(reversed(self._places))
        for _, job_id, of_kind, of_state in places:
            if kind in (None, of_kind) and state in (None, of_state):
                entry = self._core.ledger.find(job_id)
                if entry is not None:
                    yield entry

    def trim(self, *, slack: int = 0) -> int:
        """Forget what is too much or too old; return how many that were."""
        self.load()
        settings = self._core.settings
        oldest_ms = self._core.clock() - round(parse_duration(settings.keep_age) * 1000)
        with self._lock:
            extra = len(self._places) - settings.keep_count
            count = extra if extra > slack else 0
            while count < len(self._places) and self._places[count][0] < oldest_ms:
                count += 1
            gone = self._places[:count]
        if gone:
            self._core.ledger.forget([place[1] for place in gone])
            with self._lock:
                left = set(gone)
                self._places = [place for place in self._places if place not in left]
        return len(gone)


def _place(record: JobRecord) -> _Place:
    return record.ended_ms or 0, record.id, record.kind, record.state
