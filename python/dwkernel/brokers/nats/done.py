"""Which messages of a consumer are done, on record.

The server writes a consumer's state about 0.1 s behind: killed in that time, it delivers again what
was acknowledged, and confirmed. So what is to be durable is written into the companion stream,
which the server writes before it confirms. Whoever connects anew reads that first, and hears what
is recorded from then on: a delivery that the server sends after a record comes behind it.
A record holds for the moments until the server has written its own: the last 4,096 are kept. It
names the consumer by when it was made, so that a later one of that name is not taken for it.
"""

from __future__ import annotations

import json
import time
from collections import deque
from typing import TYPE_CHECKING

from dwkernel.brokers.nats.config import companion_of
from dwkernel.brokers.nats.failures import failure_of
from dwkernel.brokers.nats.reading import Reading

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nats.aio.msg import Msg

    from dwkernel.brokers.nats.connection import Connection, Listening

__all__ = ["Done"]

# By then the server has written what it was told.
_SETTLED_S = 10.0
_RECORD_MAX = 10_000
# What is forgotten here the server knows, as long as it runs.
_KNOWN_MAX = 50_000


class Done:
    """The record of one consumer of JetStream; on the loop's thread."""

    def __init__(self, connection: Connection, stream: str, name: str, made: str) -> None:
        """Make a view of it.

        Args:
            connection: where.
            stream: the stream's name.
            name: the consumer's, with a mark if it is a hidden one.
            made: when the server made the consumer.

        """
        self._connection = connection
        self._stream = stream
        self._subject = f"$DW.{stream}.done.{name}"
        self._made = made
        # The latest, in the order in which they were heard of.
        self._sequences: dict[int, None] = {}
        self._up_to = 0
        self._epoch = 0
        self._listening: Listening | None = None
        # Acknowledged without a record, with when that was.
        self._unrecorded: deque[tuple[float, int]] = deque()

    def __contains__(self, sequence: int) -> bool:
        """Whether it is on record, as far as was read."""
        return sequence <= self._up_to or sequence in self._sequences

    async def refresh(self, deadline: float) -> None:
        """Read the record after every connecting: only then may a delivery be one too many."""
        if self._epoch == self._connection.epoch:
            return
        epoch = self._connection.epoch
        if self._listening is None:
            listen = self._connection.await_answers
            self._listening = await listen(self._subject, "", self._hear, deadline)
        reading = Reading(
            self._connection,
            companion_of(self._stream),
            {"deliver_policy": "all"},
            self._subject,
        )
        async for arrived in reading.all(deadline):
            self._hear(arrived.message)
        self._epoch = epoch

    def close(self) -> None:
        """Hear no more."""
        listening, self._listening = self._listening, None
        if listening is not None:
            self._epoch = 0
            self._connection.forget(listening)

    def _hear(self, message: Msg) -> None:
        try:
            record = json.loads(message.data)
        except ValueError:
            # Another program may write there what it likes.
            return
        if record.get("of") == self._made:
            self._know(record.get("done", ()), record.get("up_to", 0))

    def _know(self, sequences: Iterable[int], up_to: int) -> None:
        self._up_to = max(self._up_to, up_to)
        for sequence in sequences:
            self._sequences.pop(sequence, None)
            self._sequences[sequence] = None
        while len(self._sequences) > _KNOWN_MAX:
            del self._sequences[next(iter(self._sequences))]

    @property
    def is_fresh(self) -> bool:
        """Whether the record was read since this connection was made."""
        return self._epoch == self._connection.epoch

    def acknowledged(self, sequence: int, *, up_to: bool) -> None:
        """Remember an acknowledgement that is not on record yet.

        Should the server deliver it all the same, whoever acknowledged it is not bothered again
        (nats-server 2.9.10 was seen to do that under load, with a count of 1).
        """
        self._know(() if up_to else (sequence,), sequence if up_to else 0)
        now_s = time.monotonic()
        self._unrecorded.append((now_s, sequence))
        while self._unrecorded[0][0] < now_s - _SETTLED_S:
            self._unrecorded.popleft()

    async def record(
        self,
        sequences: Iterable[int],
        deadline: float,
        *,
        up_to: bool = False,
        epoch: int | None = None,
    ) -> None:
        """Write what is done; it is durable on return.

        Args:
            sequences: the messages' numbers.
            deadline: on the loop's clock.
            up_to: also all before them.
            epoch: on that connection, or not at all.

        """
        found = list(sequences)
        for first in range(0, len(found), _RECORD_MAX):
            part = found[first : first + _RECORD_MAX]
            record: dict[str, object] = {"of": self._made}
            record |= {"up_to": max(part)} if up_to else {"done": part}
            data = json.dumps(record, separators=(",", ":")).encode()
            answer = await self._connection.request(self._subject, data, deadline, epoch=epoch)
            told = json.loads(answer.data)
            if "error" in told:
                raise failure_of(told["error"], "recording what is done")
        self._know(() if up_to else found, max(found, default=0) if up_to else 0)

    async def flush(self, deadline: float, *, up_to: bool) -> None:
        """Record every acknowledgement."""
        waiting = list(self._unrecorded)
        if waiting:
            await self.record([one for _, one in waiting], deadline, up_to=up_to)
        for one in waiting:
            if self._unrecorded and self._unrecorded[0] == one:
                self._unrecorded.popleft()
