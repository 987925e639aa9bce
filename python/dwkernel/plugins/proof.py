"""Whether an unloaded version of a plugin is really gone, and if not, who keeps it.

Weak references to its modules, classes and functions say so: when they are dead, nothing of it can
be reached any more. Classes refer to themselves, so the collector has to run.
"""

from __future__ import annotations

import gc
import sys
import time
import types
import typing
import weakref
from typing import Any

from dwkernel.plugins import collecting

__all__ = ["Proof"]

_PAUSE_S = 0.01
# How much longer than a look through everything is waited for until the next one.
_SHARE = 10.0
_TOLD_MAX = 5
# How far and how broadly a holder is looked for.
_DEPTH_MAX = 8
_WIDTH_MAX = 200
# What holds something only for somebody else.
_THROUGH = (
    list,
    tuple,
    set,
    frozenset,
    types.CellType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.GetSetDescriptorType,
    types.MappingProxyType,
    staticmethod,
    classmethod,
    property,
)


class Proof:
    """Weak references to what was a version of a plugin."""

    def __init__(self, namespace: str, modules: list[types.ModuleType]) -> None:
        """Look at modules, the classes and the functions in them, and keep none."""
        self._namespace = namespace
        self._watched: dict[str, weakref.ref[Any]] = {}
        for module in modules:
            self._watched[_inner(module.__name__, namespace) or "its package"] = weakref.ref(module)
            for value in list(vars(module).values()):
                is_class = isinstance(value, type)
                if not is_class and not isinstance(value, types.FunctionType):
                    continue
                if value.__module__ == module.__name__:
                    name = f"{'class' if is_class else 'function'} {value.__qualname__}"
                    self._watched[name] = weakref.ref(value)

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
        collecting.collect(self._namespace, self._there())
        if self.alive():
            _clear_caches()
        pause_s = _PAUSE_S
        while self.alive():
            collecting.collect(self._namespace, self._there())
            if not self.alive():
                break
            began = time.monotonic()
            gc.collect()
            if not self.alive():
                break
            if time.monotonic() >= end:
                return self._holders()
            # Nobody else runs while everything is looked through, and there may be much of it.
            pause_s = max(2 * pause_s, _SHARE * (time.monotonic() - began))
            time.sleep(min(pause_s, max(0.0, end - time.monotonic())))
        return []

    def _there(self) -> list[Any]:
        found = [ref() for ref in self._watched.values()]
        return [one for one in found if one is not None]

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
    """Return who holds something from outside of its namespace: near ones, going from it."""
    level = [value]
    seen = {id(value), id(level)}
    for _ in range(_DEPTH_MAX):
        found: list[str] = []
        inner: list[Any] = []
        referrers = gc.get_referrers(*level)
        seen |= {id(found), id(inner), id(referrers)}
        for referrer in referrers:
            if id(referrer) in seen:
                continue
            seen.add(id(referrer))
            text = _described(referrer, namespace, level)
            if text:
                found.append(text)
            elif text is not None:
                inner.append(referrer)
        if found:
            return sorted(set(found))[:_TOLD_MAX]
        level = inner[:_WIDTH_MAX]
    return []


def _described(referrer: Any, namespace: str, level: list[Any]) -> str | None:  # noqa: PLR0911 - a case each
    """Name a holder; empty if it is itself held by somebody, None if it is our own."""
    if isinstance(referrer, types.FrameType):
        name = str(referrer.f_globals.get("__name__"))
        code = referrer.f_code
        if name == __name__:
            return None
        return f"a running call of {code.co_qualname} in {_inner(name, namespace) or name}"
    if isinstance(referrer, dict):
        name = str(referrer.get("__name__"))
        if vars(sys.modules.get(name, types)) is not referrer:
            return ""
        held = {id(one) for one in level}
        keys = [str(key) for key, one in list(referrer.items()) if id(one) in held]
        return f"{name}.{keys[0]}" if keys else name
    if isinstance(referrer, _THROUGH):
        return ""
    named = isinstance(referrer, type | types.FunctionType | types.ModuleType)
    holder = referrer if named else type(referrer)
    module = str(getattr(holder, "__module__", None) or getattr(holder, "__name__", ""))
    if f"{module}.".startswith(f"{namespace}."):
        return ""
    text = f"{module}.{getattr(holder, '__qualname__', '')}".rstrip(".")
    return text if named else f"an object of {text}"


def _inner(name: str, namespace: str) -> str:
    return name[len(namespace) :].lstrip(".") if name.startswith(namespace) else ""
