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
_lock = threading.Lock()
# The list is the process's: who serves a scheme, the last one counts.
_given: dict[str, list[Schemes]] = {}


class Schemes:
    """Gives the schemes of a registry's drive plugins to those who serve them, from any thread.

    A scheme is what a plugin names as a capability of its kind `drive`. Of several registries that
    serve one scheme the last one counts; when it ends, the one before does again.
    """

    def __init__(self, registry: Registry) -> None:
        """Give away nothing yet."""
        self._registry = registry
        self._opened: set[str] = set()

    def renew(self) -> None:
        """Give away what is served now, take back what is not; call it when plugins come or go."""
        self._give(self._registry.capabilities("drive") - _BUILT_IN)

    def close(self) -> None:
        """Take everything back; drives that are open stay."""
        self._give(frozenset())

    def _give(self, served: frozenset[str]) -> None:
        with _lock:
            for scheme in served - self._opened:
                _given.setdefault(scheme, []).append(self)
                _native.register_drives(scheme, self._opener(scheme))
            for scheme in self._opened - served:
                others = _given[scheme]
                others.remove(self)
                if others:
                    _native.register_drives(scheme, others[-1]._opener(scheme))  # noqa: SLF001 - of its own kind
                else:
                    del _given[scheme]
                    _native.unregister_drives(scheme)
            self._opened = set(served)

    def _opener(self, scheme: str) -> Callable[[str, bool], PluginDrive]:
        def open_drive(location: str, make: bool) -> PluginDrive:  # as the pool calls it
            handle: Handle = self._registry.get("drive", scheme)
            return PluginDrive(handle.slot, location, make=make)

        return open_drive
