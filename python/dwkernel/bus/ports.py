"""What a program uses of a bus and its streams, whoever keeps them: a store, NATS or Redis.

A function that takes a `ports.Stream` works with a stream of a store and with one on a broker.
`bus.promises` says what the one at hand keeps; what it cannot do is refused where it is asked for
(`broker.unsupported`), never left out in silence.

>>> from dwkernel.bus import Bus, ports
>>> def ask(bus: ports.Bus) -> bytes:
...     return bus.request("svc.echo", b"hello", timeout="5s").data
>>> with Bus() as bus:
...     echo = bus.subscribe("svc.echo", lambda message: message.data)
...     ask(bus)
b'hello'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, runtime_checkable

from dwkernel.bus.promises import Promise, Promises

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime
    from types import TracebackType

    from typing_extensions import Buffer

    from dwkernel.units import Duration, Size

__all__ = [
    "Bus",
    "Consumer",
    "ConsumerStatus",
    "DeadLetter",
    "Group",
    "Message",
    "Promise",
    "Promises",
    "Routed",
    "Stream",
    "StreamStatus",
    "Subscription",
]


@runtime_checkable
class Message(Protocol):
    """A message, as `dwkernel.bus.Message` describes it."""

    @property
    def subject(self) -> str:
        """What it is about."""

    @property
    def data(self) -> bytes:
        """Its content."""

    @property
    def headers(self) -> dict[str, str]:
        """Its headers by name."""

    @property
    def id(self) -> str:
        """Its identity."""

    @property
    def correlation_id(self) -> str | None:
        """Ties it to the operation that it belongs to."""

    @property
    def principal(self) -> str | None:
        """Who published it, as the publisher says."""

    @property
    def tenant(self) -> str | None:
        """In whose namespace."""

    @property
    def sequence(self) -> int | None:
        """Its number in the stream, from 1; None outside of one."""

    @property
    def published_ns(self) -> int:
        """When it was published (in a stream: committed), in nanoseconds since 1970."""

    @property
    def published_at(self) -> datetime:
        """The same in UTC, to the microsecond."""

    @property
    def key(self) -> str | None:
        """Messages with the same key belong together."""

    @property
    def schema(self) -> str | None:
        """How the data is to be read."""

    @property
    def priority(self) -> int:
        """From 0 to 255."""

    @property
    def reply_to(self) -> str | None:
        """Where an answer is expected."""

    @property
    def deliveries(self) -> int | None:
        """How often a consumer has delivered it, this time included."""

    def ack(self, *, durable: bool = False) -> None:
        """Say that it is done; `stream.ack` if this delivery is over."""

    def nak(self, delay: Duration | None = None) -> None:
        """Give it back: it comes again after `delay`, or the consumer's backoff."""

    def term(self, why: str = "") -> None:
        """Give it up: it becomes a dead letter."""

    def in_progress(self) -> None:
        """Begin `ack_wait` anew."""

    def reply(self, data: Buffer) -> bool:
        """Answer a question; False if it was none."""


class Subscription(Protocol):
    """Messages that match a pattern: handled on threads, or pulled."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def pattern(self) -> str:
        """Its pattern."""

    def next(self, timeout: Duration | None = None) -> Message | None:
        """Return the next message; None if there is none in time."""

    def fetch(self, limit: int, timeout: Duration | None = None) -> Sequence[Message]:
        """Return up to `limit` messages as soon as there is one."""

    async def anext(self) -> Message:
        """Return the next message; to be awaited."""

    def close(self, timeout: Duration | None = "30s") -> None:
        """Take in no more, and wait until what waits is handled."""

    def __iter__(self) -> Iterator[Message]:
        """Yield messages until it is closed and empty."""


class StreamStatus(Protocol):
    """What a stream holds; each has more to say besides."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def subjects(self) -> list[str]:
        """Patterns of the subjects that it takes."""

    @property
    def first_sequence(self) -> int:
        """The first message that is there, or the next one."""

    @property
    def last_sequence(self) -> int:
        """The last message that was committed; 0 if there never was one."""

    @property
    def messages(self) -> int:
        """How many are there."""

    @property
    def bytes(self) -> int:
        """About how many bytes these are."""

    def to_dict(self) -> dict[str, Any]:
        """Return the figures by name."""


