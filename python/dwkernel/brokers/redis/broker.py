"""A bus on a Redis."""

from __future__ import annotations

import contextlib
import inspect
import json
import secrets
import threading
import time
from typing import TYPE_CHECKING, Any, Literal

from dwkernel import errors
from dwkernel._closing import Closing
from dwkernel.brokers.fields import Outgoing, batch_of
from dwkernel.brokers.redis import faults
from dwkernel.brokers.redis.client import Client
from dwkernel.brokers.redis.fields import packed
from dwkernel.brokers.redis.group import RedisGroup
from dwkernel.brokers.redis.link import Link
from dwkernel.brokers.redis.nodes import Nodes
from dwkernel.brokers.redis.server import Server
from dwkernel.brokers.redis.settings import kept_of_stream
from dwkernel.brokers.redis.stream import RedisStream
from dwkernel.brokers.redis.topics import Topics
from dwkernel.brokers.settings import StreamSettings, check_name, refuse
from dwkernel.brokers.subjects import check_pattern
from dwkernel.brokers.subscription import BrokerSubscription
from dwkernel.units import Duration, Size, parse_duration

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from typing_extensions import Buffer

    from dwkernel.brokers.message import Message
    from dwkernel.brokers.options import ConnectOptions
    from dwkernel.bus.promises import Promises

__all__ = ["RedisBroker"]

_DELETE_TRIES = 16


