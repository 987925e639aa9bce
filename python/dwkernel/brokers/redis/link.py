"""Connections to a server, and what is asked over them within a deadline."""

from __future__ import annotations

import contextlib
import copy
import os
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from dwkernel import errors
from dwkernel.brokers.redis import faults

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dwkernel.brokers.options import ConnectOptions

__all__ = ["Link"]

# So many connections that nobody uses are kept.
_IDLE_MAX = 64
# Between attempts.
_PAUSE_FIRST_S = 0.005
_PAUSE_MAX_S = 0.25
# A connection that died without a word is given up after so long, where asking again is safe.
_ATTEMPT_S = 5.0

Command = tuple[Any, ...]


class _Broken(Exception):
    """An attempt that came to nothing, as far as is known.

    Attributes:
        why: what went wrong.
        sent: whether it may have been done all the same.

    """

    def __init__(self, why: Exception, *, sent: bool) -> None:
        super().__init__(str(why))
        self.why = why
        self.sent = sent


class Link:
    """A server's address and the connections to it. Threads each use one at a time.

    A connection on which anything went wrong, also an interruption, is not used again: an answer
    that came late would be taken for the next one's.
    """

    def __init__(self, url: str, options: ConnectOptions) -> None:
        """Take the address; nothing is connected yet.

        Raises:
            Invalid: `broker.url`

        """
        try:
            pool = redis.ConnectionPool.from_url(
                _plain(url), protocol=2, retry=Retry(NoBackoff(), 0)
            )
        except ValueError as error:
            raise errors.new("broker.url", f"not the address of a Redis: {error}") from None
        self._class = pool.connection_class
        self._arguments = dict(pool.connection_kwargs)
        parts = urlsplit(url)
        where = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        self.shown = f"{parts.scheme}://{where}:{parts.port or 6379}{parts.path}"
        self._connect_timeout_s = options.connect_timeout_s
        self._pid = os.getpid()
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[Any] = []
        self._used: set[Any] = set()
        self._closed = threading.Event()
        # Whether the last attempt was answered.
        self.is_connected = False

    @property
    def address(self) -> tuple[str, int]:
        """Its host and port."""
        return self._arguments.get("host", "localhost"), int(self._arguments.get("port", 6379))

    def to(self, host: str, port: int) -> Link:
        """Return connections to another server, with the same credentials."""
        other = copy.copy(self)
        other._arguments = {**self._arguments, "host": host, "port": port}  # noqa: SLF001 - its own
        other.shown = f"{self.shown.partition('://')[0]}://{host}:{port}"
        other._begin()  # noqa: SLF001 - its own
        return other

    def check(self) -> None:
        """Fail unless it may be used.

        Raises:
            State: `bus.closed`, `bus.forked`

        """
        self.check_fork()
        if self._closed.is_set():
            raise errors.new("bus.closed", "the connection was closed")

    def check_fork(self) -> None:
        """Fail in a child that a fork made.

        Raises:
            State: `bus.forked`

        """
        if os.getpid() != self._pid:
            raise errors.new("bus.forked", "the connection belongs to the parent process")

    def ask(
        self,
        commands: Sequence[Command],
        limit_s: float,
        *,
        again: bool = True,
        patience_s: float = 0,
    ) -> list[Any]:
        """Send commands over one connection and return the answers, errors among them.

        Args:
            commands: sent together.
            limit_s: for so long it is tried, anew when a connection breaks.
            again: whether commands may be sent again that may have been done.
            patience_s: how long the commands themselves wait before they answer.

        Raises:
            Unavailable: `broker.lost`; the detail `outcome` (`unknown`) if something was sent
            Denied: `broker.denied`
            State: `bus.closed`, `bus.forked`

        """
        end = time.monotonic() + limit_s
        pause_s, sent, why = _PAUSE_FIRST_S, False, None
        while True:
            self.check()
            left_s = end - time.monotonic()
            if left_s <= 0:
                raise faults.lost(self.shown, why, sent=sent)
            try:
                once_s = min(left_s, _ATTEMPT_S) if again else left_s
                return self._attempt(commands, once_s, patience_s, careful=not again)
            except _Broken as broken:
                self.is_connected = False
                self.check()
                sent, why = sent or broken.sent, broken.why
                if broken.sent and not again:
                    raise faults.lost(self.shown, why, sent=True) from why
            self._closed.wait(min(pause_s, max(0.0, end - time.monotonic())))
            pause_s = min(pause_s * 2, _PAUSE_MAX_S)

    def _attempt(
        self, commands: Sequence[Command], limit_s: float, patience_s: float, *, careful: bool
    ) -> list[Any]:
        connection, sent = None, False
        try:
            connection = self._take(limit_s, careful=careful)
            sent = True
            answers = self._exchange(connection, commands, limit_s + patience_s)
        except (redis.RedisError, OSError) as error:
            self._drop(connection)
            if faults.is_lost(error) or faults.will_pass(error):
                raise _Broken(error, sent=sent) from error
            # Refused while connecting.
            raise faults.refusal(error) from error
        except BaseException:
            self._drop(connection)
            raise
        self._give(connection)
        for answer in answers:
            if isinstance(answer, redis.RedisError) and faults.will_pass(answer):
                raise _Broken(answer, sent=False) from answer
        self.is_connected = True
        return answers

    def connection(self, limit_s: float) -> Any:
        """Return a connection for its caller alone, who closes it with `release`.

        Raises:
            redis.RedisError, OSError: as the client library has it

        """
        self.check()
        return self._connect(limit_s)

    def release(self, connection: Any) -> None:
        """End a connection."""
        self._drop(connection)

    def pause(self, seconds: float) -> None:
        """Sleep, unless it is closed."""
        self._closed.wait(seconds)

    def close(self) -> None:
        """End every connection; who waits for an answer is told."""
        self._closed.set()
        with self._lock:
            idle, self._idle = self._idle, []
            used = list(self._used)
        for connection in used:
            raw = _socket_of(connection)
            if raw is not None:
                with contextlib.suppress(OSError):
                    raw.shutdown(socket.SHUT_RDWR)
        for connection in idle:
            connection.disconnect()

    def _exchange(self, connection: Any, commands: Sequence[Command], limit_s: float) -> list[Any]:
        raw = _socket_of(connection)
        if raw is None:
            raise redis.ConnectionError
        raw.settimeout(limit_s)
        connection.send_packed_command(connection.pack_commands(commands), check_health=False)
        answers: list[Any] = []
        for _ in commands:
            try:
                answers.append(connection.read_response())
            except redis.ResponseError as error:
                answers.append(error)
            except redis.ConnectionError as error:
                # The library counts some answers as lost connections: this one still stands.
                if not faults.will_pass(error):
                    raise
                answers.append(error)
        return answers

    def _take(self, limit_s: float, *, careful: bool) -> Any:
        """Return a connection; `careful`: one that its server has not closed meanwhile."""
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
                if connection is not None:
                    self._used.add(connection)
            if connection is None:
                return self._connect(limit_s)
            if not careful or _stands(connection):
                return connection
            self._drop(connection)

    def _connect(self, limit_s: float) -> Any:
        arguments = dict(self._arguments)
        arguments["socket_connect_timeout"] = min(limit_s, self._connect_timeout_s)
        # The handshake is answered within it, too.
        arguments["socket_timeout"] = arguments["socket_connect_timeout"]
        connection = self._class(**arguments)
        with self._lock:
            self._used.add(connection)
        try:
            connection.connect()
        except BaseException:
            self._drop(connection)
            raise
        return connection

    def _give(self, connection: Any) -> None:
        with self._lock:
            self._used.discard(connection)
            keep = not self._closed.is_set() and len(self._idle) < _IDLE_MAX
            if keep:
                self._idle.append(connection)
        if not keep:
            connection.disconnect()

    def _drop(self, connection: Any) -> None:
        if connection is None:
            return
        with self._lock:
            self._used.discard(connection)
        with contextlib.suppress(redis.RedisError, OSError):
            connection.disconnect()


def _plain(url: str) -> str:
    """Return the URL without what is ours to say: answers are bytes, in the older protocol."""
    parts = urlsplit(url)
    ours = {"protocol", "decode_responses"}
    options = [one for one in parse_qsl(parts.query) if one[0] not in ours]
    return urlunsplit(parts._replace(query=urlencode(options)))


def _socket_of(connection: Any) -> socket.socket | None:
    found: socket.socket | None = connection._sock  # noqa: SLF001 - a deadline of each call's own
    return found


def _stands(connection: Any) -> bool:
    """Return whether nothing came over an idle connection: neither an end nor a late answer."""
    raw = _socket_of(connection)
    if raw is None:
        return False
    poll = select.poll()
    poll.register(raw, select.POLLIN)
    return not poll.poll(0)
