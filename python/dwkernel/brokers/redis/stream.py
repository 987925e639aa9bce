"""A stream on a Redis."""

from __future__ import annotations

import math
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from dwkernel import errors
from dwkernel._messages import due_s
from dwkernel.brokers.fields import Outgoing, batch_of
from dwkernel.brokers.redis import faults
from dwkernel.brokers.redis.consumer import RedisConsumer
from dwkernel.brokers.redis.fields import fields_of, message_of
from dwkernel.brokers.redis.settings import kept_of_consumer
from dwkernel.brokers.redis.waiting import wait_for
from dwkernel.brokers.settings import ConsumerSettings, check_name
from dwkernel.brokers.status import BrokerStreamStatus
from dwkernel.brokers.subjects import check_pattern, matches
from dwkernel.units import Duration, parse_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from typing_extensions import Buffer

    from dwkernel.brokers.message import Message
    from dwkernel.brokers.redis.client import Client
    from dwkernel.brokers.settings import Start
    from dwkernel.brokers.status import BrokerDeadLetter

__all__ = ["RedisStream", "RedisStreamStatus", "publish_to"]

# What a replay asks for at a time.
_READ_MESSAGES = 1000
_BATCH_BYTES_MAX = 16 << 20


@dataclass(frozen=True)
class RedisStreamStatus(BrokerStreamStatus):
    """What a stream holds.

    Attributes:
        delayed: messages that wait to be due.
        window_ids: how many message ids are remembered.

    """

    delayed: int
    window_ids: int


