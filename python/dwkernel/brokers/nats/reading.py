"""Messages of a stream in their order, read through a consumer that lasts as long as the reading.

On the loop's thread. A consumer of the server's memory without acknowledgements; if it vanishes, or
one of its deliveries is missing, another one begins behind the last message that came: what NATS
calls an ordered consumer.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel.brokers.nats.config import nanoseconds
from dwkernel.brokers.nats.pull import Pull

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dwkernel.brokers.nats.arrived import Arrived
    from dwkernel.brokers.nats.connection import Connection

__all__ = ["Reading"]

_PAGE = 500
_PAGE_BYTES = 4 << 20
# The server forgets a consumer that nobody asks for so long.
_IDLE_S = 60.0


class Reading:
    """A place in a stream."""

    def __init__(
        self, connection: Connection, stream: str, start: dict[str, Any], subject: str | None = None
    ) -> None:
        """Begin to read.

        Args:
            connection: where.
            stream: its name.
            start: `deliver_policy` and what belongs to it.
            subject: only these messages; a pattern.

        """
        self._connection = connection
        self._stream = stream
        self._start = start
        self._subject = subject
        self._pull: Pull | None = None
        self._consumer = ""
        self._epoch = 0
        self._order = 0
        self._last = 0
        self._pending: int | None = None

    async def next(self, deadline: float) -> list[Arrived]:
        """Return the next messages that are there; none if there are none.

        Raises:
            NotFound: `stream.not_found`
            Unavailable: `broker.lost`

        """
        while True:
            pull = await self._begun(deadline)
            if self._pending == 0:
                return []
            size = max(_PAGE_BYTES, 2 * self._connection.max_payload)
            try:
                arrived = await pull.now(_PAGE, deadline, max_bytes=size, is_never_full=True)
            except errors.NotFound as error:
                if error.code != "stream.consumer_not_found":
                    raise
                await self._end(deadline)
                continue
            if self._epoch != self._connection.epoch or not self._follows(arrived):
                await self._end(deadline)
                continue
            if arrived:
                self._note(arrived)
            elif not pull.was_answered:
                continue
            return arrived

    async def later(self, patience_s: float, deadline: float) -> bool:
        """Wait until there may be more; False if nothing came within `patience_s`, or a second."""
        pull = await self._begun(deadline)
        try:
            arrived = await pull.later(patience_s, deadline)
        except errors.NotFound as error:
            if error.code != "stream.consumer_not_found":
                raise
            await self._end(deadline)
            return True
        if arrived:
            pull.keep(arrived)
            self._pending = None
        return bool(arrived)

    async def all(self, deadline: float) -> AsyncIterator[Arrived]:
        """Yield what is there, then let the consumer go."""
        try:
            while arrived := await self.next(deadline):
                for one in arrived:
                    yield one
        finally:
            await self._end(deadline)

    async def close(self, deadline: float) -> None:
        """Let the consumer go."""
        await self._end(deadline)

    def _follows(self, arrived: list[Arrived]) -> bool:
        """Whether no delivery is missing between."""
        orders = [one.order for one in arrived]
        return orders == list(range(self._order + 1, self._order + 1 + len(orders)))

    def _note(self, arrived: list[Arrived]) -> None:
        self._order, self._last = arrived[-1].order, arrived[-1].sequence
        self._pending = arrived[-1].pending

    async def _begun(self, deadline: float) -> Pull:
        if self._pull is not None:
            return self._pull
        start = self._start
        if self._last:
            start = {"deliver_policy": "by_start_sequence", "opt_start_seq": self._last + 1}
        config: dict[str, Any] = {
            "ack_policy": "none",
            "replay_policy": "instant",
            "max_deliver": -1,
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": nanoseconds(_IDLE_S),
            **start,
        }
        if self._subject is not None:
            config["filter_subject"] = self._subject
        body = {"stream_name": self._stream, "config": config}
        made = await self._connection.api(f"CONSUMER.CREATE.{self._stream}", body, deadline)
        self._epoch, self._order = self._connection.epoch, 0
        self._pending = int(made.get("num_pending", 0))
        self._consumer = made["name"]
        self._pull = Pull(self._connection, self._stream, self._consumer, _IDLE_S)
        return self._pull

    async def _end(self, deadline: float) -> None:
        pull, self._pull = self._pull, None
        if pull is not None:
            pull.close()
            with contextlib.suppress(errors.DwError):
                subject = f"$JS.API.CONSUMER.DELETE.{self._stream}.{self._consumer}"
                await self._connection.send(subject, b"", deadline)
