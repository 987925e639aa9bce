"""Running scripts so that none is done twice, whatever happens to connections."""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel.brokers.fields import Outgoing
from dwkernel.brokers.redis import faults
from dwkernel.brokers.redis.fields import packed
from dwkernel.brokers.redis.keys import Keys
from dwkernel.brokers.redis.scripts import script

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dwkernel.brokers.options import ConnectOptions
    from dwkernel.brokers.redis.nodes import Nodes
    from dwkernel.bus.promises import Promises

__all__ = ["Client", "Lane"]


@dataclass
class Lane:
    """One call at a time: the server remembers the answer of the last one.

    Attributes:
        name: its name on the server.
        call: the number of the last call.
        is_open: True if that one was never answered. Made again under its number it is not done
            twice; a number that is left behind is refused when it comes late.

    """

    name: str
    call: int = 0
    is_open: bool = False

    def begin(self) -> tuple[str, str]:
        """Return the name and the number of a call, the same as before if that is open."""
        if not self.is_open:
            self.call += 1
            self.is_open = True
        return self.name, str(self.call)


class Client:
    """What streams and consumers of one connection share."""

    def __init__(self, nodes: Nodes, options: ConnectOptions, promises: Promises) -> None:
        """Made by `RedisBroker`."""
        self.nodes = nodes
        self.link = nodes.first
        self.options = options
        self.promises = promises
        self.keys = Keys.of(options.tenant)
        self._lock = threading.Lock()
        self._name = secrets.token_hex(8)
        self._lanes_made = 0
        self._lanes: list[Lane] = []

    def lane(self) -> Lane:
        """Return a lane that nobody uses."""
        with self._lock:
            if self._lanes:
                return self._lanes.pop()
            self._lanes_made += 1
            return Lane(f"{self._name}-{self._lanes_made}")

    def give(self, lane: Lane) -> None:
        """Give a lane back; its open call is given up."""
        lane.is_open = False
        with self._lock:
            self._lanes.append(lane)

    def run(
        self, name: str, keys: Sequence[str], arguments: Sequence[Any], limit_s: float
    ) -> list[Any]:
        """Run a script that may be run twice; returns what it answers.

        Raises:
            Unavailable: `broker.lost`
            Denied: `broker.denied`
            Full: `stream.full`: the server has no memory left
            State: `bus.closed`, `bus.forked`
            Internal: `broker.failed`

        """
        one, end = script(name), time.monotonic() + limit_s
        tail = (len(keys), *keys, *arguments)
        commands: list[tuple[Any, ...]] = [("EVALSHA", one.sha, *tail)]
        others = self.options.replicas - 1
        if others > 0:
            commands.append(("WAIT", others, max(1, int(limit_s * 900))))
        while True:
            left_s = max(0.001, end - time.monotonic())
            answers = self.nodes.ask(keys[0], commands, left_s)
            answer = answers[0]
            if not isinstance(answer, BaseException):
                break
            if not faults.is_unknown_script(answer):
                raise faults.refusal(answer) from answer
            commands[0] = ("EVAL", one.source, *tail)
        if others > 0 and not _has(answers[1], others):
            text = f"{answers[1]} of {others} replicas have it by now"
            raise errors.new("broker.lost", text, outcome="unknown")
        return list(answer)

    def run_once(
        self,
        name: str,
        keys: Sequence[str],
        arguments: Sequence[Any],
        limit_s: float,
        *,
        ids: Sequence[str],
        lane: Lane | None = None,
    ) -> list[Any]:
        """Run a script that must not be done twice.

        Args:
            name: the script's.
            keys: its keys.
            arguments: what it is given behind `ids`, lane and call.
            limit_s: for so long it is tried.
            ids: what it is given first.
            lane: the caller's own, whose open call is made again; by default one is borrowed.

        Raises:
            As `run`.

        """
        used = lane or self.lane()
        try:
            answer = self.run(name, keys, [*ids, *used.begin(), *arguments], limit_s)
        except errors.DwError as error:
            # What is not lost was answered, though not done.
            used.is_open = error.code == "broker.lost"
            raise
        else:
            used.is_open = False
            return answer
        finally:
            if lane is None:
                self.give(used)

    def answer(self, reply_to: str, content: bytes) -> bool:
        """Send an answer to who asked; returns whether anybody waits for one.

        Raises:
            Unavailable: `broker.lost`

        """
        one = Outgoing.of("answer", content)
        # One channel for all answers to a program, whose name one right can allow.
        channel = self.keys.inbox(reply_to.rpartition(".")[0])
        payload = packed(one, self.options.principal, answers=reply_to)
        command = ("PUBLISH", channel, payload)
        (told,) = self.nodes.send([command], self.limit(None))
        if isinstance(told, BaseException):
            raise faults.refusal(told) from told
        return int(told) > 0

    def limit(self, timeout: Any) -> float:
        """Return the seconds that an operation may take."""
        return self.options.limit(timeout)


def _has(answer: Any, others: int) -> bool:
    return isinstance(answer, int) and answer >= others
