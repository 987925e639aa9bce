"""Layers: tables of settings, each with where every value comes from; later ones win.

Defaults < the mode's < files, as they are named < environment < call.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = [
    "PREFIX",
    "Layer",
    "Origin",
    "Origins",
    "Route",
    "dotted",
    "has_variables",
    "leaves",
    "merged",
    "nested",
    "route_of",
]

PREFIX = "DWKERNEL__"
"""What names of variables begin with."""

Route = tuple[str, ...]
"""The keys that lead to a value."""


class Origin(NamedTuple):
    """Where a value comes from.

    Attributes:
        layer: `"default"`, `"mode"`, `"file"`, `"environment"` or `"call"`.
        name: the mode, the file or the variable; empty for the others.
        line: in the file, from 1 on; 0 elsewhere.
        column: of the key, in characters from 1 on; 0 elsewhere.

    """

    layer: str
    name: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        """Return it as editors jump to: `dwkernel.toml:3:1`."""
        if self.layer == "file" and self.line:
            return f"{self.name}:{self.line}:{self.column}"
        if self.layer == "mode":
            return f"mode {self.name}"
        return self.name or self.layer


Origins = dict[Route, Origin]

DEFAULT = Origin("default")


@dataclass(frozen=True, repr=False)
class Layer:
    """What one source says. It has no `repr`: what is in it was not looked at yet."""

    tree: Mapping[str, Any] = field(default_factory=dict)
    origins: Origins = field(default_factory=dict)
    whole: Origin = DEFAULT
    # What tells two readings of one source apart: its bytes.
    content: bytes = b""

    def origin(self, route: Route) -> Origin | None:
        """Return where the layer says what is at `route`, or above it; None if it does not."""
        value: Any = self.tree
        for length, key in enumerate(route):
            if not isinstance(value, dict):
                return self._near(route[:length])
            if key not in value:
                return None
            value = value[key]
        return self._near(route)

    def _near(self, route: Route) -> Origin:
        for length in range(len(route), 0, -1):
            if route[:length] in self.origins:
                return self.origins[route[:length]]
        return self.whole


def has_variables(variables: Mapping[str, str] = os.environ) -> bool:
    """Return whether the environment says anything."""
    return any(name.startswith(PREFIX) for name in variables)


def dotted(route: Iterable[object]) -> str:
    """Return a route as people write it: keys with dots in quotes, as in TOML.

    >>> dotted(("plugins", "config", "org.example.s3", "size"))
    'plugins.config."org.example.s3".size'
    """
    return ".".join(map(_shown, map(str, route)))


def _shown(key: str) -> str:
    return json.dumps(key, ensure_ascii=False) if {".", '"', "'"} & set(key) else key


def route_of(path: str) -> Route:
    """Return the route that somebody wrote; what is not written as TOML has it is split at dots.

    >>> route_of('plugins.config."org.example.s3".size')
    ('plugins', 'config', 'org.example.s3', 'size')
    """
    if not {'"', "'"} & set(path):
        return tuple(path.split("."))
    import tomllib  # noqa: PLC0415 - few need it

    route: Route = ()
    try:
        found: Any = tomllib.loads(f"{path} = 0")
    except (tomllib.TOMLDecodeError, RecursionError):
        found = None
    while isinstance(found, dict) and len(found) == 1:
        ((key, found),) = found.items()
        route = (*route, key)
    return route if found == 0 else tuple(path.split("."))


def leaves(tree: Mapping[str, Any], above: Route = ()) -> Iterator[tuple[Route, Any]]:
    """Iterate over what is no table, and over tables that are empty."""
    for key, value in tree.items():
        route = (*above, str(key))
        if isinstance(value, dict) and value:
            yield from leaves(value, route)
        else:
            yield route, value


def nested(route: Route, value: Any) -> dict[str, Any]:
    """Return a tree with one value in it."""
    for key in reversed(route):
        value = {key: value}
    tree: dict[str, Any] = value
    return tree


def merged(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """Return both trees in one: tables are joined, of everything else `high` has the say."""
    whole = dict(low)
    for key, value in high.items():
        below = whole.get(key)
        if isinstance(value, dict):
            whole[key] = merged(below if isinstance(below, dict) else {}, value)
        else:
            whole[key] = value
    return whole
