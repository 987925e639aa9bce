"""Looking into models and values: what is at a route, and what is known of it."""

from __future__ import annotations

import types
import typing
from typing import TYPE_CHECKING, Any, Literal

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
        yield from _parts(part)


def model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model that an annotation is, or may be."""
    return next((one for one in _branches(annotation) if _is_a(one, BaseModel)), None)


def _is_a(one: Any, kind: type) -> bool:
    # `list[int]` says that it is a type, and is none.
    return isinstance(one, type) and typing.get_origin(one) is None and issubclass(one, kind)


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
    return field is not None and all(
        one in (str, types.NoneType, Secret)
        or (typing.get_origin(one) is Literal and typing.get_args(one)[0].__class__ is str)
        for one in _branches(field.annotation)
    )


def _branches(annotation: Any) -> Iterator[Any]:
    """Iterate over what an annotation may be."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        yield from _branches(typing.get_args(annotation)[0])
    elif origin in (typing.Union, types.UnionType):
        for part in typing.get_args(annotation):
            yield from _branches(part)
    else:
        yield annotation


def is_secret(field: FieldInfo | None) -> bool:
    """Return whether a field holds a secret, or may."""
    return field is not None and any(_is_a(one, Secret) for one in _parts(field.annotation))


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
