"""Which server has what: one, or those of a cluster."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel.brokers.redis import faults

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dwkernel.brokers.redis.link import Command, Link

__all__ = ["Nodes"]

# A server of a cluster that does not answer for so long may have a successor: another one knows.
_NODE_S = 2.0
_ASKING: Command = ("ASKING",)


class Nodes:
    """The servers that are known. Which one has a stream is learned from who says that it has not.

    All keys of a call have one hash tag, so one server has them.
    """

    def __init__(self, first: Link, *, is_cluster: bool) -> None:
        """Made by `RedisBroker`.

        Raises:
            Unavailable: `broker.lost`

        """
        self.first = first
        self.is_cluster = is_cluster
        self._lock = threading.Lock()
        self._known: dict[tuple[str, int], Link] = {first.address: first}
        self._place: dict[str, Link] = {}
        if is_cluster:
            self._look_around()

    def _look_around(self) -> None:
        (slots,) = self.first.ask([("CLUSTER", "SLOTS")], _NODE_S)
        for _, _, *nodes in slots if isinstance(slots, list) else []:
            for host, port, *_ in nodes:
                self._link_to(host.decode(), int(port))

    def ask(
        self, key: str, commands: Sequence[Command], limit_s: float, *, patience_s: float = 0
    ) -> list[Any]:
        """Ask whoever has a key, as `Link.ask` does."""
        if not self.is_cluster:
            return self.first.ask(commands, limit_s, patience_s=patience_s)
        end = time.monotonic() + limit_s
        tag = key[: key.find("}") + 1] or key
        link, before = self._place.get(tag, self.first), 0
        while True:
            left_s = max(0.001, end - time.monotonic())
            asked = [*[_ASKING] * before, *commands]
            try:
                answers = link.ask(asked, min(left_s, _NODE_S), patience_s=patience_s)[before:]
            except errors.Unavailable:
                if time.monotonic() >= end:
                    raise
                link, before = self._another_than(link), 0
                continue
            found = (faults.elsewhere(one) for one in answers)
            elsewhere = next((one for one in found if one is not None), None)
            if elsewhere is None:
                self._place[tag] = link
                return answers
            # Either: it has moved, or it is on its way and has to be asked for there.
            before = int(elsewhere.is_moving)
            link = self._link_to(elsewhere.host or link.address[0], elsewhere.port)

    def send(self, commands: Sequence[Command], limit_s: float) -> list[Any]:
        """Send what any of them takes, once.

        Raises:
            Unavailable: `broker.lost`

        """
        end, link = time.monotonic() + limit_s, self.first
        while True:
            left_s = max(0.001, end - time.monotonic())
            once_s = min(left_s, _NODE_S) if self.is_cluster else left_s
            try:
                return link.ask(commands, once_s, again=False)
            except errors.Unavailable as error:
                if "outcome" in error.details or time.monotonic() >= end:
                    raise
            link = self._another_than(link)

    def any(self, turn: int) -> Link:
        """Return one after the other."""
        with self._lock:
            known = list(self._known.values())
        return known[turn % len(known)]

    def close(self) -> None:
        """End every connection."""
        with self._lock:
            known = list(self._known.values())
        for link in known:
            link.close()

    def _another_than(self, link: Link) -> Link:
        with self._lock:
            known = list(self._known.values())
        return known[(known.index(link) + 1) % len(known)]

    def _link_to(self, host: str, port: int) -> Link:
        with self._lock:
            self.first.check()
            address = (host, port)
            if address not in self._known:
                self._known[address] = self.first.to(host, port)
            return self._known[address]
