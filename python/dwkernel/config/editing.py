"""Changing one value in a file of TOML: everything else stays, byte for byte.

The new text is the old one with one piece put in. It is read again before it is used, and must say
what the old one says, with this one value changed.
"""

from __future__ import annotations

import contextlib
import copy
import fcntl
import json
import os
import re
import stat
import tempfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel.config.files import parsed, read_text
from dwkernel.config.layers import Route, dotted
from dwkernel.config.positions import Entry, Head, Positions, scan

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["literal", "replaced", "with_value", "write"]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_CONTROL = re.compile(r"[\x7f-\x9f\u2028\u2029]")


def literal(value: Any) -> str:
    """Return a value as TOML writes it.

    >>> literal({"a b": [1, True, "x"]})
    '{ "a b" = [1, true, "x"] }'
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for a few that JSON does not need.
        text = json.dumps(value, ensure_ascii=False)
        return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    if isinstance(value, dict):
        pairs = ", ".join(f"{_key(name)} = {literal(part)}" for name, part in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(literal, value))}]"
    # Subclasses of numbers have texts of their own.
    return repr(float(value)) if isinstance(value, float) else format(value)


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else literal(name)


def _keys(route: Route) -> str:
    return ".".join(map(_key, route))


def with_value(text: str, route: Route, value: Any, name: str = "the file") -> str:
    """Return the text with a value set; `name` is what messages call it.

    Raises:
        Invalid: `config.syntax`: the text is no TOML; `config.value`: there is a value where the
            path wants a table, or a table where it wants a value

    """
    before = parsed(text, name)
    wanted = _set(before, route, value, name)
    for new in _candidates(text, scan(text), route, value):
        with contextlib.suppress(tomllib.TOMLDecodeError, RecursionError):
            if tomllib.loads(new) == wanted:
                return new
    shown = dotted(route)
    raise errors.new("config.value", f"{name}: {shown} cannot be set here by itself", path=shown)


def _set(tree: dict[str, Any], route: Route, value: Any, name: str) -> dict[str, Any]:
    whole = copy.deepcopy(tree)
    at: Any = whole
    for length, key in enumerate(route[:-1], 1):
        at = at.setdefault(key, {})
        if not isinstance(at, dict):
            text = f"{name}: {dotted(route[:length])} is no table"
            raise errors.new("config.value", text, path=dotted(route))
    if isinstance(at.get(route[-1]), dict) and not isinstance(value, dict):
        text = f"{name}: {dotted(route)} is a table: set one of its fields"
        raise errors.new("config.value", text, path=dotted(route))
    # As it will be read: TOML has no tuples.
    at[route[-1]] = tomllib.loads(f"v = {literal(value)}")["v"]
    return whole


def _candidates(text: str, found: Positions, route: Route, value: Any) -> Iterator[str]:
    """Iterate over ways to write it, the nicest first."""
    entry = found.entries.get(route)
    if entry is not None:
        start, end = entry.value
        yield text[:start] + literal(value) + text[end:]
        return
    for length in range(len(route) - 1, 0, -1):
        inline = found.entries.get(route[:length])
        if inline is not None:
            yield _in_inline(text, found, inline, route, length, value)
            return
    heads = [head for head in found.heads if head.path == route[: len(head.path)]]
    heads.sort(key=lambda head: -len(head.path))
    for head in heads:
        if head.path and len(head.path) == len(route) - 1:
            yield _under(text, found, head, route, value)
    if len(route) > 1:
        yield _at_end(text, route, value)
    for head in heads:
        yield _under(text, found, head, route, value)


def _in_inline(
    text: str, found: Positions, inline: Entry, route: Route, length: int, value: Any
) -> str:
    """Put a pair into an inline table, after the last one."""
    pair = f"{_keys(route[length:])} = {literal(value)}"
    start, end = inline.value
    within = [one.value[1] for one in found.entries.values() if start < one.key < end]
    if not within:
        return f"{text[:start]}{{ {pair} }}{text[end:]}"
    last = max(within)
    return f"{text[:last]}, {pair}{text[last:]}"


def _line_end(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _under(text: str, found: Positions, head: Head, route: Route, value: Any) -> str:
    """Put a line under a table's header, after its last key."""
    line_end = _line_end(text)
    keys = [
        one.key
        for one in found.entries.values()
        if head.start <= one.key < head.end and not one.is_inline
    ]
    indent = ""
    if keys:
        begin = text.rfind("\n", 0, max(keys)) + 1
        before = text[begin : max(keys)]
        indent = before if not before.strip(" \t") else ""
    line = f"{indent}{_keys(route[len(head.path) :])} = {literal(value)}{line_end}"
    at = head.end if keys or head.path else _top(text, found)
    if at and not text[:at].endswith("\n"):
        line = line_end + line
    elif not keys and not head.path and at < len(text):
        line += line_end
    return text[:at] + line + text[at:]


def _top(text: str, found: Positions) -> int:
    """Return where the first key of the top goes: before the first header and its comment."""
    if len(found.heads) == 1:
        return len(text)
    at = text.rfind("\n", 0, found.heads[1].start) + 1
    while at:
        line = text.rfind("\n", 0, at - 1) + 1
        if not text[line:at].lstrip().startswith("#"):
            break
        at = line
    return at


def _at_end(text: str, route: Route, value: Any) -> str:
    """Put a table at the end."""
    line_end = _line_end(text)
    gap = "" if not text else line_end if text.endswith("\n") else line_end * 2
    head = f"[{_keys(route[:-1])}]"
    return f"{text}{gap}{head}{line_end}{_key(route[-1])} = {literal(value)}{line_end}"


def replaced(path: Path, route: Route, value: Any) -> tuple[str, str]:
    """Return a file's text and the one with a value set; a file that is missing is empty.

    Raises:
        Unavailable: `config.file`
        Invalid: `config.syntax`, `config.value`

    """
    text = read_text(path) if path.exists() else ""
    return text, with_value(text, route, value, str(path))


def write(path: Path, before: str, after: str) -> None:
    """Write a file whole or not at all, durably; mode and owner stay, and a link stays one.

    Raises:
        Unavailable: `config.file`: it cannot be written, or somebody changed it meanwhile

    """
    target = Path(os.path.realpath(path))
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            _like(target, file.fileno())
            file.write(after.encode())
            file.flush()
            os.fsync(file.fileno())
        with _alone(target.parent) as folder:
            now = read_text(target) if target.exists() else ""
            if now != before:
                text = f"{path} was changed by somebody else meanwhile"
                raise errors.new("config.file", text, path=path)
            Path(temporary).replace(target)
            temporary = None
            os.fsync(folder)
    except OSError as error:
        if isinstance(error, errors.DwError):
            raise
        text = f"{path} cannot be written: {error.strerror or error}"
        raise errors.new("config.file", text, path=path) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()


def _like(target: Path, handle: int) -> None:
    """Give a new file the mode and owner of the one in whose place it comes."""
    try:
        found = target.stat()
    except FileNotFoundError:
        mask = os.umask(0)
        os.umask(mask)
        os.fchmod(handle, 0o666 & ~mask)
        return
    own = os.fstat(handle)
    if (own.st_uid, own.st_gid) != (found.st_uid, found.st_gid):
        os.fchown(handle, found.st_uid, found.st_gid)
    os.fchmod(handle, stat.S_IMODE(found.st_mode))


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[int]:
    """Open a folder, and let nobody else replace a file in it who does so, too."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # some network drives have no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle
    finally:
        os.close(handle)
