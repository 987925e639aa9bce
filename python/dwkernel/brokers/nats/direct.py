"""Messages of a stream in their order, read one by one without a consumer; on the loop's thread.

For streams that let go what their consumers have done: another consumer is not allowed there, or
would hold messages back. `$JS.API.DIRECT.GET`, ADR-31.
"""

from __future__ import annotations

import asyncio
import json
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel.brokers.nats.arrived import Arrived

if TYPE_CHECKING:
    from nats.aio.msg import Msg

    from dwkernel.brokers.nats.connection import Connection

__all__ = ["DirectReading"]

_POLL_S = 0.05


class DirectReading:
    """A place in a stream."""

    def __init__(self, connection: Connection, stream: str, start: dict[str, Any]) -> None:
        """Begin to read; `start` is as `Reading` takes it."""
        self._connection = connection
        self._stream = stream
        self._next = int(start.get("opt_start_seq", 1))
        moment = start.get("opt_start_time")
        self._from_ns = 0 if moment is None else _nanoseconds(moment)
        self._kept: list[Arrived] = []

    async def next(self, deadline: float) -> list[Arrived]:
        """Return the next message that is there, in a list; none if there is none.

        Raises:
            NotFound: `stream.not_found`
            Unavailable: `broker.lost`

        """
        kept, self._kept = self._kept, []
        if kept:
            return kept
        while True:
            arrived = await self._get(deadline)
            if arrived is None or arrived.published_ns >= self._from_ns:
                return [] if arrived is None else [arrived]

    async def later(self, patience_s: float, deadline: float) -> bool:
        """Wait until there may be more; False if nothing came within `patience_s`, or a second."""
        time_of = asyncio.get_running_loop().time
        end = time_of() + min(patience_s, 1.0)
        while not self._kept and time_of() < end:
            self._kept = await self.next(deadline)
            if not self._kept:
                await asyncio.sleep(_POLL_S)
        return bool(self._kept)

    async def close(self, _deadline: float) -> None:
        """Let go; the server keeps nothing for it."""

    async def _get(self, deadline: float) -> Arrived | None:
        body = json.dumps({"seq": self._next, "next_by_subj": ">"}).encode()
        subject = f"$JS.API.DIRECT.GET.{self._stream}"
        answer = await self._connection.request(subject, body, deadline)
        headers = answer.headers or {}
        if "Nats-Sequence" not in headers:
            status = str(headers.get("Status", ""))
            # Nothing is there; or is it the stream?
            await self._connection.api(f"STREAM.INFO.{self._stream}", None, deadline)
            if status != "404":
                text = f"reading {self._stream}: {headers.get('Description', status)}"
                raise errors.new("broker.failed", text)
            return None
        found = _arrived_of(answer, headers)
        self._next = found.sequence + 1
        return found


def _arrived_of(answer: Msg, headers: dict[str, str]) -> Arrived:
    return Arrived(
        message=answer,
        subject=headers["Nats-Subject"],
        sequence=int(headers["Nats-Sequence"]),
        order=0,
        deliveries=0,
        published_ns=_nanoseconds(headers["Nats-Time-Stamp"]),
        pending=0,
        received_s=time.monotonic(),
    )


def _nanoseconds(moment: str) -> int:
    """Return a moment of RFC 3339, which has up to nine digits of a second, since 1970."""
    whole, _, rest = moment.rstrip("Z").partition(".")
    fraction = rest.partition("+")[0]
    zone = whole if "+" in whole else f"{whole}+00:00"
    seconds = int(datetime.fromisoformat(zone).timestamp())
    return seconds * 1_000_000_000 + int(fraction.ljust(9, "0")[:9] or 0)
