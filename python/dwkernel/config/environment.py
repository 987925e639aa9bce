"""The layer of environment variables: `DWKERNEL__SECTION__FIELD`.

>>> layer = layer_of({"DWKERNEL__LIMITS__RATE": "5", "DWKERNEL__LIMITS__TIMEOUT": "30s"})
>>> layer.tree
{'limits': {'rate': 5, 'timeout': '30s'}}
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import tomllib
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel.config.files import DEPTH_MAX
from dwkernel.config.layers import PREFIX, Layer, Origin, Origins, Route, dotted, merged, nested

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["layer_of", "value_of"]


def layer_of(
    variables: Mapping[str, str] = os.environ,
    wants_text: Callable[[Route], bool] = lambda _: False,
) -> Layer:
    """Return what variables say.

    A value is a literal of TOML (`5`, `true`, `["a", "b"]`, `{rate = 5}`), or else text as it is.
    A field that is text (`wants_text`) takes `5` as text, too. Names are written in capitals and
    taken in small letters. A variable of a table counts less than those of its fields.

    Raises:
        Invalid: `config.value`: a variable has a value in the place of a table of others;
            `config.unknown`: more names within each other than there are anywhere

    """
    tree: dict[str, Any] = {}
    origins: Origins = {}
    said = sorted((name, text) for name, text in variables.items() if name.startswith(PREFIX))
    for name, text in sorted(said, key=lambda pair: pair[0].count("__")):
        route = tuple(part.lower() for part in name.removeprefix(PREFIX).split("__"))
        _refuse_hiding(tree, origins, name, route)
        tree = merged(tree, nested(route, value_of(text, is_text=wants_text(route))))
        origins[route] = Origin("environment", name)
        for length in range(1, len(route)):
            origins.setdefault(route[:length], Origin("environment", name))
    # A digest: the texts may be secrets, and this is kept.
    content = hashlib.sha256(repr(said).encode(errors="surrogateescape")).digest()
    return Layer(tree, origins, Origin("environment"), content)


def _refuse_hiding(tree: dict[str, Any], origins: Origins, name: str, route: Route) -> None:
    if len(route) > DEPTH_MAX:
        text = f"{name[:80]}…: nothing has {len(route)} names within each other"
        raise errors.new("config.unknown", text, where=name)
    at: Any = tree
    for length, key in enumerate(route):
        if not isinstance(at, dict):
            upper = next(
                origins[route[:n]].name for n in range(length, 0, -1) if route[:n] in origins
            )
            text = f"{upper}: {dotted(route[:length])} is a table, as {name} says"
            raise errors.new("config.value", text, where=upper, path=dotted(route[:length]))
        at = at.get(key, {})


def value_of(text: str, *, is_text: bool) -> Any:
    """Return what a text means: a literal of TOML, or itself; for `is_text` that unless quoted."""
    try:
        found = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    value = found["value"]
    # A line end in the text would begin another key; a date is no literal that a field takes.
    dates = dt.date | dt.time
    if len(found) != 1 or isinstance(value, dates) or (is_text and not isinstance(value, str)):
        return text
    return value
