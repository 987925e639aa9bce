"""Durable streams: messages that are committed, and read again from anywhere.

>>> import dwkernel as dw
>>> drives = [f"memory://doc-stream-{n}" for n in range(3)]
>>> with dw.open(drives=drives, geometry="2+1", create=True) as kernel:
...     stream = kernel.bus.stream("orders", subjects=["orders.>"], create=True)
...     _ = stream.publish("orders.eu", b"1"), stream.publish("orders.us", b"2")
...     [(message.sequence, message.data) for message in stream.replay(from_sequence=1)]
[(1, b'1'), (2, b'2')]
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from dwkernel import errors
from dwkernel._messages import due_s, filled, padded, unix_ns
from dwkernel._native import BusConsumer
from dwkernel.bus.consumer import Consumer
from dwkernel.bus.settings import StreamSettings
from dwkernel.units import Duration, Size, parse_duration, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime
    from types import TracebackType

    from typing_extensions import Buffer

    from dwkernel._closing import Companions
    from dwkernel._native import BusStream, BusStreams, Message
    from dwkernel.bus.consumer import DeadLetter

__all__ = ["Group", "Routed", "Stream", "StreamStatus"]

# What a replay asks for at a time.
_READ_MESSAGES = 1000
_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class StreamStatus:
    """What a stream holds.

    Attributes:
        name: its name.
        subjects: patterns of the subjects that it takes.
        first_sequence: the first message that is there, or the next one if there is none.
        last_sequence: the last message that was committed; 0 if there never was one.
        messages: how many are there.
        bytes: about how many bytes these are.
        frames: rows with messages that were committed together and are not merged yet.
        blocks: rows with merged messages.
        window_ids: how many message ids are remembered.
        window_is_short: True if ids were forgotten within their window: there were too many.
        failure: why merging or removing failed last, if it did.
        delayed: messages that are not due yet.
        next_due_unix_ns: when the first of them is due, in nanoseconds since 1970.

    """

    name: str
    subjects: list[str]
    first_sequence: int
    last_sequence: int
    messages: int
    bytes: int
    frames: int
    blocks: int
    window_ids: int
    window_is_short: bool
    failure: str | None
    delayed: int = 0
    next_due_unix_ns: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the figures by name."""
        return asdict(self)


class Routed(NamedTuple):
    """What became of a message of a group in one of the streams that took it."""

    stream: str
    sequence: int
    duplicate: bool


