"""What is to be seen of a kernel's plugins: which there are, how they do, and who serves what."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel._closing import Closing
from dwkernel.plugins import fitting, options, resolve
from dwkernel.plugins.record import Record
from dwkernel.plugins.report import Check, PluginInfo

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dwkernel.plugins.catalogue import Catalogue
    from dwkernel.plugins.discovery import Found
    from dwkernel.plugins.handle import Handle
    from dwkernel.plugins.manifest import Manifest
    from dwkernel.plugins.registry import Registry
    from dwkernel.plugins.settings import PluginsSection
    from dwkernel.sinks import Sink

__all__ = ["Looking"]

if TYPE_CHECKING:
    # Within the class `list` is its method.
    Manifests = list[Manifest]
    Handles = list[Handle]
    Names = list[str]


class Looking(Closing):
    """Plugins, as those see them who change nothing. Safe from any thread."""

    _section: Callable[[], PluginsSection]
    _registry: Registry
    _catalogue: Catalogue
    _records: dict[str, Record]
    _pid: int
    _closed: bool

    def list(self) -> list[PluginInfo]:
        """Return what is known of every plugin that is there, by id."""
        self._check()
        found = []
        for name in sorted({*self._records, *self._catalogue.ids()}):
            with contextlib.suppress(errors.NotFound):  # gone in this moment
                found.append(self.info(name))
        return found

    def info(self, plugin_id: str) -> PluginInfo:
        """Return what is known of a plugin.

        Raises:
            NotFound: `plugin.not_found`

        """
        self._check()
        record = self._records.get(plugin_id)
        entry = self._registry.entry(plugin_id)
        if record is not None:
            return record.info(entry)
        found = self._catalogue.newest(plugin_id)
        return Record(found, self._section()).info(None)

    def check(self) -> Check:
        """Return whether what is there fits together; nothing is loaded."""
        self._check()
        there = self._candidates()
        unusable = self._catalogue.found().wrong
        wrong = {name: str(error) for name, error in unusable.items()}
        plan = resolve.resolve(there, there)
        wrong |= {name: str(error) for name, error in plan.refused.items()}
        manifests = (one for several in there.values() for one in several)
        known = {*there, *unusable, *self._records}
        for name, error in fitting.unfit(self._section(), manifests, known):
            wrong.setdefault(name, str(error))
        for found in options.check(self._section()):
            if found.kind != "unchecked":
                place = ".".join(map(str, ("plugins", *found.path)))
                wrong.setdefault(str(found.path[1]), f"{place} {found.text}")
        return Check(resolve.matrix(there), wrong)

    def get(self, kind: str, capability: str | None = None, *, tenant: str | None = None) -> Handle:
        """Return the plugin that serves a kind: of several the one with the highest priority.

        Raises:
            NotFound: `plugin.not_found`

        """
        self._check()
        return self._registry.get(kind, capability, tenant)

    def find(
        self, kind: str, capability: str | None = None, *, tenant: str | None = None
    ) -> Handles:
        """Return all plugins that serve a kind, the first to be asked first."""
        self._check()
        return self._registry.find(kind, capability, tenant)

    def sink(self, name: str, **options: Any) -> Sink:
        """Return a sink for `dwkernel.sinks.attach`, by the name of what it is.

        Args:
            name: a capability of a plugin of the kind `sink`, or one of the kernel's own: `files`,
                `webhook`, `forward`, `call`.
            options: of the kernel's own, by name. Plugins have theirs from the configuration. What
                a plugin carries away survives its reloads.

        Raises:
            NotFound: `plugin.not_found`; Invalid: `sink.option`

        """
        from dwkernel.plugins.sending import sink_of  # noqa: PLC0415 - who sends pays for it

        self._check()
        return sink_of(self._registry, name, options)

    def homes(self) -> dict[Path, str]:
        """Return the folders of the plugins that run, with their ids: what a watcher looks at."""
        found = {}
        for name in self._running():
            home = self._records[name].home
            if home is not None:
                found[home.resolve()] = name
        return found

    @property
    def section(self) -> PluginsSection:
        """What the configuration says of plugins now."""
        return self._section()

    @property
    def registry(self) -> Registry:
        """What serves what, for those who ask it often."""
        return self._registry

    def _candidates(self) -> dict[str, Manifests]:
        return self._catalogue.candidates(self._running())

    def _running(self) -> dict[str, Found]:
        records = list(self._records.items())
        return {name: one.found for name, one in records if one.version is not None}

    def _dependants(self, plugin_id: str) -> Names:
        return sorted(
            name
            for name in self._running()
            if plugin_id in self._records[name].found.manifest.requires
        )

    def _check(self) -> None:
        if os.getpid() != self._pid:
            text = "these plugins are another process's, which was forked"
            raise errors.new("plugin.state", text)
        if self._closed:
            raise errors.new("plugin.state", "the plugins are closed")
