"""Looking into models and values: what is at a route, and what is known of it."""

from __future__ import annotations

import types
import typing
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from dwkernel.config.secret import Secret
from dwkernel.config.values import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

    from dwkernel.config.layers import Route
    from dwkernel.config.registry import Shape

__all__ = [
    "MISSING",
    "field_at",
    "flat",
    "is_live",
    "is_secret",
    "is_table",
    "is_text",
    "model_at",
    "model_in",
    "names_at",
    "value_at",
]

MISSING: Any = object()
"""What `value_at` returns where nothing is."""


def _parts(annotation: Any) -> Iterator[Any]:
    """Iterate over an annotation and what it is made of."""
    yield annotation
    for part in typing.get_args(annotation):
        if isinstance(part, type | types.UnionType | types.GenericAlias) or typing.get_args(part):
            yield from _parts(part)


def model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model that an annotation is, or may be."""
    origin = typing.get_origin(annotation)
    if origin not in (None, typing.Union, types.UnionType, typing.Annotated):
        return None
    found = (one for one in _parts(annotation) if isinstance(one, type))
    return next((one for one in found if _is_model(one)), None)


def _is_model(one: type) -> bool:
    return not isinstance(one, types.GenericAlias) and issubclass(one, BaseModel)


def model_at(shape: Shape, route: Route) -> type[BaseModel] | None:
    """Return the model of the table at a route."""
    if route in shape.parts:
        return shape.parts[route]
    if not route:
        return shape.model
    field = field_at(shape, route)
    return None if field is None else model_in(field.annotation)


def field_at(shape: Shape, route: Route) -> FieldInfo | None:
    """Return what is known of a field; below an open table that is what the table says."""
    model: type[BaseModel] | None = shape.model
    field: FieldInfo | None = None
    for index, key in enumerate(route):
        if model is None:
            part = shape.parts.get(route[: index + 1])
            if part is None:
                return field if field is not None and is_table(field) else None
            model = part
            continue
        field = model.model_fields.get(key)
        if field is None:
            return None
        model = model_in(field.annotation)
    return field


def is_table(field: FieldInfo) -> bool:
    """Return whether a field takes any names."""
    annotation = field.annotation
    return annotation is Table or typing.get_origin(annotation) is dict


def is_text(field: FieldInfo | None) -> bool:
    """Return whether a field takes text and nothing else that TOML can write."""
    if field is None:
        return False
    kinds = {one for one in _parts(field.annotation) if isinstance(one, type)}
    return bool(kinds) and kinds <= {str, types.NoneType, Secret}


def is_secret(field: FieldInfo | None) -> bool:
    """Return whether a field holds a secret, or may."""
    return field is not None and any(
        isinstance(one, type) and not isinstance(one, types.GenericAlias) and issubclass(one, Secret)
        for one in _parts(field.annotation)
    )


def is_live(field: FieldInfo | None) -> bool:
    """Return whether a change counts at once."""
    extra = None if field is None else field.json_schema_extra
    return isinstance(extra, dict) and extra.get("live") is True


def names_at(shape: Shape, route: Route) -> list[str]:
    """Return the fields of the table at a route."""
    model = model_at(shape, route)
    return [] if model is None else list(model.model_fields)


def value_at(config: Any, route: Route) -> Any:
    """Return what is at a route, or `MISSING`."""
    for key in route:
        if isinstance(config, dict):
            config = config.get(key, MISSING)
        elif isinstance(config, BaseModel) and key in type(config).model_fields:
            config = getattr(config, key)
        else:
            return MISSING
    return config


def flat(config: Any, above: Route = ()) -> dict[Route, Any]:
    """Return all values by route, in the model's order; empty tables are values, too."""
    found: dict[Route, Any] = {}
    if isinstance(config, BaseModel):
        pairs = [(name, getattr(config, name)) for name in type(config).model_fields]
    else:
        pairs = list(config.items())
    for name, value in pairs:
        route = (*above, name)
        if isinstance(value, BaseModel) or (isinstance(value, dict) and value):
            found.update(flat(value, route))
        else:
            found[route] = value
    return found
