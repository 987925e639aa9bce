"""Calls that an interrupt must not cut in two are made on a thread of their own.

A KeyboardInterrupt comes to the main thread only, and between any two of its steps. Who reads from
a line for others, or takes a place among a few, must not be stopped there half-way. So the main
thread has that done by another, and waits: it goes on at once when it is interrupted, and what was
begun is ended in order.
"""

from __future__ import annotations

import _thread
import threading
from typing import TYPE_CHECKING, TypeVar

from dwkernel._latch import Latch

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["aside"]

T = TypeVar("T")


def aside(call: Callable[[], T]) -> T:
    """Make a call: on this thread, or if it is the main one on another.

    Raises:
        what it raises, and KeyboardInterrupt; it goes on then

    """
    if threading.get_ident() != threading.main_thread().ident:
        return call()
    done = Latch()
    values: list[T] = []
    raised: list[BaseException] = []

    def work() -> None:
        try:
            values.append(call())
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            raised.append(error)
        finally:
            done.open()

    # `Thread.start` waits for an event, which is what must not be interrupted (see `Latch`).
    _thread.start_new_thread(work, ())
    done.wait()
    if raised:
        raise raised.pop()
    return values.pop()
