"""Dead letters, in the stream beside a stream; on the loop's thread.

A letter is written before the server is told to deliver its message no more: in between a crash
delivers once more, and the letter is written again in its place. Redriven, it goes to a subject
that a hidden consumer reads for the consumer it belongs to.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel.brokers.nats.config import companion_of
from dwkernel.brokers.nats.failures import failure_of
from dwkernel.brokers.nats.headers import MESSAGE_ID, message_of
from dwkernel.brokers.status import BrokerDeadLetter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nats.aio.msg import Msg

    from dwkernel.brokers.message import Message
    from dwkernel.brokers.nats.connection import Connection

__all__ = ["Letter", "Letters"]

_LETTER = "Dw-Letter"
# What a message has from its publisher that a copy must not have.
_LEFT_OUT = {MESSAGE_ID, "Nats-Expected-Stream", _LETTER}
_NOT_FOUND = "404"


@dataclass(frozen=True)
class Letter:
    """What a copy of a message says about it.

    Attributes:
        subject: what the message was about.
        sequence: its number in the stream.
        published_ns: when it was committed.
        deliveries: how often it was delivered.
        reason: why it was given up.
        history: how its last delivery ended.
        has_data: False if the copy had no room for the content.

    """

    subject: str
    sequence: int
    published_ns: int
    deliveries: int
    reason: str | None
    history: tuple[tuple[int, str], ...]
    has_data: bool = True

    @classmethod
    def of(cls, headers: Mapping[str, str] | None) -> Letter:
        """Read it from a copy's headers."""
        found = json.loads((headers or {})[_LETTER])
        history = tuple((int(when), str(how)) for when, how in found.pop("history"))
        return cls(**found, history=history)

    def header(self) -> dict[str, str]:
        """Return it as a header."""
        return {_LETTER: json.dumps(self.__dict__, separators=(",", ":"))}

    def message(self, data: bytes, headers: Mapping[str, str] | None) -> Message:
        """Return the message that was copied."""
        message = message_of(self.subject, data, headers, self.published_ns)
        message.sequence = self.sequence
        return message


class Letters:
    """The dead letters of one consumer."""

    def __init__(self, connection: Connection, stream: str, consumer: str) -> None:
        """Look at those of `consumer` of `stream`."""
        self._connection = connection
        self._stream = stream
        self._companion = companion_of(stream)
        self._consumer = consumer
        self._dead = f"$DW.{stream}.dead.{consumer}"
        self.again = f"$DW.{stream}.again.{consumer}"

    async def bury(
        self, source: Msg, letter: Letter, deadline: float, how: str, reason: str | None
    ) -> None:
        """Write a letter; it is durable on return.

        Args:
            source: the message, or its copy, as it came.
            letter: what is known of it.
            deadline: on the loop's clock.
            how: `"expired"`, `"returned"` or `"terminated"`.
            reason: what `term` was given.

        """
        ended = (time.time_ns() // 1_000_000, how)
        found = {**letter.__dict__, "reason": reason, "history": (ended,)}
        headers = {
            name: value for name, value in (source.headers or {}).items() if name not in _LEFT_OUT
        }
        subject = f"{self._dead}.{letter.sequence}"
        whole = Letter(**found)
        try:
            await self._write(subject, bytes(source.data), {**headers, **whole.header()}, deadline)
        except errors.Invalid:
            # Another program's message that fills all that the server takes: named, not copied.
            bare = Letter(**{**found, "has_data": False})
            await self._write(subject, b"", bare.header(), deadline)

    async def sequences(self, deadline: float) -> list[int]:
        """Return the numbers of the messages that have letters, in order."""
        found: list[int] = []
        while True:
            body = {"subjects_filter": f"{self._dead}.*", "offset": len(found)}
            try:
                info = await self._connection.api(f"STREAM.INFO.{self._companion}", body, deadline)
            except errors.NotFound:
                # Nothing was ever given up.
                return []
            subjects = info["state"].get("subjects") or {}
            found += [int(subject.rpartition(".")[2]) for subject in subjects]
            if not subjects or len(found) >= int(info.get("total", 0)):
                return sorted(found)

    async def get(self, sequence: int, deadline: float) -> BrokerDeadLetter | None:
        """Return a letter; None if there is none for this message."""
        copy = await self._copy(sequence, deadline)
        if copy is None:
            return None
        letter = Letter.of(copy.headers)
        message = letter.message(copy.data, copy.headers) if letter.has_data else None
        return BrokerDeadLetter(
            self._consumer,
            letter.sequence,
            letter.deliveries,
            letter.reason,
            list(letter.history),
            message,
        )

    async def redrive(self, sequence: int, deadline: float) -> bool:
        """Have a message delivered again; False if it has no letter.

        Raises:
            Unsupported: `broker.unsupported`: its content was not copied

        """
        copy = await self._copy(sequence, deadline)
        if copy is None:
            return False
        letter = Letter.of(copy.headers)
        if not letter.has_data:
            text = f"redrive: message {sequence} was larger than a dead letter can be"
            raise errors.new("broker.unsupported", text)
        headers = {
            name: value
            for name, value in (copy.headers or {}).items()
            if not name.startswith("Nats-")
        }
        # Two that redrive at the same time do it once.
        place = (copy.headers or {}).get("Nats-Sequence", "")
        headers[MESSAGE_ID] = f"again.{self._consumer}.{place}"
        subject = f"{self.again}.{sequence}"
        await self._write(subject, bytes(copy.data), headers, deadline)
        await self._purge({"filter": f"{self._dead}.{sequence}"}, deadline)
        return True

    async def clear(self, deadline: float) -> None:
        """Remove everything that the consumer has here."""
        done = f"$DW.{self._stream}.done.{self._consumer}"
        for subject in (f"{self._dead}.*", f"{self.again}.*", done, f"{done}.again"):
            await self._purge({"filter": subject}, deadline)

    def forget_again(self, sequence: int, place: int) -> None:
        """Let go of a redriven copy that is done: of the message's, those up to `place`."""
        body = {"filter": f"{self.again}.{sequence}", "seq": place + 1}
        data = json.dumps(body).encode()
        self._connection.post(f"$JS.API.STREAM.PURGE.{self._companion}", data)

    async def _copy(self, sequence: int, deadline: float) -> Msg | None:
        body = json.dumps({"last_by_subj": f"{self._dead}.{sequence}"}).encode()
        subject = f"$JS.API.DIRECT.GET.{self._companion}"
        answer = await self._connection.request(subject, body, deadline)
        headers = answer.headers or {}
        if headers.get("Status") == _NOT_FOUND or _LETTER not in headers:
            return None
        return answer

    async def _purge(self, body: dict[str, Any], deadline: float) -> None:
        try:
            await self._connection.api(f"STREAM.PURGE.{self._companion}", body, deadline)
        except errors.NotFound:
            return

    async def _write(
        self, subject: str, data: bytes, headers: Mapping[str, str], deadline: float
    ) -> None:
        answer = await self._connection.request(subject, data, deadline, headers)
        told = json.loads(answer.data)
        if "error" in told:
            raise failure_of(told["error"], "keeping a dead letter")
