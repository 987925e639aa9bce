"""Names of jobs: UUIDs of version 7 (RFC 9562, section 5.7), which sort by when they were made."""

from __future__ import annotations

import os
import threading
import uuid

__all__ = ["Ids"]

# A counter stands where the RFC puts random bits (section 6.2, method 1).
_COUNTER_BITS = 12
_COUNTER_MAX = (1 << _COUNTER_BITS) - 1


class Ids:
    """Makes ids that rise, also within a millisecond and while the clock goes back."""

    def __init__(self) -> None:
        """Begin anywhere."""
        self._lock = threading.Lock()
        self._last_ms = 0
        self._counter = 0

    def new(self, now_ms: int) -> str:
        """Return an id that is larger than all before."""
        with self._lock:
            if now_ms > self._last_ms:
                self._last_ms, self._counter = now_ms, 0
            elif self._counter < _COUNTER_MAX:
                self._counter += 1
            else:
                self._last_ms, self._counter = self._last_ms + 1, 0
            head = self._last_ms << 80 | 7 << 76 | self._counter << 64
        chance = int.from_bytes(os.urandom(8), "big") >> 2
        return str(uuid.UUID(int=head | 2 << 62 | chance))

    def saw(self, job_id: str) -> None:
        """Make only larger ones than this from now on."""
        with self._lock:
            self._last_ms = max(self._last_ms, uuid.UUID(job_id).int >> 80)
            self._counter = _COUNTER_MAX
