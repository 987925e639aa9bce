"""A bounded queue of bytes between processes, in shared memory.

>>> with BytesQueue("64 KiB") as queue:
...     queue.put(b"one")
...     queue.put_many([b"two", b"three"])
...     other = BytesQueue.attach(queue.name)  # in another process, most of the time
...     first = other.get()
...     rest = other.get_many(10, timeout="1s")
2
>>> first, rest
(b'one', [b'two', b'three'])

A queue goes to a child process as an argument, by its name (spawn and forkserver), or is just
used there (fork):

>>> import multiprocessing
>>> def shout(queue: BytesQueue, back: BytesQueue) -> None:
...     for word in queue:  # until it is closed and empty
...         back.put(word.upper())
>>> queue, back = BytesQueue(), BytesQueue()
>>> child = multiprocessing.get_context("fork").Process(target=shout, args=(queue, back))
>>> child.start()
>>> queue.put(b"hello")
>>> back.get(timeout="30s")
b'HELLO'
>>> queue.close(), child.join(), back.close()
(None, None, None)
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import sys
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeVar

from dwkernel import _native, errors, units

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Buffer

__all__ = ["BytesQueue", "BytesQueueStatus", "Participant"]

_Queue = TypeVar("_Queue", bound="BytesQueue")

# What the native side takes, to refuse it.
_SIZE_MAX = 2**64 - 1
# How long a thread goes on waiting for a task that was cancelled.
_ASYNC_SLICE_S = 0.25


@dataclass(frozen=True)
class Participant:
    """A process that uses a queue.

    Attributes:
        pid: its process id.
        alive: False if it ended without leaving: it was killed, or ended by `os._exit`.

    """

    pid: int
    alive: bool


@dataclass(frozen=True)
class BytesQueueStatus:
    """A queue at one moment; the figures are of all processes together.

    What a killed process did last may be missing in them, but never in `items` and `used_bytes`.

    Attributes:
        name: what `BytesQueue.attach` takes.
        closed: True once any process has closed it.
        capacity_bytes: size of the ring.
        items: messages in it.
        used_bytes: bytes that they take, with padding and lengths.
        puts: messages that were put.
        gets: messages that were taken.
        put_waits: puts that had to wait.
        get_waits: gets that had to wait.
        recoveries: locks that were taken from dead processes.
        deaths: processes that ended without leaving and have been cleared away.
        participants: the processes that use it, and those that ended without leaving since another
            one joined.

    """

    name: str
    closed: bool
    capacity_bytes: int
    items: int
    used_bytes: int
    puts: int
    gets: int
    put_waits: int
    get_waits: int
    recoveries: int
    deaths: int
    participants: tuple[Participant, ...]


class BytesQueue(_native.SharedQueue):
    """A bounded queue of bytes, by value, for any number of processes of one user on one machine.

    Args:
        capacity_bytes: size of its ring, 64 bytes to 8 GiB, rounded up to a multiple of 8; taken
            from `/dev/shm` at once. A message takes its length, padded to a multiple of 8, and 8
            bytes.
        name: 1 to 100 characters from a-z, A-Z, 0-9, `.`, `-` and `_`; a random one if it is None.

    Raises:
        Invalid: `queue.capacity`, also if `/dev/shm` has no room; `queue.name`, `unit.invalid`
        Exists: `queue.exists`
        Unsupported: `queue.unsupported` on other systems than Linux, or without /proc and /dev/shm.

    Order: one producer's messages arrive in its order; with one consumer, all arrive in the order
    in which they were put. Each is taken once.

    Crashes: a process may be killed at any moment. A put that was not finished leaves nothing; a
    message that was not taken yet stays for the next. Who waits is told with `queue.abandoned` once
    every other process that used the queue is dead; one that never had another just waits.

    Names: the queue's name goes when the process that made it leaves it, lets go of the object or
    ends; whoever is attached goes on. A closed queue keeps its name until then, for processes that
    are just starting, but a new queue may take it. What a killed maker left is swept away when the
    next queue is made and nobody uses it any more.

    Threads: any number, in every process; the GIL is released while they wait, and for messages of
    16 KiB and more while they are copied.
    """

    def __new__(cls, capacity_bytes: units.Size = "1 MiB", *, name: str | None = None) -> Self:
        """Make a queue."""
        size = min(units.parse_size(capacity_bytes), _SIZE_MAX)
        return _known(super().__new__(cls, size, name))

    @classmethod
    def attach(cls, name: str) -> Self:
        """Join the queue of that name.

        Raises:
            NotFound: `queue.not_found`
            Invalid: `queue.name`; `queue.capacity` if 1024 processes use it already.
            Corrupt: `queue.damaged` if what has the name is no queue, or not this user's.
            Unsupported: `queue.unsupported`, also if it is of another PID or time namespace.

        """
        return _known(super().__new__(cls, None, name))

    def stats(self) -> dict[str, int]:
        """Return the figures of `status` without the participants; makes no system call."""
        return self.counters()

    def status(self) -> BytesQueueStatus:
        """Return how the queue is now; asks the system about each participant."""
        return BytesQueueStatus(
            name=self.name,
            closed=self.closed,
            capacity_bytes=self.capacity_bytes,
            participants=tuple(Participant(*one) for one in self.participants()),
            **self.counters(),
        )

    async def aput(self, data: Buffer, timeout: units.Duration | None = None) -> None:  # noqa: ASYNC109 - as put
        """As `put`, for asyncio: the loop goes on meanwhile.

        Cancelled, it has put the message or not; it has not if `CancelledError` is raised.
        """
        end = _end(timeout)
        wait = functools.partial(self.wait_room, memoryview(data).nbytes)
        while not self.try_put(data):
            await self._wait(wait, end)

    async def aget(self, timeout: units.Duration | None = None) -> bytes:  # noqa: ASYNC109 - as get
        """As `get`, for asyncio: the loop goes on meanwhile.

        Cancelled, it has taken nothing: the message stays for the next.
        """
        end = _end(timeout)
        while (message := self.try_get(None)) is None:
            await self._wait(self.wait_item, end)
        return message

    async def _wait(self, wait: Callable[[float], bool], end: float | None) -> None:
        """Wait for a moment on a thread, which takes nothing."""
        from dwkernel import _queue_threads  # noqa: PLC0415 - only who uses asyncio pays for it

        left = _ASYNC_SLICE_S if end is None else min(end - time.monotonic(), _ASYNC_SLICE_S)
        if left <= 0:
            raise errors.new("queue.timeout", f"queue {self.name!r} stayed as it was")
        await _queue_threads.run(wait, left)

    def __enter__(self) -> Self:
        """Return the queue."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the queue, for every process."""
        self.close()

    def __reduce__(self) -> tuple[Callable[[str], Self], tuple[str]]:
        """Cross to another process by name."""
        return type(self).attach, (self.name,)

    def __repr__(self) -> str:
        """Show the name and what is in it."""
        state = "closed" if self.closed else "open"
        used, size = self.counters()["used_bytes"], units.format_size(self.capacity_bytes)
        return f"<BytesQueue {self.name} {state}: {len(self)} messages, {used} bytes of {size}>"


