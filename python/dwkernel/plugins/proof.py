"""Whether an unloaded version of a plugin is really gone, and if not, who keeps it.

Weak references to its modules and classes say so: when they are dead, nothing of it can be reached
any more. Classes refer to themselves, so the collector has to run once.
"""

from __future__ import annotations

import gc
import sys
import time
import types
import typing
import weakref
from typing import Any

__all__ = ["Proof"]

_PAUSE_S = 0.02
_TOLD_MAX = 5


class Proof:
    """Weak references to what was a version of a plugin."""

    def __init__(self, namespace: str, modules: list[types.ModuleType]) -> None:
        """Look at modules and the classes in them, and keep neither."""
        self._namespace = namespace
        self._watched: dict[str, weakref.ref[Any]] = {}
        for module in modules:
            self._watched[_inner(module.__name__, namespace) or "its package"] = weakref.ref(module)
            for value in list(vars(module).values()):
                if isinstance(value, type) and value.__module__ == module.__name__:
                    self._watched[f"class {value.__qualname__}"] = weakref.ref(value)

    def watch(self, name: str, instance: Any) -> None:
        """Look at an object, too; what can't be referred to weakly is left out."""
        try:
            self._watched[name] = weakref.ref(instance)
        except TypeError:
            return

    def alive(self) -> list[str]:
        """Return what is still there, without looking for garbage."""
        return [name for name, ref in self._watched.items() if ref() is not None]

    def settle(self, limit_s: float) -> list[str]:
        """Wait until all of it is gone, with the collector's help.

        Returns:
            What is still there after `limit_s` seconds, and who holds it, for people.

        """
        end = time.monotonic() + limit_s
        generation = 0
        while self.alive():
            # Young things first: what was loaded a moment ago is mostly there, and it is quicker.
            gc.collect(generation)
            if not self.alive():
                break
            if generation == 2:  # noqa: PLR2004 - the collector's oldest
                _clear_caches()
                if time.monotonic() >= end:
                    return self._holders()
                time.sleep(min(_PAUSE_S, max(0.0, end - time.monotonic())))
            generation = min(2, generation + 1)
        return []

    def _holders(self) -> list[str]:
        told = []
        for name, ref in self._watched.items():
            value = ref()
            if value is not None:
                by = _referrers(value, self._namespace)
                told.append(f"{name}, held by {', '.join(by)}" if by else name)
        # Those with a holder from outside say most.
        return sorted(told, key=lambda one: ", held by " not in one)[:_TOLD_MAX]


def _clear_caches() -> None:
    """Empty the caches of typing, which keep classes that were put into generics."""
    for cleanup in getattr(typing, "_cleanups", ()):
        cleanup()


def _referrers(value: Any, namespace: str) -> list[str]:
    """Return who refers to something from outside of its namespace."""
    found = []
    for referrer in gc.get_referrers(value):
        text = _described(referrer, namespace)
        if text and text not in found:
            found.append(text)
    return found[:_TOLD_MAX]


def _described(referrer: Any, namespace: str) -> str:  # noqa: PLR0911 - a case each
    if isinstance(referrer, types.FrameType):
        name = str(referrer.f_globals.get("__name__"))
        if name == __name__:
            return ""
        return (
            f"a running call of {referrer.f_code.co_qualname} in {_inner(name, namespace) or name}"
        )
    if isinstance(referrer, dict):
        return _described_dict(referrer, namespace)
    module = getattr(referrer, "__module__", None) or type(referrer).__module__
    if isinstance(module, str) and f"{module}.".startswith(f"{namespace}."):
        return ""
    if isinstance(referrer, type):
        return "" if referrer.__module__.startswith(namespace) else f"class {referrer.__qualname__}"
    if isinstance(referrer, list | tuple | set | frozenset):
        owners = [
            text
            for one in gc.get_referrers(referrer)
            if isinstance(one, dict) and (text := _described_dict(one, namespace, referrer))
        ]
        return owners[0] if owners else ""
    if isinstance(
        referrer, types.BuiltinFunctionType | types.GetSetDescriptorType | types.CellType
    ):
        return ""
    return f"an object of {type(referrer).__module__}.{type(referrer).__qualname__}"


def _described_dict(table: dict[Any, Any], namespace: str, value: Any = None) -> str:
    for name, module in list(sys.modules.items()):
        if getattr(module, "__dict__", None) is table:
            if name.startswith(namespace):
                return ""
            names = [key for key, one in list(table.items()) if one is value]
            return f"{name}.{names[0]}" if names else f"the module {name}"
    for owner in gc.get_referrers(table):
        if getattr(owner, "__dict__", None) is table and not isinstance(owner, types.ModuleType):
            kind = type(owner)
            if (
                kind.__module__.startswith(namespace)
                or getattr(owner, "__module__", "") == namespace
            ):
                return ""
            return f"an object of {kind.__module__}.{kind.__qualname__}"
    return ""


def _inner(name: str, namespace: str) -> str:
    return name[len(namespace) :].lstrip(".") if name.startswith(namespace) else ""
