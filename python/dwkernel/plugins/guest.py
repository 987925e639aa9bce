"""A plugin in a process of its own, seen from within: it runs as one in the kernel's does.

Of the kernel's Python this is what a confined process runs; `dwkernel.plugins.remote` is the other
side. What comes becomes what a kind's methods take, and what they return becomes plain data.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from dwkernel import errors
from dwkernel.plugins import kinds
from dwkernel.plugins.kinds import crossing
from dwkernel.plugins.life import Context

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Guest"]

# Of the methods that a plugin offers to others.
_METHODS_MAX = 1000
_ATTRIBUTES = ("on_failure", "timeout_s")


class Guest:
    """What answers the kernel's calls: each method of the plugin, by its name."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        """Import the plugin and make it.

        Args:
            plan: `id`, `entry`, `kinds`, and `model` (of its configuration, or None).

        """
        self._id: str = plan["id"]
        self._kinds: Sequence[str] = plan["kinds"]
        self._model: str | None = plan["model"]
        module = plan["entry"].partition(":")[0]
        made_by = _at(plan["entry"])
        if not callable(made_by):
            text = f"{plan['entry']} can't be called"
            raise TypeError(text)
        self._plugin = made_by()
        about = (sys.modules[name] for name in (module.partition(".")[0], module))
        said = [getattr(one, "__version__", None) for one in about]
        self._versions = [version for version in said if isinstance(version, str)]
        self._of_kinds = {name for kind in self._kinds for name in vars(kinds.protocol(kind))}
        # What it prints is seen at once, not when it has printed 8 KiB.
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # it is a text file

    def guest_about(self) -> dict[str, Any]:
        """Return what it is, for the kernel to hold against what its manifest says."""
        plugin = self._plugin
        names = {*_ATTRIBUTES}
        for kind in self._kinds:
            names |= getattr(kinds.protocol(kind), "__annotations__", {}).keys()
        given = {name: getattr(plugin, name, None) for name in names}
        methods = [name for name in dir(plugin) if not name.startswith("_")]
        return {
            "type": type(plugin).__name__,
            "versions": self._versions,
            "attributes": {
                name: value for name, value in given.items() if type(value) in (str, int, float)
            },
            "methods": [name for name in methods if callable(getattr(plugin, name))][:_METHODS_MAX],
            "lacks": {kind: kinds.missing(kind, plugin) for kind in self._kinds},
        }

    def guest_configure(self, config: Mapping[str, Any]) -> None:
        """Raise what the model of its configuration raises."""
        self._configured(config)

    def handshake(self, about: Mapping[str, Any]) -> None:
        """Let the plugin meet the kernel."""
        method = getattr(self._plugin, "handshake", None)
        if method is not None:
            config = self._configured(about["config"])
            method(_Context(self._id, about["version"], about["api_version"], config))

    def _configured(self, config: Mapping[str, Any]) -> Any:
        return dict(config) if self._model is None else _at(self._model)(**config)

    def __getattr__(self, name: str) -> Any:
        """Return a method of the plugin that takes plain data and returns it."""
        method = getattr(self._plugin, name)
        if not callable(method):
            text = f"{name} is no method"
            raise AttributeError(text)  # noqa: TRY004 - as of one that is not there

        def call(*given: Any) -> Any:
            answer = method(*crossing.arguments(name, given))
            return crossing.plain_of(answer) if name in self._of_kinds else answer

        return call


class _Context(Context):
    """The context of a plugin that has no other plugins beside it."""

    def __init__(self, plugin_id: str, version: str, api_version: str, config: Any) -> None:
        super().__init__(plugin_id, version, api_version, config, sys.stdout, {})  # type: ignore[arg-type]  # it is written to

    def plugin(self, plugin_id: str) -> NoReturn:
        """Refuse: others are in other processes.

        Raises:
            Unsupported: `plugin.sandbox`

        """
        text = f"{self.id} is confined, and can't call {plugin_id}"
        raise errors.new("plugin.sandbox", text, id=plugin_id)


def _at(place: str) -> Any:
    """Return what `module:attribute` means."""
    module, _, attribute = place.partition(":")
    found: Any = importlib.import_module(module)
    for name in attribute.split("."):
        found = getattr(found, name)
    return found
