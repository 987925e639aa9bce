"""What serves what: for a kind and a capability the plugin that is asked.

Reading it takes no lock: it is a table that is exchanged as a whole.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from dwkernel import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dwkernel.plugins.handle import Handle
    from dwkernel.plugins.manifest import Manifest

__all__ = ["Entry", "Registry"]


@dataclass(frozen=True)
class Entry:
    """A plugin that serves.

    Attributes:
        manifest: what it says of itself.
        handle: how it is asked.
        is_enabled: whether it serves tenants that say nothing else.
        tenants: whether it serves those for which the configuration says so.
        told: whether it serves those for which somebody said so since; it counts first.
        priority: of several for one capability the highest serves; the kernel's own have -100.
        by_mode: the same in an operating mode, before `priority`.

    """

    manifest: Manifest
    handle: Handle
    is_enabled: bool = True
    tenants: Mapping[str, bool] = field(default_factory=dict)
    told: Mapping[str, bool] = field(default_factory=dict)
    priority: int = 0
    by_mode: Mapping[str, int] = field(default_factory=dict)

    @property
    def serves_anybody(self) -> bool:
        """Whether there is a tenant that it serves."""
        return self.is_enabled or any({**self.tenants, **self.told}.values())

    def serves(self, tenant: str | None) -> bool:
        """Return whether it serves a tenant; None stands for none in particular."""
        if tenant is None:
            return self.is_enabled
        return self.told.get(tenant, self.tenants.get(tenant, self.is_enabled))


class Registry:
    """All plugins that serve. Safe from any thread."""

    def __init__(self, mode: Callable[[], str]) -> None:
        """Begin with none; `mode` says which operating mode counts now."""
        self._mode = mode
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}
        # What was said of tenants outlives that a plugin is stopped.
        self._told: dict[str, dict[str, bool]] = {}

    def put(self, entry: Entry) -> None:
        """Add a plugin, or exchange what is known of it; what was said of tenants stays."""
        with self._lock:
            entry = replace(entry, told=self._told.get(entry.manifest.id, {}))
            self._entries = {**self._entries, entry.manifest.id: entry}

    def remove(self, plugin_id: str) -> None:
        """Take a plugin out."""
        with self._lock:
            self._entries = {name: e for name, e in self._entries.items() if name != plugin_id}

    def entry(self, plugin_id: str) -> Entry | None:
        """Return what is known of a plugin."""
        return self._entries.get(plugin_id)

    def enable(self, plugin_id: str, tenant: str | None, *, is_enabled: bool) -> None:
        """Let a plugin serve, or not: a tenant, or all that say nothing else.

        Of a tenant it counts for one that does not run, too, once it does.
        """
        with self._lock:
            if tenant is not None:
                told = self._told[plugin_id] = {**self._told.get(plugin_id, {}), tenant: is_enabled}
            entry = self._entries.get(plugin_id)
            if entry is None:
                return
            if tenant is None:
                entry = replace(entry, is_enabled=is_enabled)
            else:
                entry = replace(entry, told=told)
            self._entries = {**self._entries, plugin_id: entry}

    def find(
        self,
        kind: str,
        capability: str | None = None,
        tenant: str | None = None,
        *,
        closed: bool = False,
    ) -> list[Handle]:
        """Return all that serve, the first to be asked first: by priority, then by id.

        With `closed` also those that take no calls now.
        """
        mode = self._mode()
        fitting = [
            (-entry.by_mode.get(mode, entry.priority), name, entry.handle)
            for name, entry in self._entries.items()
            if kind in entry.manifest.kinds
            and (capability is None or capability in entry.manifest.capabilities.get(kind, ()))
            and entry.serves(tenant)
            and (closed or entry.handle.is_open)
        ]
        return [handle for _, _, handle in sorted(fitting, key=lambda one: one[:2])]

    def at_work(self, kind: str) -> list[Handle]:
        """Return all that serve somebody, be it one tenant, and those that take no calls now."""
        return [
            entry.handle
            for entry in self._entries.values()
            if kind in entry.manifest.kinds and entry.serves_anybody
        ]

    def capabilities(self, kind: str) -> frozenset[str]:
        """Return all that plugins which serve a kind can do."""
        return frozenset(
            name
            for entry in self._entries.values()
            if entry.is_enabled
            for name in entry.manifest.capabilities.get(kind, ())
        )

    def get(self, kind: str, capability: str | None = None, tenant: str | None = None) -> Handle:
        """Return the one that is asked.

        Raises:
            NotFound: `plugin.not_found`

        """
        found = self.find(kind, capability, tenant)
        if not found:
            what = f"{kind} for {capability!r}" if capability else kind
            whom = f" for the tenant {tenant}" if tenant else ""
            known = sorted(
                name
                for entry in self._entries.values()
                for name in entry.manifest.capabilities.get(kind, ())
            )
            hint = f" (there are {', '.join(known)})" if known and capability else ""
            raise errors.new("plugin.not_found", f"no {what} serves{whom}{hint}", kind=kind)
        return found[0]