class RedisStream:
    """Messages in the order in which they were taken in, under the numbers from 1 on.

    They are entries `<number>-0` of a Redis stream, so `XRANGE` shows them. What a publish that
    returned is worth, `Broker.promises` says.
    """

    def __init__(self, client: Client, name: str, uid: str, subjects: list[str]) -> None:
        """Made by `RedisBroker.stream`."""
        self._client = client
        self._name = name
        self._uid = uid
        self._subjects = subjects
        self._keys = client.keys.stream(name)

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    @property
    def subjects(self) -> list[str]:
        """Patterns of the subjects that it takes."""
        return list(self._subjects)

    @property
    def uid(self) -> str:
        """What tells it from another one under its name."""
        return self._uid

    def takes(self, subject: str) -> bool:
        """Return whether it takes messages about `subject`."""
        return any(matches(pattern, subject) for pattern in self._subjects)

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
        """Take a message in; see `dwkernel.bus.Stream.publish`.

        When the connection breaks it is sent again, and taken once all the same.

        Returns:
            Its number; None with `delay` or `at`.

        Raises:
            Invalid: `stream.subject`, `bus.subject`, `bus.message_size`, `stream.option`
            Full: `stream.full`: by its limits, or the server's memory; it was not taken
            NotFound: `stream.not_found`: it was deleted meanwhile
            Unavailable: `broker.lost`; with the detail `outcome` (`unknown`) it may be there later
            State: `bus.closed`, `bus.forked`

        """
        one = Outgoing.of(subject, data, headers, key, schema, priority, correlation_id, message_id)
        due = due_s(delay, at)
        delay_ms = -1 if due is None else math.ceil(due * 1000)
        numbers = self._take_in([one], delay_ms, timeout)
        return numbers[0] if due is None else None

    def publish_many(
        self, messages: Iterable[Sequence[Any]], *, timeout: Duration | None = None
    ) -> list[int]:
        """Take messages in next to each other: all of them or none.

        Args:
            messages: `(subject, data[, headers[, message_id]])` each, at most 1,024 and 16 MiB.
            timeout: the deadline.

        Returns:
            Their numbers.

        Raises:
            As `publish`; `stream.option` if there are too many.

        """
        batch = batch_of(messages)
        size = sum(len(one.data) for one in batch)
        if len(batch) > 1 and size > _BATCH_BYTES_MAX:
            raise errors.new("stream.option", f"messages: {size} bytes at once, not up to 16 MiB")
        return self._take_in(batch, -1, timeout) if batch else []

    def _take_in(self, batch: list[Outgoing], delay_ms: int, timeout: Duration | None) -> list[int]:
        for one in batch:
            if not self.takes(one.subject):
                text = f"the stream {self._name} does not take {one.subject}"
                raise errors.new("stream.subject", text)
        told = publish_to(self._client, [self], [(one, "1") for one in batch], delay_ms, timeout)
        return [sequence for sequence, _ in told]

    async def apublish(self, subject: str, data: Buffer = b"", **fields: Any) -> int | None:
        """Do `publish` without holding the event loop up; it takes the same arguments.

        Cancelled, the message may be there or not.
        """
        from dwkernel._queue_threads import run  # noqa: PLC0415 - threads alone do not need it

        return await run(lambda: self.publish(subject, data, **fields))

    def replay(
        self,
        from_sequence: int | None = None,
        from_time: datetime | None = None,
        *,
        follow: bool = False,
        idle: Duration | None = None,
        timeout: Duration | None = None,
    ) -> Iterator[Message]:
        """Yield messages in their order; see `dwkernel.bus.Stream.replay`.

        Raises:
            NotFound: `stream.not_found`: it was deleted
            Unavailable: `broker.lost`
            State: `bus.closed`, `bus.forked`

        """
        begin, at = "sequence", max(0, from_sequence or 0)
        if from_sequence is None and from_time is not None:
            begin, at = "time", int(from_time.timestamp() * 1_000_000)
        patience_s = None if idle is None else parse_duration(idle)
        since = time.monotonic()
        while True:
            arguments = (self._uid, begin, at, _READ_MESSAGES)
            answer = self._run("read", arguments, timeout)
            begin, at = "sequence", int(answer[2])
            for entry_id, fields in answer[1]:
                sequence = int(entry_id.partition(b"-")[0])
                yield message_of(fields, self._client.options.tenant, sequence)
            if answer[1]:
                since = time.monotonic()
                continue
            left_s = math.inf
            if patience_s is not None:
                left_s = since + patience_s - time.monotonic()
            if not follow or left_s <= 0:
                return
            wait_for(self._client, [(self._keys[1], max(0, at - 1))], int(answer[3]), left_s)

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
        start: Start = "first",
        priority_window: int = 0,
        dead_letters: bool = True,
        inactive_after: Duration | None = None,
        create: bool | Literal["if_missing"] = False,
    ) -> RedisConsumer:
        """Return a consumer, or make one; see `dwkernel.bus.Stream.consumer`.

        Raises:
            NotFound: `stream.consumer_not_found`, `stream.not_found`
            Exists: `stream.consumer_exists`
            Invalid: `stream.option`, `bus.pattern`, `unit.invalid`
            Unsupported: `broker.unsupported`: `filter=`, `priority_window=`,
                `inactive_after=`
            Unavailable: `broker.lost`
            State: `bus.closed`, `bus.forked`

        """
        if create is not True:
            try:
                return self._consumer(name)
            except errors.NotFound as error:
                if not create or error.code != "stream.consumer_not_found":
                    raise
        settings = ConsumerSettings.of(
            name,
            ack=ack,
            ack_wait=ack_wait,
            max_deliver=max_deliver,
            backoff=backoff,
            max_ack_pending=max_ack_pending,
            filter=filter,
            subjects=subjects,
            start=start,
            priority_window=priority_window,
            dead_letters=dead_letters,
            inactive_after=inactive_after,
        )
        settings.refuse_beyond(self._client.promises)
        uid = secrets.token_hex(8)
        keys = [*self._keys, *self._client.keys.consumer(self._name, name)]
        answer = self._client.run(
            "consumer_create",
            keys,
            [self._uid, uid, *kept_of_consumer(settings)],
            self._client.limit(None),
        )
        code = answer[0].decode()
        if code == "stream.consumer_exists" and create == "if_missing":
            # Somebody else made it in this moment.
            return self._consumer(name)
        if code != "ok":
            raise faults.failed(code, f"the consumer {name} of stream {self._name}", answer)
        return RedisConsumer(self._client, self._name, self._uid, name, uid)

    def _consumer(self, name: str) -> RedisConsumer:
        check_name(name, "stream.option")
        info = self._client.keys.consumer(self._name, name)[0]
        commands = [("HGET", self._keys[0], "uid"), ("HGET", info, "uid")]
        stream, found = self._ask(commands)
        if stream is None or stream.decode() != self._uid:
            raise errors.new("stream.not_found", f"the stream {self._name} was deleted")
        if found is None:
            text = f"the stream {self._name} has no consumer {name}"
            raise errors.new("stream.consumer_not_found", text)
        return RedisConsumer(self._client, self._name, self._uid, name, found.decode())

    def consumers(self) -> list[RedisConsumer]:
        """Return all consumers, by name."""
        found = []
        for name in sorted(self._status()[7]):
            try:
                found.append(self._consumer(name.decode()))
            except errors.NotFound as error:
                # It was deleted in this moment.
                if error.code != "stream.consumer_not_found":
                    raise
        return found

    def delete_consumer(self, name: str) -> None:
        """Delete a consumer and its dead letters.

        Raises:
            NotFound: `stream.consumer_not_found`, `stream.not_found`
            Unavailable: `broker.lost`

        """
        check_name(name, "stream.option")
        keys = [*self._keys, *self._client.keys.consumer(self._name, name)]
        limit_s = self._client.limit(None)
        answer = self._client.run_once("consumer_delete", keys, [name], limit_s, ids=[self._uid])
        self._check(answer, f"the consumer {name} of stream {self._name}")

    def dead_letters(self) -> Iterator[BrokerDeadLetter]:
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

        Returns:
            How many they were. No number is given again.

        Raises:
            Invalid: `bus.pattern`, `stream.option` if both are given
            NotFound: `stream.not_found`
            Unavailable: `broker.lost`: some are gone then

        """
        if up_to is not None and subject is not None:
            raise errors.new("stream.option", "purge by number or by subject, not by both")
        pattern = "" if subject is None else check_pattern(subject)
        end = time.monotonic() + self._client.limit(timeout)
        # What is published meanwhile stays.
        last = int(self._status(timeout)[2])
        last = last if up_to is None else min(max(0, up_to), last)
        gone, at = 0, 1
        while at and at <= last:
            left_s = max(0.0, end - time.monotonic())
            answer = self._run("purge", (self._uid, at, last, pattern), left_s)
            gone, at = gone + int(answer[1]), int(answer[2])
        return gone

    def status(self) -> RedisStreamStatus:
        """Return what it holds."""
        numbers = [int(one) for one in self._status()[1:7]]
        return RedisStreamStatus(self._name, self.subjects, *numbers)

    def _status(self, timeout: Duration | None = None) -> list[Any]:
        return self._run("stream_status", (self._uid,), timeout)

    def _run(self, name: str, arguments: Sequence[Any], timeout: Duration | None) -> list[Any]:
        answer = self._client.run(name, self._keys, arguments, self._client.limit(timeout))
        self._check(answer, f"the stream {self._name}")
        return answer

    def _ask(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        answers = self._client.nodes.ask(self._keys[0], commands, self._client.limit(None))
        for one in answers:
            if isinstance(one, BaseException):
                raise faults.refusal(one) from one
        return answers

    @staticmethod
    def _check(answer: list[Any], about: str) -> None:
        code = answer[0].decode()
        if code != "ok":
            raise faults.failed(code, about, [])

    def __repr__(self) -> str:
        """Return its name."""
        return f"<RedisStream {self._name!r}>"


def publish_to(
    client: Client,
    streams: Sequence[RedisStream],
    messages: Sequence[tuple[Outgoing, str]],
    delay_ms: int,
    timeout: Duration | None,
) -> list[tuple[int, bool]]:
    """Take messages into streams in one step.

    Args:
        client: whose.
        streams: all that are meant.
        messages: each with the numbers of its streams, from 1 on: `"1,2"`.
        delay_ms: -1 for at once.
        timeout: the deadline.

    Returns:
        Message by message and stream by stream the number, and whether it was there before.

    Raises:
        As `RedisStream.publish`.

    """
    arguments: list[Any] = [delay_ms]
    for message, targets in messages:
        fields = fields_of(message, client.options.principal)
        arguments += [targets, len(fields), *fields]
    keys = [key for stream in streams for key in client.keys.stream(stream.name)]
    ids = [str(len(streams)), *(stream.uid for stream in streams)]
    answer = client.run_once("publish", keys, arguments, client.limit(timeout), ids=ids)
    code = answer[0].decode()
    if code != "ok":
        place = int(answer[1]) - 1 if len(answer) > 1 else 0
        raise faults.failed(code, f"the stream {streams[place].name}", answer[1:])
    return [(int(one), bool(again)) for one, again in zip(answer[1], answer[2], strict=True)]