class ConsumerStatus(Protocol):
    """How a consumer stands; each has more to say besides."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def stream(self) -> str:
        """The stream's."""

    @property
    def lag(self) -> int:
        """Messages of the stream that it has not reached."""

    @property
    def pending(self) -> int:
        """Messages that are out and not acknowledged."""

    @property
    def scheduled(self) -> int:
        """Messages that wait to be delivered again, where that is told apart from `pending`."""

    @property
    def redelivered(self) -> int:
        """Messages, of these two, that were delivered more than once."""

    @property
    def floor_sequence(self) -> int:
        """Every message up to this number is done."""

    @property
    def delivered_sequence(self) -> int:
        """The highest number that was delivered."""

    @property
    def is_paused(self) -> bool:
        """Whether it hands nothing out."""

    def to_dict(self) -> dict[str, Any]:
        """Return the figures by name."""


class DeadLetter(Protocol):
    """A message that a consumer delivers no more."""

    @property
    def consumer(self) -> str:
        """The consumer's name."""

    @property
    def sequence(self) -> int:
        """The message's number."""

    @property
    def deliveries(self) -> int:
        """How often it was delivered."""

    @property
    def reason(self) -> str | None:
        """What `term` was given; None if it was delivered as often as it may be."""

    @property
    def history(self) -> list[tuple[int, str]]:
        """When its last deliveries ended (milliseconds since 1970), and how."""

    @property
    def message(self) -> Message | None:
        """The message; None if it is not there any more."""


class Routed(Protocol):
    """What became of a message of a group in one of the streams that took it."""

    @property
    def stream(self) -> str:
        """The stream's name."""

    @property
    def sequence(self) -> int:
        """Its number there."""

    @property
    def duplicate(self) -> bool:
        """Whether it was there before."""


class Consumer(Protocol):
    """A durable reader of a stream, under a name: at least once."""

    @property
    def name(self) -> str:
        """Its name."""

    def fetch(self, limit: int, timeout: Duration | None = None) -> Sequence[Message]:
        """Take up to `limit` messages as soon as there is one; none if there is none in time."""

    async def afetch(self, limit: int, timeout: Duration | None = None) -> Sequence[Message]:  # noqa: ASYNC109 - as `fetch`
        """Do `fetch` without holding the event loop up."""

    def __iter__(self) -> Iterator[Message]:
        """Yield messages one by one, for ever; the loop acknowledges them."""

    def flush(self) -> None:
        """Make every acknowledgement durable."""

    def pause(self) -> None:
        """Hand nothing out until `resume`."""

    def resume(self) -> None:
        """Hand out again."""

    def status(self) -> ConsumerStatus:
        """Return how it stands."""

    def dead_letters(self) -> Iterator[DeadLetter]:
        """Yield what it delivers no more, in the order of the stream."""

    def redrive(self, sequence: int | None = None) -> int:
        """Deliver dead letters again, their count from the beginning: all, or one."""


