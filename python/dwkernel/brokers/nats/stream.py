"""Streams on NATS JetStream."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from typing import TYPE_CHECKING, Any, Literal

from dwkernel import errors
from dwkernel.brokers.fields import BATCH_MAX, Outgoing, batch_of
from dwkernel.brokers.nats.config import (
    companion_config,
    companion_of,
    consumer_config,
    moment_of,
)
from dwkernel.brokers.nats.connection import NoResponders
from dwkernel.brokers.nats.consumer import NatsConsumer
from dwkernel.brokers.nats.direct import DirectReading
from dwkernel.brokers.nats.failures import failure_of
from dwkernel.brokers.nats.headers import headers_of, message_of, size_of
from dwkernel.brokers.nats.letters import Letters
from dwkernel.brokers.nats.reading import Reading
from dwkernel.brokers.settings import ConsumerSettings, check_name, refuse
from dwkernel.brokers.status import BrokerStreamStatus
from dwkernel.brokers.subjects import check_pattern, matches
from dwkernel.units import Duration, parse_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from typing_extensions import Buffer

    from dwkernel.brokers.message import Message
    from dwkernel.brokers.nats.arrived import Arrived
    from dwkernel.brokers.nats.broker import NatsBroker
    from dwkernel.brokers.status import BrokerDeadLetter

__all__ = ["NatsStream"]

# What a dead letter's copy has to have room for beside the message.
_LETTER_BYTES = 2048


class NatsStream:
    """Messages in the order in which the server committed them, kept until limits let them go.

    What is the same as with `dwkernel.bus.Stream` is described there; how far it goes, `promises`
    of the broker say. A publish returns when the server has written its message; it is not sent
    again if the connection breaks before that: with a `message_id` publish it again, and it is
    taken once.
    """

    def __init__(self, broker: NatsBroker, info: Mapping[str, Any]) -> None:
        """Made by `NatsBroker.stream`."""
        self._broker = broker
        self._connection = broker.connection
        self._name: str = info["config"]["name"]
        self._subjects = list(info["config"].get("subjects") or [])
        self._retention = str(info["config"]["retention"])
        self._replicas = int(info["config"].get("num_replicas", 1))

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    @property
    def subjects(self) -> list[str]:
        """Patterns of the subjects that it takes."""
        return list(self._subjects)

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
        """Commit a message; see `dwkernel.bus.Stream.publish`.

        Returns:
            Its sequence number.

        Raises:
            Invalid: `stream.subject`, `bus.subject`, `bus.message_size`, `stream.option`
            Full: `stream.full`; it was not taken
            NotFound: `stream.not_found`
            Unavailable: `broker.lost`; with the detail `outcome` (`unknown`) it may be there
            Denied: `broker.denied`
            Unsupported: `broker.unsupported`: `delay`, `at`
            State: `bus.closed`, `bus.forked`

        """
        one = self._outgoing(
            subject, data, headers, key, schema, priority, correlation_id, message_id, delay, at
        )
        return self._connection.call(lambda deadline: self._commit(one, deadline), timeout)

    async def apublish(self, subject: str, data: Buffer = b"", **fields: Any) -> int | None:
        """Do `publish` without holding the event loop up; it takes the same arguments.

        Cancelled, the message may be there or not.
        """
        timeout = fields.pop("timeout", None)
        names = (
            *("headers", "key", "schema", "priority"),
            *("correlation_id", "message_id", "delay", "at"),
        )
        defaults = {"priority": 0}
        given = [fields.pop(name, defaults.get(name)) for name in names]
        if fields:
            message = f"no fields of a message: {', '.join(fields)}"
            raise TypeError(message)
        one = self._outgoing(subject, data, *given)
        return await self._connection.call_async(
            lambda deadline: self._commit(one, deadline), timeout
        )

    def publish_many(
        self, messages: Iterable[Sequence[Any]], *, timeout: Duration | None = None
    ) -> list[int]:
        """Commit messages all or none: JetStream can that for one; `publish_each` takes more.

        Raises:
            Unsupported: `broker.unsupported`: they are more than one; none was sent
            DwError: as `publish`

        """
        batch = batch_of(messages)
        if len(batch) > 1:
            refuse(self._broker.promises.atomic_batches, "publish_many")
        for one in batch:
            self._check(one)
        return [
            self._connection.call(lambda deadline: self._commit(one, deadline), timeout)  # noqa: B023 - done by then
            for one in batch
        ]

    def publish_each(
        self, messages: Iterable[Sequence[Any]], *, timeout: Duration | None = None
    ) -> list[int]:
        """Commit messages, each by itself, without waiting for one before the next is sent.

        Args:
            messages: `(subject, data)`, `(subject, data, headers)` or `(subject, data, headers,
                message_id)` each; any number.
            timeout: the deadline of each 1,024 of them.

        Returns:
            Their sequence numbers.

        Raises:
            DwError: as `publish`, what came first; the detail `confirmed` says how many are there
                all the same. With message ids all can be published again.

        """
        found: list[int] = []
        rest = iter(messages)
        while True:
            batch = batch_of(itertools.islice(rest, BATCH_MAX))
            if not batch:
                return found
            for one in batch:
                self._check(one)
            found += self._connection.call(
                lambda deadline: self._commit_each(batch, deadline, len(found)),  # noqa: B023 - done by then
                timeout,
            )

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
            NotFound: `stream.not_found`
            Unavailable: `broker.lost`
            State: `bus.closed`, `bus.forked`

        """
        start: dict[str, Any] = {"deliver_policy": "all"}
        if from_sequence is not None and from_sequence > 1:
            start = {"deliver_policy": "by_start_sequence", "opt_start_seq": from_sequence}
        elif from_sequence is None and from_time is not None:
            start = {"deliver_policy": "by_start_time", "opt_start_time": moment_of(from_time)}
        patience_s = None if idle is None else parse_duration(idle)
        return self._replay(start, timeout, patience_s, follow=follow)

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
    ) -> NatsConsumer:
        """Return a consumer, or make one; see `dwkernel.bus.Stream.consumer`.

        Raises:
            NotFound: `stream.consumer_not_found`, `stream.not_found`
            Exists: `stream.consumer_exists`
            Invalid: `stream.option`, `bus.pattern`, `unit.invalid`
            Unsupported: `broker.unsupported`: `filter`, `priority_window`,
                `inactive_after`, several `subjects`
            Unavailable: `broker.lost`

        """
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
        config = consumer_config(settings, self._broker.promises) if create else None
        info, made = self._connection.call(
            lambda deadline: self._consumer(name, config, deadline, is_new=create is True)
        )
        consumer = self._opened(info, made)
        self._connection.call(consumer.refresh)
        return consumer

    def consumers(self) -> list[NatsConsumer]:
        """Return all consumers that are pulled, by name."""
        found = self._connection.call(self._consumers)
        return [self._opened(info, made) for info, made in found]

    def delete_consumer(self, name: str) -> None:
        """Delete a consumer and its dead letters.

        Raises:
            NotFound: `stream.consumer_not_found`, `stream.not_found`

        """
        check_name(name, "stream.option")
        self._connection.call(lambda deadline: self._delete_consumer(name, deadline))

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

        Raises:
            Invalid: `bus.pattern`, `stream.option` if both are given
            NotFound: `stream.not_found`
            Unavailable: `broker.lost`

        """
        if up_to is not None and subject is not None:
            raise errors.new("stream.option", "purge by number or by subject, not by both")
        if subject is not None:
            check_pattern(subject)
        if up_to is not None and up_to < 1:
            return 0
        return self._connection.call(
            lambda deadline: self._purge(up_to, subject, deadline), timeout
        )

    def status(self) -> BrokerStreamStatus:
        """Return what it holds.

        Raises:
            NotFound: `stream.not_found`
            Unavailable: `broker.lost`

        """
        info = self._connection.call(self._info)
        state = info["state"]
        last = int(state["last_seq"])
        return BrokerStreamStatus(
            name=self._name,
            subjects=self.subjects,
            first_sequence=int(state["first_seq"]) if state["messages"] else last + 1,
            last_sequence=last,
            messages=int(state["messages"]),
            bytes=int(state["bytes"]),
        )

    def __repr__(self) -> str:
        """Return its name."""
        return f"<NatsStream {self._name!r}>"

    # --- what is checked before it is sent -------------------------------------------------------

    def _outgoing(  # noqa: PLR0913, PLR0917 - each field of a message is one
        self,
        subject: str,
        data: Buffer,
        headers: Mapping[str, str] | None,
        key: str | None,
        schema: str | None,
        priority: int,
        correlation_id: str | None,
        message_id: str | None,
        delay: Duration | None,
        at: datetime | None,
    ) -> Outgoing:
        for name, given in (("delay", delay), ("at", at)):
            if given is not None:
                refuse(self._broker.promises.delayed, name)
        one = Outgoing.of(subject, data, headers, key, schema, priority, correlation_id, message_id)
        self._check(one)
        return one

    def _check(self, one: Outgoing) -> None:
        if not any(matches(pattern, one.subject) for pattern in self._subjects):
            text = f"stream {self._name} does not take {one.subject}"
            raise errors.new("stream.subject", text)

    # --- on the loop's thread --------------------------------------------------------------------

    async def _commit(self, one: Outgoing, deadline: float) -> int:
        connection = self._connection
        headers = headers_of(one, connection.options)
        headers["Nats-Expected-Stream"] = self._name
        size = len(one.data) + size_of(headers) + _LETTER_BYTES
        if size > connection.max_payload:
            text = f"{size} bytes with headers are more than the server takes"
            raise errors.new("bus.message_size", text)
        try:
            answer = await connection.request(one.subject, one.data, deadline, headers)
        except NoResponders:
            # Nothing listens to the subject: is the stream gone?
            await self._info(deadline)
            text = f"{self._name} takes no messages at this moment"
            raise errors.new("broker.lost", text) from None
        told = json.loads(answer.data)
        if "error" in told:
            raise failure_of(told["error"], f"publishing on {one.subject}")
        return int(told["seq"])

    async def _commit_each(self, batch: list[Outgoing], deadline: float, before: int) -> list[int]:
        work = (self._commit(one, deadline) for one in batch)
        found = await asyncio.gather(*work, return_exceptions=True)
        numbers = [one for one in found if isinstance(one, int)]
        for one in found:
            if isinstance(one, errors.DwError):
                one.details["confirmed"] = str(before + len(numbers))
            if isinstance(one, BaseException):
                raise one
        return numbers

    async def _info(self, deadline: float) -> dict[str, Any]:
        return await self._connection.api(f"STREAM.INFO.{self._name}", None, deadline)

    async def _purge(self, up_to: int | None, subject: str | None, deadline: float) -> int:
        body: dict[str, Any] = {}
        if subject is not None:
            body["filter"] = subject
        if up_to is not None:
            # Beyond the last one the server would skip numbers.
            last = int((await self._info(deadline))["state"]["last_seq"])
            body["seq"] = min(up_to, last) + 1
        told = await self._connection.api(f"STREAM.PURGE.{self._name}", body, deadline)
        return int(told["purged"])

    async def _consumer(
        self, name: str, config: dict[str, Any] | None, deadline: float, *, is_new: bool
    ) -> tuple[dict[str, Any], str]:
        api = self._connection.api
        try:
            info = await api(f"CONSUMER.INFO.{self._name}.{name}", None, deadline)
        except errors.NotFound as error:
            if config is None or error.code != "stream.consumer_not_found":
                raise
            body = {"stream_name": self._name, "config": config}
            made = await self._hidden(config, deadline)
            name = f"CONSUMER.DURABLE.CREATE.{self._name}.{name}"
            return await api(name, body, deadline), made
        if is_new:
            raise errors.new("stream.consumer_exists", f"consumer {name} of {self._name}")
        return info, await self._hidden(info["config"], deadline)

    async def _hidden(self, config: Mapping[str, Any], deadline: float) -> str:
        """Have the consumer of redriven messages, and its stream; returns when it was made."""
        api, name = self._connection.api, config["durable_name"]
        companion = companion_of(self._name)
        try:
            info = await api(f"CONSUMER.INFO.{companion}.{name}", None, deadline)
        except errors.NotFound as error:
            if error.code == "stream.not_found":
                with contextlib.suppress(errors.Exists):
                    body = companion_config(self._name, self._replicas)
                    await api(f"STREAM.CREATE.{companion}", body, deadline)
            again = {
                "durable_name": name,
                "description": config.get("description", ""),
                "ack_policy": "explicit",
                "ack_wait": config.get("ack_wait", 30_000_000_000),
                "deliver_policy": "all",
                "replay_policy": "instant",
                "max_deliver": config.get("max_deliver", -1),
                "backoff": config.get("backoff"),
                "max_ack_pending": config.get("max_ack_pending") or 1000,
                "filter_subject": f"{Letters(self._connection, self._name, name).again}.*",
            }
            body = {"stream_name": companion, "config": again}
            info = await api(f"CONSUMER.DURABLE.CREATE.{companion}.{name}", body, deadline)
        return str(info["created"])

    async def _consumers(self, deadline: float) -> list[tuple[dict[str, Any], str]]:
        found: list[dict[str, Any]] = []
        while True:
            body = {"offset": len(found)}
            page = await self._connection.api(f"CONSUMER.LIST.{self._name}", body, deadline)
            found += page["consumers"] or []
            if not page["consumers"] or len(found) >= int(page["total"]):
                break
        pulled = [
            one
            for one in found
            if one["config"].get("durable_name") and not one["config"].get("deliver_subject")
        ]
        pulled.sort(key=lambda one: str(one["name"]))
        return [(one, await self._hidden(one["config"], deadline)) for one in pulled]

    async def _delete_consumer(self, name: str, deadline: float) -> None:
        api = self._connection.api
        await api(f"CONSUMER.DELETE.{self._name}.{name}", None, deadline)
        with contextlib.suppress(errors.NotFound):
            await api(f"CONSUMER.DELETE.{companion_of(self._name)}.{name}", None, deadline)
        await Letters(self._connection, self._name, name).clear(deadline)

    # --- within ----------------------------------------------------------------------------------

    def _opened(self, info: dict[str, Any], made: str) -> NatsConsumer:
        consumer = NatsConsumer(self._connection, self._name, info, made)
        self._broker.opened(consumer)
        return consumer

    def _replay(
        self,
        start: dict[str, Any],
        timeout: Duration | None,
        patience_s: float | None,
        *,
        follow: bool,
    ) -> Iterator[Message]:
        connection = self._connection
        reading: Reading | DirectReading
        if self._retention == "limits":
            reading = Reading(connection, self._name, start)
        else:
            reading = DirectReading(connection, self._name, start)
        quiet_since_s = time.monotonic()
        try:
            while True:
                arrived = connection.call(reading.next, timeout)
                yield from map(_message_of, arrived)
                if arrived:
                    quiet_since_s = time.monotonic()
                    continue
                if not follow:
                    return
                left_s = 1.0
                if patience_s is not None:
                    left_s = quiet_since_s + patience_s - time.monotonic()
                    if left_s <= 0:
                        return
                connection.call(lambda deadline: reading.later(left_s, deadline), timeout)  # noqa: B023 - done by then
        finally:
            with contextlib.suppress(errors.DwError):
                connection.call(reading.close, 1)


def _message_of(arrived: Arrived) -> Message:
    message = arrived.message
    found = message_of(arrived.subject, message.data, message.headers, arrived.published_ns)
    found.sequence = arrived.sequence
    return found