class Stream:
    """Messages in the order in which they were committed, kept until limits let them go.

    A publish returns when its message is as durable as any put: on more drives than may fail. Many
    threads that publish at the same time share commits. Sequence numbers start at 1, rise by one
    with each message, and are never given twice.
    """

    def __init__(
        self,
        native: BusStream,
        limit: Callable[[Duration | None], float],
        companions: Companions | None = None,
    ) -> None:
        """Made by `Bus.stream`."""
        self._native = native
        self._limit = limit
        self._companions = companions

    @property
    def name(self) -> str:
        """Its name."""
        return self._native.name

    @property
    def subjects(self) -> list[str]:
        """Patterns of the subjects that it takes."""
        return self._native.subjects

    @property
    def settings(self) -> StreamSettings:
        """What it was made with, besides its subjects."""
        return StreamSettings(**self._native.config())

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
        """Commit a message.

        Args:
            subject: one that the stream takes.
            data: the content; any contiguous buffer up to 1 MiB.
            headers: names and values, 64 KiB together.
            key: for compaction by key.
            schema: how the data is to be read.
            priority: 0 to 255.
            correlation_id: 32 hexadecimal digits that tie it to an operation.
            message_id: 1 to 255 bytes; within the stream's `duplicate_window` a message with the
                same id is taken once, and the first one's number returned.
            delay: it is durable at once, and in the stream after so long.
            at: the same, at that time (with its time zone); one that has passed is now.
            timeout: the deadline; by default that of the kernel's operations.

        Returns:
            Its sequence number; None with `delay` or `at`.

        Raises:
            Invalid: `stream.subject`, `bus.subject`, `bus.message_size`, `stream.option`
            Full: `stream.full`, `pool.full`, `drive.full`; it was not taken
            NotFound: `stream.not_found`: it was deleted meanwhile
            Timeout: `context.deadline`; with the detail `outcome` (`unknown`) it may be there later
            State: `store.closed`, `bus.closed`, `bus.forked`

        """
        one = filled(subject, data, headers, key, schema, priority, correlation_id, message_id)
        due = due_s(delay, at)
        if due is not None:
            self._native.publish_later(self._limit(timeout), [one], due)
            return None
        return self._native.publish(self._limit(timeout), [one])[0][0]

    def publish_many(
        self, messages: Iterable[Sequence[Any]], *, timeout: Duration | None = None
    ) -> list[int]:
        """Commit messages next to each other and in one commit: all of them or none.

        Args:
            messages: `(subject, data)`, `(subject, data, headers)` or `(subject, data, headers,
                message_id)` each, or all eight fields: `(subject, data, headers, key, schema,
                priority, correlation_id, message_id)`; at most 1,024 and few enough bytes for one
                commit.
            timeout: the deadline; by default that of the kernel's operations.

        Returns:
            Their sequence numbers.

        Raises:
            As `publish`; `stream.option` if there are too many.

        """
        return [one[0] for one in self._native.publish(self._limit(timeout), map(padded, messages))]

    async def apublish(self, subject: str, data: Buffer = b"", **fields: Any) -> int | None:
        """Do `publish` without holding the event loop up; it takes the same arguments.

        Tasks that publish at the same time share commits, as threads do, for less. Messages take
        their places in the order of the calls. Cancelled before it is on its way one is taken back;
        later it may be there or not.
        """
        if sys.platform == "win32" or "delay" in fields or "at" in fields:
            from dwkernel._queue_threads import run  # noqa: PLC0415 - threads alone do not need it

            return await run(lambda: self.publish(subject, data, **fields))
        from dwkernel._waiting import published  # noqa: PLC0415 - the same

        limit_s = self._limit(fields.pop("timeout", None))
        one = filled(subject, data, **fields)
        return (await published(self._native.publish_async(limit_s, [one]), limit_s))[0][0]

    def replay(
        self,
        from_sequence: int | None = None,
        from_time: datetime | None = None,
        *,
        follow: bool = False,
        idle: Duration | None = None,
        timeout: Duration | None = None,
    ) -> Iterator[Message]:
        """Yield messages in their order, from the first one that is there by default.

        Args:
            from_sequence: begin with this number, or the next one that is there.
            from_time: begin with the first one that was committed then or later.
            follow: go on with what is committed later, until the stream ends or the loop is left.
            idle: with `follow`, stop when nothing came for so long.
            timeout: the deadline of each read; by default that of the kernel's operations.

        Yields:
            Messages with `.sequence`, `.published_at` and all that was sent.

        Raises:
            Corrupt: `data.corrupt`, `format.damaged`: messages cannot be read
            NotFound: `stream.not_found`: it was deleted
            Timeout: `context.deadline`
            State: `store.closed`

        """
        begin, number = "first", 0
        if from_sequence is not None:
            begin, number = "sequence", from_sequence
        elif from_time is not None:
            begin, number = "time", unix_ns(from_time)
        cursor = self._native.cursor(begin, number)
        patience = None if idle is None else parse_duration(idle)
        while True:
            messages = cursor.next_many(self._limit(timeout), _READ_MESSAGES, _READ_BYTES)
            yield from messages
            if not messages and not (follow and cursor.wait(patience)):
                return

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
        """Return a consumer, or make one.

        Args:
            name: 1 to 128 characters from a-z, A-Z, 0-9, `-` and `_`.
            ack: what is done: each message that is acknowledged, each that was handed out
                (`"none"`: at most once), or with one `"all"` before it.
            ack_wait: after so long without one it is delivered again; 1 ms to 30 days.
            max_deliver: how often at most.
            backoff: how long each redelivery waits; the last one repeats.
            max_ack_pending: so many may be out at a time, 1 to 65,536.
            filter: an expression, as `Bus.subscribe` takes it.
            subjects: only messages about one of these patterns.
            start: where a new one begins; a number, or a moment.
            priority_window: of so many that wait the most urgent goes first; 0: in order.
            dead_letters: what was delivered too often or given up is kept as a dead letter.
            inactive_after: it is removed, with its dead letters, when nobody used it for so long,
                and nobody has a message of it; None: never.
            create: False finds, True makes and refuses one that is there, `"if_missing"` does
                whichever fits.

        Raises:
            NotFound: `stream.consumer_not_found`, `stream.not_found`
            Exists: `stream.consumer_exists`
            Invalid: `stream.option`, `bus.filter`, `bus.pattern`, `unit.invalid`
            State: `store.closed`

        """
        if create is not True:
            try:
                return self._consumer(name)
            except errors.NotFound as error:
                if not create or error.code != "stream.consumer_not_found":
                    raise
        options = {
            "name": name,
            "ack": ack,
            "ack_wait": ack_wait,
            "max_deliver": max_deliver,
            "backoff": list(backoff),
            "max_ack_pending": max_ack_pending,
            "filter": filter,
            "subjects": list(subjects),
            "start": _start(start),
            "priority_window": priority_window,
            "dead_letters": dead_letters,
            "inactive_after": inactive_after,
        }
        return self._make_consumer(options, is_new=create is True)

    def _make_consumer(self, options: dict[str, Any], *, is_new: bool) -> Consumer:
        try:
            made = BusConsumer.create(self._native, self._limit(None), options)
        except errors.Exists:
            if is_new:
                raise
            # Somebody else made it in this moment.
            return self._consumer(options["name"])
        return Consumer(made, self.name, self._limit, self._companions)

    def _consumer(self, name: str) -> Consumer:
        found = BusConsumer.get(self._native, self._limit(None), name)
        return Consumer(found, self.name, self._limit, self._companions)

    def consumers(self) -> list[Consumer]:
        """Return all consumers, by name."""
        found = BusConsumer.list(self._native, self._limit(None))
        return [Consumer(native, self.name, self._limit, self._companions) for native in found]

    def delete_consumer(self, name: str) -> None:
        """Delete a consumer and its dead letters.

        Raises:
            NotFound: `stream.consumer_not_found`, `stream.not_found`

        """
        BusConsumer.delete(self._native, self._limit(None), name)

    def dead_letters(self) -> Iterator[DeadLetter]:
        """Yield what its consumers deliver no more, consumer by consumer."""
        for consumer in self.consumers():
            yield from consumer.dead_letters()

    def redrive(self) -> int:
        """Deliver all dead letters of all consumers again; returns how many there were."""
        return sum(consumer.redrive() for consumer in self.consumers())

    def purge(
        self,
        up_to: int | None = None,
        *,
        subject: str | None = None,
        timeout: Duration | None = None,
    ) -> int:
        """Remove messages: all, all up to a number, or those whose subject matches a pattern.

        Args:
            up_to: the last one to go.
            subject: a pattern; given alone.
            timeout: the deadline; by default that of the kernel's operations.

        Returns:
            About how many they were. No number is given again.

        Raises:
            Invalid: `bus.pattern`, `stream.option` if both are given
            NotFound: `stream.not_found`
            Timeout: `context.deadline`: some are gone then

        """
        if up_to is not None and subject is not None:
            raise errors.new("stream.option", "purge by number or by subject, not by both")
        return self._native.purge(self._limit(timeout), up_to, subject)

    def status(self) -> StreamStatus:
        """Return what it holds."""
        return StreamStatus(self.name, self.subjects, **self._native.status(self._limit(None)))

    def __repr__(self) -> str:
        """Return its name."""
        return f"<Stream {self.name!r}>"


