"""Subscriptions: handlers on threads of their own, or messages to be pulled."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from dwkernel import errors
from dwkernel._native import BusSubscription, Message
from dwkernel.units import Duration, parse_duration

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator
    from types import TracebackType

Handler = Callable[[Message], Any]
_Handle = Callable[[int, list[Message]], None]

# Messages that a handler's thread takes at a time: they count no more as waiting.
_TAKE = 64
CLOSE_TIMEOUT = "30s"

_log = logging.getLogger("dwkernel.bus")


@dataclass(frozen=True)
class SubscriptionStats:
    """What a subscription did and holds.

    Attributes:
        name: its name.
        pattern: its pattern.
        queued: messages that it took in.
        delivered: messages that were handed out.
        dropped: messages that its policy dropped.
        filtered: messages that its filter did not let in, as far as it is an expression.
        failed: messages whose handler raised.
        lost: spilled messages that could not be read again.
        waits: how often a publisher waited for it.
        depth: messages that wait now.
        depth_bytes: about the bytes of those in memory.
        spilled: how many of them are in the spill file.
        spilled_bytes: the bytes of those.
        lag_s: how long ago the oldest of those in memory was published, in seconds.
        busy_s: how long its handlers have been at their current messages, the longest, in seconds.

    """

    name: str
    pattern: str
    queued: int
    delivered: int
    dropped: int
    filtered: int
    failed: int
    lost: int
    waits: int
    depth: int
    depth_bytes: int
    spilled: int
    spilled_bytes: int
    lag_s: float
    busy_s: float

    def to_dict(self) -> dict[str, Any]:
        """Return the figures by name."""
        return asdict(self)


class Subscription:
    """Messages that match a pattern: handled by a handler's threads, or pulled.

    Without a handler take them with `next`, `fetch`, a loop, or an `async for`. Closing is orderly:
    nothing more is taken in, what waits is handled. It is a context manager that closes at the end.
    """

    def __init__(
        self,
        native: BusSubscription,
        where: Callable[[Message], bool] | None,
        on_error: Callable[[Message, BaseException], object] | None,
    ) -> None:
        """Made by `Bus.subscribe`."""
        self._native = native
        self._where = where
        self._on_error = on_error
        self._threads: list[threading.Thread] = []
        # By worker: since when it is at its message, or None.
        self._since: dict[int, float | None] = {}

    @property
    def name(self) -> str:
        """Its name."""
        return self._native.name

    @property
    def pattern(self) -> str:
        """Its pattern."""
        return self._native.pattern

    def next(self, timeout: Duration | None = None) -> Message | None:
        """Return the next message; None if there is none in time.

        Args:
            timeout: seconds or text such as "30s"; None waits for ever.

        Raises:
            State: `bus.closed` once it is closed and empty; `bus.forked`.

        """
        messages = self.fetch(1, timeout)
        return messages[0] if messages else None

    def fetch(self, limit: int, timeout: Duration | None = None) -> list[Message]:
        """Return up to `limit` messages as soon as there is one; none if there is none in time.

        Args:
            limit: how many at most, from 1 on.
            timeout: seconds or text such as "30s"; None waits for ever.

        Raises:
            State: `bus.closed` once it is closed and empty; `bus.forked`.

        """
        while True:
            messages = self._native.next_many(limit, timeout)
            wanted = [message for message in messages if self._wants(message)]
            if wanted or not messages:
                return wanted

    async def anext(self) -> Message:
        """Return the next message; to be awaited. Cancelled, it has taken none.

        Raises:
            State: `bus.closed` once it is closed and empty; `bus.forked`.

        """
        from dwkernel._waiting import next_message  # noqa: PLC0415 - threads alone do not need it

        while True:
            message = await next_message(self._native)
            if self._wants(message):
                return message

    def stats(self) -> SubscriptionStats:
        """Return what it did and holds."""
        now = time.monotonic()
        busy = [now - since for since in self._since.copy().values() if since is not None]
        figures = self._native.stats()
        return SubscriptionStats(self.name, self.pattern, **figures, busy_s=max(busy, default=0.0))

    def close(self, timeout: Duration | None = CLOSE_TIMEOUT) -> None:
        """Take in no more, and wait until what waits is handled.

        Args:
            timeout: how long to wait for handlers; those that take longer go on by themselves.

        Raises:
            Timeout: `bus.timeout` if handlers still run; it is closed all the same.

        """
        self._native.close()
        end = None if timeout is None else time.monotonic() + parse_duration(timeout)
        me = threading.current_thread()
        for thread in self._threads:
            if thread is not me:
                thread.join(None if end is None else max(0.0, end - time.monotonic()))
        late = sum(thread.is_alive() and thread is not me for thread in self._threads)
        if late:
            raise errors.new("bus.timeout", f"{late} handlers of {self.name} still run")

    def __iter__(self) -> Iterator[Message]:
        """Yield messages until it is closed and empty."""
        while True:
            try:
                messages = self.fetch(_TAKE)
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

    def __enter__(self) -> Self:
        """Return the subscription."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def __repr__(self) -> str:
        """Return what it listens to."""
        return f"<Subscription {self.name!r} to {self.pattern!r}>"

    def _wants(self, message: Message) -> bool:
        return self._where is None or bool(self._where(message))

    def serve(self, handler: Handler, loop: asyncio.AbstractEventLoop | None) -> None:
        """Start the handler's threads; a coroutine function runs on `loop`. Done by `subscribe`."""
        serve = self._serve_all if self._native.workers == 1 else self._serve_lane
        handle: _Handle = functools.partial(self._handle, handler)
        if loop is not None:
            handle = functools.partial(self._handle_in, loop, handler)
        for worker in range(self._native.workers):
            name = f"dwk-bus-{self.name}-{worker}"
            thread = threading.Thread(target=serve, args=(handle, worker), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve_all(self, handle: _Handle, worker: int) -> None:
        take = self._native.next_many
        # It ends with "bus.closed".
        with contextlib.suppress(errors.State):
            while True:
                handle(worker, take(_TAKE))

    def _serve_lane(self, handle: _Handle, worker: int) -> None:
        take = self._native.next_for
        with contextlib.suppress(errors.State):
            while True:
                message = take(worker)
                if message is not None:
                    handle(worker, [message])

    def _handle(self, handler: Handler, worker: int, messages: list[Message]) -> None:
        for message in messages:
            self._since[worker] = time.monotonic()
            try:
                answer = handler(message) if self._wants(message) else None
                self._finish(message, answer)
            except Exception as error:  # noqa: BLE001 - whatever a handler raises is its own
                self._failed(message, error)
        self._since[worker] = None

    def _handle_in(
        self,
        loop: asyncio.AbstractEventLoop,
        handler: Handler,
        worker: int,
        messages: list[Message],
    ) -> None:
        import asyncio  # noqa: PLC0415 - threads alone do not need it

        self._since[worker] = time.monotonic()
        work = self._each(handler, messages)
        try:
            asyncio.run_coroutine_threadsafe(work, loop).result()
        except (RuntimeError, asyncio.CancelledError, concurrent.futures.CancelledError) as error:
            # The loop is closed, or closes.
            work.close()
            for message in messages:
                self._failed(message, error)
        self._since[worker] = None

    async def _each(self, handler: Handler, messages: list[Message]) -> None:
        for message in messages:
            try:
                answer = await handler(message) if self._wants(message) else None
                self._finish(message, answer)
            except Exception as error:  # noqa: BLE001 - whatever a handler raises is its own
                self._failed(message, error)

    @property
    def is_served(self) -> bool:
        """Whether threads of a handler run."""
        return any(thread.is_alive() for thread in self._threads)

    def _finish(self, message: Message, answer: Any) -> None:
        if answer is not None and message.reply_to is not None:
            message.reply(answer)
        message._done()  # noqa: SLF001 - the other half of that class

    def _failed(self, message: Message, error: BaseException) -> None:
        self._native.fail(message, f"{type(error).__name__}: {error}")
        if self._on_error is None:
            _log.error("a handler of %s failed on %s", self.name, message, exc_info=error)
            return
        try:
            self._on_error(message, error)
        except Exception:  # noqa: BLE001 - it is told, and the next message comes
            _log.exception("on_error of %s raised", self.name)