class RedisBroker(Closing):
    """Topics on channels, and streams beside them, for programs on several machines.

    It connects again by itself. Threads may share it; it does not cross a fork (`bus.forked`).
    """

    def __init__(self, url: str, options: ConnectOptions) -> None:
        """Made by `dwkernel.brokers.connect`.

        Raises:
            Invalid: `broker.url`
            Unavailable: `broker.lost`
            Denied: `broker.denied`
            Unsupported: `broker.unsupported`: an option that is not for Redis, an old server

        """
        if options.credentials is not None or options.tls is not None:
            text = "credentials= and tls= are not for Redis: write redis(s)://user:password@host"
            text += ":port?ssl_ca_certs=file"
            raise errors.new("broker.unsupported", text, option="credentials")
        self._options = options
        self._link = Link(url, options)
        try:
            self._server = Server.of(self._link, options.connect_timeout_s)
            self._nodes = Nodes(self._link, is_cluster=self._server.is_cluster)
        except BaseException:
            self._link.close()
            raise
        self._client = Client(self._nodes, options, self._server.promises(options.replicas))
        self._topics = Topics(self._client)
        self._lock = threading.Lock()
        self._subscriptions: list[BrokerSubscription] = []
        # Where coroutine handlers run whose subscriber has no event loop.
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def url(self) -> str:
        """Where it is, without credentials."""
        return self._link.shown

    @property
    def is_connected(self) -> bool:
        """Whether the server answered last time it was asked."""
        return self._link.is_connected

    @property
    def promises(self) -> Promises:
        """What the server promises as it was set up when it was connected to."""
        return self._client.promises

    # --- Topics -----------------------------------------------------------------------------------

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
    ) -> int:
        """Give a message to everyone who listens to its subject: at most once.

        Args:
            subject: as `dwkernel.bus.Bus.publish` takes it, with the other fields.
            data: the content.
            headers: names and values.
            key: messages with the same key belong together.
            schema: how the data is to be read.
            priority: 0 to 255.
            correlation_id: 32 hexadecimal digits.
            timeout: the deadline.

        Returns:
            How many connections listen to its channel, or to its beginning: no less than have it.

        Raises:
            Invalid: `bus.subject`, `bus.message_size`, `stream.option`
            Denied: `broker.denied`
            Unavailable: `broker.lost`; it is not sent again
            State: `bus.closed`, `bus.forked`

        """
        one = Outgoing.of(subject, data, headers, key, schema, priority, correlation_id)
        return self._send([one], self._client.limit(timeout))

    def publish_many(
        self, messages: Iterable[Sequence[Any]], *, timeout: Duration | None = None
    ) -> int:
        """Publish `(subject, data)` or `(subject, data, headers)`, in order; cheaper than singly.

        Returns:
            The sum of what `publish` returns.

        Raises:
            As `publish`.

        """
        batch = batch_of(messages)
        return self._send(batch, self._client.limit(timeout)) if batch else 0

    def _send(self, batch: list[Outgoing], limit_s: float, reply_to: str | None = None) -> int:
        principal = self._options.principal
        channel = self._client.keys.channel
        commands = [
            ("PUBLISH", channel(one.subject), packed(one, principal, reply_to)) for one in batch
        ]
        total = 0
        for answer in self._nodes.send(commands, limit_s):
            if isinstance(answer, BaseException):
                raise faults.refusal(answer) from answer
            total += int(answer)
        return total

    async def apublish(self, subject: str, data: Buffer = b"", **fields: Any) -> int:
        """Do `publish` without holding the event loop up; it takes the same arguments."""
        from dwkernel._queue_threads import run  # noqa: PLC0415 - threads alone do not need it

        return await run(lambda: self.publish(subject, data, **fields))

    def request(
        self,
        subject: str,
        data: Buffer = b"",
        *,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        timeout: Duration | None = "30s",
    ) -> Message:
        """Ask, and return the first answer.

        Raises:
            Unavailable: `bus.no_responder` if nobody listens, `broker.lost`
            Timeout: `bus.timeout`
            Invalid, State: as `publish`

        """
        one = Outgoing.of(subject, data, headers, key)
        limit_s = None if timeout is None else parse_duration(timeout)
        sending_s = self._client.limit(limit_s)
        return self._topics.ask(lambda place: self._send([one], sending_s, place), subject, limit_s)

    async def arequest(self, subject: str, data: Buffer = b"", **fields: Any) -> Message:
        """Do `request` without holding the event loop up; it takes the same arguments."""
        from dwkernel._queue_threads import run  # noqa: PLC0415 - threads alone do not need it

        return await run(lambda: self.request(subject, data, **fields))

    def subscribe(
        self,
        pattern: str,
        handler: Callable[[Any], Any] | None = None,
        *,
        name: str | None = None,
        group: str | None = None,
        limit: int = 10_000,
        on_error: Callable[[Any, BaseException], object] | None = None,
    ) -> BrokerSubscription:
        """Subscribe to what matches `pattern`: what is published after this returned.

        Args:
            pattern: tokens joined by dots; `*` stands for one, a last `>` for one and more.
            handler: called with each message, on a thread of its own; a coroutine function runs on
                the event loop that subscribes, or on one of the bus's. Left out, messages are
                pulled.
            name: its name; by default the pattern.
            group: refused, see `promises.groups`.
            limit: so many messages wait at most; what comes then is dropped and counted.
            on_error: called with a message and what its handler raised; by default it is logged.

        Raises:
            Invalid: `bus.pattern`, `queue.capacity`
            Unsupported: `broker.unsupported`
            Denied: `broker.denied`
            Unavailable: `broker.lost`
            State: `bus.closed`, `bus.forked`

        """
        check_pattern(pattern)
        if group is not None:
            refuse(self.promises.groups, "group")
        self._link.check()
        leave: list[Callable[[], None]] = []

        def unsubscribe() -> None:
            leave[0]()
            with self._lock:
                if subscription in self._subscriptions:
                    self._subscriptions.remove(subscription)

        subscription = BrokerSubscription(pattern, name, limit, unsubscribe, self._link.check_fork)
        leave.append(self._topics.listen(pattern, subscription.put, self._client.limit(None)))
        with self._lock:
            self._subscriptions.append(subscription)
        if handler is not None:
            loop = self._loop_of_caller() if inspect.iscoroutinefunction(handler) else None
            subscription.serve(handler, on_error, loop)
        return subscription

    # --- Streams ----------------------------------------------------------------------------------

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
    ) -> RedisStream:
        """Return a stream, or make one; see `dwkernel.bus.Bus.stream`.

        Raises:
            NotFound: `stream.not_found`
            Exists: `stream.exists`
            Invalid: `stream.name`, `stream.option`, `bus.pattern`, `unit.invalid`
            Unsupported: `broker.unsupported`: the server throws keys away when its memory is full
            Unavailable: `broker.lost`
            State: `bus.closed`, `bus.forked`

        """
        check_name(name)
        self._server.check_policy()
        if create is not True:
            found = self._find([name])
            if found:
                return found[0]
            if not create:
                raise errors.new("stream.not_found", f"there is no stream {name}")
        settings = StreamSettings.of(
            name,
            subjects=subjects,
            max_age=max_age,
            max_bytes=max_bytes,
            max_messages=max_messages,
            discard=discard,
            retention=retention,
            keep_last_per_key=keep_last_per_key,
            duplicate_window=duplicate_window,
        )
        settings.refuse_beyond(self.promises)
        uid = secrets.token_hex(8)
        keys, limit_s = self._client.keys, self._client.limit(None)
        # Noted first: a name without a stream is passed over, a stream without a name not found.
        self._ask(keys.streams, [("SADD", keys.streams, name)])
        arguments = [uid, *kept_of_stream(settings)]
        answer = self._client.run("stream_create", keys.stream(name), arguments, limit_s)
        if answer[0] == b"ok":
            return RedisStream(self._client, name, uid, list(settings.subjects))
        found = self._find([name]) if create == "if_missing" else []
        if not found:
            raise faults.failed(answer[0].decode(), f"the stream {name}", [])
        # Somebody else made it in this moment.
        return found[0]

    def _ask(self, key: str, commands: list[tuple[Any, ...]]) -> list[Any]:
        answers = self._nodes.ask(key, commands, self._client.limit(None))
        for one in answers:
            if isinstance(one, BaseException):
                raise faults.refusal(one) from one
        return answers

    def _find(self, names: Sequence[str]) -> list[RedisStream]:
        infos = [self._client.keys.stream(name)[0] for name in names]
        commands: list[tuple[Any, ...]] = [("HMGET", info, "uid", "subjects") for info in infos]
        if self._server.is_cluster:
            # Each may lie elsewhere.
            places = zip(infos, commands, strict=True)
            answers = [self._ask(info, [command])[0] for info, command in places]
        else:
            answers = self._ask(infos[0], commands)
        return [
            RedisStream(self._client, name, uid.decode(), json.loads(subjects))
            for name, (uid, subjects) in zip(names, answers, strict=True)
            if uid is not None
        ]

    def streams(self) -> list[RedisStream]:
        """Return all streams of the tenant, by name."""
        registry = self._client.keys.streams
        (names,) = self._ask(registry, [("SMEMBERS", registry)])
        found = sorted(name.decode() for name in names)
        return self._find(found) if found else []

    def delete_stream(self, name: str, *, timeout: Duration | None = None) -> None:
        """Delete a stream, its messages and its consumers.

        Raises:
            NotFound: `stream.not_found`
            Unavailable: `broker.lost`

        """
        check_name(name)
        end = time.monotonic() + self._client.limit(timeout)
        stream = self.stream(name)
        keys = self._client.keys
        for _ in range(_DELETE_TRIES):
            consumers = sorted(one.name.encode() for one in stream.consumers())
            names = [one.decode() for one in consumers]
            all_keys = keys.stream(name) + [
                key for one in names for key in keys.consumer(name, one)
            ]
            left_s = max(0.001, end - time.monotonic())
            answer = self._client.run("stream_delete", all_keys, [stream.uid, *names], left_s)
            if answer[0] != b"again":
                break
        # Not found: somebody else deleted it in this moment, or an attempt that seemed lost did.
        if answer[0] == b"again":
            raise errors.new("broker.failed", f"consumers of {name} are made all the time")
        self._ask(keys.streams, [("SREM", keys.streams, name)])

    def group(self, *, timeout: Duration | None = None) -> RedisGroup:
        """Gather messages for any streams, and publish them when the `with` ends: all or none.

        On a cluster one stream has to take them all: each lies in a slot of its own.
        """
        self._link.check()
        return RedisGroup(self._client, self.streams, timeout)

    # --- The end ----------------------------------------------------------------------------------

    def close(self, timeout: Duration | None = "30s") -> None:
        """Publish and subscribe nothing more, and wait until handlers have what waits behind them.

        Args:
            timeout: how long to wait for handlers; those that take longer go on by themselves.

        Raises:
            Timeout: `bus.timeout` if handlers still run; it is closed all the same.

        """
        end = None if timeout is None else time.monotonic() + parse_duration(timeout)
        with self._lock:
            subscriptions, self._subscriptions = self._subscriptions, []
        late = []
        for subscription in subscriptions:
            try:
                subscription.close(None if end is None else max(0.0, end - time.monotonic()))
            except errors.Timeout:
                late.append(subscription.name)
        self._nodes.close()
        self._topics.close()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._loop = None
        if late:
            raise errors.new("bus.timeout", f"handlers still run: {', '.join(late)}")

    def _loop_of_caller(self) -> asyncio.AbstractEventLoop:
        import asyncio  # noqa: PLC0415 - threads alone do not need it

        with contextlib.suppress(RuntimeError):
            return asyncio.get_running_loop()
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                arguments = (self._loop,)
                name = "dwk-redis-loop"
                threading.Thread(target=_run_loop, args=arguments, name=name, daemon=True).start()
            return self._loop

    def __repr__(self) -> str:
        """Return where it is."""
        return f"<RedisBroker at {self.url}>"


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()
