"""What threads wait for each other at, and whose waiter may be interrupted at any point.

`threading.Event` and `threading.Condition` are written in Python: a KeyboardInterrupt that comes
between their taking a lock and their giving it back leaves it taken, and whoever takes it later
hangs. A lock that is written in C is taken and given back by `with` in one step that no interrupt
can split. So what a worker opens while the main thread waits for it is a `Latch`, and what both
take and tell each other by is a `Condition`.
"""

from __future__ import annotations

import _thread
import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Bell", "Condition", "Latch"]

T = TypeVar("T")
# Who tells others may be interrupted before all are told: so long it takes until they look anyway.
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


class Bell:
    """Tells those who wait at a `Condition`'s lock; of several that share one each has its own."""

    def __init__(self, lock: Condition) -> None:
        """Ring for nobody yet."""
        self._shared = lock
        self._waiting: list[Latch] = []

    def wait(self, timeout_s: float | None = None) -> bool:
        """Give the lock away until somebody rings; return whether somebody did.

        Without a time it is over after a second at most: whoever waits looks again whether what it
        waits for has happened.
        """
        lock: Any = self._shared
        latch, given = Latch(), list[Any]()
        self._waiting.append(latch)
        limit_s = _LOOK_S if timeout_s is None else timeout_s
        try:
            # Given away and written down in one step: no interrupt comes in between.
            given.extend(map(_release_save, (lock,)))
            return latch.wait(limit_s)
        finally:
            if given:
                lock._acquire_restore(given[0])  # noqa: SLF001 - nothing but this one call, as above
            if not latch.is_open:
                with contextlib.suppress(ValueError):
                    self._waiting.remove(latch)

    def wait_for(self, condition: Callable[[], T], timeout_s: float | None = None) -> T:
        """Wait until a condition is met, or the time is over; return what it said last."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while not (found := condition()):
            left_s = None if end is None else end - time.monotonic()
            if left_s is not None and left_s <= 0:
                break
            self.wait(left_s)
        return found

    def notify(self) -> None:
        """Let one of those who wait look again."""
        while self._waiting:
            latch = self._waiting.pop(0)
            if not latch.is_open:
                latch.open()
                return

    def notify_all(self) -> None:
        """Let all who wait look again."""
        waiting, self._waiting = self._waiting, []
        for latch in waiting:
            latch.open()


class Condition(_thread.RLock, Bell):  # type: ignore[misc]  # no class in stubs only
    """A lock that a thread may take several times, and a bell at it.

    As `threading.Condition`, but that an interrupt at any point leaves the lock as it has to be,
    and that waits without a time look again now and then.
    """

    def __init__(self) -> None:
        """Begin with a lock that nobody has."""
        self._waiting: list[Latch] = []

    @property
    def is_mine(self) -> bool:
        """Whether this thread has the lock."""
        found: bool = _is_owned(self)
        return found

    @property
    def _shared(self) -> Condition:  # type: ignore[override]  # without a circle
        return self


_is_owned: Any = _thread.RLock._is_owned  # type: ignore[attr-defined]  # noqa: SLF001 - as below
_release_save: Any = _thread.RLock._release_save  # type: ignore[attr-defined]  # noqa: SLF001 - as `threading.Condition` does
