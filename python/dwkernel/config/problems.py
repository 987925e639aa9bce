"""What is wrong with a configuration, all at once: where, what was found, what is possible."""

from __future__ import annotations

import difflib
import json
import re
import traceback
from typing import TYPE_CHECKING, Any, NamedTuple

from dwkernel import errors
from dwkernel.config.layers import dotted
from dwkernel.config.looking import field_at, is_secret, names_at
from dwkernel.config.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dwkernel.config.layers import Origin, Route
    from dwkernel.config.registry import Shape

__all__ = ["Problem", "did_you_mean", "explained", "listed", "offered", "placed", "raised"]

_FOUND_LETTERS_MAX = 40
_OFFERED_MAX = 40
_QUOTED = re.compile(r"'([^']*)'")


class Problem(NamedTuple):
    """One mistake.

    Attributes:
        code: `config.unknown` or `config.value`.
        path: of the field, with dots.
        where: file, line and column, a variable, or which layer.
        text: what was found and what is possible.

    """

    code: str
    path: str
    where: str
    text: str

    def __str__(self) -> str:
        """Return it in one line."""
        return f"{self.where}: {self.text}"


def did_you_mean(found: object, possible: Sequence[str]) -> str:
    """Return a hint in brackets at what was meant; nothing if nothing is near.

    >>> did_you_mean("tmeout", ["timeout", "rate"]), did_you_mean("x", ["timeout"])
    (' (did you mean timeout?)', '')
    """
    close = difflib.get_close_matches(str(found), possible, n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""


def offered(possible: Sequence[str]) -> str:
    """Return what is possible, as far as a message has room."""
    if not possible:
        return "nothing is possible here"
    more = ", …" if len(possible) > _OFFERED_MAX else ""
    return f"possible: {', '.join(possible[:_OFFERED_MAX])}{more}"


def placed(error: BaseException) -> str:
    """Return what was raised and where, without what it says: that may be anything."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"


def explained(
    shape: Shape,
    found: Sequence[Any],
    under: Route,
    tree: Any,
    origin: Callable[[Route], Origin],
) -> list[Problem]:
    """Return what pydantic's errors of the part at `under` mean to somebody who wrote a file."""
    problems: dict[str, Problem] = {}
    for error in found:
        kind = error["type"]
        if kind == "extra_forbidden":
            problem = _unknown(shape, (*under, *map(str, error["loc"])), origin)
        else:
            route = (*under, *_written(tree, error["loc"], keep_last=kind == "missing"))
            problem = _wrong(shape, route, error, origin)
        before = problems.get(problem.path)
        if before is not None and before.text != problem.text:
            problem = before._replace(text=f"{before.text}; or: {problem.text}")
        problems[problem.path] = problem
    return list(problems.values())


def _written(tree: Any, place: Sequence[Any], *, keep_last: bool) -> Route:
    """Return the part of a place that is written: pydantic names branches of unions besides."""
    route: Route = ()
    for key in place:
        is_key = isinstance(tree, dict) and key in tree
        is_index = isinstance(tree, list | tuple) and isinstance(key, int) and key < len(tree)
        if not (is_key or is_index):
            return (*route, str(key)) if keep_last and key == place[-1] else route
        tree = tree[key]
        route = (*route, str(key))
    return route


def _unknown(shape: Shape, route: Route, origin: Callable[[Route], Origin]) -> Problem:
    above, name = route[:-1], route[-1]
    what = f"no field of {dotted(above)}" if above else "no section"
    possible = names_at(shape, above)
    hint = did_you_mean(name, possible)
    text = f"{dotted(route)}{hint} is {what}{'' if hint else f'; {offered(possible)}'}"
    return Problem("config.unknown", dotted(route), str(origin(route)), text)


def _wrong(shape: Shape, route: Route, error: Any, origin: Callable[[Route], Origin]) -> Problem:
    path, kind = dotted(route), error["type"]
    if kind == "missing":
        text = f"{path} is missing"
        return Problem("config.value", path, str(origin(route)), text)
    field = field_at(shape, route)
    given = error.get("input")
    is_hidden = is_secret(field) or isinstance(given, Secret)
    is_hidden = is_hidden or str(given).startswith("literal:")
    shown = "" if is_hidden else f"found {_shown(given)}"
    message = error["msg"]
    if kind in ("literal_error", "enum"):
        possible = _QUOTED.findall(error["ctx"]["expected"])
        shown += "" if is_hidden else did_you_mean(given, possible)
        message = offered(possible)
    else:
        message = message.removeprefix("Value error, ").removeprefix("Input ")
        message = message[:1].lower() + message[1:]
    text = f"{path}: {shown}; {message}" if shown else f"{path}: {message}"
    return Problem("config.value", path, str(origin(route)), text)


def _shown(given: Any) -> str:
    if isinstance(given, bool):
        return str(given).lower()
    if isinstance(given, str | int | float):
        text = json.dumps(given, ensure_ascii=False) if isinstance(given, str) else str(given)
        return text if len(text) <= _FOUND_LETTERS_MAX else f"{text[:_FOUND_LETTERS_MAX]}…"
    # What is in tables and lists is not shown: it may be anything.
    if isinstance(given, dict):
        return "a table"
    return "a list" if isinstance(given, list | tuple) else type(given).__name__


def raised(problems: Sequence[Problem]) -> errors.DwError:
    """Return the error of one mistake or more; the detail `errors` has them all, as JSON."""
    ordered = sorted(problems, key=lambda one: one.code != "config.unknown")
    lines = [str(one) for one in problems]
    text = lines[0] if len(lines) == 1 else f"{len(lines)} mistakes: {'; '.join(lines)}"
    everything = json.dumps([one._asdict() for one in problems], ensure_ascii=False)
    first = problems[0]
    return errors.new(ordered[0].code, text, errors=everything, where=first.where, path=first.path)


def listed(error: errors.DwError) -> list[Problem]:
    """Return the mistakes that an error of `raised` has."""
    return [Problem(**one) for one in json.loads(error.details["errors"])]