class Group:
    """Messages for any streams, committed together when the `with` ends: all of them or none.

    If the block raises, nothing is committed.

    Attributes:
        published: what became of each in each stream that took it, after the end.

    """

    def __init__(
        self,
        native: BusStreams,
        limit: Callable[[Duration | None], float],
        timeout: Duration | None,
    ) -> None:
        """Made by `Bus.group`."""
        self._native = native
        self._limit = limit
        self._timeout = timeout
        self._messages: list[Sequence[Any]] = []
        self.published: list[Routed] = []

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
        """Add a message, for every stream that takes its subject; as `Stream.publish`."""
        kept = bytes(data)
        self._messages.append(
            filled(subject, kept, headers, key, schema, priority, correlation_id, message_id)
        )

    def __enter__(self) -> Self:
        """Return the group."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Commit what was added, unless the block raised.

        Raises:
            Invalid: `stream.subject` if no stream takes one of them; nothing is committed
            Full, Timeout, State: as `Stream.publish`; nothing is committed

        """
        if kind is None and self._messages:
            told = self._native.publish_together(self._limit(self._timeout), self._messages)
            self.published = [Routed(*one) for one in told]


def options_of(  # noqa: PLR0913 - each option stands alone
    *,
    subjects: Iterable[str],
    max_age: Duration | None,
    max_bytes: Size | None,
    max_messages: int | None,
    discard: Literal["old", "new"],
    retention: Literal["limits", "interest", "work_queue"],
    keep_last_per_key: bool,
    duplicate_window: Duration,
) -> dict[str, Any]:
    """Return a stream's options as the native part takes them."""
    return {
        "subjects": list(subjects),
        "max_age": max_age,
        "max_bytes": None if max_bytes is None else parse_size(max_bytes),
        "max_messages": max_messages,
        "discard": discard,
        "retention": retention,
        "keep_last_per_key": keep_last_per_key,
        "duplicate_window": duplicate_window,
    }


def _start(start: str | int | datetime) -> tuple[str, int]:
    if isinstance(start, str):
        return start, 0
    if isinstance(start, int):
        return "sequence", start
    return "time", unix_ns(start)
