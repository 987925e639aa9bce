"""The life of a plugin's process: enter the confinement, import the plugin, answer calls.

All its threads wait in `recv` on the one socket, and whoever gets a call does it: the kernel wakes
exactly one, and nobody hands anything over. There is one thread more than calls at once, so that
always one listens. Nothing that runs here is trusted by the other side once the plugin is imported.
"""

from __future__ import annotations

import _socket  # `socket` costs 5 ms that every start would pay
import contextlib
import importlib
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from . import wire
from .host import kernel
from .wire import ANSWER, CALL, CANCEL, CONFINED, ERROR, EVENT, HELLO, PING, PONG, READY, STOP

if TYPE_CHECKING:
    from collections.abc import Callable

_HELLO_BYTES = 64 << 20
_TEXT_CHARACTERS = 4096
_TRACE_CHARACTERS = 16_384
_NAME_CHARACTERS = 100
_EVENT_BYTES = 60 << 10
# Well below what the kernel takes for an attack.
_EVENTS_PER_S = 400


def main(descriptor: int) -> None:
    """Serve on the socket that the kernel gave, until it closes it or says stop."""
    sock = _socket.socket(fileno=descriptor)
    os.set_inheritable(descriptor, False)  # noqa: FBT003 - it has no name for it
    plan = _hello(sock)
    child = _Child(sock, plan)
    stage = "sandbox"
    try:
        # Later they could not be read. `enter` brings ctypes, which most of this does without.
        from . import package  # noqa: PLC0415
        from .enter import enter  # noqa: PLC0415

        own = sys.path.pop(0)
        # Said before the plugin can say anything: from here on nothing is to be believed.
        child.send(CONFINED, 0, enter(plan["confine"]))
        stage = "load"
        sys.dont_write_bytecode = True
        sys.path[:0] = [plan["folder"]]
        sys.path.extend(path for path in plan["libraries"] if path != own)
        if plan["package"]:
            package.offer(**plan["package"])
        child.listen()
        child.plugin = _load(plan["entry"], plan["config"])
        # Before anybody calls: later there may be no memory for them.
        for number in range(plan["calls"]):
            threading.Thread(target=child.work, name=f"call-{number}", daemon=True).start()
    except BaseException as error:  # noqa: BLE001 - whatever it is, the kernel must hear of it
        child.send(ERROR, 0, {**_described(error), "stage": stage})
        os._exit(3)
    child.send(READY, 0, None)
    child.work()


def _hello(sock: _socket.socket) -> dict[str, Any]:
    assembly = wire.Assembly(_HELLO_BYTES, 1)
    while True:
        packet = sock.recv(wire.PACKET_BYTES)
        if not packet:
            os._exit(0)
        whole = assembly.take(packet)
        if whole is not None and whole[0] == HELLO:
            plan: dict[str, Any] = wire.decode(whole[2])
            return plan


def _load(entry: str, config: dict[str, Any]) -> Any:
    module, _, attribute = entry.partition(":")
    found: Any = importlib.import_module(module)
    for name in attribute.split("."):
        found = getattr(found, name)
    return found(config) if callable(found) else found


def _described(error: BaseException) -> dict[str, str]:
    """Say what was raised, in bounds, whatever the plugin made of its errors."""
    if isinstance(error, MemoryError):
        error.__traceback__ = None  # with its frames goes what they held
    import traceback  # noqa: PLC0415 - most plugins never raise

    given = {
        "type": _safely(lambda: type(error).__name__)[:_NAME_CHARACTERS],
        "text": _safely(lambda: str(error))[:_TEXT_CHARACTERS],
        "trace": _safely(lambda: "".join(traceback.format_exception(error)))[-_TRACE_CHARACTERS:],
        # Of `dwkernel.errors`; others have none.
        "code": _safely(lambda: getattr(error, "code", ""))[:_NAME_CHARACTERS],
    }
    return {name: value.encode("utf-8", "replace").decode() for name, value in given.items()}


