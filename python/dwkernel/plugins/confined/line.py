"""Calls over one socket, answered out of order; whoever waits reads.

One of the callers that wait reads for all of them: it hands others what is theirs, and the reading
on to one of them when it has its own. So an answer costs one change of threads, not two. A caller
that is told to go on reading and leaves instead tells the next.

Nothing that comes is trusted: what is no message, answers no question or comes too often is a
*breach*, and the owner is told to end the process.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections import deque
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel.plugins.confined.dwkernel_inside import wire
from dwkernel.plugins.confined.status import Event

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Call", "Line"]

# Events and heartbeats that a process may send in a second, on average of one.
EVENTS_PER_S = 1000
_EVENTS_KEPT = 1000
_TEXT_MAX = 20_000
_LEAD = (0, b"")
_GONE = (-1, b"")


class Call:
    """One question that is on its way."""

    __slots__ = ("abandoned", "cpu_s", "end", "error", "inbox", "method", "number", "started")

    def __init__(self, number: int, method: str, started: float, end: float) -> None:
        """Begin at `started`, to be answered by `end`."""
        self.number = number
        self.method = method
        self.started = started
        self.end = end
        self.cpu_s = 0.0
        self.abandoned = False
        self.error: errors.DwError | None = None
        self.inbox: SimpleQueue[tuple[int, bytes]] = SimpleQueue()


class Line:
    """The kernel's end of the socket."""

    def __init__(
        self,
        sock: socket.socket,
        plugin: str,
        message_bytes: int,
        calls: int,
        on_breach: Callable[[str], None],
    ) -> None:
        """Take a connected SOCK_SEQPACKET socket; `on_breach` hears what was wrong."""
        sock.setblocking(False)  # noqa: FBT003 - it has no name for it
        self._sock = sock
        self._plugin = plugin
        self._bytes_max = message_bytes
        self._on_breach = on_breach
        self._assembly = wire.Assembly(message_bytes, calls)
        self._poller = select.poll()
        self._poller.register(sock, select.POLLIN)
        self._slots = threading.Semaphore(calls)
        self.lock = threading.Lock()
        self._leading = False
        self._waiting: dict[int, Call] = {}
        self._number = 0
        self._over: Callable[[Call | None], errors.DwError] | None = None
        self._second, self._in_second = 0.0, 0
        self.drained = threading.Event()
        self.open: dict[int, Call] = {}
        # What the process says while it starts, in order: CONFINED, READY, or ERROR.
        self.greetings: deque[tuple[int, bytes]] = deque()
        self.greeted = False
        self.events: deque[Event] = deque(maxlen=_EVENTS_KEPT)
        self.events_dropped = 0
        self.answered = 0
        self.failed = 0
        self.last_error: str | None = None
        self.last_heard = time.monotonic()
        self.last_call = 0.0

    # --- asking -----------------------------------------------------------------------------------

    def call(self, method: str, arguments: tuple[Any, ...], wait_s: float, wall_s: float) -> Any:
        """Ask, and return the answer.

        Raises:
            Internal: `plugin.failed`: it raised
            Timeout: `plugin.timeout`
            Unavailable: `plugin.died`
            Invalid: `plugin.option`: the arguments are not plain data
            State: `plugin.state`: it is stopped

        """
        try:
            payload = wire.encode([method, *arguments], self._bytes_max)
        except wire.WireError as error:
            text = f"{method}() of the plugin {self._plugin} cannot be sent: {error}"
            raise errors.new("plugin.option", text, plugin=self._plugin, method=method) from None
        begun = time.monotonic()
        if not self._slots.acquire(timeout=min(wait_s, threading.TIMEOUT_MAX)):
            raise self._late(method, "all calls that it may have at once are under way")
        call = self._begin(method, wall_s)
        end = min(begun + wait_s, call.end)
        try:
            self._send(wire.CALL, call.number, payload, end, call.end)
            del payload  # a long one is not kept for as long as the call takes
            kind, data = self._wait(call, end)
        except BaseException as error:
            self._abandon(call, error)
            raise
        if kind == wire.ANSWER:
            return self._read_answer(call, data)
        raise self._error(call, data)

    def _begin(self, method: str, wall_s: float) -> Call:
        now = time.monotonic()
        with self.lock:
            if self._over is not None:
                self._slots.release()
                raise self._over(None)
            self._number = self._number % 0xFFFF_FFFF + 1
            while self._number in self.open:
                self._number = self._number % 0xFFFF_FFFF + 1
            call = self.open[self._number] = Call(self._number, method, now, now + wall_s)
            self.last_call = now
        return call

    def _abandon(self, call: Call, error: BaseException) -> None:
        """Nobody waits any more; the answer is owed all the same, and its place taken."""
        with self.lock:
            call.abandoned = True
            if call.number not in self.open:
                return
            self.failed += 1
        self.last_error = str(error)
        with contextlib.suppress(OSError):
            packet = next(wire.packets(wire.CANCEL, call.number, b""))
            self._sock.sendmsg(packet, (), socket.MSG_NOSIGNAL)

    def _late(self, method: str, why: str) -> errors.DwError:
        text = f"{method}() of the plugin {self._plugin} did not end in time: {why}"
        return errors.new("plugin.timeout", text, plugin=self._plugin, method=method)

    def send(self, kind: int, number: int, payload: bytes, end: float) -> None:
        """Send a message that is no call.

        Raises:
            Timeout: `plugin.timeout`
            OSError: the process is gone

        """
        self._send(kind, number, payload, end, end)

    def _send(self, kind: int, number: int, payload: bytes, end: float, wall: float) -> None:
        """Send until `end`; a message that is begun is sent whole, if that takes until `wall`."""
        for packet in wire.packets(kind, number, payload):
            while True:
                try:
                    self._sock.sendmsg(packet, (), socket.MSG_NOSIGNAL)
                    break
                except BlockingIOError:
                    self._wait_for_room(end)
                except OSError:
                    if kind != wire.CALL:
                        raise
                    return  # it is ending: the waiting hears how
            end = wall

    def _wait_for_room(self, end: float) -> None:
        poller = select.poll()
        poller.register(self._sock, select.POLLOUT)
        left = end - time.monotonic()
        if left <= 0 or not poller.poll(left * 1000):
            why = "it does not read what it is sent"
            raise self._late("send", why)

    # --- waiting ----------------------------------------------------------------------------------

    def _wait(self, call: Call, end: float) -> tuple[int, bytes]:
        with self.lock:
            self._waiting[call.number] = call
        try:
            while True:
                with self.lock:
                    lead = not self._leading
                    if lead:
                        self._leading = True
                if lead:
                    self._lead(call, end)
                try:
                    item = call.inbox.get(timeout=max(0.0, end - time.monotonic()))
                except Empty:
                    late = end >= call.end
                    why = "it may take no longer" if late else "its caller waits no longer"
                    raise self._late(call.method, why) from None
                if item is not _LEAD:
                    return item
        finally:
            with self.lock:
                self._waiting.pop(call.number, None)
                self._pass_on()

    def _pass_on(self) -> None:
        """Have somebody read, if nobody does; under the lock."""
        if not self._leading and not self.drained.is_set():
            for other in self._waiting.values():
                other.inbox.put(_LEAD)
                return

    def _lead(self, call: Call, end: float) -> None:
        """Read until this call has its answer, its time is over, or nothing comes any more."""
        try:
            while call.inbox.empty() and not self.drained.is_set():
                left = end - time.monotonic()
                if left <= 0 or not self._poller.poll(left * 1000):
                    return
                # The parts of a long answer come close together.
                while self._take() and call.inbox.empty() and time.monotonic() < end:
                    pass
        finally:
            with self.lock:
                self._leading = False

    def attend(self, packets_max: int) -> None:
        """Read what is there, if no caller does; for the keeper."""
        with self.lock:
            if self._leading:
                return
            self._leading = True
        try:
            for _ in range(packets_max):
                if self.drained.is_set() or not self._take():
                    return
        finally:
            with self.lock:
                self._leading = False
                self._pass_on()

    def _take(self) -> bool:
        """Take one packet, if there is one."""
        try:
            packet = self._sock.recv(wire.PACKET_BYTES + 1)
        except BlockingIOError:
            return False
        except OSError:
            packet = b""
        if not packet:
            self.drained.set()  # the keeper sees that, too
            return False
        try:
            whole = self._assembly.take(packet)
            if whole is not None:
                self._dispatch(*whole)
        except wire.WireError as error:
            self._breach(str(error))
        self.last_heard = time.monotonic()
        return True

    def _breach(self, text: str) -> None:
        self.drained.set()  # nothing more of it is read
        self._on_breach(f"it broke the protocol: {text}")

    def _dispatch(self, kind: int, number: int, payload: bytes) -> None:
        if number == 0 and not self.greeted and kind in (wire.CONFINED, wire.READY, wire.ERROR):
            self.greeted = kind != wire.CONFINED or bool(self.greetings)
            self.greetings.append((kind, payload))
            return
        if kind in (wire.ANSWER, wire.ERROR):
            with self.lock:
                call = self.open.pop(number, None)
                if call is None:
                    text = f"it answers call {number}, which nobody asked or which it answered"
                    raise wire.WireError(text)
            self._slots.release()
            self.answered += 1
            if not call.abandoned:
                call.inbox.put((kind, payload))
            return
        self._count()
        if kind == wire.EVENT:
            self._take_event(payload)
        elif kind != wire.PONG:
            text = f"a message of kind {kind} is not its to send"
            raise wire.WireError(text)

    def _count(self) -> None:
        now = time.monotonic()
        if now - self._second >= 1:
            self._second, self._in_second = now, 0
        self._in_second += 1
        if self._in_second > EVENTS_PER_S:
            text = f"more than {EVENTS_PER_S} events in a second"
            raise wire.WireError(text)

    def _take_event(self, payload: bytes) -> None:
        value = wire.decode(payload)
        if not (isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)):  # noqa: PLR2004 - name and data
            text = "an event is a name and data"
            raise wire.WireError(text)
        if len(self.events) == _EVENTS_KEPT:
            self.events_dropped += 1
        self.events.append(Event(value[0][:100], value[1]))

    # --- what came --------------------------------------------------------------------------------

    def _read_answer(self, call: Call, data: bytes) -> Any:
        try:
            return wire.decode(data)
        except wire.WireError as error:
            self._note_failure()
            self._breach(f"its answer to {call.method}() is wrong: {error}")
            text = f"the plugin {self._plugin} answered with what is no data: {error}"
            failed = errors.new("plugin.died", text, plugin=self._plugin, method=call.method)
            self.last_error = str(failed)
            raise failed from None

    def _note_failure(self) -> None:
        with self.lock:
            self.failed += 1

    def _error(self, call: Call, data: bytes) -> errors.DwError:
        if call.error is not None:
            return call.error
        self._note_failure()
        try:
            said = described(wire.decode(data))
        except wire.WireError as error:
            self._breach(f"its error of {call.method}() is wrong: {error}")
            said = {"type": "?", "text": str(error), "traceback": "", "error_code": ""}
        text = f"{call.method}() of the plugin {self._plugin} raised {said['type']}: {said['text']}"
        self.last_error = text
        return errors.new("plugin.failed", text, plugin=self._plugin, method=call.method, **said)

    def finish(self, error: Callable[[Call | None], errors.DwError]) -> None:
        """End all calls, and those to come: `error` makes what each raises."""
        with self.lock:
            self._over = error
            ended = list(self.open.values())
            self.open.clear()
            self.answered += len(ended)
            self.failed += sum(not call.abandoned for call in ended)
        self.drained.set()
        for call in ended:
            self._slots.release()
            call.error = error(call)
            call.inbox.put(_GONE)

    def refuse(self, error: Callable[[Call | None], errors.DwError]) -> None:
        """Take no further calls; those under way go on."""
        with self.lock:
            self._over = error

    @property
    def busy(self) -> bool:
        """Whether a call is under way, or was a moment ago: then callers read."""
        return bool(self.open) or time.monotonic() - self.last_call < 0.1  # noqa: PLR2004 - two ticks

    def close(self) -> None:
        """Let the socket go."""
        self._sock.close()


def described(value: object) -> dict[str, str]:
    """Return what a process says of an error, in bounds.

    Raises:
        WireError: it is something else

    """
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        text = "an error is texts by name"
        raise wire.WireError(text)
    return {
        "type": value.get("type", "?")[:100],
        "text": value.get("text", "")[:_TEXT_MAX],
        "traceback": value.get("trace", "")[:_TEXT_MAX],
        "error_code": value.get("code", "")[:100],
    }
