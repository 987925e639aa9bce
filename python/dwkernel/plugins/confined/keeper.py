"""The thread that starts a plugin's process, watches it, and buries it.

It lives exactly as long as the process: Linux sends the death signal that the child asked for when
the *thread* that started it ends. It calls nothing of the program, so that nothing there can hold
it up.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import threading
import time
from typing import TYPE_CHECKING

from dwkernel import errors
from dwkernel._latch import Latch
from dwkernel.plugins.confined import scratch
from dwkernel.plugins.confined.dwkernel_inside import wire
from dwkernel.plugins.confined.launch import Launched, hello, launch
from dwkernel.plugins.confined.line import Line, described
from dwkernel.plugins.confined.printed import Printed
from dwkernel.plugins.confined.status import Confinement
from dwkernel.plugins.confined.watch import Usage, Watch, usage

if TYPE_CHECKING:
    from dwkernel.plugins.confined.line import Call
    from dwkernel.plugins.confined.spec import Spec

__all__ = ["STOPPED", "Keeper"]

_TICK_S, _IDLE_TICK_S, _SLOW_TICK_S = 0.05, 0.5, 1.0
_PACKETS_A_TICK = 100
_PRINTED_A_TICK = 64 << 10
_DRAIN_S = 1.0
_EXIT_S = 5.0
# Whose line is closed is about to end, as a rule, and how it ended says more.
_CLOSED_S = 0.2
STOPPED = "it was stopped"
_LOADING = {"sandbox": "plugin.sandbox", "load": "plugin.load"}

_live: dict[int, Keeper] = {}


class Keeper:
    """One process, from its start to its end."""

    def __init__(self, spec: Spec) -> None:
        """Take what is to be started; `run` starts it."""
        self.spec = spec
        self.owner = os.getpid()
        self.state = "starting"
        self.since = time.time()
        self.pid: int | None = None
        self.line: Line | None = None
        self.printed: Printed | None = None
        self.confinement: Confinement | None = None
        self.used = Usage(0.0, 0, 0)
        self.started = Latch()
        self.told = threading.Event()
        self.gone = Latch()
        self.start_error: errors.DwError | None = None
        self.reason = ""
        self._culprit: Call | None = None
        self._launched: Launched | None = None
        self._pidfd = -1
        self._reaped = False
        self._lock = threading.Lock()
        self._asked: float | None = None

    # --- from any thread --------------------------------------------------------------------------

    def end(self, reason: str, culprit: Call | None = None) -> None:
        """Kill the process and all that it started; the first reason is the one that counts."""
        with self._lock:
            if not self.reason:
                self.reason, self._culprit = reason, culprit
            self._kill()

    def _kill(self) -> None:
        if self.pid is not None and not self._reaped:
            # Not reaped yet, so the number is still its group's, and nobody else's.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def stopping(self) -> None:
        """Hear that its end is wanted."""
        with self._lock:
            if self.state == "running":
                self.state = "stopping"
            self.reason = self.reason or STOPPED

    def error(self, call: Call | None) -> errors.DwError:
        """Return what a call raises that the end cut off, or that comes after it."""
        plugin = self.spec.id
        if self.reason == STOPPED and call is None:
            return errors.new("plugin.state", f"the plugin {plugin} is stopped", plugin=plugin)
        if call is not None and call is self._culprit:
            text = f"the process of the plugin {plugin} was ended: {self.reason}"
            return errors.new("plugin.timeout", text, plugin=plugin, method=call.method)
        text = f"the process of the plugin {plugin} is no more: {self.reason}"
        lines = "\n".join(self.printed.lines[-10:]) if self.printed else ""
        return errors.new("plugin.died", text, plugin=plugin, reason=self.reason, printed=lines)

    # --- the thread -------------------------------------------------------------------------------

    def run(self) -> None:
        """Start it, keep it, bury it."""
        try:
            self._launched = launch(self.spec)
        except BaseException as error:  # noqa: BLE001 - told to who started it
            self._fail(error, "it cannot be started")
            self._ended()
            return
        try:
            self._begin(self._launched)
            self._watch()
        except BaseException as error:  # noqa: BLE001 - a process without a keeper must not live
            self._fail(error, "its keeper failed")
            self.end(self.reason)
        finally:
            self._bury(self._launched)

    def _fail(self, error: BaseException, what: str) -> None:
        self.reason = self.reason or f"{what}: {error}"
        if isinstance(error, errors.DwError):
            self.start_error = self.start_error or error

    def _begin(self, launched: Launched) -> None:
        self.pid = pid = launched.process.pid
        _live[id(self)] = self
        limits = self.spec.limits
        self.line = Line(launched.sock, self.spec.id, limits.message_bytes, limits.calls, self.end)
        stdout = launched.process.stdout
        assert stdout is not None  # noqa: S101 - it was asked for
        self.printed = Printed(stdout.fileno())
        with contextlib.suppress(OSError):
            self._pidfd = os.pidfd_open(pid)
        plan = hello(self.spec, pid, launched.scratch)
        with contextlib.suppress(OSError, errors.Timeout):  # it is gone, and its end tells how
            self.line.send(wire.HELLO, 0, plan, time.monotonic() + limits.start_s)

    def _watch(self) -> None:
        begun = looked = measured = time.monotonic()
        watch = Watch(self.spec.limits)
        closed_at = None
        while not self._has_ended():
            self._wait()
            now = time.monotonic()
            line = self._line
            line.attend(_PACKETS_A_TICK)
            if self.state == "starting":
                self._greet(now - begun)
            if line.drained.is_set():
                closed_at = closed_at or now
                if now - closed_at > _CLOSED_S:
                    self.end("it closed its line to the kernel")
            if line.events:
                self.told.set()
            if now - measured >= _TICK_S:
                measured = now
                self._measure(watch, now)
                self._heartbeat(now)
            if now - looked >= _SLOW_TICK_S:
                looked = now
                self._weigh_scratch()

    @property
    def _line(self) -> Line:
        assert self.line is not None  # noqa: S101 - made in _begin
        return self.line

    def _wait(self) -> None:
        """Wait for something to happen, or for the next tick."""
        line, printed, poller = self._line, self.printed, select.poll()
        idle = not line.busy and self.state != "starting"
        if self._pidfd >= 0:
            poller.register(self._pidfd, select.POLLIN)
        if not line.busy and not line.drained.is_set():
            poller.register(self._launched_sock, select.POLLIN)
        if printed is not None and not printed.ended:
            poller.register(printed.descriptor, select.POLLIN)
        tick_s = min(_IDLE_TICK_S, self.spec.limits.heartbeat_s) if idle else _TICK_S
        if self._pidfd < 0:
            tick_s = _TICK_S  # nothing wakes us when it ends
        ready = {descriptor for descriptor, _ in poller.poll(tick_s * 1000)}
        if printed is not None and printed.descriptor in ready:
            printed.read(_PRINTED_A_TICK)
            if printed.is_fresh:
                self.told.set()
            if len(ready) == 1:
                time.sleep(_TICK_S / 10)  # who prints without end waits for us, not we for it

    @property
    def _launched_sock(self) -> int:
        assert self._launched is not None  # noqa: S101 - started before
        return self._launched.sock.fileno()

    def _has_ended(self) -> bool:
        """Say whether the process is dead; its number stays taken until it is buried."""
        try:
            found = os.waitid(os.P_PID, self.pid or 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return True  # the program reaps children that are not its own
        return found is not None

    def _greet(self, waited_s: float) -> None:
        try:
            self._hear()
        except wire.WireError as error:
            self.end(f"it broke the protocol: {error}")
        if waited_s > self.spec.limits.start_s and self.state == "starting":
            text = f"the plugin {self.spec.id} was not imported in {self.spec.limits.start_s} s"
            self.start_error = errors.new("plugin.timeout", text, plugin=self.spec.id)
            self.end(text)

    def _hear(self) -> None:
        line = self._line
        while line.greetings:
            kind, payload = line.greetings.popleft()
            if self.confinement is None and kind == wire.CONFINED:
                self.confinement = _confinement(wire.decode(payload), self.spec)
            elif self.confinement is not None and kind == wire.READY:
                self.state = "running"
                self.started.open()
                return
            elif kind == wire.ERROR:
                self._refused(payload)
                return
            else:
                text = "its greeting is wrong"
                raise wire.WireError(text)

    def _refused(self, payload: bytes) -> None:
        value = wire.decode(payload)
        said = described(value)
        # Before the plugin was imported the process is believed, afterwards it is not.
        stage = "sandbox" if self.confinement is None else "load"
        text = f"the plugin {self.spec.id} did not start: {said['type']}: {said['text']}"
        self.start_error = errors.new(_LOADING[stage], text, plugin=self.spec.id, **said)
        self.end(text)

    def _measure(self, watch: Watch, now: float) -> None:
        pid = self.pid or 0
        self.used = usage(pid, group=self.spec.permissions.subprocess)
        with self._line.lock:
            calls = list(self._line.open.values())
        reason, culprit = watch.judge(now, self.used, calls)
        if reason:
            self.end(reason, culprit)

    def _heartbeat(self, now: float) -> None:
        """Ask a silent process whether it lives; it may be held up for as long as a call."""
        limits, line = self.spec.limits, self._line
        if self.state == "starting" or now - line.last_heard < limits.heartbeat_s:
            return
        if self._asked is None or self._asked < line.last_heard:
            self._asked = now
            with contextlib.suppress(OSError, errors.Timeout):
                line.send(wire.PING, 0, b"", now)
        elif now - self._asked > limits.wall_s + limits.heartbeat_s:
            self.end("it does not answer its heartbeat")

    def _weigh_scratch(self) -> None:
        assert self._launched is not None  # noqa: S101 - started before
        size, limit = scratch.weigh(self._launched.scratch), self.spec.limits.disk_bytes
        if size is None or size > limit:
            self.end(f"its scratch folder holds more than {limit} bytes, or hides some")

    # --- the end ----------------------------------------------------------------------------------

    def _bury(self, launched: Launched) -> None:
        with self._lock:
            self._kill()  # what it left behind
            status = launched.process.wait()
            self._reaped = True
            self.reason = self.reason or _how(status)
        if self.printed is not None:
            self.printed.read(_PRINTED_A_TICK)
        if self.line is not None:
            # What was answered before the end is read, by us or by a caller that does so already.
            end = time.monotonic() + _DRAIN_S
            while not self.line.drained.is_set() and time.monotonic() < end:
                self.line.attend(_PACKETS_A_TICK)
                self.line.drained.wait(_TICK_S / 10)
        if self._pidfd >= 0:
            os.close(self._pidfd)
        _live.pop(id(self), None)
        self._ended()
        launched.sock.close()
        if launched.process.stdout is not None:
            launched.process.stdout.close()
        scratch.remove(launched.scratch)
        self.gone.open()
        self.told.set()

    def _ended(self) -> None:
        if self.line is not None:
            self.line.finish(self.error)
        self.state = "ended"
        if not self.started.is_open:
            self.start_error = self.start_error or self.error(None)
            self.started.open()
        if self._launched is None:
            self.gone.open()
            self.told.set()

    # --- forks ------------------------------------------------------------------------------------

    def forget(self) -> None:
        """Let go of everything, in a child that a fork made: the process is not its."""
        if self._launched is not None:
            self._launched.sock.close()
            if self._launched.process.stdout is not None:
                self._launched.process.stdout.close()
            self._launched.process.returncode = 0  # it is not this process's to wait for
        if self._pidfd >= 0:
            os.close(self._pidfd)


def _how(status: int) -> str:
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"it was killed by {signal.Signals(-status).name}"
        return f"it was killed by signal {-status}"
    return f"it ended with status {status}"


def _confinement(said: wire.Plain, spec: Spec) -> Confinement:
    landlock, seccomp = int(said["landlock"]), bool(said["seccomp"])
    # Landlock alone knows TCP only.
    denied = "denied" if seccomp else "open"
    network = "granted" if spec.permissions.network else denied
    return Confinement(landlock, seccomp, network, tuple(said["missing"]))


def _forked() -> None:
    for keeper in list(_live.values()):
        keeper.forget()
    _live.clear()


@atexit.register
def _at_exit() -> None:
    keepers = [keeper for keeper in list(_live.values()) if keeper.owner == os.getpid()]
    for keeper in keepers:
        keeper.end("the program ends")
    end = time.monotonic() + _EXIT_S
    for keeper in keepers:
        keeper.gone.wait(max(0.0, end - time.monotonic()))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
