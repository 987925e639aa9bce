"""How the kernel asks a plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from dwkernel import errors
from dwkernel.plugins.watchdog import PluginRaisedError, bare, told

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
        is_required: whether what it decides is refused when it can't be asked; policies say
            `on_failure = "allow"` if not.

    """

    is_required = True

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
        # Raised in here and not below, where frames hold the instance: who keeps the error would
        # keep all of that version.
        result = self._result(method, arguments, limit_s)
        if not isinstance(result, _Failure):
            self.health.succeeded()
            return result
        error = result.error
        if result.is_answer:
            self.health.succeeded()
        elif error.code in ("plugin.failed", "plugin.timeout") and not result.is_old:
            self.health.failed(error)
        else:
            self.health.answered()
        raise error

    def _result(self, method: str, arguments: tuple[Any, ...], limit_s: float | None) -> Any:
        """Return what it returns, or how it failed."""

        def direct() -> Any:
            try:
                return getattr(instance, method)(*arguments)
            except errors.DwError as error:
                return _Failure(bare(error), is_answer=True)

        use = self.slot.use()
        try:
            with use as instance:
                try:
                    if limit_s is not None:
                        return self._watchdog.call(method, direct, limit_s)
                    return direct()
                except KeyboardInterrupt:
                    raise  # the program's own thread: Ctrl-C is for the program
                except errors.DwError as error:
                    failed = bare(error)
                except BaseException as error:  # noqa: BLE001 - what a plugin raises is its own
                    failed = self._failed(method, told(error))
                # A version that was exchanged meanwhile says nothing of the one that is there.
                return _Failure(failed, is_old=use.held is not self.slot.held)
        except errors.DwError as error:
            return _Failure(bare(error))

    def _failed(self, method: str, cause: PluginRaisedError) -> errors.DwError:
        text = f"{method} of {self.id} raised {cause}"
        error = errors.new("plugin.failed", text, id=self.id, step=method, traceback=cause.trace)
        error.__cause__ = cause
        return error


class _Failure(NamedTuple):
    """How a call failed; what dwkernel's errors a plugin raises are its answer."""

    error: errors.DwError
    is_answer: bool = False
    is_old: bool = False
