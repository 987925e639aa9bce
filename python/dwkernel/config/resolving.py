"""From layers to a configuration: merged, validated, each value with its origin."""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, ValidationError

from dwkernel import errors
from dwkernel.config import environment, files
from dwkernel.config.layers import (
    DEFAULT,
    Layer,
    Origin,
    Origins,
    Route,
    dotted,
    leaves,
    merged,
    nested,
    route_of,
)
from dwkernel.config.looking import MISSING, field_at, flat, is_text, model_at, value_at
from dwkernel.config.problems import Problem, explained, placed, raised
from dwkernel.config.secret import Secret
from dwkernel.config.values import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from dwkernel.config.registry import Shape
    from dwkernel.config.sections import Config

__all__ = ["Layers", "Resolved", "call_layer", "origins_of", "read", "resolve", "spoken"]


@dataclass(frozen=True, repr=False)
class Layers:
    """What everybody says: files, the environment, the call."""

    files: tuple[Layer, ...] = ()
    environment: Layer = field(default_factory=Layer)
    call: Layer = field(default_factory=Layer)

    def outside(self) -> bytes:
        """Return what tells two readings of files and environment apart."""
        digest = hashlib.sha256()
        for layer in (*self.files, self.environment):
            digest.update(hashlib.sha256(layer.content).digest())
        return digest.digest()


class Resolved(NamedTuple):
    """A configuration, and where each of its values comes from."""

    config: Config
    origins: Origins


def read(
    shape: Shape,
    paths: Iterable[os.PathLike[str]] = (),
    variables: Mapping[str, str] | None = None,
    call: Layer | None = None,
) -> Layers:
    """Read files and environment.

    Raises:
        Unavailable: `config.file`
        Invalid: `config.syntax`; of each file that has one: several are joined in one error

    """
    layers, wrong = [], []
    for path in paths:
        try:
            layers.append(files.layer_of(Path(path)))
        except errors.DwError as error:
            wrong.append(error)
    if len(wrong) > 1:
        text = "; ".join(str(error) for error in wrong)
        raise errors.new(wrong[0].code, text, **wrong[0].details)
    if wrong:
        raise wrong[0]
    given = os.environ if variables is None else variables
    said = environment.layer_of(given, lambda route: is_text(field_at(shape, route)))
    return Layers(tuple(layers), said, call or Layer())


def call_layer(given: Mapping[str, Any], below: Layer | None = None) -> Layer:
    """Return what a call says, on top of what calls said before.

    Keys may be dotted: `{"limits.rate": 5}` is `{"limits": {"rate": 5}}`. One that has dots itself
    stands in quotes then, as in TOML.

    Raises:
        Invalid: `config.value`: a key is no text

    """
    return spoken(merged(below.tree if below else {}, _opened(given)))


def spoken(tree: Mapping[str, Any]) -> Layer:
    """Return a tree as the call's layer."""
    whole = Origin("call")
    origins = {route[:n]: whole for route, _ in leaves(tree) for n in range(1, len(route) + 1)}
    return Layer(tree, origins, whole)


def _opened(given: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    if not hasattr(given, "items"):
        raise errors.new("config.value", f"values are a dict, not {type(given).__name__}")
    for key, value in given.items():
        if not isinstance(key, str):
            raise errors.new("config.value", f"{key!r} is no name of a section or field")
        tree = merged(tree, nested(route_of(key), _plain(value)))
    return tree


def _keyed(table: Mapping[Any, Any]) -> dict[str, Any]:
    wrong = next((key for key in table if not isinstance(key, str)), None)
    if wrong is not None:
        raise errors.new("config.value", f"{wrong!r} is no name of a field")
    return {key: _plain(value) for key, value in table.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name)) for name in value.model_fields_set}
    if isinstance(value, dict):
        # A name in a table may have dots.
        return _keyed(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list | tuple):
        return tuple(_plain(part) for part in value)
    if isinstance(value, str) and value.startswith("literal:"):
        # From here on nothing can show it by accident.
        return Secret(value)
    return value


def resolve(shape: Shape, layers: Layers) -> Resolved:
    """Merge layers and validate.

    Raises:
        Invalid: `config.unknown`, `config.value`: the message has all mistakes, with their places;
            the detail `errors` has them as JSON

    """
    stack = _stack(shape, layers)
    whole: dict[str, Any] = {}
    for layer in stack:
        whole = merged(whole, layer.tree)
    origin = _origins_in(stack)
    config, problems = _validated(shape, whole, origin)
    problems.extend(_hidden(shape, whole, stack))
    if config is None:
        problems.sort(key=lambda one: origin(route_of(one.path)))
        raise raised(problems)
    origins = {}
    for route, value in flat(config).items():
        said = (layer.origin(route) for layer in reversed(stack))
        origins[route] = next((one for one in said if one is not None), DEFAULT)
        is_bare = isinstance(value, Secret) and value.is_literal
        # In tables of others nobody knows what is a secret; this is none but that.
        is_bare = is_bare or (isinstance(value, str) and value.startswith("literal:"))
        if is_bare and origins[route].layer != "call":
            path = dotted(route)
            text = f"{path}: literal: is for programs that give it in the call; write env:NAME"
            problems.append(Problem("config.value", path, str(origins[route]), text))
    if problems:
        raise raised(problems)
    return Resolved(config, origins)


