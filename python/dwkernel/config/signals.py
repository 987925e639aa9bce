"""SIGHUP means: read the configuration again."""

from __future__ import annotations

import queue
import signal
import threading
from typing import TYPE_CHECKING

from dwkernel import errors

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from dwkernel.config.watching import Heard

__all__ = ["on_sighup"]


def on_sighup(hear: Callable[[], Heard]) -> Callable[[], None]:
    """Call `hear` after each SIGHUP, on a thread of its own; returns what ends that.

    A handler runs between two instructions of the main thread, which may hold any lock: so it only
    says that there was a signal. A handler that was there is called besides.

    Raises:
        Invalid: `config.value`: not on the main thread

    """
    if threading.current_thread() is not threading.main_thread():
        text = "only the main thread can set a handler of signals: call reload_on_sighup there"
        raise errors.new("config.value", text)
    # Its `put` may be interrupted by itself.
    heard: queue.SimpleQueue[int] = queue.SimpleQueue()
    before = signal.getsignal(signal.SIGHUP)

    def handle(number: int, frame: FrameType | None) -> None:
        heard.put(1)
        if callable(before):
            before(number, frame)

    def undo() -> None:
        heard.put(0)
        is_main = threading.current_thread() is threading.main_thread()
        # Somebody may have come after: their handler calls this one, which does nothing any more.
        if is_main and signal.getsignal(signal.SIGHUP) is handle:
            signal.signal(signal.SIGHUP, before)

    threading.Thread(
        target=_work, args=(heard, hear), name="dwk-config-sighup", daemon=True
    ).start()
    signal.signal(signal.SIGHUP, handle)
    return undo


def _work(heard: queue.SimpleQueue[int], hear: Callable[[], Heard]) -> None:
    while heard.get():
        # Signals that came meanwhile are answered together.
        while not heard.empty():
            if not heard.get():
                return
        if hear() == "gone":
            return
