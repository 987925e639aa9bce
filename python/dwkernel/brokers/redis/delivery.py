"""One delivery of a message, until it is acknowledged, given back or given up."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel.brokers.redis import faults
from dwkernel.brokers.settings import refuse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dwkernel.brokers.redis.client import Client, Lane

__all__ = ["RedisDelivery"]


class RedisDelivery:
    """Who has it has a say until the message is delivered again.

    A call that was lost may be made again: the server knows whether it was done.
    """

    __slots__ = ("_client", "_ids", "_keys", "_lost", "_owner", "_sequence", "_total")

    def __init__(
        self,
        client: Client,
        keys: Sequence[str],
        ids: Sequence[str],
        sequence: int,
        total: int,
        owner: str,
    ) -> None:
        """Made by `RedisConsumer.fetch`."""
        self._client = client
        self._keys = keys
        self._ids = ids
        self._sequence = sequence
        self._total = total
        self._owner = owner
        # The lane of a call that was not answered, and what it was.
        self._lost: tuple[Lane, str] | None = None

    def ack(self, *, durable: bool) -> None:
        """Say that the message is done.

        Raises:
            State: `stream.ack`
            Unsupported: `broker.unsupported`: `durable`, where the server does not sync
            Unavailable: `broker.lost`

        """
        if durable:
            refuse(self._client.promises.durable_ack, "durable")
        self._settle("ack", -1)

    def nak(self, delay_s: float | None) -> None:
        """Give it back."""
        self._settle("nak", -1 if delay_s is None else math.ceil(delay_s * 1000))

    def term(self, why: str) -> None:
        """Give it up."""
        self._settle("term", why)

    def in_progress(self) -> None:
        """Begin `ack_wait` anew."""
        self._settle("in_progress", -1)

    def _settle(self, what: str, extra: Any) -> None:
        lane = None
        if self._lost is not None:
            lane, before = self._lost
            if before != what:
                # Another call: the first one is given up, and refused if it comes yet.
                lane.is_open = False
            self._lost = None
        lane = lane or self._client.lane()
        arguments = [what, self._sequence, self._total, self._owner, extra]
        limit_s = self._client.limit(None)
        try:
            answer = self._client.run_once(
                "settle", self._keys, arguments, limit_s, ids=self._ids, lane=lane
            )
        except BaseException:
            self._lost = lane, what
            raise
        self._client.give(lane)
        code = answer[0].decode()
        if code == "stream.ack":
            text = f"message {self._sequence}, delivery {self._total}, is not out"
            raise errors.new("stream.ack", text)
        if code != "ok":
            raise faults.failed(code, f"message {self._sequence}", [])
