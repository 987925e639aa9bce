"""Bounded queues: between the threads and tasks of a process, and between processes.

`BoundedQueue` is a lock-free queue of Python objects with a fixed capacity. Threads and asyncio
tasks share it: `put` and `get` block the thread (without the GIL), `aput` and `aget` are awaited.
`BytesQueue` carries bytes between processes, through shared memory.

>>> from dwkernel.queue import BoundedQueue
>>> queue = BoundedQueue(1024)
>>> queue.put("a")
>>> queue.put_many(["b", "c"])
2
>>> queue.get(), queue.get_many(10)
('a', ['b', 'c'])
>>> queue.close()
>>> list(queue)
[]
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import dwkernel._forks  # noqa: F401 - before the first queue is made
from dwkernel._native import BoundedQueue
from dwkernel._shared_queue import BytesQueue, BytesQueueStatus, Participant

__all__ = ["BoundedQueue", "BytesQueue", "BytesQueueStatus", "Participant", "QueueStats"]


@dataclass(frozen=True)
class QueueStats:
    """What a queue has done; each figure as of some moment during the call.

    Attributes:
        depth: items in it now.
        lanes: items in each lane now.
        puts: items that went in since it was made.
        gets: items that came out.
        put_waits: how often somebody slept for room.
        get_waits: how often somebody slept for an item.
        putters: how many wait for room now, threads and tasks.
        getters: how many wait for items now.

    """

    depth: int
    lanes: list[int]
    puts: int
    gets: int
    put_waits: int
    get_waits: int
    putters: int
    getters: int

    def to_dict(self) -> dict[str, Any]:
        """Return the figures by name."""
        return asdict(self)
