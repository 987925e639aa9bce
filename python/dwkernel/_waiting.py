"""How asyncio tasks wait on queues and subscriptions: one readable file for each event loop.

A wake-up comes from any thread, also without the GIL: it goes into a list and makes the file
readable. The loop then looks who was meant, and those try again. Nothing is handed to a task, so
cancelling one loses no item; the line's rules pass on what it was told.
"""

from __future__ import annotations

import weakref
from asyncio import CancelledError, get_running_loop
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

from dwkernel._native import Bell
from dwkernel.errors import DwError, State

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future
    from collections.abc import Callable

    from dwkernel._native import (
        BoundedQueue,
        BusPublishing,
        BusSubscription,
        Message,
        QueueTurn,
    )

T = TypeVar("T")

_NOTHING: Final[Any] = object()


async def aput(queue: BoundedQueue[T], item: T, lane: int) -> None:
    """Put an item in; see `BoundedQueue.aput`."""
    if not queue.try_put(item, lane=lane):
        turn = queue._turn_to_put(1, lane)  # noqa: SLF001 - the other half of that class
        await _when_told(turn, lambda: queue.try_put(item, lane=lane) or _NOTHING)


async def aget(queue: BoundedQueue[T]) -> T:
    """Take an item out; see `BoundedQueue.aget`."""
    item: T = queue.try_get(_NOTHING)
    if item is _NOTHING:
        turn = queue._turn_to_get(1)  # noqa: SLF001 - the other half of that class
        item = await _when_told(turn, lambda: queue.try_get(_NOTHING))
    return item


async def anext(queue: BoundedQueue[T]) -> T:  # noqa: A001 - what it does
    """Take an item out, or stop once the queue is closed and empty."""
    try:
        return await aget(queue)
    except State as error:
        if error.code == "queue.closed":
            raise StopAsyncIteration from None
        raise


class _Ear:
    """What an event loop hears of queues: one file, and the futures of those who wait."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        self.bell = Bell()
        self._waiting: dict[int, Future[None]] = {}
        self._next = 0
        loop.add_reader(self.bell.fileno(), self._answer)

    def _answer(self) -> None:
        for waiter in self.bell.answer():
            future = self._waiting.pop(waiter, None)
            if future is not None:
                _hear(future)

    def listen(self) -> tuple[int, Future[None]]:
        """Return a waiter of the bell, and a future that is done when it rings for that.

        Whoever listens forgets the waiter in the end.
        """
        waiter, self._next = self._next, self._next + 1
        future = get_running_loop().create_future()
        self._waiting[waiter] = future
        return waiter, future

    def forget(self, waiter: int) -> None:
        """Do not listen for it any more."""
        self._waiting.pop(waiter, None)


_ears: weakref.WeakKeyDictionary[AbstractEventLoop, _Ear] = weakref.WeakKeyDictionary()


def _ear() -> _Ear:
    loop = get_running_loop()
    ear = _ears.get(loop)
    if ear is None:
        ear = _ears[loop] = _Ear(loop)
    return ear


async def next_message(subscription: BusSubscription) -> Message:
    """Return the next message; see `Subscription.anext`."""
    ear = _ear()
    while True:
        waiter, told = ear.listen()
        try:
            message = subscription.poll(ear.bell, waiter)
            if message is not None:
                return message
            await told
        finally:
            ear.forget(waiter)


async def published(publishing: BusPublishing, limit_s: float) -> list[tuple[int, bool]]:
    """Return `(sequence, duplicate)` of each message; see `Stream.apublish`."""
    ear = _ear()
    waiter, told = ear.listen()
    late = get_running_loop().call_later(limit_s, _hear, told)
    try:
        done = publishing.poll(ear.bell, waiter)
        if done is None:
            await told
            done = publishing.poll(ear.bell, waiter)
    except CancelledError:
        # Who does not wait does not want it, if there is still time to take it back.
        with suppress(DwError):
            publishing.give_up()
        raise
    finally:
        late.cancel()
        ear.forget(waiter)
    return publishing.give_up() if done is None else done


def _hear(told: Future[None]) -> None:
    if not told.done():
        told.set_result(None)


async def _when_told(turn: QueueTurn, attempt: Callable[[], Any]) -> Any:
    """Return what `attempt` does as soon as it is something; leave the line however this ends."""
    ear = _ear()
    try:
        while True:
            waiter, told = ear.listen()
            try:
                turn.enroll(ear.bell, waiter)
                outcome = attempt()
                if outcome is not _NOTHING:
                    turn.served()
                    return outcome
                await told
            finally:
                ear.forget(waiter)
    finally:
        turn.leave()
