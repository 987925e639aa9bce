"""HTTP connections that end in time and go only where they may.

urllib3's connections, with three things of our own. A request has one deadline for all of it: a
receiver that sends one byte a second resets every timeout of a socket, but not this one. The
address that is connected to is the one that was checked, whatever a name means a moment later. And
nothing is logged: URLs are secrets, often.
"""

from __future__ import annotations

import contextlib
import heapq
import ipaddress
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from dwkernel import errors
from dwkernel._latch import Condition

try:
    from urllib3.connection import HTTPConnection, HTTPSConnection
except ImportError as _error:  # pragma: no cover - the tests' environment has it
    _TEXT = "webhooks need urllib3: pip install 'dwkernel[webhook]'"
    raise errors.new("sink.option", _TEXT) from _error

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator, Mapping

__all__ = ["Answer", "Line", "PrivateAddressError", "is_public"]

# What is read of an answer, so that the connection can be used again; a longer one ends it.
_BODY_BYTES_MAX = 64 << 10
# A thread that has no deadline to watch ends after so long.
_IDLE_S = 10.0
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class PrivateAddressError(OSError):
    """A name means an address that is not public."""


def is_public(address: str) -> bool:
    """Return whether an address is one of the internet, and not of this machine or its networks."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


class Answer(NamedTuple):
    """What a receiver answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Checked:
    """What both kinds of connection do: connect to an address that was checked."""

    allow_private = False
    host: str
    port: int
    timeout: Any
    # The socket once more, below TLS: shut down, it wakes whoever waits for the other.
    raw: socket.socket | None = None

    def _new_conn(self) -> socket.socket:
        """Return a connected socket, in the place of urllib3's own."""
        last: OSError | None = None
        end = time.monotonic() + self.timeout
        for family, kind, protocol, _, place in socket.getaddrinfo(
            self.host.strip("[]"), self.port, type=socket.SOCK_STREAM
        ):
            if not self.allow_private and not is_public(str(place[0])):
                last = PrivateAddressError("the address is not public")
                continue
            made = socket.socket(family, kind, protocol)
            try:
                made.settimeout(max(0.001, end - time.monotonic()))
                made.connect(place)
                made.settimeout(self.timeout)
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.forget()
                self.raw = made.dup()
            except OSError as error:
                made.close()
                last = error
                continue
            return made
        raise last or OSError("the name has no address")

    def forget(self) -> None:
        """Close the second descriptor; `close` does not, as answers are read behind it."""
        raw, self.raw = self.raw, None
        if raw is not None:
            raw.close()


class _Plain(_Checked, HTTPConnection):
    """HTTP."""


class _Secure(_Checked, HTTPSConnection):
    """HTTPS."""


class Line:
    """Connections to one place, kept for the next request. Threads may share it."""

    def __init__(
        self,
        host: str,
        port: int | None,
        *,
        context: ssl.SSLContext | None,
        timeout_s: float,
        allow_private: bool,
    ) -> None:
        """Speak HTTPS if there is a context, and HTTP otherwise; connect to nothing yet."""
        self._host = host
        self._port = port
        self._context = context
        self._timeout_s = timeout_s
        self._allow_private = allow_private
        self._idle: list[_Plain | _Secure] = []
        self._lock = threading.Lock()
        self._reaper = _Reaper()

    def post(self, target: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send a request and return its answer; a connection that was kept may be dead: once more.

        Raises:
            OSError, http.client.HTTPException, urllib3.exceptions.HTTPError, ValueError: as it goes

        """
        connection = self._kept()
        if connection is not None:
            with contextlib.suppress(ConnectionError):
                return self._exchange(connection, target, body, headers)
        return self._exchange(self._new(), target, body, headers)

    def _exchange(
        self, connection: _Plain | _Secure, target: str, body: bytes, headers: Mapping[str, str]
    ) -> Answer:
        is_whole = False
        try:
            deadline = time.monotonic() + self._timeout_s
            with self._reaper.until(deadline, connection):
                connection.request(
                    "POST", target, body, headers, preload_content=False, decode_content=False
                )
                response = connection.getresponse()
                if time.monotonic() >= deadline:
                    # It was cut off, which the parser takes for the end of the headers.
                    raise TimeoutError
                read = b""
                # The status is the answer; what follows only says whether the connection is well.
                with contextlib.suppress(Exception):
                    read = response.read(_BODY_BYTES_MAX + 1)
                    is_whole = len(read) <= _BODY_BYTES_MAX and response.read(1) == b""
                answer = Answer(response.status, response.headers, read[:_BODY_BYTES_MAX])
                is_whole = is_whole and response.headers.get("connection", "").lower() != "close"
        finally:
            if is_whole:
                self._keep(connection)
            else:
                _drop(connection)
        return answer

    def _kept(self) -> _Plain | _Secure | None:
        with self._lock:
            while self._idle:
                connection = self._idle.pop()
                if connection.is_connected:
                    return connection
                _drop(connection)
        return None

    def _keep(self, connection: _Plain | _Secure) -> None:
        with self._lock:
            self._idle.append(connection)

    def _new(self) -> _Plain | _Secure:
        connection: _Plain | _Secure
        if self._context is None:
            connection = _Plain(self._host, self._port, timeout=self._timeout_s)
        else:
            connection = _Secure(
                self._host, self._port, timeout=self._timeout_s, ssl_context=self._context
            )
        connection.allow_private = self._allow_private
        return connection

    def close(self) -> None:
        """Close what is kept."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            _drop(connection)
        self._reaper.close()


def _drop(connection: _Plain | _Secure) -> None:
    with contextlib.suppress(Exception):
        connection.close()
    connection.forget()


class _Reaper:
    """Shuts down the sockets of requests whose time is over; so whoever waits for one wakes up."""

    def __init__(self) -> None:
        """Start no thread before the first request."""
        self._change = Condition()
        self._due: list[tuple[float, int, _Plain | _Secure]] = []
        self._live: set[int] = set()
        self._ticket = 0
        self._pid = 0
        self._is_closed = False

    @contextlib.contextmanager
    def until(self, deadline: float, connection: _Plain | _Secure) -> Iterator[None]:
        """Let what the block does with a connection take no longer.

        Raises:
            TimeoutError: it took longer

        """
        with self._change:
            self._ticket += 1
            ticket = self._ticket
            self._live.add(ticket)
            heapq.heappush(self._due, (deadline, ticket, connection))
            if self._pid != os.getpid():
                self._pid, self._is_closed = os.getpid(), False
                threading.Thread(target=self._reap, name="dwk-sink-deadlines", daemon=True).start()
            if self._due[0][1] == ticket:
                self._change.notify()
        try:
            yield
        except Exception as error:
            if time.monotonic() >= deadline:
                text = "the receiver took too long"
                raise TimeoutError(text) from error
            raise
        finally:
            with self._change:
                self._live.discard(ticket)

    def _reap(self) -> None:
        with self._change:
            while True:
                while self._due and self._due[0][1] not in self._live:
                    heapq.heappop(self._due)
                now = time.monotonic()
                if not self._due:
                    is_over = self._is_closed or not self._change.wait(_IDLE_S)
                    if is_over and not self._due:
                        self._pid = 0  # the next request starts another
                        return
                elif self._due[0][0] > now:
                    self._change.wait(self._due[0][0] - now)
                else:
                    raw = heapq.heappop(self._due)[2].raw
                    if raw is not None:
                        with contextlib.suppress(OSError):
                            raw.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the thread."""
        with self._change:
            self._is_closed = True
            self._change.notify()
