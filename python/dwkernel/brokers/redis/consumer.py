"""A consumer of a stream on a Redis."""

from __future__ import annotations

import contextlib
import math
import secrets
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel.brokers.redis import faults
from dwkernel.brokers.redis.client import Lane
from dwkernel.brokers.redis.delivery import RedisDelivery
from dwkernel.brokers.redis.fields import message_of
from dwkernel.brokers.redis.waiting import wait_for
from dwkernel.brokers.settings import refuse
from dwkernel.brokers.status import BrokerConsumerStatus, BrokerDeadLetter
from dwkernel.units import parse_duration

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Iterator

    from dwkernel.brokers.message import Message
    from dwkernel.brokers.redis.client import Client
    from dwkernel.units import Duration

__all__ = ["RedisConsumer", "RedisConsumerStatus"]

_PAGE = 100
# A script hands out no more at a time.
_FETCH_MAX = 1000
# A task that is cancelled leaves a thread that waits for no longer than this.
_SLICE_S = 0.25
# Beyond what a caller waits for messages, a server may take so long to say that there are none.
_GRACE_S = 5.0


@dataclass(frozen=True)
class RedisConsumerStatus(BrokerConsumerStatus):
    """How a consumer stands.

    Attributes:
        oldest_s: how long ago the oldest of what is not done was first delivered, in seconds.
        deliveries: how many deliveries there were.
        acknowledged: how many messages were acknowledged.

    """

    oldest_s: float | None
    deliveries: int
    acknowledged: int


