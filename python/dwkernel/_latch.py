"""A latch that opens once, and whose waiters may be interrupted at any point.

`threading.Event` and `threading.Condition` are written in Python: a KeyboardInterrupt that comes
between their taking a lock and their giving it back leaves it taken, and whoever sets the event
later hangs. A plain lock is taken and given back in one step that no interrupt can split. So what
a worker opens while the main thread waits for it is one of these.
"""

from __future__ import annotations

import contextlib
import threading
import time

__all__ = ["Latch"]

# How long one that waits sleeps at most, if another that woke was interrupted and told it nothing.
_LOOK_S = 1.0


class Latch:
    """Opens once, for all threads that wait and will."""

    __slots__ = ("_lock", "is_open")

    def __init__(self) -> None:
        """Begin closed."""
        self._lock = threading.Lock()
        self._lock.acquire()
        self.is_open = False

    def open(self) -> None:
        """Open it; what is open stays so."""
        self.is_open = True
        with contextlib.suppress(RuntimeError):  # it was open
            self._lock.release()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for at most so many seconds, or for ever; return whether it is open."""
        end = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        while not self.is_open:
            left = end - time.monotonic()
            if left <= 0:
                break
            if self._lock.acquire(timeout=min(left, _LOOK_S)):
                self.open()  # for the next one that waits
        return self.is_open
