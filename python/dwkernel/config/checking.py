"""What sections check besides their fields: what other files ask of them, such as manifests.

A check is brought along when a section is registered. It is made of a whole configuration by
`dwkernel config check`, and of what a change brings before anything of it counts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from dwkernel import errors
from dwkernel.config.layers import dotted, route_of
from dwkernel.config.looking import MISSING, value_at
from dwkernel.config.problems import Problem, listed, placed, raised
from dwkernel.config.resolving import Layers, origins_of, resolve
from dwkernel.config.section import Finding

if TYPE_CHECKING:
    from dwkernel.config.layers import Layer
    from dwkernel.config.registry import Check, Shape
    from dwkernel.config.sections import Config

__all__ = ["Checked", "everything", "refuse"]


class Checked(NamedTuple):
    """What is to be said of files.

    Attributes:
        wrong: all mistakes, as they stand in the files.
        unchecked: what nobody could look at, and why; their `code` is empty.

    """

    wrong: list[Problem]
    unchecked: list[Problem]


def everything(shape: Shape, layers: Layers) -> Checked:
    """Return all that is wrong with layers, also in what sections check that are right so far."""
    wrong: list[Problem] = []
    for _ in range(2):
        try:
            config = resolve(shape, layers).config
        except errors.Invalid as error:
            wrong = wrong or listed(error)
            layers = _without(layers, {route_of(one.path)[0] for one in wrong})
        else:
            found = _checked(shape, layers, config, None)
            return Checked(wrong + found.wrong, found.unchecked)
    return Checked(wrong, [])


def refuse(shape: Shape, layers: Layers, new: Config, old: Config | None) -> None:
    """Refuse what is wrong and was not so in `old`.

    Raises:
        Invalid: `config.unknown`, `config.value`: as `resolve`

    """
    wrong = _checked(shape, layers, new, old).wrong
    if wrong:
        raise raised(wrong)


def _without(layers: Layers, names: set[str]) -> Layers:
    def kept(layer: Layer) -> Layer:
        tree = {name: value for name, value in layer.tree.items() if name not in names}
        return replace(layer, tree=tree)

    return Layers(tuple(map(kept, layers.files)), kept(layers.environment), kept(layers.call))


def _checked(shape: Shape, layers: Layers, new: Config, old: Config | None) -> Checked:
    found = Checked([], [])
    origin = origins_of(shape, layers)
    for route, check in shape.checks.items():
        now = value_at(new, route)
        before = MISSING if old is None else value_at(old, route)
        # What is equal may differ all the same: 1 and true.
        if now is MISSING or (now == before and repr(now) == repr(before)):
            continue
        for one in _found(check, now, None if before is MISSING else before):
            place = (*route, *map(str, one.path))
            path = dotted(place)
            code = "" if one.kind == "unchecked" else f"config.{one.kind}"
            problem = Problem(code, path, str(origin(place)), f"{path} {one.text}")
            (found.wrong if code else found.unchecked).append(problem)
    return found


def _found(check: Check, now: Any, before: Any) -> list[Finding]:
    try:
        return list(check(now, before))
    except Exception as error:  # noqa: BLE001 - sections are registered by others
        return [Finding((), f"cannot be checked: {placed(error)}")]