def _safely(look: Callable[[], object]) -> str:
    """Return what is seen of an error, if it is text: the plugin made it, and it may raise."""
    try:
        found = look()
    except Exception:  # noqa: BLE001 - as above
        return "(it can't be shown)"
    return found if type(found) is str else ""


class NoMethodError(Exception):
    """The plugin has no such method; nothing that a plugin raises itself is taken for it."""


class _Child:
    """The plugin, and the line to the kernel."""

    def __init__(self, sock: _socket.socket, plan: dict[str, Any]) -> None:
        self._sock = sock
        self._bytes_max: int = plan["message_bytes"]
        self._assembly = wire.Assembly(self._bytes_max, plan["calls"] + 1)
        self._cancelled: set[int] = set()
        self._here = threading.local()
        self._running: set[int] = set()
        self._lock = threading.Lock()
        self._pace = threading.Lock()
        self._second, self._in_second = 0.0, 0
        self.plugin: Any = None

    def listen(self) -> None:
        """Let the plugin speak to the kernel."""
        kernel.send_event = self._emit
        kernel.is_cancelled = self._is_cancelled

    def send(self, kind: int, number: int, value: wire.Plain) -> None:
        """Send one message; a packet is never mixed with another's."""
        self._send(kind, number, wire.encode(value, self._bytes_max))

    def _send(self, kind: int, number: int, payload: bytes) -> None:
        try:
            for packet in wire.packets(kind, number, payload):
                self._sock.sendmsg(packet)
        except OSError:
            os._exit(0)  # the kernel is gone, or wants no more of it

    def _emit(self, name: str, data: wire.Plain) -> None:
        given: object = name  # plugins may give anything
        if not isinstance(given, str) or len(name) > _NAME_CHARACTERS:
            text = f"an event's name is text of up to {_NAME_CHARACTERS} characters"
            raise ValueError(text)
        payload = wire.encode([name, data], _EVENT_BYTES)
        with self._pace:
            now = time.monotonic()
            if now - self._second >= 1:
                self._second, self._in_second = now, 0
            elif self._in_second >= _EVENTS_PER_S:
                time.sleep(self._second + 1 - now)
                self._second, self._in_second = time.monotonic(), 0
            self._in_second += 1
        self._send(EVENT, 0, payload)

    def _is_cancelled(self) -> bool:
        return getattr(self._here, "number", 0) in self._cancelled

    def work(self) -> None:
        """Take what comes and do it, for ever; a plugin that broke this ends its process."""
        try:
            self._work()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            raise
        finally:
            os._exit(70)

    def _work(self) -> None:
        while True:
            packet = self._sock.recv(wire.PACKET_BYTES)
            if not packet:
                os._exit(0)
            whole = self._assembly.take(packet)
            if whole is None:
                continue
            kind, number, payload = whole
            if kind == CALL:
                self._do(number, payload)
            elif kind == PING:
                self._send(PONG, number, b"")
            elif kind == CANCEL:
                with self._lock:
                    if number in self._running:
                        self._cancelled.add(number)
            elif kind == STOP:
                self._leave()

    def _do(self, number: int, payload: bytes) -> None:
        self._here.number = number
        with self._lock:
            self._running.add(number)
        kind = ANSWER
        try:
            method, *arguments = wire.decode(payload)
            answer = wire.encode(self._method(method)(*arguments), self._bytes_max)
        except BaseException as error:  # noqa: BLE001 - also SystemExit: an answer is owed
            kind, answer = ERROR, wire.encode(_described(error), 1 << 20)
        with self._lock:
            self._running.discard(number)
            self._cancelled.discard(number)
        self._here.number = 0
        self._send(kind, number, answer)

    def _method(self, name: str) -> Any:
        found = None if name.startswith("_") else getattr(self.plugin, name, None)
        if not callable(found):
            text = f"the plugin has no method {name}"
            raise NoMethodError(text)
        return found

    @staticmethod
    def _leave() -> None:
        for stream in (sys.stdout, sys.stderr):
            # The plugin may have put anything there.
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(0)
