"""Plain data: what may cross from one version of a plugin to the next.

None, bool, int, float, str, bytes, lists and dicts with text as names, and nothing derived from
them: an object of a class of the old version would keep all of that version alive.
"""

from __future__ import annotations

from typing import Any, NoReturn

from dwkernel import errors

__all__ = ["STATE_BYTES_MAX", "plain"]

STATE_BYTES_MAX = 16 << 20
_DEPTH_MAX = 64
# What an object costs besides its content, roughly.
_OVERHEAD_BYTES = 8
_INT_BITS_MAX = 4096


def plain(value: Any, *, what: str = "state", bytes_max: int = STATE_BYTES_MAX) -> Any:
    """Return a deep copy of plain data; tuples become lists.

    Raises:
        Invalid: `plugin.option`: something in it is not plain, or it is larger than `bytes_max`
            bytes or deeper than 64 levels; the message says where

    """
    copier = _Copier(what, bytes_max)
    return copier.copy(value, "", 0)


class _Copier:
    """Copies, and counts what it copied."""

    def __init__(self, what: str, bytes_max: int) -> None:
        self._what = what
        self._max = bytes_max
        self._left = bytes_max

    def copy(self, value: Any, place: str, depth: int) -> Any:
        kind = type(value)
        if value is None or kind in (bool, float):
            self._count(_OVERHEAD_BYTES)
            return value
        if kind is int:
            if value.bit_length() > _INT_BITS_MAX:
                self._refuse(f"{place or 'it'} is an int of {value.bit_length():,} bits")
            self._count(_OVERHEAD_BYTES + value.bit_length() // 8)
            return value
        if kind in (str, bytes):
            self._count(_OVERHEAD_BYTES + len(value))
            return value
        if kind not in (list, tuple, dict):
            where = f"at {place} " if place else ""
            self._refuse(f"{where}there is a {kind.__qualname__}, which is no plain data")
        if depth >= _DEPTH_MAX:
            self._refuse(f"it is deeper than {_DEPTH_MAX} levels")
        self._count(_OVERHEAD_BYTES)
        if kind is dict:
            return self._table(value, place, depth)
        items = list(value)
        return [self.copy(item, f"{place}[{n}]", depth + 1) for n, item in enumerate(items)]

    def _table(self, table: dict[Any, Any], place: str, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, item in list(table.items()):
            if type(name) is not str:
                text = f"a name {place and f'in {place} '}is a {type(name).__qualname__}, no str"
                self._refuse(text)
            self._count(_OVERHEAD_BYTES + len(name))
            found[name] = self.copy(item, f"{place}.{name}".lstrip("."), depth + 1)
        return found

    def _count(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            self._refuse(f"it is larger than {self._max:,} bytes")

    def _refuse(self, text: str) -> NoReturn:
        raise errors.new("plugin.option", f"the {self._what} can't be carried over: {text}")
