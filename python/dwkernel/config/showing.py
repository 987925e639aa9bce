"""A configuration as people, programs and editors read it."""

from __future__ import annotations

import json
import types
import typing
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic_core import PydanticUndefined

from dwkernel.config.changes import plain
from dwkernel.config.editing import literal
from dwkernel.config.layers import DEFAULT, dotted
from dwkernel.config.looking import field_at, flat, is_live, is_secret, model_in
from dwkernel.config.modes import MODES
from dwkernel.config.registry import Shape
from dwkernel.config.registry import shape as current_shape
from dwkernel.config.secret import Secret
from dwkernel.config.values import ByteSize, Seconds, Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel

    from dwkernel.config.layers import Origins, Route
    from dwkernel.config.sections import Config

__all__ = ["Row", "json_schema", "page", "rows", "shown"]


class Row(NamedTuple):
    """A value, where it comes from, and whether a change of it counts at once."""

    path: str
    value: Any
    origin: str
    live: bool


def shown(value: Any) -> str:
    """Return a value as TOML has it; `none` where nothing is set."""
    found = plain(value)
    return "none" if found is None else literal(found)


def rows(shape: Shape, config: Config, origins: Origins) -> list[Row]:
    """Return all values, in the model's order."""
    return [
        Row(
            dotted(route),
            plain(value),
            str(origins.get(route, DEFAULT)),
            is_live(field_at(shape, route)),
        )
        for route, value in flat(config).items()
    ]


# --- JSON Schema ----------------------------------------------------------------------------------


def json_schema(shape: Shape | None = None) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of files, with all sections that are registered.

    Fields say besides what they are whether a change counts at once: `live`.
    """
    shape = shape or current_shape()
    whole = shape.model.model_json_schema()
    for route, model in shape.parts.items():
        _add_part(whole, route, model)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **whole,
        "title": "dwkernel.toml",
        "description": "Configuration of dwkernel, as TOML.",
    }


def _add_part(whole: dict[str, Any], route: Route, model: type[BaseModel]) -> None:
    name = dotted(route)
    # Definitions of its own go up to the others, under names that nobody else has.
    own = json.loads(json.dumps(model.model_json_schema()).replace("#/$defs/", f"#/$defs/{name}:"))
    for key, one in own.pop("$defs", {}).items():
        whole.setdefault("$defs", {})[f"{name}:{key}"] = one
    at = whole
    for key in route[:-1]:
        at = at.setdefault("properties", {})[key]
        while "$ref" in at:
            at = whole["$defs"][at["$ref"].rsplit("/", 1)[1]]
    at.setdefault("properties", {})[route[-1]] = own


# --- The page of all fields -----------------------------------------------------------------------

_HEAD = """\
# Configuration: all fields

Generated from the model by `python -m dwkernel._docs`; a test compares it. The
[guide](guide.md#configuration) shows how it is used,
[decisions/0013](decisions/0013-configuration.md) says why so. A file is TOML; a size is bytes or
text such as `"64 MiB"`, a duration seconds or text such as `"30s"`; `"none"` takes away what a
lower layer sets. **at once**: a change counts while the kernel runs; **restart**: at the next
start, and status says that it waits.

Layers, later ones win: defaults, the mode's, files in the order in which they are named, variables
`DWKERNEL__SECTION__FIELD`, the call. `dwkernel config show --origin` says of each value where it
comes from.
"""
_NAMES = {
    ByteSize: "size",
    Seconds: "duration",
    Secret: "secret, by reference",
    Table: "table",
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    types.NoneType: "none",
}


def page() -> str:
    """Return docs/configuration.md: the modes, then each section with its fields."""
    shape = _of_dwkernel(current_shape())
    lines = [_HEAD, "## Modes", "", "| mode | for | sets |", "|---|---|---|"]
    for mode, (about, _) in MODES.items():
        sets = [
            f"`{one.path} = {literal(one.value)}`{f': {one.why}' if one.why else ''}"
            for one in shape.defaults_of(mode)
        ]
        lines.append(f"| `{mode}` | {about} | {'; '.join(sets) or 'nothing'} |")
    for title, model in _tables(shape.model, ()):
        about = (model.__doc__ or "").strip().split("\n")[0] if title else "What stands at the top."
        lines += ["", f"## {title or 'Top'}", "", about, ""]
        lines += ["| field | type | default | a change counts | what |", "|---|---|---|---|---|"]
        lines += _fields(model)
    return "\n".join(lines) + "\n"


def _of_dwkernel(shape: Shape) -> Shape:
    """Return a shape without the sections that a program registered."""
    sections = {
        name: model
        for name, model in shape.sections.items()
        if model.__module__.startswith("dwkernel.")
    }
    modes = {
        mode: tuple(one for one in sets if one.path.split(".")[0] in sections)
        for mode, sets in shape.modes.items()
    }
    return Shape(sections, {}, modes)


def _tables(model: type[BaseModel], above: Route) -> Iterator[tuple[str, type[BaseModel]]]:
    yield dotted(above), model
    for name, field in model.model_fields.items():
        inner = model_in(field.annotation)
        if inner is not None:
            yield from _tables(inner, (*above, name))


def _fields(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        if model_in(field.annotation) is not None:
            continue
        default = field.get_default(call_default_factory=True, validated_data={})
        given = "must be said" if default is PydanticUndefined else f"`{shown(default)}`"
        when = "at once" if is_live(field) else "restart"
        kind = "secret, by reference" if is_secret(field) else _kind(field.annotation, name)
        about = field.description or ""
        limits = _limits(field.metadata, is_size=_kind(field.annotation, name).startswith("size"))
        yield f"| `{name}` | {kind}{limits} | {given} | {when} | {about} |"


def _kind(annotation: Any, name: str) -> str:  # noqa: PLR0911 - one for each kind of type
    if name == "drives":
        return "number, or list of text, or none"
    origin = typing.get_origin(annotation)
    parts = typing.get_args(annotation)
    if origin is Literal:
        return " · ".join(f"`{part}`" for part in parts)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_kind(part, "") for part in parts)
    if origin is typing.Annotated:
        return _kind(parts[0], name)
    if origin in (list, tuple, set, frozenset):
        return f"list of {_kind(parts[0], '')}"
    if origin is dict:
        return "table"
    return _NAMES.get(annotation, getattr(annotation, "__name__", "any"))


def _limits(metadata: list[Any], *, is_size: bool) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    found = [
        f"{sign} {ByteSize.of(getattr(one, name)) if is_size else getattr(one, name)}"
        for one in metadata
        for name, sign in signs.items()
        if getattr(one, name, None) is not None
    ]
    return f", {', '.join(found)}" if found else ""
