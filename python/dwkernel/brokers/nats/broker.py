"""A bus that NATS keeps."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import re
import weakref
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from dwkernel import errors
from dwkernel._closing import Closing
from dwkernel._messages import padded
from dwkernel.brokers.fields import Outgoing
from dwkernel.brokers.nats.config import companion_of, stream_config
from dwkernel.brokers.nats.connection import Connection, NoResponders
from dwkernel.brokers.nats.headers import headers_of, message_of
from dwkernel.brokers.nats.loop import LoopThread
from dwkernel.brokers.nats.promises import promises_of
from dwkernel.brokers.nats.stream import NatsStream
from dwkernel.brokers.settings import StreamSettings, check_name, refuse
from dwkernel.brokers.subjects import check_pattern
from dwkernel.brokers.subscription import BrokerSubscription
from dwkernel.units import Duration, Size, parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from nats.aio.msg import Msg
    from typing_extensions import Buffer

    from dwkernel.brokers.message import Message
    from dwkernel.brokers.nats.connection import Listening
    from dwkernel.brokers.nats.consumer import NatsConsumer
    from dwkernel.brokers.options import ConnectOptions
    from dwkernel.bus.promises import Promises

__all__ = ["NatsBroker"]

# Streams of JetStream's own making, or of names that `check_name` refuses, are not listed.
_LISTED = re.compile(r"(?!KV_|OBJ_)[A-Za-z0-9_-]{1,128}")
_FAILED = "Dw-Error"


class NatsBroker(Closing):
    """Topics on NATS, and streams on JetStream beside them; see `dwkernel.bus.Bus`.

    Thread-safe. A connection that breaks is made again by itself, subscriptions and consumers go
    on; calls meanwhile fail with `broker.lost` when their time is over. Messages on topics are
    delivered at most once: those that are published while somebody is away are gone.
    """

    def __init__(self, url: str, options: ConnectOptions) -> None:
        """Connect; see `dwkernel.brokers.connect`."""
        self.connection = Connection(url, options)
        self._options = options
        self._subscriptions: weakref.WeakSet[BrokerSubscription] = weakref.WeakSet()
        self._served: list[BrokerSubscription] = []
        self._consumers: weakref.WeakSet[NatsConsumer] = weakref.WeakSet()
        # Where coroutine handlers run whose subscriber has no event loop.
        self._loop: LoopThread | None = None

    @property
    def url(self) -> str:
        """Where it is, without credentials."""
        return self.connection.url

    @property
    def is_connected(self) -> bool:
        """Whether the server answers at this moment, as far as is known."""
        return self.connection.is_connected

    @property
    def promises(self) -> Promises:
        """What it and its streams promise."""
        return promises_of(self.connection.max_payload, self._options.replicas)

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
    ) -> None:
        """Send a message to everyone who subscribes to its subject; who that is, nobody knows.

        Raises:
            Invalid: `bus.subject`, `bus.message_size`, `stream.option`, `buffer.type`
            Unavailable: `broker.lost`: there is no connection in time; nobody has it
            State: `bus.closed`, `bus.forked`

        """
        one = Outgoing.of(subject, data, headers, key, schema, priority, correlation_id)
        self.connection.call(functools.partial(self._send, [one]), timeout)

    def publish_many(
        self, messages: Iterable[Sequence[Any]], *, timeout: Duration | None = None
    ) -> None:
        """Publish `(subject, data)` or `(subject, data, headers)`, in order.

        Raises:
            As `publish`; of a wrong one among them nothing is sent.

        """
        batch = [Outgoing.of(*padded(message)) for message in messages]
        self.connection.call(functools.partial(self._send, batch), timeout)

    async def apublish(self, subject: str, data: Buffer = b"", **fields: Any) -> None:
        """Do `publish` without holding the event loop up; it takes the same arguments."""
        timeout = fields.pop("timeout", None)
        one = Outgoing.of(subject, data, **fields)
        await self.connection.call_async(functools.partial(self._send, [one]), timeout)

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
            Unavailable: `bus.no_responder`, at once, if nobody subscribes; `broker.lost`
            Timeout: `bus.timeout`
            Internal: `bus.handler`: the handler that was asked failed
            Invalid, State: as `publish`.

        """
        one = Outgoing.of(subject, data, headers, key)
        return self.connection.call(functools.partial(self._ask, one), timeout)

    async def arequest(self, subject: str, data: Buffer = b"", **fields: Any) -> Message:
        """Do `request` without holding the event loop up; it takes the same arguments."""
        timeout = fields.pop("timeout", "30s")
        one = Outgoing.of(subject, data, **fields)
        return await self.connection.call_async(functools.partial(self._ask, one), timeout)

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
        """Subscribe to what matches `pattern`: every message that the server gets after this.

        Args:
            pattern: tokens joined by dots; `*` stands for one, a last `>` for one and more.
            handler: called with each message, on a thread of its own; a coroutine function runs on
                the event loop that subscribes, or on one of the broker's. What it returns answers
                whoever asked. Left out, messages are pulled.
            name: its name in errors; by default the pattern.
            group: of the subscriptions of a group, on any machine, one gets each message.
            limit: messages that wait at most; what comes meanwhile is dropped and counted.
            on_error: called with a message and what its handler raised; by default it is logged.

        Raises:
            Invalid: `bus.pattern`, `queue.capacity`, `stream.option`: `group`
            Unavailable: `broker.lost`
            Denied: `broker.denied`
            State: `bus.closed`, `bus.forked`

        """
        check_pattern(pattern)
        if group is not None and (not group or any(one.isspace() for one in group)):
            raise errors.new("stream.option", "group: give a word without blanks", option="group")
        place: list[Listening] = []

        def unsubscribe() -> None:
            with contextlib.suppress(errors.DwError):
                self.connection.call(lambda _: self.connection.ignore(place[0]), 5)

        check = self.connection.check
        subscription = BrokerSubscription(pattern, name, limit, unsubscribe, check)
        put = functools.partial(self._put, weakref.ref(subscription))
        place.append(
            self.connection.call(
                lambda deadline: self.connection.listen(pattern, group or "", put, deadline)
            )
        )
        self._subscriptions.add(subscription)
        if handler is not None:
            loop = self._loop_of_caller() if inspect.iscoroutinefunction(handler) else None
            subscription.serve(handler, on_error, loop)
            self._served.append(subscription)
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
    ) -> NatsStream:
        """Return a stream, or make one; see `dwkernel.bus.Bus.stream`.

        Raises:
            NotFound: `stream.not_found`
            Exists: `stream.exists`
            Invalid: `stream.name`, `stream.option`, `bus.pattern`, `unit.invalid`
            Unsupported: `broker.unsupported`, with the detail `option`; or without JetStream
            Unavailable: `broker.lost`
            State: `bus.closed`, `bus.forked`

        """
        config: dict[str, Any] | None = None
        if create:
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
            config = stream_config(settings, self._options.replicas, self.promises)
        check_name(name)
        found = self.connection.call(
            lambda deadline: self._stream(name, config, deadline, is_new=create is True)
        )
        return NatsStream(self, found)

    def streams(self) -> list[NatsStream]:
        """Return all streams, by name; not those of key-value and object stores.

        Raises:
            Unavailable: `broker.lost`

        """
        return [NatsStream(self, one) for one in self.connection.call(self._streams)]

    def delete_stream(self, name: str, *, timeout: Duration | None = None) -> None:
        """Delete a stream, its messages and its dead letters.

        Raises:
            NotFound: `stream.not_found`
            Unavailable: `broker.lost`

        """
        check_name(name)
        self.connection.call(lambda deadline: self._delete(name, deadline), timeout)

    def group(self, *, timeout: Duration | None = None) -> NoReturn:  # noqa: ARG002 - of the port
        """Refuse: JetStream commits each message by itself.

        Raises:
            Unsupported: `broker.unsupported`

        """
        refuse(self.promises.atomic_groups, "group")
        raise AssertionError

    def close(self, timeout: Duration | None = "30s") -> None:
        """Take nothing more, wait for handlers, record acknowledgements, and disconnect.

        Args:
            timeout: how long to wait for handlers; those that take longer go on by themselves.

        Raises:
            Timeout: `bus.timeout` if handlers still run; it is closed all the same.

        """
        late: list[str] = []
        with contextlib.suppress(errors.State):
            self.connection.check()
            for subscription in list(self._subscriptions):
                try:
                    subscription.close(timeout)
                except errors.Timeout:
                    late.append(subscription.name)
            if self.is_connected:
                for consumer in list(self._consumers):
                    with contextlib.suppress(errors.DwError):
                        consumer.close()
        patience_s = 5.0 if timeout is None else min(5.0, parse_duration(timeout))
        self.connection.close(patience_s)
        if self._loop is not None:
            self._loop.close()
        if late:
            text = f"handlers still run: {', '.join(late)}"
            raise errors.new("bus.timeout", text, subscribers=",".join(late))

    def opened(self, consumer: NatsConsumer) -> None:
        """Remember a consumer until the broker is closed."""
        self._consumers.add(consumer)

    def __repr__(self) -> str:
        """Return where it is."""
        return f"<NatsBroker {self.url}>"

    def _loop_of_caller(self) -> asyncio.AbstractEventLoop:
        with contextlib.suppress(RuntimeError):
            return asyncio.get_running_loop()
        if self._loop is None:
            self._loop = LoopThread("dwk-nats-handlers")
        return self._loop.loop

    # --- on the loop's thread --------------------------------------------------------------------

    def _put(self, place: weakref.ref[BrokerSubscription], message: Msg) -> None:
        subscription = place()
        if subscription is None:
            return
        found = message_of(message.subject, message.data, message.headers)
        if message.reply:
            found.reply_to = message.reply
            found.answer = functools.partial(self._answer, message.reply)
            found.failed = functools.partial(self._fail, message.reply)
        subscription.put(found)

    def _answer(self, reply_to: str, data: bytes) -> bool:
        one = Outgoing(reply_to, data, {}, "")
        self.connection.call(functools.partial(self._send, [one]))
        return True

    def _fail(self, reply_to: str, why: str) -> None:
        """Tell who asks that the handler raised."""
        headers = {_FAILED: why.encode("ascii", "backslashreplace").decode()[:512]}
        self.connection.call(lambda end: self.connection.send(reply_to, b"", end, headers))

    async def _send(self, batch: list[Outgoing], deadline: float) -> None:
        for one in batch:
            headers = headers_of(one, self._options)
            await self.connection.send(one.subject, one.data, deadline, headers)

    async def _ask(self, one: Outgoing, deadline: float) -> Message:
        headers = headers_of(one, self._options)
        try:
            answer = await self.connection.request(one.subject, one.data, deadline, headers)
        except NoResponders:
            text = f"nobody subscribes to {one.subject}"
            raise errors.new("bus.no_responder", text) from None
        except errors.Unavailable as error:
            if isinstance(error.__context__, TimeoutError) and self.connection.is_connected:
                await self.connection.echo()
                text = f"no answer from {one.subject} in time"
                raise errors.new("bus.timeout", text) from None
            raise
        if answer.headers and _FAILED in answer.headers:
            raise errors.new("bus.handler", answer.headers[_FAILED])
        return message_of(answer.subject, answer.data, answer.headers)

    async def _stream(
        self, name: str, config: dict[str, Any] | None, deadline: float, *, is_new: bool
    ) -> dict[str, Any]:
        api = self.connection.api
        try:
            found = await api(f"STREAM.INFO.{name}", None, deadline)
        except errors.NotFound:
            if config is None:
                raise
            # What an older stream of this name left beside is not for this one.
            with contextlib.suppress(errors.NotFound):
                await api(f"STREAM.DELETE.{companion_of(name)}", None, deadline)
            return await api(f"STREAM.CREATE.{name}", config, deadline)
        if is_new:
            raise errors.new("stream.exists", f"stream {name}")
        return found

    async def _streams(self, deadline: float) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            page = await self.connection.api("STREAM.LIST", {"offset": len(found)}, deadline)
            found += page["streams"] or []
            if not page["streams"] or len(found) >= int(page["total"]):
                break
        listed = [one for one in found if _LISTED.fullmatch(one["config"]["name"])]
        return sorted(listed, key=lambda one: str(one["config"]["name"]))

    async def _delete(self, name: str, deadline: float) -> None:
        await self.connection.api(f"STREAM.DELETE.{name}", None, deadline)
        with contextlib.suppress(errors.NotFound):
            await self.connection.api(f"STREAM.DELETE.{companion_of(name)}", None, deadline)
