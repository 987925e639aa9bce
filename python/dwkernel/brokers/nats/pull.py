"""Deliveries pulled from one consumer of JetStream; on the loop's thread.

A pull asks for what is there at once (`no_wait`), and only if there is nothing for one message that
may come later. So nothing is delivered that nobody has asked for: a message that comes after its
asker has left is kept for the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
import uuid
from collections import deque
from typing import TYPE_CHECKING

from dwkernel import errors
from dwkernel.brokers.nats.arrived import Arrived
from dwkernel.brokers.nats.config import nanoseconds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nats.aio.msg import Msg

    from dwkernel.brokers.nats.connection import Connection, Listening

__all__ = ["Pull"]

# How long the server looks for more; without it, it forgets to answer if as many are out as may be.
_QUICK_S = 0.02
# How long one request waits at the server; then comes the next. No round number, as `ack_wait` is:
# nats-server 2.9.10 miscounts when a message is due in the moment when a request for it ends (it
# counts a delivery that was none, or delivers the last message once more).
_SLICE_S = 0.87
# An answer comes this long after it was due, or the server is asked whether the consumer is there:
# it says nothing about one that is not.
_GRACE_S = 0.3
_INFO_S = 2.0
# So much of `ack_wait` may be over when a message that was kept is handed out.
_STALE = 0.5
_ENDED = {"404", "408", "409", "503"}


class _Request:
    """What one request has brought so far."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.arrived: list[Arrived] = []
        self.status: str | None = None
        self.says = ""
        self.changed = asyncio.Event()

    @property
    def is_over(self) -> bool:
        return self.status is not None or len(self.arrived) >= self.limit


class Pull:
    """What comes from one consumer of JetStream."""

    def __init__(
        self, connection: Connection, stream: str, consumer: str, ack_wait_s: float
    ) -> None:
        """Take what comes from `consumer` of `stream`."""
        self._connection = connection
        self._stream = stream
        self._consumer = consumer
        self._ack_wait_s = ack_wait_s
        # Requests carry an answer's address below it; messages come under their own subjects.
        self._inbox = f"_INBOX.{uuid.uuid4().hex}"
        self._listening: Listening | None = None
        self._numbers = itertools.count(1)
        self._requests: dict[str, _Request] = {}
        self._kept: deque[Arrived] = deque()
        # Whether the server said how the last request ended.
        self.was_answered = False

    async def now(
        self, limit: int, deadline: float, *, max_bytes: int = 0, is_never_full: bool = False
    ) -> list[Arrived]:
        """Return what is there at once, up to `limit`.

        Args:
            limit: how many at most.
            deadline: on the loop's clock.
            max_bytes: how many bytes at most; 0 is without limit.
            is_never_full: the consumer does not limit how many are out. Then the server need not
                look for more, and says at once if there is nothing.

        Raises:
            NotFound: `stream.consumer_not_found`, `stream.not_found`
            Unavailable: `broker.lost`

        """
        found = self._from_kept(limit)
        if found:
            return found
        body = {"batch": limit, "no_wait": True}
        if not is_never_full:
            body["expires"] = nanoseconds(_QUICK_S)
        if max_bytes:
            body["max_bytes"] = max_bytes
        return await self._ask(limit, body, deadline, _QUICK_S)

    async def later(self, patience_s: float, deadline: float) -> list[Arrived]:
        """Return a message that comes within `patience_s`, at most a second, or none.

        Raises:
            As `now`.

        """
        found = self._from_kept(1)
        if found:
            return found
        wait_s = min(patience_s, _SLICE_S)
        body = {"batch": 1, "expires": max(1, nanoseconds(wait_s))}
        return await self._ask(1, body, deadline, wait_s)

    def keep(self, arrived: list[Arrived]) -> None:
        """Take back what nobody took."""
        self._kept.extend(arrived)

    def close(self) -> None:
        """Give back what was kept."""
        with contextlib.suppress(errors.DwError):
            while self._kept:
                self._connection.post(self._kept.popleft().message.reply, b"-NAK")
        listening, self._listening = self._listening, None
        if listening is not None:
            self._connection.forget(listening)

    async def _ask(
        self, limit: int, body: Mapping[str, object], deadline: float, wait_s: float
    ) -> list[Arrived]:
        connection = self._connection
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}"
        await connection.ready(deadline, subject)
        if self._listening is None:
            answers = connection.await_answers(f"{self._inbox}.*", "", self._take, deadline)
            self._listening = await answers
        token = str(next(self._numbers))
        request = self._requests[token] = _Request(limit)
        broken = connection.broken()
        broken.add_done_callback(lambda _: request.changed.set())
        try:
            reply = f"{self._inbox}.{token}"
            await connection.ask(subject, json.dumps(body).encode(), reply, deadline)
            if not await self._answered(request, broken, wait_s + _GRACE_S):
                await self._look(deadline)
        except BaseException:
            self._kept.extend(request.arrived)
            raise
        finally:
            del self._requests[token]
            connection.mended(broken)
        connection.check()
        self.was_answered = request.is_over
        if not request.arrived:
            await self._refuse(request, deadline)
        return request.arrived

    async def _answered(
        self, request: _Request, broken: asyncio.Future[None], patience_s: float
    ) -> bool:
        """Wait for the end of a request; False if nothing at all came in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                while not request.is_over and not broken.done():
                    request.changed.clear()
                    await request.changed.wait()
        return bool(request.is_over or request.arrived or broken.done())

    async def _refuse(self, request: _Request, deadline: float) -> None:
        """Say why nothing came, if it is not that there is nothing."""
        if request.status == "503" or "Deleted" in request.says:
            await self._look(deadline)
            # It is there: the server has just begun.
            await asyncio.sleep(_QUICK_S)
        elif request.status == "409" or request.status is None:
            await asyncio.sleep(_QUICK_S)

    async def _look(self, deadline: float) -> None:
        """Ask whether the consumer is there; that takes its time, also for who would wait less."""
        until = max(deadline, asyncio.get_running_loop().time() + _INFO_S)
        name = f"CONSUMER.INFO.{self._stream}.{self._consumer}"
        await self._connection.api(name, None, until)

    def _take(self, message: Msg) -> None:
        """Take what the server sends: a message is as good for one request as for another."""
        epoch = self._connection.epoch
        arrived = Arrived.of(message, epoch) if message.reply else None
        if arrived is not None:
            request = next((one for one in self._requests.values() if not one.is_over), None)
            if request is None:
                self._kept.append(arrived)
                return
            request.arrived.append(arrived)
        else:
            request = self._requests.get(message.subject.rpartition(".")[2])
            status = str((message.headers or {}).get("Status", ""))
            if request is None or status not in _ENDED:
                return
            request.status = status
            request.says = str((message.headers or {}).get("Description", ""))
        if request.is_over:
            request.changed.set()

    def _from_kept(self, limit: int) -> list[Arrived]:
        fresh_s = time.monotonic() - self._ack_wait_s * _STALE
        found: list[Arrived] = []
        while self._kept and len(found) < limit:
            arrived = self._kept.popleft()
            # What is older, or of another connection, the server delivers again.
            if arrived.received_s > fresh_s and arrived.epoch == self._connection.epoch:
                found.append(arrived)
        return found
