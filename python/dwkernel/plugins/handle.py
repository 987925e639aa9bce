"""How the kernel asks a plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from dwkernel import errors
from dwkernel.plugins.watchdog import PluginRaisedError, bare, told

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwkernel.plugins.health import Health
    from dwkernel.plugins.swap import Slot, Use
    from dwkernel.plugins.watchdog import Watchdog

__all__ = ["OF_THE_KERNEL", "Handle"]

# What only the kernel says of a plugin; all else of `dwkernel.errors` that it raises is an answer.
OF_THE_KERNEL = frozenset({"plugin.died", "plugin.failed", "plugin.quarantined", "plugin.timeout"})

_DAY_S = 86_400.0


class Handle:
    """A plugin as those see it who ask it. It stays good over reloads.

    Attributes:
        id: the plugin's.
        slot: where its instance is.
        health: counts how it does.
        is_required: whether what it decides is refused when it can't be asked; policies say
            `on_failure = "allow"` if not.
        limit_s: how long a call may take, if the plugin says so itself (`timeout_s`).

    """

    is_required = True
    limit_s: float | None = None

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

    def look(self, instance: Any, patience_s: float) -> None:
        """Note the limit that a version wishes; even looking at an attribute runs its code."""

        def wish() -> float | None:
            given = getattr(instance, "timeout_s", None)
            if given is not None and (type(given) not in (int, float) or not 0 < given <= _DAY_S):
                text = f"timeout_s is {given!r}, and not a number of seconds up to a day"
                raise ValueError(text)
            return given

        try:
            self.limit_s = self._watchdog.call("looking at", wish, patience_s)
        except errors.DwError:
            self.limit_s = None  # its log says why

    def watched(self, what: str, call: Callable[[], Any], limit_s: float) -> Any:
        """Make a call that uses it, on a thread of its own; health hears only of one that hangs.

        Raises:
            Internal: `plugin.failed`
            Timeout: `plugin.timeout`

        """
        try:
            return self._watchdog.call(what, call, limit_s)
        except errors.Timeout as error:
            self.health.failed(error)
            raise

    def call(
        self,
        method: str,
        *arguments: Any,
        limit_s: float | None = None,
        read: Callable[[Any], Any] | None = None,
    ) -> Any:
        """Call a method, and count how it goes.

        Args:
            method: its name.
            arguments: positional ones.
            limit_s: how long it may take; the call is on a thread of its own then.
            read: makes of what it returns what the caller gets; it is a part of the call, as a
                plugin's iterators and objects run its code. What it raises, the plugin raised.

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
        try:
            result = self._result(method, arguments, limit_s, read)
        except BaseException:  # Ctrl-C: it must not count as a probe that is still under way
            self.health.answered()
            raise
        if not isinstance(result, _Failure):
            self.health.succeeded()
            return result
        error = result.error
        if result.is_answer:
            self.health.succeeded()
        elif error.code in ("plugin.died", "plugin.failed", "plugin.timeout") and not result.is_old:
            self.health.failed(error)
        else:
            self.health.answered()
        raise error

    def _result(
        self,
        method: str,
        arguments: tuple[Any, ...],
        limit_s: float | None,
        read: Callable[[Any], Any] | None,
    ) -> Any:
        """Return what it returns, or how it failed."""

        def direct() -> Any:
            try:
                result = getattr(instance, method)(*arguments)
                return result if read is None else read(result)
            except errors.DwError as error:
                # One in a process of its own says through its stand-in that it failed.
                return _Failure(bare(error), is_answer=error.code not in OF_THE_KERNEL)

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
