"""How much a confined plugin asks for: the table `limits` of its manifest."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, NamedTuple

from dwkernel import errors
from dwkernel.units import parse_duration, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["NAMES", "Asked", "asked"]


def _number(value: Any) -> int:
    if type(value) is not int:
        raise errors.new("unit.invalid", f"{value!r} is no number")
    return value


# What the manifest calls it, what `dwkernel.plugins.confined.Limits` does, and how it is written.
NAMES: dict[str, tuple[str, Callable[[Any], int | float]]] = {
    "memory": ("memory_bytes", parse_size),
    "cpu": ("cpu_s", parse_duration),
    "wall": ("wall_s", parse_duration),
    "start": ("start_s", parse_duration),
    "disk": ("disk_bytes", parse_size),
    "message": ("message_bytes", parse_size),
    "calls": ("calls", _number),
    "processes": ("processes", _number),
    "open_files": ("open_files", _number),
}


class Asked(NamedTuple):
    """What a manifest asks for.

    Attributes:
        limits: by the names of `dwkernel.plugins.confined.Limits`.
        more: what of it is more than is usual, as `plugins.grant` writes it: `"memory:2 GiB"`.
        wrong: what is wrong, by name.

    """

    limits: dict[str, int | float]
    more: tuple[str, ...]
    wrong: list[tuple[str, str]]


def asked(table: Mapping[str, Any]) -> Asked:
    """Read a table.

    >>> asked({"memory": "2 GiB", "calls": 4}).more
    ('memory:2 GiB',)
    """
    if not table:
        return Asked({}, (), [])
    from dwkernel.plugins.confined.spec import Limits  # noqa: PLC0415 - most ask for nothing

    usual = Limits()
    found: dict[str, int | float] = {}
    more, wrong = [], []
    for name, value in table.items():
        if name not in NAMES:
            near = difflib.get_close_matches(name, NAMES, 1)
            hint = f", did you mean {near[0]!r}?" if near else f": {', '.join(NAMES)} are"
            wrong.append((name, f"{name!r} is not known{hint}"))
            continue
        field, read = NAMES[name]
        try:
            given = read(value)
            Limits(**{field: given})  # type: ignore[arg-type]  # it looks itself
        except errors.Invalid as error:
            wrong.append((name, f"{name} = {value!r} can't be: {error}"))
            continue
        found[field] = given
        if given > getattr(usual, field):
            more.append(f"{name}:{value}")
    return Asked(found, tuple(more), wrong)