def _end(timeout: units.Duration | None) -> float | None:
    return None if timeout is None else time.monotonic() + units.parse_duration(timeout)


# --- Leaving in good order ------------------------------------------------------------------------

# A process that ends without leaving is taken for one that was killed.
_queues: weakref.WeakSet[BytesQueue] = weakref.WeakSet()
# The process in which multiprocessing has been told.
_told: list[int] = []


def _known(queue: _Queue) -> _Queue:
    """Remember a queue for the end of the process."""
    _queues.add(queue)
    _joined()
    return queue


def _joined() -> None:
    """See to it that this process leaves its queues at its end; called in each that uses one.

    Children of multiprocessing end by `os._exit`, which skips `atexit`, but run its finalizers
    before. They forget those that were there when they began, unpickled arguments' too, and then do
    what was registered for after a fork.
    """
    util = sys.modules.get("multiprocessing.util")
    if util is None or _told == [os.getpid()]:
        return
    _told[:] = [os.getpid()]
    util.register_after_fork(_queues, _tell)
    _tell(_queues)


def _tell(_queues: object) -> None:
    sys.modules["multiprocessing.util"].Finalize(None, _leave_all, exitpriority=-100)


@atexit.register
def _leave_all() -> None:
    for queue in list(_queues):
        with contextlib.suppress(errors.DwError):
            queue.leave()
