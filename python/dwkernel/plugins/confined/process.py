"""A plugin's process, as the rest of the kernel sees it."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel._aside import aside
from dwkernel.plugins.confined.dwkernel_inside import wire
from dwkernel.plugins.confined.keeper import STOPPED, Keeper
from dwkernel.plugins.confined.status import Event, Status
from dwkernel.units import Duration, parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwkernel.plugins.confined.spec import Spec

__all__ = ["Process", "start"]

_STOP_S = 10.0


def start(
    spec: Spec,
    *,
    on_event: Callable[[Event], object] | None = None,
    on_exit: Callable[[str], object] | None = None,
    on_print: Callable[[str], object] | None = None,
) -> Process:
    """Start a plugin in a process of its own, and wait until it is imported.

    Args:
        spec: what it is and may.
        on_event: hears what it tells, from a thread of its own.
        on_exit: hears why it ended, however that came; the last call, on the same thread.
        on_print: hears each line that it prints, on the same thread; of very many at once the last.

    Raises:
        Unsupported: `plugin.sandbox`: this system cannot keep it in
        Invalid: `plugin.load`: it cannot be imported; `plugin.option`: its configuration is no
            plain data
        Timeout: `plugin.timeout`: it was not imported within `limits.start_s`
        Unavailable: `plugin.died`: it ended meanwhile

    """
    process = Process(spec, on_event=on_event, on_exit=on_exit, on_print=on_print)
    process._start()  # noqa: SLF001 - of this file
    return process


class Process:
    """A plugin that runs in a process of its own. All threads may call it at once.

    It must be stopped: a process lives until then, or until this one ends. A forked child of this
    process cannot use it.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        on_event: Callable[[Event], object] | None = None,
        on_exit: Callable[[str], object] | None = None,
        on_print: Callable[[str], object] | None = None,
    ) -> None:
        """Prepare it; use `start`."""
        self.spec = spec
        self._on_event = on_event
        self._on_exit = on_exit
        self._on_print = on_print
        self._keeper = Keeper(spec)

    def _start(self) -> None:
        keeper = self._keeper
        name = f"dwkernel-plugin-{self.spec.id}"
        threading.Thread(target=keeper.run, name=name, daemon=True).start()
        try:
            keeper.started.wait()
        except BaseException:
            keeper.end("its start was broken off")
            raise
        if keeper.start_error is not None:
            keeper.gone.wait()
            raise keeper.start_error
        if any((self._on_event, self._on_exit, self._on_print)):
            threading.Thread(target=self._tell, name=f"{name}-events", daemon=True).start()

    def call(self, method: str, *arguments: wire.Plain, timeout_s: float | None = None) -> Any:
        """Call a method of the plugin, and return what it returns.

        Args:
            method: its name, which begins with a letter.
            arguments: plain data: None, bool, int of 64 bits, float, str, bytes, list, dict with
                str keys; tuples arrive as lists.
            timeout_s: how long to wait; None and at most `limits.wall_s`, after which the process
                is ended. A call that nobody waits for goes on, and keeps its place among
                `limits.calls`; Ctrl-C ends the waiting, too.

        Raises:
            Internal: `plugin.failed`: it raised; details `type`, `text`, `traceback`
            Timeout: `plugin.timeout`
            Unavailable: `plugin.died`: the process ended; whether the call was done is not known
            Invalid: `plugin.option`: the arguments are not plain, or too long
            State: `plugin.state`: it is stopped, or this is a forked child

        """
        keeper = self._here()
        given: object = method  # callers without a type checker give anything
        if not isinstance(given, str) or not method.isidentifier() or method.startswith("_"):
            text = f"{method!r} is no method that a plugin could offer"
            raise errors.new("plugin.option", text, plugin=self.spec.id)
        wall_s = self.spec.limits.wall_s
        wait_s = wall_s if timeout_s is None else timeout_s
        line = keeper.line
        if line is None:
            raise keeper.error(None)
        return aside(lambda: line.call(method, arguments, wait_s, wall_s))

    def stop(self, deadline_s: Duration = _STOP_S) -> None:
        """Take no further calls, wait for those under way, and end the process.

        What is not done by then is cut off (`plugin.died`): it always ends. A second call does
        nothing.

        Raises:
            State: `plugin.state`: this is a forked child

        """
        keeper = self._here()
        end = time.monotonic() + parse_duration(deadline_s)
        line = keeper.line
        if keeper.state == "running" and line is not None:
            keeper.stopping()
            line.refuse(keeper.error)
            while line.open and not keeper.gone.is_open and time.monotonic() < end:
                keeper.gone.wait(0.005)
            with contextlib.suppress(OSError, errors.Timeout):
                line.send(wire.STOP, 0, b"", min(end, time.monotonic() + 1))
        if not keeper.gone.wait(max(0.0, end - time.monotonic())):
            keeper.end(STOPPED)
            keeper.gone.wait()

    def kill(self) -> None:
        """End it at once, with all that it started."""
        keeper = self._here()
        keeper.end(STOPPED)
        keeper.gone.wait()

    @property
    def owner(self) -> int:
        """The id of the process that may use it."""
        return self._keeper.owner

    @property
    def alive(self) -> bool:
        """Whether it takes calls."""
        return self._keeper.state == "running" and self._keeper.owner == os.getpid()

    def status(self) -> Status:
        """Return what is known of it."""
        keeper = self._keeper
        line, printed = keeper.line, keeper.printed
        return Status(
            id=self.spec.id,
            version=self.spec.version,
            state=keeper.state,
            pid=None if keeper.gone.is_open else keeper.pid,
            since=keeper.since,
            calls=line.answered if line else 0,
            failures=line.failed if line else 0,
            open_calls=len(line.open) if line else 0,
            restarts=0,
            rss_bytes=keeper.used.rss_bytes,
            cpu_s=keeper.used.cpu_s,
            events_dropped=line.events_dropped if line else 0,
            last_error=keeper.reason or (line.last_error if line else None),
            last_lines=printed.lines if printed else (),
            confinement=keeper.confinement,
        )

    def _here(self) -> Keeper:
        if self._keeper.owner != os.getpid():
            text = f"the plugin {self.spec.id} was started before this process was forked"
            raise errors.new("plugin.state", text, plugin=self.spec.id)
        return self._keeper

    def _tell(self) -> None:
        keeper = self._keeper
        while True:
            keeper.told.wait()
            keeper.told.clear()
            ended = keeper.gone.is_open
            events = keeper.line.events if keeper.line else ()
            while events and self._on_event is not None:
                with contextlib.suppress(Exception):
                    self._on_event(events.popleft())
            for line in keeper.printed.fresh() if keeper.printed and self._on_print else ():
                with contextlib.suppress(Exception):
                    self._on_print(line)  # type: ignore[misc]  # only if there is one
            if ended:
                break
        if self._on_exit is not None:
            with contextlib.suppress(Exception):
                self._on_exit(keeper.reason)
