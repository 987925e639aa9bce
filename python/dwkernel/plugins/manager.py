"""`kernel.plugins`: all plugins of a kernel."""

from __future__ import annotations

import math
import os
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel.plugins import builtin, resolve
from dwkernel.plugins.catalogue import Catalogue
from dwkernel.plugins.exchanging import Exchanging
from dwkernel.plugins.observers import Observers
from dwkernel.plugins.record import Record
from dwkernel.plugins.registry import Registry
from dwkernel.plugins.schemes import Schemes
from dwkernel.plugins.secrets import Secrets
from dwkernel.plugins.settings import PluginsSection
from dwkernel.plugins.version import Workshop
from dwkernel.plugins.watchdog import bare
from dwkernel.units import parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dwkernel.plugins.discovery import Found
    from dwkernel.plugins.handle import Handle
    from dwkernel.plugins.manifest import Manifest
    from dwkernel.plugins.output import Log
    from dwkernel.plugins.report import PluginInfo
    from dwkernel.units import Duration

__all__ = ["Plugins"]

if TYPE_CHECKING:
    # Within the class `list` is its method.
    Manifests = list[Manifest]
    Handles = list[Handle]

_CLOSE_TIMEOUT = "30s"


class Plugins(Exchanging):
    """All plugins of a kernel. Safe from any thread; steps of a life are one at a time.

    What happens is told to observers as `observer(subject, data)`; subjects are `plugin.loaded`,
    `plugin.failed`, `plugin.paused`, `plugin.resumed`, `plugin.reloading`, `plugin.reloaded`,
    `plugin.reload_failed`, `plugin.quarantined` (`plugin.resumed` follows), `plugin.stopping`,
    `plugin.stopped`, `plugin.enabled`, `plugin.disabled`, `plugin.unwell` and `plugin.well`
    (again); data has `id` and `version`.
    """

    def __init__(
        self,
        section: PluginsSection | Callable[[], PluginsSection] | None = None,
        *,
        announce: Callable[[str, dict[str, Any]], object] | None = None,
        mode: Callable[[], str] = lambda: "workstation",
        confine: Callable[[Found, Path, Log], Any] | None = None,
    ) -> None:
        """Begin with the kernel's own plugins; nothing is looked for yet.

        Args:
            section: which plugins there are; a function is asked at each step.
            announce: hears what happens, as observers do.
            mode: returns the operating mode, which priorities go by.
            confine: makes plugins that run confined (see `dwkernel.plugins.version.Workshop`).

        """
        given = section if section is not None else PluginsSection()
        self._section: Callable[[], PluginsSection] = given if callable(given) else lambda: given
        self._observers = Observers(announce)
        self._registry = Registry(mode)
        self._schemes = Schemes(self._registry)
        self._secrets = Secrets(self._registry)
        self._observers.add(lambda *_: self._renew())
        self._workshop = Workshop(self._section, confine)
        self._doing = threading.RLock()
        self._records: dict[str, Record] = {}
        self._catalogue = Catalogue(self._section)
        self._overrides: dict[str, bool] = {}
        # What runs for single tenants, and what that needs: it begins with serving nobody else.
        self._narrow: set[str] = set()
        self._watcher: Any = None
        self._pid = os.getpid()
        self._closed = False
        for found, make in builtin.builtins():
            self._begin_own(found, make)
        self._serve_own()

    def on(self, observer: Callable[[str, dict[str, Any]], object]) -> Callable[[], None]:
        """Tell somebody what happens, on the thread where it does; return what ends that."""
        return self._observers.add(observer)

    def refresh(self) -> None:
        """Look for plugins anew."""
        self._check()
        with self._doing:
            self._catalogue.refresh()

    # --- Beginning and ending ---

    def start(self) -> dict[str, errors.DwError]:
        """Start all that the section enables, each after those that it needs.

        What only tenants have enabled serves these; what `disable` was called for is left alone.

        Returns:
            Why some do not run, by id or place; the others do.

        """
        self._check()
        with self._doing:
            found = self._catalogue.found()
            section = self._section()
            wanted = self._catalogue.ids() if "*" in section.enabled else set(section.enabled)
            out = {*section.disabled, *self._serve_own()}
            out |= {name for name, is_in in self._overrides.items() if not is_in}
            wide = wanted - out
            wanted |= {name for part in section.tenants.values() for name in part.enabled}
            wanted -= out
            wrong = {name: found.wrong[name] for name in found.wrong}
            for name in wanted - self._catalogue.ids() - set(wrong):
                wrong[name] = errors.new(
                    "plugin.not_found", f"no plugin has the id {name!r}", id=name
                )
            plan = resolve.resolve(self._candidates(), wanted - set(wrong))
            wrong |= plan.refused
            self._begin_all(plan.order, wrong, wide)
            for name in wide & self._narrow & set(self._running()):
                self._tell_served(name, None, is_enabled=True)
            self._watch()
        return wrong

    def apply(self) -> dict[str, errors.DwError]:
        """Do as the section says now: look anew, start and stop, serve by the new priorities.

        Plugins that run keep their limits, permissions and configuration until they are reloaded.

        Returns:
            What does not run though it should, as `start` does; and what runs on because others
            need it

        """
        self._check()
        with self._doing:
            self._catalogue.refresh()
            wrong = self.start()
            for name in self._section().disabled:
                if name in self._running() and not self._overrides.get(name):
                    try:
                        self.disable(name)
                    except errors.DwError as error:
                        wrong[name] = bare(error)
                    else:
                        del self._overrides[name]  # the section said it, and may take it back
            for record in self._records.values():
                if record.version is not None:
                    self._register(record)
        return wrong

    def load(self, path_or_id: str | os.PathLike[str]) -> PluginInfo:
        """Start a plugin, and those that it needs; one that runs is left as it is.

        Args:
            path_or_id: an id, or a folder with a manifest (what has a `/` in it, or is a `Path`).

        Raises:
            NotFound: `plugin.not_found`
            Exists: `plugin.exists`
            Conflict: `plugin.dependency`
            Unsupported: `plugin.api`, `plugin.sandbox`
            Denied: `plugin.permission`, `plugin.signature`
            Corrupt: `plugin.hash`
            Invalid: `plugin.manifest`, `plugin.load`, `plugin.kind`, `plugin.option`
            Internal: `plugin.failed`; Timeout: `plugin.timeout`
            State: `plugin.state`: it is disabled, or this is closed

        """
        self._check()
        with self._doing:
            name = self._catalogue.known(path_or_id, self._running())
            self._load(name, is_wide=True)
        return self.info(name)

    def _load(self, name: str, *, is_wide: bool) -> None:
        record = self._records.get(name)
        if record is None or record.version is None:
            self._may_run(name)
            plan = resolve.resolve(self._candidates(), {name, *self._running()})
            if name in plan.refused:
                raise plan.refused[name]
            wrong: dict[str, errors.DwError] = {}
            wide = {name} if is_wide else set()
            self._begin_all(resolve.needed(plan.order, name), wrong, wide)
            if name in wrong:
                raise wrong[name]

    def enable(self, plugin_id: str, tenant: str | None = None) -> None:
        """Let a plugin serve a tenant, or all; it is started if it does not run, and forgiven.

        Started for a tenant it serves nobody else, and neither does what it needs; what the section
        lists in `disabled` is not started for a tenant.

        Raises as `load`.
        """
        self._check()
        with self._doing:
            if tenant is None:
                self._overrides[plugin_id] = True
            if plugin_id in self._serve_own():
                self._tell_served(plugin_id, tenant, is_enabled=True)
                return
            if self._overrides.get(plugin_id) is False:
                del self._overrides[plugin_id]
            if plugin_id not in self._running():
                self._catalogue.known(plugin_id, {})
                self._load(plugin_id, is_wide=tenant is None)
            record = self._records[plugin_id]
            record.health.reset()
            record.lift()
            self._tell_served(plugin_id, tenant, is_enabled=True)

    def disable(self, plugin_id: str, tenant: str | None = None) -> None:
        """Let a plugin serve a tenant no more, or nobody: it is stopped then.

        Raises:
            NotFound: `plugin.not_found`
            Conflict: `plugin.dependency`: others that run need it

        """
        self._check()
        with self._doing:
            if plugin_id not in self._records:
                self._catalogue.newest(plugin_id)
            is_own = plugin_id in self._serve_own()
            if tenant is not None or is_own:
                if tenant is None:
                    self._overrides[plugin_id] = False
                self._tell_served(plugin_id, tenant, is_enabled=False)
                return
            needy = self._dependants(plugin_id)
            if needy:
                text = f"{plugin_id} is needed by {', '.join(needy)}"
                raise errors.new("plugin.dependency", text, id=plugin_id)
            self._overrides[plugin_id] = False
            if plugin_id in self._running():
                self._end(self._records[plugin_id], self._section().limits.drain)

    def pause(self, plugin_id: str) -> None:
        """Let a plugin rest: calls are refused with `plugin.state` until it is resumed.

        Raises:
            NotFound: `plugin.not_found`; State: `plugin.state`
            Internal: `plugin.failed`; Timeout: `plugin.timeout`: it goes on

        """
        self._check()  # before the lock: of a parent process somebody may hold it for ever
        with self._doing:
            record = self._runs(plugin_id)
            record.refuse()
            try:
                record.life.pause()
            except BaseException:
                record.lift()
                raise
            record.refuse()  # quarantine may have come in between
            self._observers.tell("plugin.paused", **record.told())

    def resume(self, plugin_id: str) -> None:
        """Let a plugin go on; raises as `pause`, and it rests then."""
        self._check()
        with self._doing:
            record = self._runs(plugin_id)
            record.life.resume()
            record.lift()
            health = record.health.report()
            if health.state == "quarantined":  # it goes on from there
                record.quarantine(health.wait_s)
            self._observers.tell("plugin.resumed", **record.told())

    def probe(self) -> None:
        """Ask all that run whether they are well: who is not has failed once more."""
        self._check()
        for name in self._running():
            record = self._records[name]
            version = record.version
            if version is None or version.life.state != "started":
                continue
            error = None
            try:
                version.life.health(version.life.limits.health)
            except errors.DwError as one:
                error = bare(one)
            if error is not None and record.version is version:
                record.health.failed(error)
            if record.is_well == (error is None):
                continue
            record.is_well = error is None
            told = record.told() if error is None else {**record.told(), "error": str(error)}
            self._observers.tell("plugin.well" if error is None else "plugin.unwell", **told)

    def close(self, deadline: Duration = _CLOSE_TIMEOUT) -> None:
        """Stop all, those first that need others; a second call does nothing.

        What does not end in time is left alone.
        """
        if os.getpid() != self._pid:
            return
        end = time.monotonic() + parse_duration(deadline)
        if self._watcher is not None:
            self._watcher.close()
        with self._doing:
            if self._closed:
                return
            running = [self._records[name].found.manifest for name in self._running()]
            order = resolve.resolve({one.id: [one] for one in running}, [one.id for one in running])
            for one in reversed(order.order):
                self._end(self._records[one.id], max(0.0, end - time.monotonic()), end)
            self._schemes.close()
            self._secrets.close()
            self._closed = True

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    # --- Inside ---

    def _begin_own(self, found: Found, make: Callable[[], Any]) -> None:
        record = Record(found, self._section())
        version = self._workshop.own(found, make, record.watchdog)
        version.life.state = "started"
        record.began(version)
        self._records[found.id] = record
        self._register(record)

    def _serve_own(self) -> set[str]:
        """Let the kernel's own serve or not, as is said; they run in any case. Return their ids."""
        own = {name for name, one in self._records.items() if one.found.source == "kernel"}
        disabled = self._section().disabled
        for name in own:
            is_enabled = self._overrides.get(name, name not in disabled)
            self._registry.enable(name, None, is_enabled=is_enabled)
        return own

    def _tell_served(self, plugin_id: str, tenant: str | None, *, is_enabled: bool) -> None:
        if tenant is None:
            self._narrow.discard(plugin_id)
        self._registry.enable(plugin_id, tenant, is_enabled=is_enabled)
        record = self._records.get(plugin_id)
        if record is not None:
            subject = "plugin.enabled" if is_enabled else "plugin.disabled"
            self._observers.tell(subject, **record.told(), tenant=tenant)

    def _begin_all(
        self, order: Manifests, wrong: dict[str, errors.DwError], wide: set[str]
    ) -> None:
        """Start plugins in their order; note what goes wrong, and go on with the others.

        Those that are `wide`, and what these need, serve all; the others serve who is told.
        """
        roots = wide & {one.id for one in order}
        serving = {one.id for root in roots for one in resolve.needed(order, root)}
        fresh = {one.id for one in order} - set(self._running())
        self._narrow = (self._narrow - fresh) | (fresh - serving)
        for one in order:
            if one.id in self._running():
                continue
            missing = [name for name in one.requires if name not in self._running()]
            if missing:
                text = f"{one.id} {one.version} needs {missing[0]}, which does not run"
                if missing[0] in wrong:
                    text += f" ({wrong[missing[0]].code})"
                wrong[one.id] = errors.new("plugin.dependency", text, id=one.id)
                continue
            try:
                self._begin(self._catalogue.of(one))
            except errors.DwError as error:
                wrong[one.id] = bare(error)

    def _begin(self, found: Found) -> None:
        self._may_run(found.id)
        section = self._section()
        record = self._records.get(found.id)
        if record is None:
            record = Record(
                found,
                section,
                on_quarantine=lambda wait_s: self._quarantined(found.id, wait_s),
                on_lift=lambda: self._lifted(found.id),
            )
            self._records[found.id] = record
        else:
            record.again(found)  # those who ask it keep their handle
            record.health.go_by(section.health.rules())
        version = None
        try:
            version = self._workshop.make(found, record.log, record.watchdog)
            needs = self._slots(found.manifest)
            context = self._workshop.context(version, record.log, record.watchdog, needs)
            version.life.handshake(context)
            version.life.start()
            version.life.health()
        except BaseException as error:
            record.error = str(error)
            record.has_failed = True
            if version is not None:
                if version.life.state != "loaded":
                    version.end()
                version.unload()
            self._observers.tell("plugin.failed", **record.told(), error=str(error))
            raise
        record.handle.look(version.instance, section.limits.load)
        record.began(version)
        self._register(record)
        self._observers.tell("plugin.loaded", **record.told())

    def _register(self, record: Record) -> None:
        entry = record.entry(self._section(), self._registry.entry(record.id))
        if record.id in self._narrow:
            entry = replace(entry, is_enabled=False)
        self._registry.put(entry)

    def _end(self, record: Record, drain_s: float, deadline: float = math.inf) -> None:
        version = record.version
        if version is None:
            return
        is_own = record.found.source == "kernel"
        if not is_own:
            self._observers.tell("plugin.stopping", **record.told())
        wrong = record.end(drain_s, deadline)
        self._registry.remove(record.id)
        if not is_own:
            self._observers.tell("plugin.stopped", **record.told(), wrong=wrong)

    def _quarantined(self, plugin_id: str, wait_s: float) -> None:
        record = self._records.get(plugin_id)
        if record is not None and self._is_started(record):
            record.quarantine(wait_s)
            self._observers.tell("plugin.quarantined", **record.told(), wait_s=wait_s)

    def _renew(self) -> None:
        """Let those who ask by name know who is there."""
        self._schemes.renew()
        self._secrets.renew()

    def _lifted(self, plugin_id: str) -> None:
        if self._is_started(self._records[plugin_id]):
            self._observers.tell("plugin.resumed", **self._records[plugin_id].told())

    @staticmethod
    def _is_started(record: Record) -> bool:
        """Return whether it serves, and does not rest or end."""
        version = record.version
        return version is not None and version.life.state == "started"

    def _watch(self) -> None:
        if self._section().watch and self._watcher is None:
            from dwkernel.plugins.watch import Watcher  # noqa: PLC0415 - developers only

            self._watcher = Watcher(self)

    def _may_run(self, plugin_id: str) -> None:
        is_out = plugin_id in self._section().disabled and not self._overrides.get(plugin_id)
        if is_out or self._overrides.get(plugin_id) is False:
            text = f"{plugin_id} is disabled: enable it first"
            raise errors.new("plugin.state", text, id=plugin_id)

    def _runs(self, plugin_id: str) -> Record:
        self._check()
        record = self._records.get(plugin_id)
        if record is None or record.version is None:
            self.info(plugin_id)
            raise errors.new("plugin.state", f"{plugin_id} does not run", id=plugin_id)
        return record

    def __repr__(self) -> str:
        """Say how many run."""
        return f"<dwkernel.Plugins, {len(self._running())} run>"
