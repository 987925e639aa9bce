"""How the kernel asks a plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel.plugins.watchdog import PluginRaisedError, told

if TYPE_CHECKING:
    from dwkernel.plugins.health import Health
    from dwkernel.plugins.swap import Slot, Use
    from dwkernel.plugins.watchdog import Watchdog

__all__ = ["Handle"]


class Handle:
    """A plugin as those see it who ask it. It stays good over reloads.

    Attributes:
        id: the plugin's.
        slot: where its instance is.
        health: counts how it does.

    """

    def __init__(self, plugin_id: str, slot: Slot[Any], health: Health, watchdog: Watchdog) -> None:
        """Made by the kernel."""
        self.id = plugin_id
        self.slot = slot
        self.health = health
        self._watchdog = watchdog

    @property
    def is_open(self) -> bool:
        """Whether it takes calls: it is started, and neither paused nor in quarantine."""
        return self.slot.is_open

    def use(self) -> Use[Any]:
        """Return its instance for a `with`. Raise what it raises; nobody watches.

        For calls by the million: it costs a third of a microsecond. Whoever uses it tells `health`
        how it went.
        """
        return self.slot.use()

    def call(self, method: str, *arguments: Any, limit_s: float | None = None) -> Any:
        """Call a method, and count how it goes.

        Args:
            method: its name.
            arguments: positional ones.
            limit_s: how long it may take; the call is on a thread of its own then.

        Raises:
            Internal: `plugin.failed`; its `__cause__` says what the plugin raised
            Timeout: `plugin.timeout`
            Unavailable: `plugin.quarantined`
            State: `plugin.state`: it is paused or stopped

        Errors of dwkernel that the plugin raises are passed on, and count as its answer.

        """
        self.health.admit()
        try:
            with self.slot.use() as instance:
                result = self._made(instance, method, arguments, limit_s)
        except _AnsweredError as answer:
            self.health.succeeded()
            raise answer.error from None
        except errors.DwError as error:
            if error.code in ("plugin.failed", "plugin.timeout"):
                self.health.failed(error)
            else:
                self.health.answered()
            raise
        self.health.succeeded()
        return result

    def _made(
        self, instance: Any, method: str, arguments: tuple[Any, ...], limit_s: float | None
    ) -> Any:
        def direct() -> Any:
            try:
                return getattr(instance, method)(*arguments)
            except errors.DwError as error:
                # Without the frames, which would keep the plugin's version alive.
                return _AnsweredError(error.with_traceback(None))

        if limit_s is not None:
            result = self._watchdog.call(method, direct, limit_s)
        else:
            cause: PluginRaisedError | None = None
            try:
                result = direct()
            except KeyboardInterrupt:
                raise  # the program's own thread: Ctrl-C is for the program
            except BaseException as error:  # noqa: BLE001 - whatever a plugin raises is its own
                cause = told(error)
            if cause is not None:
                # Raised out here: within, it would refer to the plugin's own as its context.
                text = f"{method} of {self.id} raised {cause}"
                raise errors.new(
                    "plugin.failed", text, id=self.id, step=method, traceback=cause.trace
                ) from cause
        if isinstance(result, _AnsweredError):
            raise result
        return result


class _AnsweredError(Exception):
    """An error of dwkernel that a plugin raised as its answer."""

    def __init__(self, error: errors.DwError) -> None:
        super().__init__()
        self.error = error
