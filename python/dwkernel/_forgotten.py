"""What becomes of a store that nobody closed: it is said, as of a file, and the store is closed."""

from __future__ import annotations

import _thread
import contextlib
import sys
import warnings
from typing import TYPE_CHECKING, Any

from dwkernel._latch import Latch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["DRIVES_NAMED_MAX", "WAIT_S", "OpenedAt", "forgotten"]

# So long whoever happens to collect it waits for the drives to be let go.
WAIT_S = 5.0
DRIVES_NAMED_MAX = 3


class OpenedAt:
    """Made where a store is opened: `tracemalloc` knows where that was.

    It knows that of an object that has no attributes; until Python 3.12 of others it does not.
    """

    __slots__ = ()


def forgotten(
    what: object,
    drives: Sequence[str],
    close: Callable[[], object],
    source: OpenedAt,
    # Bound now: at the end of the interpreter there may be no modules left.
    warn: Callable[..., Any] = warnings.warn,
) -> None:
    """Warn that `what` was not closed, and close it.

    Raises:
        ResourceWarning: where the program has made it an error

    """
    named = ", ".join(drives[:DRIVES_NAMED_MAX])
    more = f" and {len(drives) - DRIVES_NAMED_MAX} more" if len(drives) > DRIVES_NAMED_MAX else ""
    try:
        warn(f"unclosed {what!r} on {named}{more}", ResourceWarning, stacklevel=3, source=source)
    finally:
        _closed_by_another(close)


def _closed_by_another(close: Callable[[], object]) -> None:
    """Close it on a thread of its own, and wait for a while.

    A collection comes at any point of any thread: this one may hold what closing needs, or be one
    that closing waits for.
    """
    done = Latch()

    def work() -> None:
        try:
            # All that was acknowledged is durable: what fails here costs a longer next opening.
            with contextlib.suppress(Exception):
                close()
        finally:
            done.open()

    if not sys.is_finalizing():
        with contextlib.suppress(RuntimeError):  # no thread is to be had
            _thread.start_new_thread(work, ())
            done.wait(WAIT_S)
            return
    work()