class RedisConsumer:
    """A durable reader of a stream, under a name: at least once.

    Threads, processes and machines may fetch under one name: each message goes to one of them. All
    that is known of it lies on the server and changes in single steps, so one that dies leaves
    nothing but deliveries whose time will be over.
    """

    def __init__(self, client: Client, stream: str, stream_uid: str, name: str, uid: str) -> None:
        """Made by `RedisStream.consumer`."""
        self._client = client
        self._stream = stream
        self._name = name
        self._ids = [stream_uid, uid]
        self._keys = [*client.keys.stream(stream), *client.keys.consumer(stream, name)]
        self._lock = threading.Lock()
        self._lanes: list[Lane] = []
        # Whose deliveries one acknowledgement of all before it covers.
        self._owner = secrets.token_hex(8)

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    def fetch(self, limit: int, timeout: Duration | None = None) -> list[Message]:
        """Take up to `limit` messages as soon as there is one; none if there is none in time.

        Args:
            limit: how many at most; never more than 1,000 or some MiB come at a time.
            timeout: seconds or text such as "30s"; None waits for ever.

        Raises:
            NotFound: `stream.not_found`, `stream.consumer_not_found`: it was deleted
            Unavailable: `broker.lost`: what had been handed out comes with the next fetch
            State: `bus.closed`, `bus.forked`

        """
        end = math.inf if timeout is None else time.monotonic() + parse_duration(timeout)
        while True:
            left_s = max(0.0, end - time.monotonic())
            answer = self._hand_out(limit, left_s)
            messages = [self._message(one) for one in answer[1]]
            left_s = end - time.monotonic()
            is_more = bool(answer[5])
            if messages or (left_s <= 0 and not is_more):
                return messages
            if not is_more:
                places = [(self._keys[9], int(answer[4]))]
                if int(answer[3]) >= 0:
                    places.append((self._keys[1], int(answer[3])))
                wait_for(self._client, places, int(answer[2]), left_s)

    def _hand_out(self, limit: int, left_s: float) -> list[Any]:
        with self._lock:
            # The last one that was used: who fetches alone uses one only.
            lane = self._lanes.pop() if self._lanes else None
        lane = lane or Lane(secrets.token_hex(10))
        limit_s = min(left_s + _GRACE_S, self._client.options.timeout_s)
        wanted = [min(max(0, limit), _FETCH_MAX), self._owner]
        try:
            answer = self._client.run_once(
                "fetch", self._keys, wanted, limit_s, ids=self._ids, lane=lane
            )
        except BaseException:
            # Nobody has seen what was handed out, if it was: the next call asks for it, and no
            # acknowledgement of all before it may cover it.
            self._owner = secrets.token_hex(8)
            raise
        finally:
            with self._lock:
                self._lanes.append(lane)
        self._check(answer)
        return answer

    def _message(self, one: list[Any]) -> Message:
        sequence, deliveries, total, fields = one
        delivery = RedisDelivery(
            self._client, self._keys, self._ids, int(sequence), int(total), self._owner
        )
        tenant = self._client.options.tenant
        return message_of(fields, tenant, int(sequence), int(deliveries), delivery)

    async def afetch(
        self,
        limit: int,
        timeout: Duration | None = None,  # noqa: ASYNC109 - as `fetch`
    ) -> list[Message]:
        """Do `fetch` without holding the event loop up.

        Cancelled, it has taken nothing: what comes to it in that moment is given back at once.
        """
        from asyncio import CancelledError, ensure_future, shield  # noqa: PLC0415 - who awaits

        from dwkernel._queue_threads import run  # noqa: PLC0415 - threads alone do not need it

        end = math.inf if timeout is None else time.monotonic() + parse_duration(timeout)
        while True:
            left_s = min(_SLICE_S, max(0.0, end - time.monotonic()))
            fetching = ensure_future(run(self.fetch, limit, left_s))
            try:
                messages = await shield(fetching)
            except CancelledError:
                fetching.add_done_callback(_give_back)
                raise
            if messages or time.monotonic() >= end:
                return messages

    def __iter__(self) -> Iterator[Message]:
        """Yield messages one by one, for ever; the loop acknowledges them."""
        while True:
            yield from self.fetch(1)

    def flush(self) -> None:
        """Make every acknowledgement durable: each is when it returns, if the server syncs always.

        Raises:
            Unsupported: `broker.unsupported`: the server does not
            State: `bus.closed`, `bus.forked`

        """
        self._client.link.check()
        refuse(self._client.promises.durable_ack, "flush")

    def pause(self) -> None:
        """Hand nothing out until `resume`."""
        self._run("consumer_pause", "1")

    def resume(self) -> None:
        """Hand out again."""
        self._run("consumer_pause", "0")

    def status(self) -> RedisConsumerStatus:
        """Return how it stands."""
        figures = [int(one) for one in self._run("consumer_status")[1:]]
        lag, out, scheduled, redelivered, floor, top, paused = figures[:7]
        oldest_ms, deliveries, acknowledged, dead, now_ms = figures[7:]
        return RedisConsumerStatus(
            name=self._name,
            stream=self._stream,
            lag=lag,
            pending=out,
            scheduled=scheduled,
            redelivered=redelivered,
            floor_sequence=floor,
            delivered_sequence=top,
            is_paused=bool(paused),
            dead=dead,
            oldest_s=None if oldest_ms < 0 else max(0, now_ms - oldest_ms) / 1000,
            deliveries=deliveries,
            acknowledged=acknowledged,
        )

    def dead_letters(self) -> Iterator[BrokerDeadLetter]:
        """Yield what it delivers no more, in the order of the stream.

        Raises:
            NotFound: `stream.not_found`, `stream.consumer_not_found`
            Unavailable: `broker.lost`

        """
        after = 0
        while True:
            found = self._run("letters", after, _PAGE)[1]
            for fields in found:
                letter = self._letter(fields)
                after = letter.sequence
                yield letter
            if not found:
                return

    def _letter(self, fields: list[bytes]) -> BrokerDeadLetter:
        found = dict(zip(fields[::2], fields[1::2], strict=True))
        sequence = int(found[b"letter_sequence"])
        reason = found.get(b"letter_reason")
        events = (event.partition(":") for event in found[b"letter_history"].decode().split())
        message = None
        if found[b"letter_found"] == b"1":
            message = message_of(fields, self._client.options.tenant, sequence)
        return BrokerDeadLetter(
            consumer=self._name,
            sequence=sequence,
            deliveries=int(found[b"letter_deliveries"]),
            reason=None if reason is None else reason.decode(),
            history=[(int(at), how) for at, _, how in events],
            message=message,
        )

    def redrive(self, sequence: int | None = None) -> int:
        """Deliver dead letters again, their count from the beginning: all, or one.

        What the stream has let go meanwhile is published again.

        Returns:
            How many there were.

        Raises:
            Full: `stream.full`: as many messages are out as may be

        """
        letters = [one.sequence for one in self.dead_letters()] if sequence is None else [sequence]
        return sum(self._redrive(number) for number in letters)

    def _redrive(self, sequence: int) -> int:
        limit_s = self._client.limit(None)
        answer = self._client.run_once("redrive", self._keys, [sequence], limit_s, ids=self._ids)
        self._check(answer)
        return int(answer[1])

    def _run(self, name: str, *arguments: Any) -> list[Any]:
        given = [*self._ids, *arguments]
        answer = self._client.run(name, self._keys, given, self._client.limit(None))
        self._check(answer)
        return answer

    def _check(self, answer: list[Any]) -> None:
        code = answer[0].decode()
        if code != "ok":
            about = f"the consumer {self._name} of stream {self._stream}"
            raise faults.failed(code, about, answer[1:])

    def __repr__(self) -> str:
        """Return its name."""
        return f"<RedisConsumer {self._name!r} of {self._stream!r}>"


def _give_back(fetching: Future[list[Message]]) -> None:
    if fetching.cancelled() or fetching.exception() is not None:
        return
    for message in fetching.result():
        # Its time may be over by now: then it comes again by itself.
        with contextlib.suppress(errors.DwError):
            message.nak(0)
