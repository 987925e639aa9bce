"""Collecting what was a version of a plugin, and nothing else.

Modules, classes and functions refer to each other in circles, so only the collector frees them.
They are old by then, and to look through all that is old holds the whole interpreter: some 15 ms
in a small program, 200 ms among 3 million lists. So they are made young again (to the collector
old and young are lists that an object is on), and only the youngest are collected: 0.4 ms.
"""

from __future__ import annotations

import gc
import sys
import types
from typing import TYPE_CHECKING, Any

from dwkernel import _native

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["collect"]

# A version that is larger than this is left to a look through everything.
_MOST = 20_000
# As the interpreter knows them: classes may have properties of these names, which run their code.
_dict_of = vars(types.ModuleType)["__dict__"].__get__
_module_of = vars(type)["__module__"].__get__


def collect(namespace: str, roots: list[Any]) -> None:
    """Free what is in reach of `roots` and belongs to a namespace, if nobody else holds it.

    Args:
        namespace: the name of the outermost module; what other modules own is not looked at.
        roots: what is known of it. The list is empty afterwards, as it would keep them.

    """
    within = _within(namespace, roots)
    roots.clear()
    _native.rejuvenate(within)
    within.clear()
    gc.collect(0)


def _within(namespace: str, roots: Iterable[Any]) -> list[Any]:
    """Return what is in reach of `roots` without going through what is somebody else's."""
    seen: set[int] = set()
    found: list[Any] = []
    for module in list(sys.modules.values()):
        seen.add(id(module))
        if issubclass(type(module), types.ModuleType):
            seen.add(id(_dict_of(module)))
    level = list(roots)
    seen |= {id(one) for one in level}
    while level and len(found) <= _MOST:
        found += level
        following = []
        for one in gc.get_referents(*level):
            if id(one) not in seen and gc.is_tracked(one):
                seen.add(id(one))
                if not _is_foreign(one, namespace):
                    following.append(one)
        level = following
    return found


def _is_foreign(one: Any, namespace: str) -> bool:
    """Say whether something is known to be another's: a type of it, or an object of the kernel."""
    kind = type(one)
    is_type = issubclass(kind, type)
    # Of a type its own, of anything else its type's. A plugin may have put anything there.
    name: object = _module_of(one if is_type else kind)
    if not isinstance(name, str) or f"{name}.".startswith(f"{namespace}."):
        return False
    return is_type or name.partition(".")[0] == "dwkernel"
