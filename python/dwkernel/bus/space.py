"""A tenant's topics, as one principal has them."""

from __future__ import annotations

import contextlib
import inspect
import os
import tempfile
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Literal

import dwkernel._forks  # noqa: F401 - before the first bus is made
from dwkernel import _native, errors
from dwkernel._closing import Closing, Companions
from dwkernel.bus.outcome import Failure, Outcome, Published
from dwkernel.bus.promises import KERNEL, Promises
from dwkernel.bus.subscription import CLOSE_TIMEOUT, Handler, Subscription, SubscriptionStats
from dwkernel.units import Duration, Size, parse_duration, parse_size

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from typing_extensions import Buffer

    from dwkernel._native import Message
    from dwkernel.bus.stream import Group, Stream

Policy = Literal["block", "drop_oldest", "drop_newest", "spill"]

_REQUEST_TIMEOUT = "30s"


class Bus(Closing):
    """One principal's view of a tenant's topics.

    Publishing and subscribing are thread-safe. A handler runs on a thread of its subscription's
    own; a handler that raises or hangs hurts that subscription only. Without a handler messages
    are pulled. Messages that one thread publishes come to each subscription in that order; with
    several workers those with the same `key` are handled in order, one at a time.

    A bus made by itself is a context manager that closes at the end; a kernel's closes with it.
    """

    def __init__(
        self,
        native: _native.BusSpace | None = None,
        *,
        principal: str | None = None,
        limit: Callable[[Duration | None], float] = lambda given: parse_duration(given or "24h"),
    ) -> None:
        """Make a bus of its own.

        Args:
            native: a kernel's; left out by programs, as is `limit`.
            principal: who publishes, as messages say.
            limit: seconds from the timeout of an operation.

        """
        self._native = native or _native.BusSpace(principal)
        self._limit = limit
        self._lock = threading.Lock()
        # Where coroutine handlers run whose subscriber has no event loop.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._subscriptions: weakref.WeakSet[Subscription] = weakref.WeakSet()
        # Those that have handlers live until they are closed.
        self._served: list[Subscription] = []
        # What carries messages of its streams away: it needs the streams until it is closed.
        self._companions = Companions()

    @property
    def promises(self) -> Promises:
        """What it and its streams promise, beside what brokers do."""
        return KERNEL

    def publish(  # noqa: PLR0913 - each field of a message is one
        self,
        subject: str,
        data: Buffer = b"",
        *,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        schema: str | None = None,
        priority: int = 0,
        correlation_id: str | None = None,
        timeout: Duration | None = None,
    ) -> Published:
        """Give a message to everyone who subscribes to its subject.

        Waits for those that have no room and whose policy is to hold the publisher back; by then
        the others have it.

        Args:
            subject: 1 to 255 bytes of tokens joined by dots, without wildcards.
            data: the content; any contiguous buffer up to 1 MiB.
            headers: names and values, 64 KiB together.
            key: messages with the same key are handled in order.
            schema: how the data is to be read.
            priority: 0 to 255, for filters.
            correlation_id: 32 hexadecimal digits that tie it to an operation.
            timeout: how long to wait for room; None waits for ever.

        Returns:
            How many it matched, took it, and dropped something.

        Raises:
            Full: `bus.full`: somebody did not take it in time; the detail `subscribers` names them.
            Invalid: `bus.subject`, `bus.message_size`; nobody has it.
            State: `bus.closed`, `bus.forked`.

        """
        plain = None if headers is None else dict(headers)
        return Published(
            *self._native.publish(
                subject, data, plain, key, schema, priority, correlation_id, timeout
            )
        )

    def publish_many(
        self, messages: Iterable[Sequence[Any]], *, timeout: Duration | None = None
    ) -> Published:
        """Publish `(subject, data)` or `(subject, data, headers)`, in order; cheaper than singly.

        Args:
            messages: an iterable of them.
            timeout: how long to wait for room, altogether; None waits for ever.

        Returns:
            The sums of what `publish` returns.

        Raises:
            As `publish`; with `bus.message_size` nobody has any.

        """
        return Published(*self._native.publish_many(messages, timeout))

    def publish_and_wait(
        self,
        subject: str,
        data: Buffer = b"",
        *,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        timeout: Duration | None = _REQUEST_TIMEOUT,
    ) -> Outcome:
        """Publish a message and wait until every subscription has handled it, or failed to.

        Args:
            subject: as in `publish`.
            data: the content.
            headers: names and values.
            key: messages with the same key are handled in order.
            timeout: how long to wait; None waits for ever.

        Returns:
            How many handled it, and who failed. A handler's failure is no error of this call.

        Raises:
            Timeout: `bus.timeout`; the detail `subscribers` names those that are late.
            Invalid, State: as `publish`.

        """
        plain = None if headers is None else dict(headers)
        counts, handled, failures = self._native.publish_and_wait(
            subject, data, plain, key, timeout=timeout
        )
        return Outcome(Published(*counts), handled, [Failure(*failure) for failure in failures])

    def request(
        self,
        subject: str,
        data: Buffer = b"",
        *,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        timeout: Duration | None = _REQUEST_TIMEOUT,
    ) -> Message:
        """Ask, and return the first answer: what a handler returns or gives to `message.reply`.

        Args:
            subject: whom to ask, as in `publish`.
            data: the question.
            headers: names and values.
            key: messages with the same key are handled in order.
            timeout: how long to wait; None waits for ever.

        Returns:
            The answer; its content is `.data`.

        Raises:
            Unavailable: `bus.no_responder`, at once, if nobody subscribes.
            Timeout: `bus.timeout`.
            Internal: `bus.handler` if all that were asked failed.
            Full: `bus.full` if nobody had room.
            Invalid, State: as `publish`.

        """
        plain = None if headers is None else dict(headers)
        return self._native.request(subject, data, plain, key, timeout=timeout)

    async def apublish(self, subject: str, data: Buffer = b"", **fields: Any) -> Published:
        """Do `publish` without holding the event loop up; it takes the same arguments."""
        try:
            return self.publish(subject, data, **{**fields, "timeout": 0})
        except errors.Full as error:
            if error.code != "bus.full" or fields.get("timeout") == 0:
                raise
        from dwkernel._queue_threads import run  # noqa: PLC0415 - threads alone do not need it

        return await run(lambda: self.publish(subject, data, **fields))

    async def arequest(self, subject: str, data: Buffer = b"", **fields: Any) -> Message:
        """Do `request` without holding the event loop up; it takes the same arguments."""
        from dwkernel._queue_threads import run  # noqa: PLC0415 - threads alone do not need it

        return await run(lambda: self.request(subject, data, **fields))

    def subscribe(  # noqa: PLR0913 - each option stands alone
        self,
        pattern: str,
        handler: Handler | None = None,
        *,
        filter: str | Callable[[Message], bool] | None = None,  # noqa: A002 - the field's word
        name: str | None = None,
        group: str | None = None,
        policy: Policy = "block",
        limit: int = 10_000,
        limit_bytes: Size = "64 MiB",
        workers: int = 1,
        spill_directory: str | os.PathLike[str] | None = None,
        spill_limit: Size = "1 GiB",
        on_error: Callable[[Message, BaseException], object] | None = None,
    ) -> Subscription:
        """Subscribe to what matches `pattern`: every message that is published after this.

        Args:
            pattern: tokens joined by dots; `*` stands for one, a last `>` for one and more.
            handler: called with each message, on a thread of its own; a coroutine function runs on
                the event loop that subscribes, or on one of the bus's. What it returns answers
                whoever asked. Left out, messages are pulled.
            filter: only messages for which this holds: an expression such as
                `"headers.unit == 'C' and size < 1 KiB"`, evaluated while publishing; or a function
                of the message, called before the handler.
            name: its name in errors and statistics; by default the pattern.
            group: of the subscriptions of a group one gets each message.
            policy: without room, `"block"` makes the publisher wait, `"drop_oldest"` and
                `"drop_newest"` drop, `"spill"` goes on in a file.
            limit: messages that wait at most, 1 to 2^24.
            limit_bytes: about how many bytes they take at most.
            workers: handlers that run at the same time, 1 to 256.
            spill_directory: where the file of `"spill"` is made; it has no name and ends with the
                subscription. By default the system's directory for temporary files.
            spill_limit: how long that file may become.
            on_error: called with a message and what its handler raised; by default it is logged.

        Returns:
            The subscription.

        Raises:
            Invalid: `bus.pattern`, `bus.filter`, `queue.capacity`, `store.option`, `unit.invalid`.
            State: `bus.closed`, `bus.forked`.

        """
        expression = filter if isinstance(filter, str) else None
        native = self._native.subscribe(
            pattern,
            name=name,
            filter=expression,
            group=group,
            policy=policy,
            messages_max=limit,
            bytes_max=parse_size(limit_bytes),
            workers=workers,
            spill_directory=os.fspath(spill_directory or tempfile.gettempdir()),
            spill_bytes_max=parse_size(spill_limit),
        )
        where = filter if callable(filter) else None
        subscription = Subscription(native, where, on_error)
        with self._lock:
            self._subscriptions.add(subscription)
        if handler is not None:
            loop = self._loop_of_caller() if inspect.iscoroutinefunction(handler) else None
            subscription.serve(handler, loop)
            with self._lock:
                alive = [kept for kept in self._served if kept.is_served]
                self._served = [*alive, subscription]
        return subscription

    def stream(  # noqa: PLR0913 - each option stands alone
        self,
        name: str,
        *,
        subjects: Iterable[str] = (),
        max_age: Duration | None = None,
        max_bytes: Size | None = None,
        max_messages: int | None = None,
        discard: Literal["old", "new"] = "old",
        retention: Literal["limits", "interest", "work_queue"] = "limits",
        keep_last_per_key: bool = False,
        duplicate_window: Duration = "2min",
        create: bool | Literal["if_missing"] = False,
    ) -> Stream:
        """Return a durable stream of the store, or make one.

        Args:
            name: 1 to 128 characters from a-z, A-Z, 0-9, `-` and `_`.
            subjects: patterns of the subjects that it takes, 1 to 256; for a new one.
            max_age: messages go when they are older.
            max_bytes: the oldest go when they are more than so many bytes.
            max_messages: the oldest go when they are more.
            discard: at `max_bytes` or `max_messages` the `"old"` go, or `"new"` ones are refused.
            retention: what else lets them go: `"limits"`: nothing; `"interest"` and `"work_queue"`:
                that all consumers have done them.
            keep_last_per_key: older messages of the same key go.
            duplicate_window: for so long a `message_id` is taken once, up to a day.
            create: False finds, True makes and refuses one that is there, `"if_missing"` does
                whichever fits.

        Raises:
            NotFound: `stream.not_found`
            Exists: `stream.exists`
            Invalid: `stream.name`, `stream.option`, `bus.pattern`, `unit.invalid`
            Unsupported: `stream.no_store`: this bus belongs to no store
            State: `store.closed`

        """
        from dwkernel.bus.stream import Stream, options_of  # noqa: PLC0415 - only who keeps them

        streams, limit = _native.BusStreams(self._native), self._limit
        if create is not True:
            try:
                return Stream(streams.get(limit(None), name), limit, self._companions)
            except errors.NotFound:
                if not create:
                    raise
        options = options_of(
            subjects=subjects,
            max_age=max_age,
            max_bytes=max_bytes,
            max_messages=max_messages,
            discard=discard,
            retention=retention,
            keep_last_per_key=keep_last_per_key,
            duplicate_window=duplicate_window,
        )
        try:
            return Stream(streams.create(limit(None), name, options), limit, self._companions)
        except errors.Exists:
            if create is True:
                raise
            # Somebody else made it in this moment.
            return Stream(streams.get(limit(None), name), limit, self._companions)

    def streams(self) -> list[Stream]:
        """Return all streams of the store's tenant, by name.

        Raises:
            Unsupported: `stream.no_store`
            State: `store.closed`

        """
        from dwkernel.bus.stream import Stream  # noqa: PLC0415 - only who keeps them

        found = _native.BusStreams(self._native).list(self._limit(None))
        return [Stream(native, self._limit, self._companions) for native in found]

    def delete_stream(self, name: str, *, timeout: Duration | None = None) -> None:
        """Delete a stream and its messages.

        Raises:
            NotFound: `stream.not_found`
            Timeout: `context.deadline`
            Unsupported: `stream.no_store`

        """
        _native.BusStreams(self._native).delete(self._limit(timeout), name)

    def group(self, *, timeout: Duration | None = None) -> Group:
        """Gather messages for any streams, and commit them when the `with` ends: all or none.

        Args:
            timeout: the deadline of the commit; by default that of the kernel's operations.

        Raises:
            Unsupported: `stream.no_store`

        """
        from dwkernel.bus.stream import Group  # noqa: PLC0415 - only who keeps them

        return Group(_native.BusStreams(self._native), self._limit, timeout)

    def stats(self) -> list[SubscriptionStats]:
        """Return what each subscription did and holds, by name."""
        with self._lock:
            subscriptions = list(self._subscriptions)
        return sorted((one.stats() for one in subscriptions), key=lambda one: one.name)

    def close(self, timeout: Duration | None = CLOSE_TIMEOUT) -> None:
        """Publish and subscribe nothing more, and wait until handlers have what waits behind them.

        Sinks of its streams are closed first.

        Args:
            timeout: how long to wait for handlers; those that take longer go on by themselves.

        Raises:
            Timeout: `bus.timeout` if handlers still run; it is closed all the same.

        """
        end = None if timeout is None else time.monotonic() + parse_duration(timeout)
        late = self._companions.close(None if timeout is None else parse_duration(timeout))
        self._native.close(None if end is None else max(0.0, end - time.monotonic()))
        for subscription in list(self._served):
            try:
                subscription.close(None if end is None else max(0.0, end - time.monotonic()))
            except errors.Timeout:
                late.append(subscription.name)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
        if late:
            text = f"handlers still run: {', '.join(late)}"
            raise errors.new("bus.timeout", text, subscribers=",".join(late))

    def _loop_of_caller(self) -> asyncio.AbstractEventLoop:
        import asyncio  # noqa: PLC0415 - threads alone do not need it

        with contextlib.suppress(RuntimeError):
            return asyncio.get_running_loop()
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                arguments = (self._loop,)
                name = "dwk-bus-loop"
                threading.Thread(target=_run_loop, args=arguments, name=name, daemon=True).start()
            return self._loop

    def __repr__(self) -> str:
        """Return how many subscribe."""
        return f"<Bus with {len(self._subscriptions)} subscriptions>"


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()