def origins_of(shape: Shape, layers: Layers) -> Callable[[Route], Origin]:
    """Return what says where a value comes from, or what it would stand in."""
    return _origins_in(_stack(shape, layers))


def _stack(shape: Shape, layers: Layers) -> list[Layer]:
    return [_mode_layer(shape, layers), *layers.files, layers.environment, layers.call]


def _origins_in(stack: Sequence[Layer]) -> Callable[[Route], Origin]:
    def origin(route: Route) -> Origin:
        for length in range(len(route), 0, -1):
            for layer in reversed(stack):
                found = layer.origin(route[:length])
                if found is not None:
                    return found
        return DEFAULT

    return origin


def _hidden(shape: Shape, whole: Mapping[str, Any], stack: Iterable[Layer]) -> Iterator[Problem]:
    """Iterate over values in the place of sections, which a higher layer's table hides."""
    for layer in stack:
        for route, value in leaves(layer.tree):
            is_hidden = isinstance(value_at(whole, route), dict) and not isinstance(value, dict)
            if is_hidden and model_at(shape, route) is not None:
                path, where = dotted(route), str(layer.origin(route))
                text = f"{path}: {path} is a section: write [{path}] and its fields"
                yield Problem("config.value", path, where, text)


def _mode_layer(shape: Shape, layers: Layers) -> Layer:
    mode: Any = "workstation"
    for layer in (*layers.files, layers.environment, layers.call):
        mode = layer.tree.get("mode", mode)
    tree: dict[str, Any] = {}
    for default in shape.defaults_of(mode if isinstance(mode, str) else ""):
        tree = merged(tree, nested(tuple(default.path.split(".")), default.value))
    return Layer(tree, {}, Origin("mode", str(mode)))


def _validated(
    shape: Shape, whole: dict[str, Any], origin: Any
) -> tuple[Config | None, list[Problem]]:
    # Registered sections are there whether or not anybody names them.
    tree = {**{name: {} for name in shape.sections}, **_copied(whole)}
    parts = {route: _taken(tree, route) for route in shape.parts}
    problems: list[Problem] = []

    def checked(model: type[BaseModel], given: Any, under: Route) -> Any:
        found: list[Any] = []
        try:
            return model.model_validate(given)
        except ValidationError as error:
            found.extend(error.errors(include_url=False, include_context=True))
        except Exception as error:  # noqa: BLE001 - validators are of others
            # What it says is left out: it may quote a secret.
            text = f"cannot be validated: {placed(error)}"
            problems.append(Problem("config.value", dotted(under), str(origin(under)), text))
        # Outside `except`: pydantic's error has what was given.
        problems.extend(explained(shape, found, under, given, origin))
        return None

    config = checked(shape.model, tree, ())
    values = {
        route: checked(shape.parts[route], given, route)
        for route, given in parts.items()
        if given is not MISSING
    }
    # A part that nobody speaks of is as its model says; one that must be spoken of is not there.
    for route, model in shape.parts.items():
        if route not in values:
            with contextlib.suppress(ValidationError):
                values[route] = model.model_validate({})
    if problems or config is None:
        return None, problems
    for route, value in values.items():
        config = _with(config, route, value)
    return config, problems


def _copied(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Copy tables, out of which parts are taken; what else there is may be anything."""
    return {
        name: _copied(value) if isinstance(value, dict) else value for name, value in tree.items()
    }


def _taken(tree: dict[str, Any], route: Route) -> Any:
    """Take out of the tree what stands at a route."""
    table: Any = tree
    for key in route[:-1]:
        table = table.get(key) if isinstance(table, dict) else None
    return table.pop(route[-1], MISSING) if isinstance(table, dict) else MISSING


def _with(config: Any, route: Route, value: Any) -> Any:
    """Return a copy with a value at a route."""
    if not route:
        return value
    if isinstance(config, dict):
        return Table({**config, route[0]: _with(config.get(route[0], {}), route[1:], value)})
    inner = _with(getattr(config, route[0]), route[1:], value)
    return config.model_copy(update={route[0]: inner})
