"""Kinds of plugins: what each must be able to do.

>>> from dwkernel.plugins import kinds
>>> class Half:
...     def encode(self, data): ...
>>> kinds.missing("codec", Half())
['name', 'decode(data, length)']
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from typing import TYPE_CHECKING, Any, NamedTuple

from dwkernel import errors

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CONFINABLE", "KINDS", "Kind", "check", "is_named", "lacking", "missing", "protocol"]


class Kind(NamedTuple):
    """A kind of plugin.

    Attributes:
        name: as manifests write it.
        place: its protocol, as `module:Class`.
        says: what it is for, in one line.
        capability: what its capabilities are called by.

    """

    name: str
    place: str
    says: str
    capability: str


_HERE = "dwkernel.plugins.kinds"
KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("drive", f"{_HERE}.drive:DriveSource", "where bytes rest", "scheme of a URL"),
        Kind("policy", f"{_HERE}.policy:Policy", "asked before operations, told after", "name"),
        Kind("codec", f"{_HERE}.stages:Codec", "bytes to other bytes and back", "name"),
        Kind("key_source", f"{_HERE}.stages:KeySource", "holds keys of encryption", "name"),
        Kind("authoriser", f"{_HERE}.access:Authoriser", "who may do what", "name"),
        Kind("principal_source", f"{_HERE}.access:PrincipalSource", "who somebody is", "scheme"),
        Kind("sink", f"{_HERE}.outward:SinkLike", "carries messages away", "name"),
        Kind("metrics_exporter", f"{_HERE}.outward:MetricsExporter", "carries figures", "name"),
        Kind("index_stage", f"{_HERE}.stages:IndexStage", "what can be searched for", "type"),
        Kind("search_provider", f"{_HERE}.outward:SearchProvider", "finds objects", "name"),
        Kind("ai_provider", f"{_HERE}.outward:AiProvider", "calls a model", "model"),
        Kind("door", f"{_HERE}.outward:Door", "lets clients in", "protocol"),
        Kind("job", f"{_HERE}.job:JobKind", "long work", "kind of job"),
    )
}

# Those whose objects hand out no others: all that goes to them and comes from them can be sent.
CONFINABLE = frozenset(
    {
        "ai_provider",
        "authoriser",
        "codec",
        "key_source",
        "metrics_exporter",
        "policy",
        "principal_source",
        "search_provider",
    }
)


def protocol(kind: str) -> type:
    """Return the protocol of a kind.

    Raises:
        Invalid: `plugin.kind`

    """
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(KINDS)}"
        raise errors.new("plugin.kind", f"{kind!r} is no kind of plugin: {hint}")
    module, _, name = KINDS[kind].place.partition(":")
    found: type = getattr(importlib.import_module(module), name)
    return found


def check(kind: str, candidate: Any) -> None:
    """Hold an object to its kind: names are there, and take the arguments that they get.

    Raises:
        Invalid: `plugin.kind`, which names what is missing

    """
    lacks = missing(kind, candidate)
    if lacks:
        raise lacking(kind, type(candidate).__name__, lacks)


def is_named(kind: str) -> bool:
    """Return whether a plugin of a kind has a name of its own, which is what it can do."""
    return "name" in getattr(protocol(kind), "__annotations__", {})


def lacking(kind: str, who: str, lacks: Sequence[str]) -> errors.DwError:
    """Return the error that says what somebody lacks to be of a kind."""
    text = f"{who} is no {kind}: it lacks {', '.join(lacks)}"
    return errors.new("plugin.kind", text, kind=kind, missing=", ".join(lacks))


def missing(kind: str, candidate: Any) -> list[str]:
    """Return what an object lacks to be of a kind: attributes, methods, their arguments.

    Raises:
        Invalid: `plugin.kind`: there is no such kind

    """
    wanted = protocol(kind)
    lacks = [
        name
        for name in getattr(wanted, "__annotations__", {})
        if not isinstance(getattr(candidate, name, None), str)
    ]
    for name, method in vars(wanted).items():
        if not inspect.isfunction(method) or name.startswith("_"):
            continue
        parameters = list(inspect.signature(method).parameters.values())[1:]
        own = getattr(candidate, name, None)
        if not callable(own) or not _takes(own, parameters):
            lacks.append(f"{name}({', '.join(one.name for one in parameters)})")
    return lacks


def _takes(method: Any, parameters: list[inspect.Parameter]) -> bool:
    """Return whether a method can be called with such arguments."""
    try:
        signature = inspect.signature(method)
    except (ValueError, TypeError):
        return True  # a compiled one that says nothing of itself
    keywords = {one.name: None for one in parameters if one.kind is one.KEYWORD_ONLY}
    positional = [None for one in parameters if one.kind is not one.KEYWORD_ONLY]
    try:
        signature.bind(*positional, **keywords)
    except TypeError:
        return False
    return True
