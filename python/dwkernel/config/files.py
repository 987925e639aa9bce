"""Files of configuration: read whole, with the place of every key."""

from __future__ import annotations

import os
import re
import tomllib
from bisect import bisect_right
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel.config.layers import Layer, Origin, Origins, Route
from dwkernel.config.positions import scan
from dwkernel.config.reading import read_plain

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["FILE_NAME", "layer_from", "layer_of", "parsed", "places", "read_text"]

FILE_NAME = "dwkernel.toml"
"""What a directory stands for."""
BYTES_MAX = 4 << 20
_AT = re.compile(r" \(at line (\d+), column (\d+)\)$")
_AT_END = re.compile(r" \(at end of document\)$")
# Deeper ones end in a RecursionError somewhere.
DEPTH_MAX = 32

Location = str | os.PathLike[str]


def places(given: Location | Iterable[Location]) -> list[Path]:
    """Return the files that are meant, absolute: a directory stands for its `dwkernel.toml`.

    Raises:
        Invalid: `config.value`: something else than a path

    """
    listed: list[Any] = [given] if isinstance(given, str | os.PathLike) else list(given)
    wrong = next((one for one in listed if not isinstance(one, str | os.PathLike)), None)
    if wrong is not None:
        text = f"a file of configuration is a path, not {type(wrong).__name__}"
        raise errors.new("config.value", text)
    found = [Path(os.path.abspath(os.fspath(one))) for one in listed]  # noqa: PTH100 - links are kept
    return [one / FILE_NAME if one.is_dir() else one for one in found]


def read_text(path: Path) -> str:
    """Return a file's text.

    Raises:
        Unavailable: `config.file`: missing, unreadable, no plain file, more than 4 MiB
        Invalid: `config.syntax`: not UTF-8

    """
    why = ""
    try:
        data, _ = read_plain(path, BYTES_MAX)
        if len(data) > BYTES_MAX:
            why = f"it has more than {BYTES_MAX >> 20} MiB"
    except OSError as error:
        why = error.strerror or type(error).__name__
    except ValueError as error:
        why = str(error)
    if why:
        raise errors.new("config.file", f"{path} cannot be read: {why}", path=path)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line = before.count(b"\n") + 1
        column = len(before[before.rfind(b"\n") + 1 :].decode()) + 1
        found = data[error.start : error.start + 1].hex()
    what = f"the byte 0x{found} is no UTF-8"
    raise _syntax(str(path), line, column, what)


def _syntax(name: str, line: int, column: int, what: str) -> errors.DwError:
    text = f"{name}:{line}:{column}: {what}"
    return errors.new("config.syntax", text, path=name, line=line, column=column)


def parsed(text: str, name: str) -> dict[str, Any]:
    """Return what TOML says.

    Raises:
        Invalid: `config.syntax` with file, line and column

    """
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
    except RecursionError:
        message = "Tables or arrays within each other are too many (at line 1, column 1)"
    else:
        if _depth(tree, DEPTH_MAX + 1) > DEPTH_MAX:
            raise _syntax(name, 1, 1, f"more than {DEPTH_MAX} tables or arrays within each other")
        return tree
    at = _AT.search(message)
    if at is not None:
        line, column = int(at[1]), int(at[2])
    else:
        line = text.count("\n") + 1
        column = len(text) - (text.rfind("\n") + 1) + 1
    what = _AT_END.sub(" at the end of the file", _AT.sub("", message))
    # Outside `except`, so that no traceback shows what the file holds.
    raise _syntax(name, line, column, what + _shown(text, line, what))


def _shown(text: str, line: int, what: str) -> str:
    """Return the key of the line where it went wrong; its value may be a secret."""
    found = text.split("\n")[line - 1 : line]
    key = found[0].partition("=")[0].strip() if found else ""
    return f", in the line of {key[:40]!r}" if key and repr(key) not in what else ""


def _depth(value: Any, limit: int) -> int:
    """Return how many tables and lists are within each other, as far as `limit`."""
    if limit == 0 or not isinstance(value, dict | list):
        return 0
    parts = value.values() if isinstance(value, dict) else value
    return 1 + max((_depth(part, limit - 1) for part in parts), default=0)


def layer_of(path: Path, shown: str | None = None) -> Layer:
    """Read a file as a layer; `shown` is what origins call it.

    Raises:
        Unavailable: `config.file`
        Invalid: `config.syntax`

    """
    return layer_from(read_text(path), shown or str(path))


def layer_from(text: str, name: str) -> Layer:
    """Return a text as a layer; `name` is what origins call it.

    Raises:
        Invalid: `config.syntax`

    """
    tree = parsed(text, name)
    positions = scan(text)
    origins: Origins = {}
    line_starts = [0] + [found.end() for found in re.finditer("\n", text)]

    def origin(offset: int) -> Origin:
        line = bisect_right(line_starts, offset)
        return Origin("file", name, line, offset - line_starts[line - 1] + 1)

    for head in positions.heads[1:]:
        for length in range(1, len(head.path) + 1):
            origins.setdefault(_route(head.path[:length]), origin(head.start))
    for where, entry in positions.entries.items():
        route = _route(where)
        origins[route] = origin(entry.key)
        for length in range(1, len(route)):
            origins.setdefault(route[:length], origin(entry.key))
    return Layer(tree, origins, Origin("file", name), text.encode())


def _route(path: tuple[str | int, ...]) -> Route:
    return tuple(map(str, path))
