"""The configuration that a plugin asks for: a small part of JSON Schema (draft 2020-12).

`type`, `properties`, `required`, `items`, `enum`, `minimum`, `maximum`, `minLength`, `maxLength`,
`default`, `description`. Names that are not in `properties` are refused. What this cannot say, a
pydantic model of the plugin's own can: `config = { model = "module:Class" }`.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from dwkernel import errors

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["faults", "filled"]

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list, tuple),
    "object": (dict,),
}
_WORDS: dict[str, type | tuple[type, ...]] = {
    "type": str,
    "properties": dict,
    "required": list,
    "items": dict,
    "enum": list,
    "minimum": (int, float),
    "maximum": (int, float),
    "minLength": int,
    "maxLength": int,
    "default": object,
    "description": str,
    "title": str,
}


def faults(schema: Any, place: str = "config") -> list[tuple[str, str]]:
    """Return what is wrong with a schema itself, as places and sentences."""
    if not isinstance(schema, dict):
        return [(place, f"{place} is a table, not {schema!r}")]
    found = _wrong_words(schema, place)
    kind = schema.get("type", "object" if "properties" in schema or place == "config" else None)
    if isinstance(kind, str) and kind not in _TYPES:
        found.append((f"{place}.type", f"{kind!r} is no type: there are {', '.join(_TYPES)}"))
    if isinstance(schema.get("properties"), dict):
        for name, part in schema["properties"].items():
            found += faults(part, f"{place}.properties.{name}")
    if "items" in schema:
        found += faults(schema["items"], f"{place}.items")
    if not found and "default" in schema:
        wrong: list[str] = []
        _fill(schema, schema["default"], "default", wrong)
        found += [(f"{place}.default", text) for text in wrong]
    return found


def _wrong_words(schema: dict[str, Any], place: str) -> list[tuple[str, str]]:
    found = []
    for word, value in schema.items():
        if word not in _WORDS:
            found.append((f"{place}.{word}", f"{word!r} is no word of a schema{_near(word)}"))
        elif not isinstance(value, _WORDS[word]):
            found.append((f"{place}.{word}", f"{word} can't be {value!r}"))
    required = schema.get("required")
    if isinstance(required, list) and not all(isinstance(name, str) for name in required):
        found.append((f"{place}.required", f"required has names only, not {required!r}"))
    return found


def filled(schema: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with its defaults.

    Raises:
        Invalid: `plugin.option`, with everything that is wrong

    """
    wrong: list[str] = []
    found = _fill({"type": "object", **schema}, dict(given), "", wrong)
    if wrong:
        raise errors.new("plugin.option", "; ".join(wrong), errors="\n".join(wrong))
    result: dict[str, Any] = found
    return result


def _fill(schema: Mapping[str, Any], value: Any, place: str, wrong: list[str]) -> Any:
    shown = place or "the configuration"
    kind = schema.get("type", "object" if "properties" in schema else None)
    if kind is not None:
        is_bool = isinstance(value, bool) and kind in ("integer", "number")
        if is_bool or not isinstance(value, _TYPES[kind]):
            wrong.append(f"{shown} is of the type {kind}, not {value!r}")
            return value
    if "enum" in schema and value not in schema["enum"]:
        near = _near(value, schema["enum"]) if isinstance(value, str) else ""
        wrong.append(f"{shown} is one of {schema['enum']}, not {value!r}{near}")
    _bounds(schema, value, shown, wrong)
    if isinstance(value, dict) and kind == "object":
        return _properties(schema, value, place, wrong)
    if isinstance(value, list | tuple) and "items" in schema:
        return [_fill(schema["items"], one, f"{place}[{n}]", wrong) for n, one in enumerate(value)]
    return value


def _properties(
    schema: Mapping[str, Any], value: dict[str, Any], place: str, wrong: list[str]
) -> dict[str, Any]:
    known = schema.get("properties", {})
    prefix = f"{place}." if place else ""
    wrong += [
        f"{prefix}{name} is not known{_near(name, known)}" for name in value if name not in known
    ]
    wrong += [
        f"{prefix}{name} is missing" for name in schema.get("required", ()) if name not in value
    ]
    found = dict(value)
    for name, part in known.items():
        if name in value:
            found[name] = _fill(part, value[name], f"{prefix}{name}", wrong)
        elif "default" in part:
            found[name] = part["default"]
    return found


def _bounds(schema: Mapping[str, Any], value: Any, shown: str, wrong: list[str]) -> None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = schema.get("minimum"), schema.get("maximum")
        if (low is not None and value < low) or (high is not None and value > high):
            wrong.append(f"{shown} is {_range(low, high)}, not {value!r}")
    if isinstance(value, str):
        low, high = schema.get("minLength"), schema.get("maxLength")
        if (low is not None and len(value) < low) or (high is not None and len(value) > high):
            wrong.append(f"{shown} has {_range(low, high)} letters, not {len(value)}")


def _range(low: Any, high: Any) -> str:
    if low is None:
        return f"{high} at most"
    return f"{low} at least" if high is None else f"{low} to {high}"


def _near(word: str, known: Any = tuple(_WORDS)) -> str:
    near = difflib.get_close_matches(word, [one for one in known if isinstance(one, str)], 1)
    return f", did you mean {near[0]!r}?" if near else ""
