"""The configuration that a plugin asks for: a small part of JSON Schema (draft 2020-12).

`type`, `properties`, `required`, `items`, `enum`, `minimum`, `maximum`, `minLength`, `maxLength`,
`default`, `description`, `title`. Names that are not in `properties` are refused. What this cannot
say, a pydantic model of the plugin's own can: `config = { model = "module:Class" }`.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, NamedTuple

from dwkernel import errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Fault", "faults", "filled", "wrong_with"]

_SHOWN_LETTERS_MAX = 40
# Deeper ones end in a RecursionError somewhere.
_DEPTH_MAX = 32

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


def faults(schema: Any, place: str = "config", depth: int = 0) -> list[tuple[str, str]]:
    """Return what is wrong with a schema itself, as places and sentences."""
    if not isinstance(schema, dict):
        return [(place, f"{place} is a table, not {schema!r}")]
    if depth > _DEPTH_MAX:
        return [(place, f"more than {_DEPTH_MAX} schemas are within each other")]
    found = _wrong_words(schema, place)
    kind = schema.get("type", "object" if "properties" in schema or depth == 0 else None)
    if isinstance(kind, str) and kind not in _TYPES:
        found.append((f"{place}.type", f"{kind!r} is no type: there are {', '.join(_TYPES)}"))
    if isinstance(schema.get("properties"), dict):
        for name, part in schema["properties"].items():
            found += faults(part, f"{place}.properties.{name}", depth + 1)
    if "items" in schema:
        found += faults(schema["items"], f"{place}.items", depth + 1)
    if not found and "default" in schema:
        wrong: list[Fault] = []
        _fill(schema, schema["default"], ("default",), wrong)
        found += [(f"{place}.default", str(one)) for one in wrong]
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
        found.append((f"{place}.required", f"required can't be {required!r}: it has names only"))
    return found


class Fault(NamedTuple):
    """What is wrong with a configuration.

    Attributes:
        place: the keys that lead there; an int is the index in a list.
        text: what is wrong, as it follows the name of the place.
        is_unknown: nothing is known of that name.

    """

    place: tuple[str | int, ...]
    text: str
    is_unknown: bool = False

    def __str__(self) -> str:
        """Return it as a sentence."""
        shown = ""
        for key in self.place:
            shown += f"[{key}]" if isinstance(key, int) else f".{key}" if shown else key
        return f"{shown or 'the configuration'} {self.text}"


def filled(schema: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with its defaults.

    Raises:
        Invalid: `plugin.option`, with everything that is wrong

    """
    wrong: list[Fault] = []
    found = _fill({"type": "object", **schema}, dict(given), (), wrong)
    if wrong:
        told = [str(one) for one in wrong]
        raise errors.new("plugin.option", "; ".join(told), errors="\n".join(told))
    result: dict[str, Any] = found
    return result


def wrong_with(schema: Mapping[str, Any], given: Mapping[str, Any]) -> list[Fault]:
    """Return all that is wrong with a configuration."""
    wrong: list[Fault] = []
    _fill({"type": "object", **schema}, dict(given), (), wrong)
    return wrong


def _fill(
    schema: Mapping[str, Any], value: Any, place: tuple[str | int, ...], wrong: list[Fault]
) -> Any:
    kind = schema.get("type", "object" if "properties" in schema else None)
    if kind is not None:
        is_bool = isinstance(value, bool) and kind in ("integer", "number")
        if is_bool or not isinstance(value, _TYPES[kind]):
            wrong.append(Fault(place, f"is of the type {kind}, not {_shown(value)}"))
            return value
    if "enum" in schema and value not in schema["enum"]:
        near = _near(value, schema["enum"]) if isinstance(value, str) else ""
        text = f"is one of {schema['enum']}, not {_shown(value)}{near}"
        wrong.append(Fault(place, text))
    wrong += [Fault(place, text) for text in _bounds(schema, value)]
    if isinstance(value, dict) and kind == "object":
        return _properties(schema, value, place, wrong)
    if isinstance(value, list | tuple) and "items" in schema:
        return [_fill(schema["items"], one, (*place, n), wrong) for n, one in enumerate(value)]
    return value


def _properties(
    schema: Mapping[str, Any],
    value: dict[str, Any],
    place: tuple[str | int, ...],
    wrong: list[Fault],
) -> dict[str, Any]:
    known = schema.get("properties", {})
    for name in value:
        if name not in known:
            possible = f": {', '.join(known)} are" if known else ": nothing is"
            text = f"is not known{_near(name, known) or possible}"
            wrong.append(Fault((*place, name), text, is_unknown=True))
    wrong += [
        Fault((*place, name), "is missing")
        for name in schema.get("required", ())
        if name not in value
    ]
    found = dict(value)
    for name, part in known.items():
        if name in value:
            found[name] = _fill(part, value[name], (*place, name), wrong)
        elif "default" in part:
            found[name] = part["default"]
    return found


def _bounds(schema: Mapping[str, Any], value: Any) -> Iterator[str]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = schema.get("minimum"), schema.get("maximum")
        # Not a number is in no range.
        is_within = (low is None or value >= low) and (high is None or value <= high)
        if not is_within:
            yield f"is {_range(low, high)}, not {value!r}"
    if isinstance(value, str):
        low, high = schema.get("minLength"), schema.get("maxLength")
        if (low is not None and len(value) < low) or (high is not None and len(value) > high):
            yield f"has {_range(low, high)} letters, not {len(value)}"


def _shown(value: Any) -> str:
    """Return a value as errors quote it: what is in tables and lists may be anything."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list"
    if not isinstance(value, str | int | float):
        return f"of the type {type(value).__name__}"
    if isinstance(value, str) and value.startswith("literal:"):
        return "a secret"
    text = repr(value)
    return text if len(text) <= _SHOWN_LETTERS_MAX else f"{text[:_SHOWN_LETTERS_MAX]}…"


def _range(low: Any, high: Any) -> str:
    if low is None:
        return f"{high} at most"
    return f"{low} at least" if high is None else f"{low} to {high}"


def _near(word: str, known: Any = tuple(_WORDS)) -> str:
    near = difflib.get_close_matches(word, [one for one in known if isinstance(one, str)], 1)
    return f", did you mean {near[0]!r}?" if near else ""
