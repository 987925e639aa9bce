"""A configuration in use: `kernel.config`.

>>> config = Configuration(values={"limits": {"rate": 100}}, environment={})
>>> heard = []
>>> stop = config.on_change("limits.rate", lambda old, new: heard.append((old, new)))
>>> print(config.set({"limits.rate": 200}))
version 2
limits.rate: 100.0 -> 200.0
>>> config.current.limits.rate, config.version, heard
(200.0, 2, [(100.0, 200.0)])
>>> stop()
>>> config.close()
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import weakref
from collections import deque
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from dwkernel import errors
from dwkernel._closing import Closing
from dwkernel.config import checking, files, registry, subscribers
from dwkernel.config import environment as variables_of
from dwkernel.config.changes import (
    Change,
    ConfigStatus,
    HistoryEntry,
    ReloadReport,
    differences,
)
from dwkernel.config.layers import Layer, Origin, dotted, leaves, merged, nested, route_of
from dwkernel.config.looking import field_at, flat, is_live, is_text, names_at
from dwkernel.config.problems import did_you_mean, offered, placed
from dwkernel.config.resolving import Layers, Resolved, call_layer, read, resolve
from dwkernel.units import Duration, parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from dwkernel.config.layers import Route
    from dwkernel.config.registry import Shape
    from dwkernel.config.sections import Config
    from dwkernel.config.watching import Heard, Watcher

__all__ = ["Configuration", "no_such"]

_log = logging.getLogger("dwkernel.config")

HISTORY_MAX = 32


class _State(NamedTuple):
    """What counts now: swapped as a whole."""

    version: int
    since: datetime
    resolved: Resolved
    layers: Layers
    shape: Shape


class Configuration(Closing):
    """Layers of settings, read anew when they change: a frozen snapshot, and who hears of changes.

    A change is all or nothing: it is read and validated, everybody who subscribed with `prepare` is
    asked, the snapshot is swapped, and everybody is told, in the order of subscription. If anybody
    refuses, raises or does not return in time, the last good configuration counts, those who were
    told hear `callback(new, old)`, the last one first, and the error says who it was.

    Threads may share it. One change is made at a time; others wait. It is a context manager that
    ends its threads.
    """

    def __init__(  # noqa: PLR0913 - each option stands alone
        self,
        paths: files.Location | Iterable[files.Location] = (),
        *,
        values: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        watch: bool = True,
        debounce: Duration = "100ms",
        timeout: Duration = "5s",
        announce: Callable[[str, dict[str, Any]], object] | None = None,
    ) -> None:
        """Read the layers.

        Args:
            paths: files of TOML, later ones win; a directory stands for its `dwkernel.toml`.
            values: the call's layer, `{"limits": {"rate": 5}}` or `{"limits.rate": 5}`.
            environment: variables; by default those of the process, read anew at each reload.
            watch: read files again when they change.
            debounce: a file must be quiet for so long, 1 ms to 1 s, before it is read again; one
                that never is, is read once a second.
            timeout: for so long all subscribers together may take to prepare, and again to commit.
            announce: called with `"config.changed"` or `"config.failed"` and what to tell.

        Raises:
            Unavailable: `config.file`
            Invalid: `config.syntax`, `config.unknown`, `config.value`, `unit.invalid`

        """
        self._variables = environment
        self._paths = files.places(paths)
        self._timeout_s = parse_duration(timeout)
        debounce_s = parse_duration(debounce)
        self._announcers: tuple[Callable[[str, dict[str, Any]], object], ...] = ()
        self._board = subscribers.Board()
        if announce is not None:
            self.announce_to(announce)
        self._lock = threading.Lock()
        self._history: deque[tuple[HistoryEntry, Layers]] = deque(maxlen=HISTORY_MAX)
        self._numbers = 1
        # What files and environment said when a rollback took it back: it does not count again.
        self._taken_back: bytes | None = None
        self._attempt: tuple[datetime, errors.DwError | None] | None = None
        # Why the files that are there do not count; a change of something else does not mend that.
        self._unread: errors.DwError | None = None
        self._is_closed = False
        self._watcher: Watcher | None = None
        self._undo_signal: Callable[[], None] | None = None
        seen = None
        if watch and self._paths:
            from dwkernel.config import watching  # noqa: PLC0415 - only with files

            # Before they are read: what changes from here on is seen.
            seen = watching.Look(self._paths, debounce_s)
        with registry.joining(self) as shape:
            layers = read(shape, self._paths, environment, call_layer(values or {}))
            resolved = resolve(shape, layers)
            now = datetime.now(UTC)
            self._state = _State(1, now, resolved, layers, shape)
            self._started: dict[Route, Any] = flat(resolved.config)
            self._history.append((HistoryEntry(1, now, "start", []), layers))
        if seen is not None:
            self._watcher = watching.Watcher(seen, _weakly(self, "file"))

    # --- Looking ----------------------------------------------------------------------------------

    @property
    def current(self) -> Config:
        """The configuration of now: frozen, so keep it as long as you need one that fits itself."""
        return self._state.resolved.config

    @property
    def version(self) -> int:
        """The number of the configuration of now: 1 for the first; it only grows."""
        return self._state.version

    @property
    def origins(self) -> dict[str, Origin]:
        """Where each value comes from, by its path."""
        return {dotted(route): origin for route, origin in self._state.resolved.origins.items()}

    def section(self, name: str) -> Any:
        """Return a section of now by its name.

        Raises:
            Invalid: `config.unknown`

        """
        state = self._state
        if name not in type(state.resolved.config).model_fields:
            raise no_such(state.shape, (name,))
        return getattr(state.resolved.config, name)

    def status(self) -> ConfigStatus:
        """Return how it is: version, what failed last, what waits for a restart."""
        state, attempt = self._state, self._attempt
        error = (attempt[1] if attempt else None) or self._unread
        watcher = self._watcher
        return ConfigStatus(
            version=state.version,
            since=state.since,
            files=[str(path) for path in self._paths],
            watching=watcher is not None and watcher.is_alive,
            last_attempt=attempt[0] if attempt else None,
            last_error=None if error is None else str(error),
            last_error_code=None if error is None else error.code,
            restart_required=self._waiting(state),
            stuck=self._board.stuck(),
        )

    def history(self) -> list[HistoryEntry]:
        """Return the last 32 versions, oldest first."""
        return [entry for entry, _ in list(self._history)]

    # --- Changing ---------------------------------------------------------------------------------

    def reload(self, *, timeout: Duration | None = None) -> ReloadReport:
        """Read files and environment again, and let what is new count.

        Args:
            timeout: for so long subscribers may take, as for the constructor.

        Returns:
            What changed; nothing if all is as it was.

        Raises:
            Unavailable: `config.file`
            Invalid: `config.syntax`, `config.unknown`, `config.value`
            Conflict: `config.refused`: a subscriber refused or raised; or it is called out of one;
                or the configuration is closed
            Timeout: `config.timeout`: a subscriber did not return in time

        """
        return self._reload("call", timeout)

    def set(
        self,
        values: Mapping[str, Any],
        *,
        unset: str | Iterable[str] = (),
        timeout: Duration | None = None,
    ) -> ReloadReport:
        """Change the call's layer, which wins over files and environment.

        Args:
            values: on top of what was set before: `{"limits.rate": 5}`.
            unset: paths that the call's layer says nothing of any more, with all below them; they
                are taken out before `values` are put in.
            timeout: as for `reload`.

        Raises:
            As `reload`, without `config.file` and `config.syntax`.

        """
        with self._changing("call") as state:
            paths = [unset] if isinstance(unset, str) else unset
            below = Layer(_without(state.layers.call.tree, paths))
            layers = replace(state.layers, call=call_layer(values, below))
            return self._apply(layers, "call", timeout)

    def rollback(
        self, version: int | None = None, *, timeout: Duration | None = None
    ) -> ReloadReport:
        """Let an earlier version count again, as a new version.

        It counts until files or environment say something else than now.

        Args:
            version: which; by default the one before this.
            timeout: as for `reload`.

        Raises:
            NotFound: `config.version`: not among the last 32
            Conflict, Timeout, Invalid: as `reload`

        """
        with self._changing("rollback"):
            kept = {entry.version: layers for entry, layers in self._history}
            numbers = sorted(kept)
            wanted = version if version is not None else (numbers[-2:-1] or [0])[0]
            if wanted not in kept:
                have = ", ".join(map(str, numbers))
                text = f"there is no version {wanted} to go back to, only {have}"
                raise errors.new("config.version", text, version=wanted)
            outside = None
            with contextlib.suppress(errors.DwError):
                outside = self._read(self._state).outside()
            report = self._apply(kept[wanted], "rollback", timeout)
            self._taken_back = outside
            return report

    def on_change(
        self,
        path: str,
        callback: Callable[[Any, Any], object],
        prepare: Callable[[Any, Any], object] | None = None,
    ) -> Callable[[], None]:
        """Subscribe to changes of what is at a path, and below it.

        Args:
            path: such as `"limits.rate"`, `"limits"`, or `""` for everything; a key with dots in it
                stands in quotes, as in TOML: `plugins.config."org.example.s3"`.
            callback: `callback(old, new)` with the values at the path, after the snapshot is
                swapped. If somebody fails, it is called again as `callback(new, old)`.
            prepare: `prepare(old, new)` before that; it refuses by raising. It must leave nothing
                behind: whether the change comes is not known yet.

        Returns:
            What ends the subscription.

        Both run on threads of the configuration's. A subscriber that does not return is waited for
        up to the timeout; until it returns or is unsubscribed, changes at its path are refused.
        Who subscribes while a change is on its way is told of it, and not asked: so subscribe
        first, then look at `current`.

        Raises:
            Invalid: `config.unknown`: nothing can be at that path

        """
        route = route_of(path) if path else ()
        shape = self._state.shape
        if route and field_at(shape, route) is None and route not in shape.parts:
            raise no_such(shape, route)
        return self._board.add(subscribers.Subscriber(route, callback, prepare))

    def announce_to(self, announce: Callable[[str, dict[str, Any]], object]) -> Callable[[], None]:
        """Tell of changes: `announce("config.changed", data)`, or `"config.failed"`.

        It is called while the next change waits, so it must be quick, and make none itself.

        Returns:
            What ends it.

        """
        with self._board.held():
            self._announcers = (*self._announcers, announce)

        def stop() -> None:
            with self._board.held():
                self._announcers = tuple(one for one in self._announcers if one is not announce)

        return stop

    def reload_on_sighup(self) -> Callable[[], None]:
        """Reload when the process gets SIGHUP; a handler that was there is called, too.

        Returns:
            What ends it.

        Raises:
            Invalid: `config.value`: not on the main thread, which alone may set handlers

        """
        from dwkernel.config.signals import on_sighup  # noqa: PLC0415 - only who asks

        if self._undo_signal is not None:
            self._undo_signal()
        self._undo_signal = on_sighup(_weakly(self, "signal"))
        return self._undo_signal

    def close(self) -> None:
        """End watching; what is current stays so."""
        self._is_closed = True
        registry.leave(self)
        watcher, self._watcher = self._watcher, None
        undo, self._undo_signal = self._undo_signal, None
        if watcher is not None:
            # In a subscriber's call the watcher may be the one that waits for it.
            watcher.close(wait=not subscribers.is_inside())
        if undo is not None:
            undo()

    # --- Inside -----------------------------------------------------------------------------------

    def reshape(self, shape: Shape) -> None:
        """Go on with another set of sections; for the registry."""
        try:
            with self._changing("registered") as state:
                layers = self._reread_environment(state.layers, shape)
                self._apply(layers, "registered", None, shape)
        except errors.Conflict:
            if not self._is_closed:  # else it is in use no more
                raise

    def forked(self) -> None:
        """Begin anew in a forked child: who holds locks in the parent is not there."""
        self._lock = threading.Lock()
        self._board.forked()
        self._watcher = None

    @contextlib.contextmanager
    def _changing(self, why: str) -> Iterator[_State]:
        """Make one change at a time; what goes wrong is noted, and told."""
        subscribers.refuse_inside()
        with self._lock:
            try:
                self._refuse_closed()
                yield self._state
            except errors.DwError as error:
                self._attempt = datetime.now(UTC), error
                self._failed(why, error)
                raise
            except Exception as error:  # such as that no thread can be started
                text = f"the change failed in an unforeseen way: {placed(error)}"
                coded = errors.new("internal.bug", text)
                self._attempt = datetime.now(UTC), coded
                self._failed(why, coded)
                raise coded from error
            else:
                self._attempt = datetime.now(UTC), None

    def _refuse_closed(self) -> None:
        if self._is_closed:
            raise errors.new("config.refused", "this configuration is closed")

    def _reload(self, why: str, timeout: Duration | None = None) -> ReloadReport:
        with self._changing(why) as state:
            try:
                layers = self._read(state)
                if layers.outside() == self._taken_back:
                    report = ReloadReport(state.version, [], self._waiting(state))
                else:
                    report = self._apply(layers, why, timeout)
                    self._taken_back = None
            except errors.DwError as error:
                self._unread = error
                raise
            self._unread = None
            return report

    def _read(self, state: _State) -> Layers:
        return read(state.shape, self._paths, self._variables, state.layers.call)

    def _reread_environment(self, layers: Layers, shape: Shape) -> Layers:
        """Read the same variables again: a field that is new may be text. Other ones wait."""
        given = os.environ if self._variables is None else self._variables
        said = variables_of.layer_of(given, lambda route: is_text(field_at(shape, route)))
        return (
            layers
            if said.content != layers.environment.content
            else replace(layers, environment=said)
        )

    def _apply(
        self, layers: Layers, why: str, timeout: Duration | None, shape: Shape | None = None
    ) -> ReloadReport:
        """Resolve, ask, swap, tell; or leave all as it was."""
        old = self._state
        shape = shape or old.shape
        resolved = resolve(shape, layers)
        checking.refuse(shape, layers, resolved.config, old.resolved.config)
        changed = differences(shape, old.resolved.config, resolved.config)
        if not changed:
            self._state = old._replace(resolved=resolved, layers=layers, shape=shape)
            return ReloadReport(old.version, [], self._waiting(self._state))
        timeout_s = self._timeout_s if timeout is None else parse_duration(timeout)
        told = self._board.concerned(old.resolved.config, resolved.config)
        subscribers.ask(told, timeout_s)
        self._numbers += 1
        new = _State(self._numbers, datetime.now(UTC), resolved, layers, shape)
        done: list[subscribers.Told] = []
        try:
            with self._board.held():
                told += self._later(told, old, new)
                self._state = new
            error = subscribers.tell(told, timeout_s, done)
        except BaseException as interruption:  # noqa: BLE001 - Ctrl-C; raised below
            error = interruption
        if error is not None:
            self._take_back(old, new, told, done)
            raise error
        for route, value in flat(resolved.config).items():
            # What is registered later has its own start.
            self._started.setdefault(route, value)
        self._history.append((HistoryEntry(new.version, new.since, why, changed), layers))
        return self._changed(why, changed)

    def _take_back(
        self,
        old: _State,
        new: _State,
        told: list[subscribers.Told],
        done: list[subscribers.Told],
    ) -> None:
        with self._board.held():
            # Who subscribed meanwhile has seen the new one.
            done = [*done, *self._later(told, old, new)]
            self._state = old
        subscribers.tell_back(done)

    def _later(
        self, told: list[subscribers.Told], old: _State, new: _State
    ) -> list[subscribers.Told]:
        """Return whom a change concerns who subscribed since somebody looked."""
        known = {id(one.subscriber) for one in told}
        now = self._board.concerned(old.resolved.config, new.resolved.config)
        return [one for one in now if id(one.subscriber) not in known]

    def _changed(self, why: str, changed: list[Change]) -> ReloadReport:
        waiting = self._waiting(self._state)
        report = ReloadReport(self.version, changed, waiting)
        _log.info("version %d (%s): %s", self.version, why, ", ".join(map(str, changed)))
        now = [one.path for one in changed if one.path in waiting]
        if now:
            _log.warning("these count at the next start only: %s", ", ".join(now))
        self._say("config.changed", {"why": why, **report.to_dict()})
        return report

    def _failed(self, why: str, error: errors.DwError) -> None:
        if why == "registered":
            return  # whoever registers is told
        _log.error("version %d still counts (%s): %s", self.version, why, error)
        told = {"version": self.version, "why": why, "code": error.code, "message": str(error)}
        self._say("config.failed", told)

    def _say(self, subject: str, data: dict[str, Any]) -> None:
        for announce in self._announcers:
            try:
                announce(subject, data)
            except Exception:  # noqa: BLE001 - it is the program's
                _log.exception("somebody could not be told of %s", subject)

    def _waiting(self, state: _State) -> list[str]:
        found, started = flat(state.resolved.config), self._started
        routes = [*found, *(route for route in started if route not in found)]
        return [
            dotted(route)
            for route in routes
            if found.get(route) != started.get(route, found.get(route))
            and not is_live(field_at(state.shape, route))
        ]


def no_such(shape: Shape, route: Route) -> errors.DwError:
    """Return the error that nothing can be at a path."""
    above: Route = ()
    while route[: len(above) + 1] != route and names_at(shape, route[: len(above) + 1]):
        above = route[: len(above) + 1]
    possible = [dotted((*above, name)) for name in names_at(shape, above)]
    hint = did_you_mean(dotted(route), possible) or f"; {offered(possible)}"
    text = f"there is no {dotted(route)!r} in the configuration{hint}"
    return errors.new("config.unknown", text, path=dotted(route))


def _without(tree: Mapping[str, Any], paths: Iterable[str]) -> dict[str, Any]:
    gone = [route_of(path) for path in paths]
    kept: dict[str, Any] = {}
    for route, value in leaves(tree):
        if not any(route[: len(path)] == path for path in gone):
            kept = merged(kept, nested(route, value))
    return kept


def _weakly(configuration: Configuration, why: str) -> Callable[[], Heard]:
    """Return what reloads a configuration that is still in use."""
    reference = weakref.ref(configuration)

    def reload() -> Heard:
        there = reference()
        if there is None:
            return "gone"
        try:
            there._reload(why)  # noqa: SLF001 - of this module
        except errors.DwError as error:  # told in status, log and event
            return "late" if error.code == "config.timeout" else "told"
        return "told"

    return reload
