"""Drives of plugins by the schemes of their URLs, for whoever opens a store in this process."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from dwkernel import _native
from dwkernel.plugins.serving import PluginDrive

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwkernel.plugins.handle import Handle
    from dwkernel.plugins.registry import Registry

__all__ = ["Schemes"]

# The pool makes these itself.
_BUILT_IN = frozenset({"file", "memory"})


class Schemes:
    """Gives the schemes of a registry's drive plugins to those who serve them, from any thread.

    A scheme is what a plugin names as a capability of its kind `drive`. The list is the process's:
    of two registries that serve one scheme the last one counts.
    """

    def __init__(self, registry: Registry) -> None:
        """Give away nothing yet."""
        self._registry = registry
        self._lock = threading.Lock()
        self._given: set[str] = set()

    def renew(self) -> None:
        """Give away what is served now, take back what is not; call it when plugins come or go."""
        with self._lock:
            served = self._registry.capabilities("drive") - _BUILT_IN
            for scheme in served - self._given:
                _native.register_drives(scheme, self._opener(scheme))
            for scheme in self._given - served:
                _native.unregister_drives(scheme)
            self._given = set(served)

    def close(self) -> None:
        """Take everything back; drives that are open stay."""
        with self._lock:
            for scheme in self._given:
                _native.unregister_drives(scheme)
            self._given = set()

    def _opener(self, scheme: str) -> Callable[[str, bool], PluginDrive]:
        def open_drive(location: str, make: bool) -> PluginDrive:  # as the pool calls it
            handle: Handle = self._registry.get("drive", scheme)
            return PluginDrive(handle.slot, location, make=make)

        return open_drive
