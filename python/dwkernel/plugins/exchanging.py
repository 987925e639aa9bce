"""The exchange of a plugin's version for another while it is used: which, and who hears of it."""

from __future__ import annotations

import contextlib
import threading
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel.plugins import resolve
from dwkernel.plugins.catalogue import may_follow
from dwkernel.plugins.looking import Looking
from dwkernel.plugins.reload import Reload, ReloadReport
from dwkernel.plugins.watchdog import bare, said

if TYPE_CHECKING:
    import os

    from dwkernel.plugins.discovery import Found
    from dwkernel.plugins.manifest import Manifest
    from dwkernel.plugins.observers import Observers
    from dwkernel.plugins.record import Record
    from dwkernel.plugins.report import PluginInfo
    from dwkernel.plugins.swap import Slot
    from dwkernel.plugins.version import Version, Workshop

__all__ = ["Exchanging"]

if TYPE_CHECKING:
    # Within the class `list` is a method.
    Manifests = list[Manifest]


class Exchanging(Looking):
    """Plugins whose versions can be exchanged. Safe from any thread, one at a time."""

    _observers: Observers
    _workshop: Workshop
    _doing: threading.RLock
    _narrow: set[str]

    @abstractmethod
    def load(self, path_or_id: str | os.PathLike[str]) -> PluginInfo:
        """Start a plugin."""

    @abstractmethod
    def _begin_all(
        self, order: Manifests, wrong: dict[str, errors.DwError], wide: set[str]
    ) -> None:
        """Start plugins in their order, and note what goes wrong."""

    @abstractmethod
    def _register(self, record: Record) -> None:
        """Let it serve as the section says."""

    def reload(
        self,
        plugin_id: str,
        source: str | os.PathLike[str] | None = None,
        *,
        downgrade: bool = False,
    ) -> ReloadReport:
        """Put another version of a plugin in its place while it is used; calls go on.

        With `keep_state` in its manifest calls wait while its state is carried over, for a second
        at most (`plugins.limits.freeze`); else what calls change of the state in that moment is
        lost. Others that need it have the new version from the next use on.

        Args:
            plugin_id: which.
            source: a folder with the new version; by default where it came from, as it is now.
            downgrade: an older version may follow a newer one.

        Raises:
            NotFound: `plugin.not_found`
            Conflict: `plugin.reload`: the old version runs on; the details `step` and `cause` say
                where and why, `__cause__` is the error itself

        One that does not run is started, and raises as `load` does. After an interrupt (Ctrl-C) it
        is the old version or the new one; of the latter the old one is ended all the same.

        """
        self._check()
        with self._doing:
            record = self._records.get(plugin_id)
            if record is not None and record.found.source == "kernel":
                text = f"{plugin_id} is the kernel's own, and is updated with it"
                raise errors.new("plugin.state", text, id=plugin_id)
            if record is None or record.version is None:
                return self._reload_stopped(plugin_id, source)
            self._observers.tell("plugin.reloading", **record.told())
            work = None
            try:
                found = self._newer(record, source, downgrade=downgrade)
                work = self._work(record, found)
                was_paused = record.life.state == "paused"
                work.take_over(lambda new: self._took_over(record, new, was_paused=was_paused))
                return self._finish(record, work)
            except BaseException as error:
                if work is not None and work.has_taken_over:
                    # Ctrl-C while the old one ends: that goes on, and whoever waits for it hears.
                    given = (record, work)
                    threading.Thread(target=self._finish, args=given, daemon=True).start()
                    raise
                record.error = str(error)
                step = error.details.get("step") if isinstance(error, errors.DwError) else None
                data = {"step": step or "resolve", "error": str(error) or type(error).__name__}
                self._observers.tell("plugin.reload_failed", **record.told(), **data)
                raise

    def _reload_stopped(
        self, plugin_id: str, source: str | os.PathLike[str] | None
    ) -> ReloadReport:
        record = self._records.get(plugin_id)
        found = self._catalogue.again(plugin_id, source, record.found if record else None)
        if found not in self._catalogue.found().plugins.get(plugin_id, ()):
            self._catalogue.name(found)
        info = self.load(plugin_id)
        return ReloadReport(plugin_id, None, info.version)

    def _newer(
        self, record: Record, source: str | os.PathLike[str] | None, *, downgrade: bool
    ) -> Found:
        """Find what is to take over, and hold it against those that run."""
        try:
            found = self._catalogue.again(record.id, source, record.found)
            may_follow(record.found.manifest, found.manifest, downgrade=downgrade)
            for name in self._dependants(record.id):
                wanted = self._records[name].found.manifest.requires[record.id]
                if found.manifest.version not in wanted:
                    version = self._records[name].found.manifest.version
                    text = f"{name} {version} needs {record.id} {wanted}"
                    text += f", and this is {found.manifest.version}"
                    raise errors.new("plugin.dependency", text, id=record.id)
            candidates = {**self._candidates(), record.id: [found.manifest]}
            plan = resolve.resolve(candidates, {record.id, *self._running()})
            if record.id in plan.refused:
                raise plan.refused[record.id]
            wrong: dict[str, errors.DwError] = {}
            needs = resolve.needed(plan.order, record.id)
            self._begin_all(needs, wrong, {record.id} - self._narrow)
            for error in wrong.values():
                raise error
        except errors.DwError as error:
            cause = bare(error)
        else:
            return found
        text = f"{record.id} could not take over at the step resolve: {said(cause)}"
        raise errors.new(
            "plugin.reload", text, id=record.id, step="resolve", cause=cause.code
        ) from cause

    def _work(self, record: Record, found: Found) -> Reload:
        assert record.version is not None  # noqa: S101 - it runs
        return Reload(
            record.version,
            found,
            record.handle.slot,
            self._workshop,
            record.watchdog,
            record.log,
            self._section().limits.limits(),
            self._slots(found.manifest),
        )

    def _took_over(self, record: Record, new: Version, *, was_paused: bool) -> None:
        """Make a version known that is in the place of another by now."""
        record.took_over(new)
        record.handle.look(new.instance, self._section().limits.load)
        if new.found not in self._catalogue.found().plugins.get(record.id, ()):
            self._catalogue.name(new.found)
        self._register(record)
        record.health.reset()
        record.health.go_by(self._section().health.rules())
        if was_paused:
            with contextlib.suppress(errors.DwError):
                record.life.pause()
        else:
            record.lift()

    def _finish(self, record: Record, work: Reload) -> ReloadReport:
        report = work.finish()
        self._observers.tell("plugin.reloaded", **record.told(), report=report.to_dict())
        return report

    def _slots(self, manifest: Manifest) -> dict[str, Slot[Any]]:
        return {name: self._records[name].handle.slot for name in manifest.requires}