class Stream(Protocol):
    """Messages in the order in which they were committed, kept until limits let them go."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def subjects(self) -> list[str]:
        """Patterns of the subjects that it takes."""

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
        message_id: str | None = None,
        delay: Duration | None = None,
        at: datetime | None = None,
        timeout: Duration | None = None,
    ) -> int | None:
        """Commit a message; returns its number, None if it is due later."""

    def publish_many(
        self, messages: Iterable[Sequence[Any]], *, timeout: Duration | None = None
    ) -> list[int]:
        """Commit `(subject, data[, headers[, message_id]])` next to each other: all or none."""

    async def apublish(self, subject: str, data: Buffer = b"", **fields: Any) -> int | None:
        """Do `publish` without holding the event loop up."""

    def replay(
        self,
        from_sequence: int | None = None,
        from_time: datetime | None = None,
        *,
        follow: bool = False,
        idle: Duration | None = None,
        timeout: Duration | None = None,
    ) -> Iterator[Message]:
        """Yield messages in their order, from the first one that is there by default."""

    def consumer(  # noqa: PLR0913 - each option stands alone
        self,
        name: str,
        *,
        ack: Literal["explicit", "none", "all"] = "explicit",
        ack_wait: Duration = "30s",
        max_deliver: int | None = None,
        backoff: Iterable[Duration] = (),
        max_ack_pending: int = 1000,
        filter: str | None = None,  # noqa: A002 - the field's word
        subjects: Iterable[str] = (),
        start: Literal["first", "last", "new"] | int | datetime = "first",
        priority_window: int = 0,
        dead_letters: bool = True,
        inactive_after: Duration | None = None,
        create: bool | Literal["if_missing"] = False,
    ) -> Consumer:
        """Return a consumer, or make one."""

    def consumers(self) -> Sequence[Consumer]:
        """Return all consumers, by name."""

    def delete_consumer(self, name: str) -> None:
        """Delete a consumer and its dead letters."""

    def dead_letters(self) -> Iterator[DeadLetter]:
        """Yield what its consumers deliver no more, consumer by consumer."""

    def redrive(self) -> int:
        """Deliver all dead letters of all consumers again; returns how many there were."""

    def purge(
        self,
        up_to: int | None = None,
        *,
        subject: str | None = None,
        timeout: Duration | None = None,
    ) -> int:
        """Remove messages: all, all up to a number, or those whose subject matches a pattern."""

    def status(self) -> StreamStatus:
        """Return what it holds."""


class Group(Protocol):
    """Messages for any streams, committed together when the `with` ends: all of them or none."""

    @property
    def published(self) -> Sequence[Routed]:
        """What became of each in each stream that took it, after the end."""

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
        message_id: str | None = None,
    ) -> None:
        """Add a message, for every stream that takes its subject."""

    def __enter__(self) -> Self:
        """Return the group."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Commit what was added, unless the block raised."""


class Bus(Protocol):
    """Topics, and the streams beside them."""

    @property
    def promises(self) -> Promises:
        """What this one keeps."""

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
    ) -> object:
        """Give a message to everyone who subscribes to its subject; returns what is known of it."""

    def publish_many(
        self, messages: Iterable[Sequence[Any]], *, timeout: Duration | None = None
    ) -> object:
        """Publish `(subject, data)` or `(subject, data, headers)`, in order."""

    async def apublish(self, subject: str, data: Buffer = b"", **fields: Any) -> object:
        """Do `publish` without holding the event loop up."""

    def request(
        self,
        subject: str,
        data: Buffer = b"",
        *,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        timeout: Duration | None = "30s",
    ) -> Message:
        """Ask, and return the first answer."""

    async def arequest(self, subject: str, data: Buffer = b"", **fields: Any) -> Message:
        """Do `request` without holding the event loop up."""

    def subscribe(
        self,
        pattern: str,
        handler: Callable[[Any], Any] | None = None,
        *,
        name: str | None = None,
        group: str | None = None,
        limit: int = 10_000,
        on_error: Callable[[Any, BaseException], object] | None = None,
    ) -> Subscription:
        """Subscribe to what matches `pattern`; without a handler messages are pulled."""

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
        """Return a durable stream, or make one."""

    def streams(self) -> Sequence[Stream]:
        """Return all streams, by name."""

    def delete_stream(self, name: str, *, timeout: Duration | None = None) -> None:
        """Delete a stream and its messages."""

    def group(self, *, timeout: Duration | None = None) -> Group:
        """Gather messages for any streams, and commit them when the `with` ends: all or none."""

    def close(self, timeout: Duration | None = "30s") -> None:
        """Publish and subscribe nothing more, and wait until handlers have what waits."""
