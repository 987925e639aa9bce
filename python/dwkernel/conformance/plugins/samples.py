"""What only a plugin's author knows, and its file `conformance.toml`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from dwkernel import errors
from dwkernel.plugins import schema
from dwkernel.plugins.settings import LimitsSection

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["SAMPLES_FILE", "Samples", "samples_in"]

SAMPLES_FILE = "conformance.toml"


@dataclass(frozen=True)
class Samples:
    """What only a plugin's author knows: written in `conformance.toml` beside the plugin.

    Attributes:
        config: the plugin's configuration.
        location: URLs of drives; `{scheme}`, `{folder}` (an empty one that is there), `{name}`.
        keys: names of keys that a key source has.
        credentials: what somebody shows whom a principal source knows.
        options: of a job that ends within seconds, or of an answer of an AI provider.
        query: what a search finds something for.
        expands_by_max: so many bytes are added by a codec at most; None: it does not say.
        limits: as `plugins.limits`, in seconds.

    """

    config: Mapping[str, Any] = field(default_factory=dict)
    location: str = "{scheme}://{folder}/{name}"
    keys: Sequence[str] = ()
    credentials: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    query: str = ""
    expands_by_max: int | None = None
    limits: Mapping[str, float] = field(default_factory=dict)


_TABLES = ("config", "credentials", "options", "limits")
_FIELDS: dict[str, Any] = {
    "properties": {
        **{name: {} for name in _TABLES},
        "location": {"type": "string"},
        "keys": {"type": "array", "items": {"type": "string"}},
        "query": {"type": "string"},
        "expands_by_max": {"type": "integer", "minimum": 0},
    }
}


def samples_in(places: Sequence[Path]) -> Samples:
    """Return what the first of these folders with such a file says.

    Raises:
        Invalid: `plugin.option`, with everything that is wrong

    """
    path = next((one / SAMPLES_FILE for one in places if (one / SAMPLES_FILE).is_file()), None)
    if path is None:
        return Samples()
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
        wrong = list(_wrong(given))
    except (OSError, ValueError) as error:
        given, wrong = {}, [str(error)]
    if wrong:
        names = ", ".join(Samples.__dataclass_fields__)
        text = f"{path}: {'; '.join(wrong)}; its fields are {names}"
        raise errors.new("plugin.option", text, path=path)
    return Samples(**given)


def _wrong(given: Mapping[str, Any]) -> Iterator[str]:
    try:
        schema.filled(_FIELDS, given)
    except errors.Invalid as error:
        yield error.details["errors"].replace("\n", "; ")
    for name in _TABLES:
        if not isinstance(given.get(name, {}), dict):
            yield f"{name} is a table, not {given[name]!r}"
            return
    for name, value in given.get("credentials", {}).items():
        if not isinstance(value, str):
            yield f"credentials.{name} is of the type string, not {value!r}"
    if "{name}" not in str(given.get("location", "{name}")):
        yield "location lacks {name}: each case has a drive of its own"
    try:
        LimitsSection.model_validate(given.get("limits", {}))
    except ValidationError as error:
        for one in error.errors():
            yield f"limits.{'.'.join(map(str, one['loc']))}: {one['msg'].lower()}"
