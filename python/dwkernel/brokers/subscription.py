"""Subscriptions to a broker's topics: a bounded inbox, and the thread of a handler."""

from __future__ import annotations

import contextlib
import inspect
import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Self

from dwkernel import errors
from dwkernel._closing import Closing
from dwkernel._latch import Condition
from dwkernel.units import Duration, parse_duration

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

    from dwkernel.brokers.message import Message

__all__ = ["BrokerSubscription"]

_LIMIT_MAX = 1 << 24
# A task waits in slices of this, so that a cancelled one leaves no thread behind.
_SLICE_S = 0.25

_log = logging.getLogger("dwkernel.brokers")


class BrokerSubscription(Closing):
    """Messages that match a pattern: handled by a handler's thread, or pulled.

    What comes while `limit` messages wait is dropped and counted: a network has no publisher to
    hold back. Closing is orderly: nothing more is taken in, what waits is handled.
    """

    def __init__(
        self,
        pattern: str,
        name: str | None,
        limit: int,
        unsubscribe: Callable[[], None],
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Made by `Broker.subscribe`.

        Args:
            pattern: its pattern.
            name: its name; by default the pattern.
            limit: how many messages may wait.
            unsubscribe: tells the broker, once, when it is closed.
            check: raises where it must not be used, as after a fork.

        """
        if not 1 <= limit <= _LIMIT_MAX:
            text = f"a subscription holds 1 to {_LIMIT_MAX} messages, not {limit}"
            raise errors.new("queue.capacity", text)
        self._pattern = pattern
        self._name = name or pattern
        self._limit = limit
        self._unsubscribe = unsubscribe
        self._check = check
        self._waiting: deque[Message] = deque()
        self._changed = Condition()
        self._is_closed = False
        self._dropped = 0
        self._failed = 0
        self._thread: threading.Thread | None = None

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    @property
    def pattern(self) -> str:
        """Its pattern."""
        return self._pattern

    @property
    def dropped(self) -> int:
        """How many messages came while there was no room."""
        return self._dropped

    @property
    def failed(self) -> int:
        """How many messages' handlers raised."""
        return self._failed

    def put(self, message: Message) -> None:
        """Take a message in, or drop it; done by the broker's thread."""
        with self._changed:
            if self._is_closed:
                return
            if len(self._waiting) >= self._limit:
                self._dropped += 1
                return
            self._waiting.append(message)
            self._changed.notify()

    def next(self, timeout: Duration | None = None) -> Message | None:
        """Return the next message; None if there is none in time.

        Args:
            timeout: seconds or text such as "30s"; None waits for ever.

        Raises:
            State: `bus.closed` once it is closed and empty; `bus.forked`

        """
        messages = self.fetch(1, timeout)
        return messages[0] if messages else None

    def fetch(self, limit: int, timeout: Duration | None = None) -> list[Message]:
        """Return up to `limit` messages as soon as there is one; none if there is none in time.

        Args:
            limit: how many at most, from 1 on.
            timeout: seconds or text such as "30s"; None waits for ever.

        Raises:
            State: `bus.closed` once it is closed and empty; `bus.forked`

        """
        self._check()
        patience = None if timeout is None else parse_duration(timeout)
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed, patience)
            count = min(max(limit, 0), len(self._waiting))
            if count:
                return [self._waiting.popleft() for _ in range(count)]
            if self._is_closed and not self._waiting:
                raise errors.new("bus.closed", f"the subscription {self._name} is closed")
            return []

    async def anext(self) -> Message:
        """Return the next message; to be awaited. Cancelled, it has taken none.

        Raises:
            State: `bus.closed` once it is closed and empty; `bus.forked`

        """
        from dwkernel._queue_threads import run  # noqa: PLC0415 - threads alone do not need it

        while True:
            # Taken here, on the loop's own thread: who is cancelled while waiting has taken none.
            messages = self.fetch(1, 0)
            if messages:
                return messages[0]
            await run(self._wait)

    def _wait(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed, _SLICE_S)

    def serve(
        self,
        handler: Callable[[Any], Any],
        on_error: Callable[[Any, BaseException], object] | None,
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        """Start the handler's thread; a coroutine function runs on `loop`. Done by `subscribe`."""
        arguments = (handler, on_error, loop)
        name = f"dwk-broker-{self._name}"
        self._thread = threading.Thread(target=self._run, args=arguments, name=name, daemon=True)
        self._thread.start()

    def _run(
        self,
        handler: Callable[[Any], Any],
        on_error: Callable[[Any, BaseException], object] | None,
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        for message in self:
            try:
                answer = _answer_of(handler, message, loop)
                if answer is not None and message.reply_to is not None:
                    message.reply(answer)
            except Exception as error:  # noqa: BLE001 - whatever a handler raises is its own
                self._failed += 1
                self._report(message, error, on_error)

    def _report(
        self,
        message: Message,
        error: Exception,
        on_error: Callable[[Any, BaseException], object] | None,
    ) -> None:
        if message.failed is not None:
            # Whoever asked need not wait.
            with contextlib.suppress(errors.DwError):
                message.failed(f"{type(error).__name__}: {error}")
        if on_error is None:
            _log.error("a handler of %s failed on %s", self._name, message, exc_info=error)
            return
        try:
            on_error(message, error)
        except Exception:  # noqa: BLE001 - it is told, and the next message comes
            _log.exception("on_error of %s raised", self._name)

    def close(self, timeout: Duration | None = "30s") -> None:
        """Take in no more, and wait until what waits is handled.

        Args:
            timeout: how long to wait for the handler; one that takes longer goes on by itself.

        Raises:
            Timeout: `bus.timeout` if the handler still runs; it is closed all the same.

        """
        patience = None if timeout is None else parse_duration(timeout)
        end = None if patience is None else time.monotonic() + patience
        with self._changed:
            was_closed, self._is_closed = self._is_closed, True
            self._changed.notify_all()
        if not was_closed:
            self._unsubscribe()
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return
        thread.join(None if end is None else max(0.0, end - time.monotonic()))
        if thread.is_alive():
            raise errors.new("bus.timeout", f"the handler of {self._name} still runs")

    def __iter__(self) -> Iterator[Message]:
        """Yield messages until it is closed and empty."""
        while True:
            try:
                messages = self.fetch(1)
            except errors.State as error:
                if error.code == "bus.closed":
                    return
                raise
            yield from messages

    def __aiter__(self) -> Self:
        """Return the subscription: `async for` takes messages until it is closed and empty."""
        return self

    async def __anext__(self) -> Message:
        """Return the next message, or stop once it is closed and empty."""
        try:
            return await self.anext()
        except errors.State as error:
            if error.code == "bus.closed":
                raise StopAsyncIteration from None
            raise

    def __repr__(self) -> str:
        """Return what it listens to."""
        return f"<BrokerSubscription {self._name!r} to {self._pattern!r}>"


def _answer_of(
    handler: Callable[[Any], Any], message: Message, loop: asyncio.AbstractEventLoop | None
) -> Any:
    if loop is None or not inspect.iscoroutinefunction(handler):
        return handler(message)
    import asyncio  # noqa: PLC0415 - threads alone do not need it

    work = handler(message)
    try:
        return asyncio.run_coroutine_threadsafe(work, loop).result()
    except RuntimeError:
        # The loop is closed.
        work.close()
        raise
