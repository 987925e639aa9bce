"""Calls of a plugin that nobody has to wait for: on a thread of their own, with a limit.

A call that takes longer is left alone: Python has no way to end a thread. It is counted, and what
it returns later is dropped.
"""

from __future__ import annotations

import contextlib
import os
import threading
import traceback
from collections import deque
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel._latch import Latch
from dwkernel.plugins import effects
from dwkernel.plugins.output import Log, captured

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["PluginRaisedError", "Watchdog", "bare", "said", "told"]

_TEXT_LETTERS = 500
_TRACE_LETTERS = 8000
_EFFECTS_MAX = 100
# What a child process of a plugin's fork ends with, when it comes back to the kernel.
CHILD_STATUS = 70
# Steps of all plugins, one after the other: what each does to the process is told apart.
_one_at_a_time = threading.RLock()


class PluginRaisedError(Exception):
    """What a plugin raised, as text: an exception itself would keep its classes alive.

    Attributes:
        kind: the exception's class, as text.
        trace: its traceback, as text.

    """

    def __init__(self, kind: str, text: str, trace: str) -> None:
        """Keep what is known of it."""
        super().__init__(f"{kind}: {text}" if text else kind)
        self.kind = kind
        self.trace = trace


class Watchdog:
    """Makes calls of one plugin."""

    def __init__(self, plugin_id: str, log: Log) -> None:
        """Watch over nothing yet."""
        self._id = plugin_id
        self._log = log
        self._lock = threading.Lock()
        self._stuck = 0
        self.effects: deque[str] = deque(maxlen=_EFFECTS_MAX)

    @property
    def stuck(self) -> int:
        """How many calls took too long and have not come back."""
        return self._stuck

    def step(self, what: str, call: Callable[[], Any], limit_s: float) -> Any:
        """Make a call, and put back what it does to the process.

        Raises:
            Internal: `plugin.failed`; its `__cause__` is a `PluginRaisedError`
            Timeout: `plugin.timeout`

        """
        with self.looking(what):
            return self.call(what, call, limit_s)

    @contextlib.contextmanager
    def looking(self, what: str) -> Iterator[None]:
        """Put back, at the end, what is done to the process meanwhile."""
        with _one_at_a_time:
            before = effects.look()
            try:
                yield
            finally:
                for text in effects.put_back(before):
                    self.effects.append(f"{what}: {text}")
                    self._log.notice(f"in {what} the plugin {text}")

    def call(self, what: str, call: Callable[[], Any], limit_s: float) -> Any:
        """Make a call.

        Raises:
            Internal: `plugin.failed`; its `__cause__` is a `PluginRaisedError`
            Timeout: `plugin.timeout`
            State: `plugin.state`: the process can have no more threads

        """
        job = _Job(call, self._log)
        name = f"plugin:{self._id}/{what}"
        thread = threading.Thread(target=job.run, args=(self._came_back,), name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # of the process, and no fault of the plugin's
            text = f"{what} of {self._id} was not called: {error}"
            raise errors.new("plugin.state", text, id=self._id, step=what) from None
        try:
            is_done = job.wait(limit_s)
        except BaseException:  # Ctrl-C: nobody waits for it any more
            with self._lock:
                self._stuck += job.leave()
            raise
        if not is_done:
            with self._lock:
                late = job.leave()
                self._stuck += late
            if late:
                text = f"{what} of {self._id} did not end in {limit_s:g} s"
                self._log.notice(text)
                raise errors.new("plugin.timeout", text, id=self._id, step=what)
        return self._result(what, job)

    def _result(self, what: str, job: _Job) -> Any:
        raised = job.raised
        if raised is None:
            value, job.value = job.value, None
            return value
        text = f"{what} of {self._id} raised {raised}"
        self._log.notice(f"{text}\n{raised.trace}")
        details: dict[str, object] = {"id": self._id, "step": what, "traceback": raised.trace}
        raise errors.new("plugin.failed", text, **details) from raised

    def _came_back(self) -> None:
        with self._lock:
            self._stuck -= 1


class _Job:
    """One call, and what came of it."""

    def __init__(self, call: Callable[[], Any], log: Log) -> None:
        self._call: Callable[[], Any] | None = call
        self._log = log
        self._done = Latch()
        self._lock = threading.Lock()
        self._left = False
        self.value: Any = None
        self.raised: PluginRaisedError | None = None

    def run(self, came_back: Callable[[], None]) -> None:
        pid = os.getpid()
        call, self._call = self._call, None
        assert call is not None  # noqa: S101 - it runs once
        value = raised = None
        try:
            with captured(self._log):
                value = call()
        except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt, too
            raised = told(error)
        if os.getpid() != pid:
            # The plugin forked, and this is the child: no part of the kernel may run here.
            os._exit(CHILD_STATUS)
        del call
        with self._lock:
            left = self._left
            if not left:
                self.value, self.raised = value, raised
            self._done.open()
        if left:
            came_back()

    def wait(self, limit_s: float) -> bool:
        return self._done.wait(limit_s)

    def leave(self) -> bool:
        """Stop waiting; False if it came back in this moment."""
        with self._lock:
            self._left = not self._done.is_open
            return self._left


def told(error: BaseException) -> PluginRaisedError:
    """Return an exception as text; whatever its class does when it is shown."""
    try:
        trace = "".join(traceback.format_exception(error))[-_TRACE_LETTERS:]
        text = str(error)[:_TEXT_LETTERS]
    except BaseException as second:  # noqa: BLE001 - its own `__str__` may raise anything
        trace = text = f"(it can't be shown: {type(second).__name__})"
    return PluginRaisedError(type(error).__qualname__, text, trace)


def bare(error: errors.DwError) -> errors.DwError:
    """Return an error without frames and contexts, which may keep a plugin's version alive."""
    error.__traceback__ = error.__context__ = None
    if error.__cause__ is not None:
        error.__cause__.__traceback__ = error.__cause__.__context__ = None
    return error


def said(error: errors.DwError) -> str:
    """Return what an error says, with its code and without its advice: another's follows."""
    text = str(error).replace(f" {errors.registry()[error.code].advice} [{error.code}]", "")
    return f"{text.rstrip('.')} [{error.code}]"
