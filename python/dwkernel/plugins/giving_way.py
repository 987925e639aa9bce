"""Work beside calls that must not wait for it: the interpreter changes threads more often.

A thread that computes keeps the interpreter for 5 ms at a time by default, and who answers the
kernel's door needs it three times for an operation.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["giving_way"]

_INTERVAL_S = 0.0005
_lock = threading.Lock()
_count = 0
_before = 0.0


@contextlib.contextmanager
def giving_way() -> Iterator[None]:
    """Let others have the interpreter after half a millisecond, until the last `with` ends.

    What the program has set, before or meanwhile, stays as it is if it is shorter, or if it is not
    what was set here.
    """
    _begin()
    try:
        yield
    finally:
        _end()


def _begin() -> None:
    global _count, _before  # noqa: PLW0603 - the interval is the process's, too
    with _lock:
        _count += 1
        if _count == 1:
            _before = sys.getswitchinterval()
            sys.setswitchinterval(min(_before, _INTERVAL_S))


def _end() -> None:
    global _count  # noqa: PLW0603 - as above
    with _lock:
        _count -= 1
        if _count == 0 and abs(sys.getswitchinterval() - _INTERVAL_S) < _INTERVAL_S / 10:
            sys.setswitchinterval(_before)
