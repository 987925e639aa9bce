"""Threads on which tasks of asyncio wait for queues."""

from __future__ import annotations

import asyncio
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["run"]

_Given = TypeVarTuple("_Given")
_Result = TypeVar("_Result")

# They sleep. More tasks than this wait by turns.
_THREADS_MAX = 64
# One for each loop: what a fork leaves in the child belongs to a loop that does not run there.
_executors: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, ThreadPoolExecutor] = (
    weakref.WeakKeyDictionary()
)


async def run(work: Callable[[*_Given], _Result], /, *args: *_Given) -> _Result:
    """Do `work` on a thread; who is cancelled leaves it to end by itself."""
    loop = asyncio.get_running_loop()
    executor = _executors.get(loop)
    if executor is None:
        executor = _executors[loop] = ThreadPoolExecutor(_THREADS_MAX, "dwk-queue")
    return await loop.run_in_executor(executor, work, *args)
