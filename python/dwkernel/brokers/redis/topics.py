"""Topics on Redis channels: one connection listens, one thread hands out what comes.

A channel's name is the subject's behind a prefix. Redis's patterns are globs, in which `*` stands
for dots too: so the literal beginning of a pattern is subscribed to, and what comes is matched
here by the rules that every bus has.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from redis import RedisError
from redis.exceptions import NoPermissionError

from dwkernel import errors
from dwkernel._latch import Condition
from dwkernel.brokers.redis import faults
from dwkernel.brokers.redis.fields import unpacked
from dwkernel.brokers.subjects import matches

if TYPE_CHECKING:
    from dwkernel.brokers.message import Message
    from dwkernel.brokers.redis.client import Client

__all__ = ["Topics"]

# A server from which nothing came for so long is asked whether it is there.
_QUIET_S = 5.0
_PAUSE_S = 0.1

_log = logging.getLogger("dwkernel.brokers")

Take = Callable[["Message"], None]


class Topics:
    """What this program listens to. While the connection is down messages are missed."""

    def __init__(self, client: Client) -> None:
        """Made by `RedisBroker`; nothing is connected yet."""
        self._client = client
        self._lock = self._told = Condition()
        # Commands go over the connection in the order in which they were decided: else who
        # leaves a channel could end it for one who just came.
        self._sending = threading.RLock()
        self._connection: Any = None
        self._thread: threading.Thread | None = None
        # By what the server was asked for: the pattern and the receiver of each subscription.
        self._routes: dict[bytes, list[tuple[str, Take]]] = defaultdict(list)
        self._confirmed: set[bytes] = set()
        self._refused: dict[bytes, RedisError] = {}
        # What was sent and is not answered yet, in order.
        self._expected: deque[bytes] = deque()
        # Whether every pattern is listened to by the tenant's whole beginning: who may listen to
        # that may not ask for less, as Redis compares a pattern with those that are allowed.
        self._is_wide = False
        self._is_closed = False
        self._inbox = secrets.token_hex(8)
        self._questions: dict[str, Take] = {}
        self._asked = 0

    # --- Subscriptions ----------------------------------------------------------------------------

    def listen(self, pattern: str, take: Take, limit_s: float) -> Callable[[], None]:
        """Hand everything that matches `pattern` to `take` from now on.

        Returns:
            What ends it.

        Raises:
            Denied: `broker.denied`
            Unavailable: `broker.lost`

        """
        route = (pattern, take)
        with self._lock:
            self._routes[self._place_of(pattern)].append(route)
        try:
            self._ensure(lambda: self._place_of(pattern), limit_s)
        except BaseException:
            self._leave(route)
            raise
        return lambda: self._leave(route)

    def _place_of(self, pattern: str) -> bytes:
        """Return the channel of a pattern without wildcards, or a glob, which ends with `*`."""
        tokens = pattern.split(".")
        wild = next((at for at, token in enumerate(tokens) if token in {"*", ">"}), None)
        if wild is None:
            return self._client.keys.channel(pattern).encode()
        beginning = "" if self._is_wide else "".join(f"{token}." for token in tokens[:wild])
        return _escaped(self._client.keys.channel(beginning)) + b"*"

    def _ensure(self, place_of: Callable[[], bytes], limit_s: float) -> None:
        """Return when the server has confirmed the subscription."""
        end = time.monotonic() + limit_s
        with self._sending:
            place = place_of()
            with self._lock:
                if self._thread is None:
                    name = "dwk-redis-topics"
                    self._thread = threading.Thread(target=self._listen, name=name, daemon=True)
                    self._thread.start()
                connection = self._connection
                is_new = place not in self._confirmed
                self._refused.pop(place, None)
            if connection is not None and is_new:
                # If that fails the listening thread connects again and asks for everything.
                with contextlib.suppress(RedisError, OSError):
                    self._send(connection, _verb(place, "SUBSCRIBE"), place)
        with self._told:
            known = (self._confirmed, self._refused)
            self._told.wait_for(
                lambda: any(place_of() in one for one in known) or self._is_closed,
                max(0.0, end - time.monotonic()),
            )
            if place_of() in self._confirmed:
                return
            refused = self._refused.get(place_of())
        if refused is not None:
            raise faults.refusal(refused) from refused
        self._client.link.check()
        raise faults.lost(self._client.link.shown, None, sent=False)

    def _leave(self, route: tuple[str, Take]) -> None:
        with self._sending:
            with self._lock:
                place = self._place_of(route[0])
                routes = self._routes.get(place, [])
                if route in routes:
                    routes.remove(route)
                if routes:
                    return
                self._routes.pop(place, None)
                self._confirmed.discard(place)
                connection = self._connection
            if connection is not None:
                with contextlib.suppress(RedisError, OSError):
                    self._send(connection, _verb(place, "UNSUBSCRIBE"), place)

    # --- Questions --------------------------------------------------------------------------------

    def ask(self, send: Callable[[str], int], subject: str, limit_s: float | None) -> Message:
        """Ask a question, and return the first answer.

        Args:
            send: publishes it with a place for answers; returns how many listen.
            subject: whom it asks.
            limit_s: how long to wait; None is for ever.

        Raises:
            Unavailable: `bus.no_responder`, `broker.lost`
            Timeout: `bus.timeout`
            State: `bus.closed`

        """
        end = None if limit_s is None else time.monotonic() + limit_s
        place = self._client.keys.inbox(self._inbox).encode()
        with self._lock:
            self._asked += 1
            reply_to = f"{self._inbox}.{self._asked}"
            answers: list[Message] = []
            self._questions[reply_to] = answers.append
        try:
            self._ensure(lambda: place, self._client.limit(limit_s))
            if send(reply_to) == 0 and self._client.promises.no_responder:
                raise errors.new("bus.no_responder", f"nobody listens to {subject}")
            with self._told:
                left_s = None if end is None else max(0.0, end - time.monotonic())
                self._told.wait_for(lambda: answers or self._is_closed, left_s)
            if answers:
                return answers[0]
            self._client.link.check()
            raise errors.new("bus.timeout", f"nobody answered {subject} in time")
        finally:
            with self._lock:
                self._questions.pop(reply_to, None)

    # --- Listening --------------------------------------------------------------------------------

    def close(self) -> None:
        """Listen no more."""
        with self._told:
            self._is_closed = True
            self._told.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_QUIET_S)

    def _send(self, connection: Any, *command: Any) -> None:
        with self._sending:
            self._expected.extend(command[1:])
            connection.send_packed_command(connection.pack_command(*command), check_health=False)

    def _listen(self) -> None:
        turn = 0
        while not self._is_closed:
            # Of a cluster any server will do: what one is told they all are.
            link, turn, connection = self._client.nodes.any(turn), turn + 1, None
            try:
                connection = link.connection(self._client.options.connect_timeout_s)
                self._take_up(connection)
                self._read(connection)
            except (RedisError, OSError) as error:
                _log.info("topics of %s: %s; connecting again", link.shown, error)
            except errors.DwError:
                # Closed, or in a child that a fork made.
                return
            finally:
                with self._lock:
                    self._connection = None
                    self._confirmed.clear()
                if connection is not None:
                    link.release(connection)
            link.pause(_PAUSE_S)

    def _take_up(self, connection: Any) -> None:
        inbox = self._client.keys.inbox(self._inbox).encode()
        with self._sending:
            with self._lock:
                places = list(self._routes)
                self._connection = connection
            self._expected.clear()
            for place in [inbox, *places]:
                self._send(connection, _verb(place, "SUBSCRIBE"), place)

    def _read(self, connection: Any) -> None:
        connection._sock.settimeout(_QUIET_S)  # noqa: SLF001 - the library has no other way
        is_asked = False
        while not self._is_closed:
            try:
                answer = connection.read_response(disconnect_on_error=False)
            except (TimeoutError, faults.TIMEOUT):
                if is_asked:
                    raise
                is_asked = True
                self._send(connection, "PING")
                continue
            except NoPermissionError as error:
                self._refuse(connection, error)
                continue
            is_asked = False
            self._hear(answer)

    def _hear(self, answer: Any) -> None:
        if not isinstance(answer, list):
            return
        kind = answer[0]
        if kind.endswith(b"subscribe"):
            self._expected.popleft()
        if kind in {b"subscribe", b"psubscribe"}:
            with self._told:
                self._confirmed.add(answer[1])
                self._told.notify_all()
        elif kind == b"message":
            self._hand_out(answer[1], answer[1], answer[2])
        elif kind == b"pmessage":
            self._hand_out(answer[1], answer[2], answer[3])

    def _refuse(self, connection: Any, error: RedisError) -> None:
        with self._sending:
            place = self._expected.popleft()
            with self._told:
                widens = place.endswith(b"*") and not self._is_wide
                if not widens:
                    self._refused[place] = error
                    self._told.notify_all()
                    return
                self._is_wide = True
                routes = [route for routes in self._routes.values() for route in routes]
                self._routes.clear()
                for route in routes:
                    self._routes[self._place_of(route[0])].append(route)
                fresh = [one for one in self._routes if one not in self._confirmed]
            for one in fresh:
                self._send(connection, _verb(one, "SUBSCRIBE"), one)

    def _hand_out(self, place: bytes, channel: bytes, payload: bytes) -> None:
        keys = self._client.keys
        subject = channel.decode().removeprefix(keys.channel(""))
        try:
            message, answers = unpacked(
                payload, subject, self._client.options.tenant, self._client.answer
            )
        except (ValueError, KeyError):
            _log.warning("what came over %s is no message of a bus", channel)
            return
        if answers is not None:
            with self._told:
                take = self._questions.get(answers)
                if take is not None:
                    take(message)
                    self._told.notify_all()
            return
        with self._lock:
            routes = list(self._routes.get(place, ()))
        for pattern, take in routes:
            if matches(pattern, subject):
                take(message)


def _verb(place: bytes, verb: str) -> str:
    return f"P{verb}" if place.endswith(b"*") else verb


def _escaped(text: str) -> bytes:
    """Return a glob that stands for `text` only."""
    return "".join(f"\\{one}" if one in "*?[]^\\" else one for one in text).encode()
