"""Keeps a confined plugin running: what dies is started again, with growing pauses, for a while."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel._aside import aside
from dwkernel._latch import Condition
from dwkernel.plugins.confined.process import Process, start
from dwkernel.plugins.confined.status import Status
from dwkernel.units import Duration, parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwkernel.plugins.confined.dwkernel_inside.wire import Plain
    from dwkernel.plugins.confined.spec import Spec
    from dwkernel.plugins.confined.status import Event

__all__ = ["Restarts", "Supervisor"]

_STOP_S = 10.0
# Pauses are spread by this part to either side, so that many that died together part.
_JITTER = 0.2


@dataclass(frozen=True, slots=True)
class Restarts:
    """When a plugin that died is started again, and when no more."""

    pause_s: float = 0.1
    """After the first death; each further one within `window_s` doubles it."""
    pause_max_s: float = 30.0
    most: int = 5
    """Deaths within `window_s` after which it is left alone."""
    window_s: float = 60.0

    def pause_after(self, deaths: int) -> float:
        """Return the pause after so many deaths in a row, from 1 on, without the spread.

        >>> [Restarts().pause_after(deaths) for deaths in (1, 2, 3, 20)]
        [0.1, 0.2, 0.4, 30.0]
        """
        return min(self.pause_max_s, self.pause_s * 2.0 ** min(deaths - 1, 60))


class Supervisor:
    """A confined plugin that is there again after it died. All threads may call it at once.

    Nothing is repeated: a call that a death cut off fails with `plugin.died`, as nobody knows what
    was done. A call that comes while the plugin is being started waits. What the plugin knew is
    gone, unless it was asked before (`export_state`) and is told again: `on_start` is the place.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        restarts: Restarts | None = None,
        on_start: Callable[[Process], object] | None = None,
        on_event: Callable[[Event], object] | None = None,
        on_exit: Callable[[str], object] | None = None,
        on_print: Callable[[str], object] | None = None,
    ) -> None:
        """Start the plugin, and wait until it is imported.

        Args:
            spec: what it is and may.
            restarts: when it is started again.
            on_start: is given each new process before anybody else calls it; what it raises
                counts as a death.
            on_event: hears what the plugin tells.
            on_exit: hears why a process ended, after each end.
            on_print: hears each line that the plugin prints.

        Raises:
            What `start` raises: a plugin that does not start at first is not tried again.

        """
        self.spec = spec
        self._restarts = restarts or Restarts()
        self._on_start = on_start
        self._on_event = on_event
        self._on_exit = on_exit
        self._on_print = on_print
        self._change = Condition()
        self._state = "starting"
        self._process: Process | None = None
        self._deaths: deque[float] = deque()
        self._calls = self._failures = self._count = 0
        # Of two that start it at once, the later counts.
        self._turn = 0
        self._last_error: str | None = None
        self._last_lines: tuple[str, ...] = ()
        self._since = time.time()
        self._adopt(self._started(), 0)

    def call(self, method: str, *arguments: Plain, timeout_s: float | None = None) -> Any:
        """Call a method of the plugin, as `Process.call`; while it is started again, wait.

        Raises:
            Unavailable: `plugin.died`: it died during the call, or is not back in time;
                `plugin.quarantined`: it died too often
            Internal: `plugin.failed`
            Timeout: `plugin.timeout`
            Invalid: `plugin.option`
            State: `plugin.state`: it is stopped

        """
        wait_s = self.spec.limits.wall_s if timeout_s is None else timeout_s
        return aside(lambda: self._call(method, arguments, time.monotonic() + wait_s))

    def _call(self, method: str, arguments: tuple[Plain, ...], end: float) -> Any:
        while True:
            process = self._ready(end)
            left = max(0.0, end - time.monotonic())
            try:
                return process.call(method, *arguments, timeout_s=left)
            except errors.State:
                # It was stopped before it took the call: by `restart`, or for good.
                if process is self._process:
                    raise

    def _ready(self, end: float) -> Process:
        process = self._process
        if process is not None and self._state == "running" and process.alive:
            return process
        plugin = self.spec.id
        if process is not None and process.owner != os.getpid():
            text = f"the plugin {plugin} was started before this process was forked"
            raise errors.new("plugin.state", text, plugin=plugin)
        with self._change:
            while True:
                if self._state == "running" and self._process is not None and self._process.alive:
                    return self._process
                if self._state == "quarantined":
                    text = f"the plugin {plugin} died too often, last time: {self._last_error}"
                    raise errors.new("plugin.quarantined", text, plugin=plugin)
                if self._state in ("stopping", "ended"):
                    text = f"the plugin {plugin} is stopped"
                    raise errors.new("plugin.state", text, plugin=plugin)
                left = end - time.monotonic()
                if left <= 0:
                    text = f"the plugin {plugin} died and is not back yet: {self._last_error}"
                    raise errors.new("plugin.died", text, plugin=plugin)
                self._change.wait(left)

    # --- deaths -----------------------------------------------------------------------------------

    def _started(self) -> Process:
        process = start(
            self.spec, on_event=self._on_event, on_exit=self._died, on_print=self._on_print
        )
        if self._on_start is not None:
            try:
                self._on_start(process)
            except BaseException:
                process.kill()
                raise
        return process

    def _adopt(self, process: Process, turn: int) -> None:
        with self._change:
            unwanted = self._state in ("stopping", "ended") or turn != self._turn
            if not unwanted:
                self._process, self._state = process, "running"
                self._since = time.time()
            self._change.notify_all()
        if unwanted:
            process.kill()
        elif not process.alive:
            # It died before anybody could have been told.
            name = f"dwkernel-plugin-{self.spec.id}-restart"
            threading.Thread(target=self._mourn, args=(process,), name=name, daemon=True).start()

    def _died(self, reason: str) -> None:
        """Hear that the process ended, on a thread that was its own: that starts the next."""
        if self._on_exit is not None:
            with contextlib.suppress(Exception):
                self._on_exit(reason)
        process = self._process
        if process is not None and not process.alive:
            self._mourn(process)

    def _mourn(self, process: Process) -> None:
        with self._change:
            if self._process is not process:
                return  # somebody did so already
            self._retire(process)
            if self._state != "running":
                return
            self._state = "waiting"
            self._turn += 1
            turn = self._turn
        self._revive(turn)

    def _retire(self, process: Process) -> None:
        status = process.status()
        self._calls += status.calls
        self._failures += status.failures
        self._last_error = status.last_error
        self._last_lines = status.last_lines
        self._process = None

    def _revive(self, turn: int) -> None:
        while (pause_s := self._pause(turn)) is not None:
            with self._change:
                end = time.monotonic() + pause_s
                while self._is_waiting(turn) and (left := end - time.monotonic()) > 0:
                    self._change.wait(left)
                if not self._is_waiting(turn):
                    return
                self._count += 1
            try:
                process = self._started()
            except Exception as error:  # noqa: BLE001 - whatever keeps it from starting is a death
                self._last_error = str(error)
                continue
            self._adopt(process, turn)
            return

    def _is_waiting(self, turn: int) -> bool:
        return self._state == "waiting" and self._turn == turn

    def _pause(self, turn: int) -> float | None:
        """Count a death; return how long to wait, or None if it was one too many."""
        now = time.monotonic()
        with self._change:
            self._deaths.append(now)
            while now - self._deaths[0] > self._restarts.window_s:
                self._deaths.popleft()
            if not self._is_waiting(turn):
                return None
            if len(self._deaths) >= self._restarts.most:
                self._state = "quarantined"
                self._since = time.time()
                self._change.notify_all()
                return None
            pause_s = self._restarts.pause_after(len(self._deaths))
        return pause_s * (1 - _JITTER + 2 * _JITTER * random.random())  # noqa: S311 - no secret

    # --- the owner's ------------------------------------------------------------------------------

    def restart(self) -> None:
        """Start it anew, also out of quarantine, and forget its deaths.

        Raises:
            What `start` raises: then it is in quarantine.
            State: `plugin.state`: it is stopped

        """
        with self._change:
            if self._state in ("stopping", "ended"):
                text = f"the plugin {self.spec.id} is stopped"
                raise errors.new("plugin.state", text, plugin=self.spec.id)
            self._deaths.clear()
            self._state = "starting"
            self._turn += 1
            turn = self._turn
            process = self._process
            if process is not None:
                self._retire(process)
            self._count += 1
            self._change.notify_all()
        if process is not None:
            process.stop(_STOP_S)
        try:
            fresh = self._started()
        except BaseException as error:
            with self._change:
                if self._turn == turn and self._state == "starting":
                    self._state, self._last_error = "quarantined", str(error)
                self._change.notify_all()
            raise
        self._adopt(fresh, turn)

    def stop(self, deadline_s: Duration = _STOP_S) -> None:
        """Stop it, as `Process.stop`, and start it no more."""
        self._leave(lambda process: process.stop(parse_duration(deadline_s)))

    def kill(self) -> None:
        """End it at once, and start it no more."""
        self._leave(lambda process: process.kill())

    def _leave(self, end: Callable[[Process], None]) -> None:
        with self._change:
            if self._state != "ended":
                self._state = "stopping"
            process = self._process
            self._change.notify_all()
        if process is not None:
            end(process)
        with self._change:
            self._state = "ended"
            self._change.notify_all()

    @property
    def alive(self) -> bool:
        """Whether a call would be taken now."""
        process = self._process
        return process is not None and process.alive and self._state == "running"

    def status(self) -> Status:
        """Return what is known of it; figures of earlier processes are in the sums."""
        with self._change:
            process, state, since = self._process, self._state, self._since
            restarts, calls, failures = self._count, self._calls, self._failures
            last_error = self._last_error
        if process is None:
            return Status(
                id=self.spec.id,
                version=self.spec.version,
                state=state,
                pid=None,
                since=since,
                calls=calls,
                failures=failures,
                open_calls=0,
                restarts=restarts,
                rss_bytes=0,
                cpu_s=0.0,
                events_dropped=0,
                last_error=last_error,
                last_lines=self._last_lines,
                confinement=None,
            )
        now = process.status()
        return now._replace(
            state=now.state if state == "running" else state,
            calls=calls + now.calls,
            failures=failures + now.failures,
            restarts=restarts,
            last_error=now.last_error or last_error,
        )
