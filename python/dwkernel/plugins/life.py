"""The life of one version of a plugin: handshake, start, pause, resume, drain, stop.

All methods of a plugin are optional: `handshake(context)`, `start()`, `pause()`, `resume()`,
`drain(deadline_s)`, `stop()`, `health()` (raises, or returns False, if it is not well),
`export_state()`, `import_state(state, from_version)`. Each is called on a thread of its own, one at
a time, with a limit.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from dwkernel import errors
from dwkernel.plugins.plain import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dwkernel.plugins.output import Log
    from dwkernel.plugins.swap import Slot
    from dwkernel.plugins.watchdog import Watchdog

__all__ = ["MOVES", "Context", "Life", "Limits", "State"]

State = Literal["loaded", "greeted", "started", "paused", "draining", "stopped", "failed"]

# What may follow what, and where it leads.
MOVES: dict[str, tuple[frozenset[str], State]] = {
    "handshake": (frozenset({"loaded"}), "greeted"),
    "start": (frozenset({"greeted"}), "started"),
    "pause": (frozenset({"started"}), "paused"),
    "resume": (frozenset({"paused"}), "started"),
    "drain": (frozenset({"started", "paused"}), "draining"),
    "stop": (
        frozenset({"loaded", "greeted", "started", "paused", "draining", "failed"}),
        "stopped",
    ),
}
# After an error in these it is of no use; after one in the others it is what it was.
_FATAL = frozenset({"handshake", "start"})
# These lead on whatever happens in them: there is no way back.
_ONWARD = frozenset({"drain", "stop"})


@dataclass(frozen=True)
class Limits:
    """How long a plugin may take, in seconds, for each step.

    Attributes:
        load: to be imported and made.
        start: handshake and start, each.
        pause: pause and resume, each.
        state: export and import, each.
        health: to say how it does.
        drain: until those who use it are done.
        stop: to stop.
        freeze: for how long calls may wait so that no change of state is lost.

    """

    load: float = 30.0
    start: float = 10.0
    pause: float = 5.0
    state: float = 10.0
    health: float = 5.0
    drain: float = 30.0
    stop: float = 10.0
    freeze: float = 1.0


class Context:
    """What a plugin gets in its handshake.

    Attributes:
        id: its own id.
        version: its own version, as text.
        api_version: of the kernel's API, as text.
        config: its configuration: a dict, or an object of the model that its manifest names.

    """

    def __init__(
        self,
        plugin_id: str,
        version: str,
        api_version: str,
        config: Any,
        log: Log,
        needs: Mapping[str, Slot[Any]],
    ) -> None:
        """Made by the kernel."""
        self.id = plugin_id
        self.version = version
        self.api_version = api_version
        self.config = config
        self._log = log
        self._needs = dict(needs)

    def log(self, text: str) -> None:
        """Write a line into the plugin's log."""
        self._log.write(f"{text}\n")

    def plugin(self, plugin_id: str) -> Slot[Any]:
        """Return the place of another plugin, which the manifest names under `requires`.

        Go through it at each use (`with context.plugin("a").use() as a:`), and keep nothing of
        what you get: after a reload the next use has the new version.

        Raises:
            NotFound: `plugin.not_found`

        """
        try:
            return self._needs[plugin_id]
        except KeyError:
            text = f"{self.id} does not name {plugin_id!r} under requires"
            raise errors.new("plugin.not_found", text, id=plugin_id) from None


class Life:
    """One version of a plugin, from being loaded to being stopped. Safe from any thread."""

    def __init__(self, instance: Any, watchdog: Watchdog, limits: Limits) -> None:
        """Begin as loaded."""
        self._instance = instance
        self._watchdog = watchdog
        self.limits = limits
        self._lock = threading.RLock()
        self.state: State = "loaded"

    def handshake(self, context: Context) -> None:
        """Let it meet the kernel.

        Raises:
            Internal: `plugin.failed`; Timeout: `plugin.timeout`; State: `plugin.state`

        """
        self._move("handshake", self.limits.start, context)

    def start(self) -> None:
        """Let it begin; raises as `handshake`."""
        self._move("start", self.limits.start)

    def pause(self) -> None:
        """Let it rest; after an error it goes on. Raises as `handshake`."""
        self._move("pause", self.limits.pause)

    def resume(self) -> None:
        """Let it go on; after an error it rests. Raises as `handshake`."""
        self._move("resume", self.limits.pause)

    def drain(self, deadline_s: float) -> None:
        """Let it finish what it has begun; it is draining whatever happens. Raises as above."""
        self._move("drain", deadline_s, deadline_s)

    def stop(self, limit_s: float | None = None) -> None:
        """Let it end; it is stopped whatever happens. Raises as `handshake`."""
        if self.state != "stopped":
            self._move("stop", self.limits.stop if limit_s is None else limit_s)

    def health(self, limit_s: float | None = None) -> None:
        """Ask how it does, for at most so many seconds.

        Raises:
            Internal: `plugin.failed`; Timeout: `plugin.timeout`

        """
        method = getattr(self._instance, "health", None)
        # In a reload calls may wait for it: who reloads looks what it does to the process.
        ask = self._watchdog.step if limit_s is None else self._watchdog.call
        limit_s = self.limits.health if limit_s is None else limit_s
        if method is not None and ask("health", method, limit_s) is False:
            raise errors.new("plugin.failed", "it says that it is not well", step="health")

    @property
    def has_state(self) -> bool:
        """Whether it has state to be carried over."""
        return hasattr(self._instance, "export_state")

    def export_state(self, limit_s: float) -> Any:
        """Return its state, as plain data of at most 16 MiB.

        Raises:
            Invalid: `plugin.option`: it is not plain
            Internal: `plugin.failed`
            Timeout: `plugin.timeout`

        """

        def export() -> Any:
            # Copied on the plugin's thread: what it exports may be as large as it likes.
            state = self._instance.export_state()
            try:
                return plain(state)
            except errors.DwError as error:
                return error

        # Calls may wait for it: nobody looks what it does to the process meanwhile.
        state = self._watchdog.call("export_state", export, min(limit_s, self.limits.state))
        if isinstance(state, errors.DwError):
            raise state
        return state

    def import_state(self, state: Any, from_version: int, limit_s: float) -> None:
        """Hand it the state of another version.

        Raises:
            Internal: `plugin.failed`
            Timeout: `plugin.timeout`

        """
        self._watchdog.call(
            "import_state",
            lambda: self._instance.import_state(state, from_version),
            min(limit_s, self.limits.state),
        )

    def forget(self) -> None:
        """Let go of the instance, so that it can be proved to be gone."""
        self._instance = None

    def _move(self, name: str, limit_s: float, *arguments: Any) -> None:
        sources, target = MOVES[name]
        with self._lock:
            if self.state not in sources:
                text = f"it is {self.state}, and {name} is for {' or '.join(sorted(sources))}"
                raise errors.new("plugin.state", text, state=self.state)
            method: Callable[..., object] | None = getattr(self._instance, name, None)
            if name in _ONWARD:
                self.state = target
            try:
                if method is not None:
                    self._watchdog.step(name, lambda: method(*arguments), limit_s)
            except errors.DwError:
                if name in _FATAL:
                    self.state = "failed"
                raise
            self.state = target
