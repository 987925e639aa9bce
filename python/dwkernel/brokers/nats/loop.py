"""An event loop on a thread of its own, which other threads give work to."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Callable, Coroutine

__all__ = ["LoopThread"]

_Result = TypeVar("_Result")

# How long a task may take to notice that the loop ends.
_END_S = 2.0


class LoopThread:
    """An event loop that runs until it is closed."""

    def __init__(self, name: str) -> None:
        """Start it."""
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def is_here(self) -> bool:
        """Whether the caller is the loop's thread."""
        return threading.current_thread() is self._thread

    def start(self, work: Coroutine[Any, Any, _Result]) -> concurrent.futures.Future[_Result]:
        """Begin `work`.

        Raises:
            RuntimeError: the loop is closed

        """
        try:
            return asyncio.run_coroutine_threadsafe(work, self.loop)
        except RuntimeError:
            work.close()
            raise

    def run(self, work: Coroutine[Any, Any, _Result], patience_s: float | None) -> _Result:
        """Do `work` and return what it returns; who is interrupted takes it back.

        Raises:
            TimeoutError: it took longer than `patience_s`
            concurrent.futures.CancelledError: the loop ended meanwhile

        """
        future = self.start(work)
        try:
            return future.result(patience_s)
        except BaseException:
            future.cancel()
            raise

    def soon(self, work: Callable[..., object], *arguments: object) -> None:
        """Call `work` on the loop's thread, in the order of these calls."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(work, *arguments)

    def close(self, patience_s: float = _END_S) -> None:
        """End it: what still runs is cancelled."""
        self.soon(self.loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join(patience_s)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            left = asyncio.all_tasks(self.loop)
            for task in left:
                task.cancel()
            if left:
                self.loop.run_until_complete(asyncio.wait(left, timeout=_END_S))
        finally:
            self.loop.close()
