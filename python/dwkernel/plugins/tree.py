"""The files of a plugin: which they are, their hash, and a copy of them.

A version runs from a copy of its own. So its hash is that of what runs, an edit of the folder does
not change half of what is loaded, and a compiled module has a path of its own for each version.

The hash is BLAKE3 over the files in the order of their names' UTF-8 bytes: for each the length of
the name (4 bytes, little-endian), the name with `/`, and the BLAKE3 hash of its content.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from dwkernel import errors, hashing

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FILES_MAX", "SIGNATURE_NAME", "TREE_BYTES_MAX", "Tree", "copy", "look", "signature"]

FILES_MAX = 10_000
TREE_BYTES_MAX = 256 << 20
SIGNATURE_NAME = "plugin.sig"
# Made by tools and not by authors; never hashed, never copied.
_LEFT_OUT = {"__pycache__", ".git", ".mypy_cache", ".pytest_cache", ".ruff_cache", SIGNATURE_NAME}


class Tree(NamedTuple):
    """What a folder holds.

    Attributes:
        files: names relative to the folder, sorted.
        hash: 64 hexadecimal digits.

    """

    files: list[str]
    hash: str


def look(home: Path) -> Tree:
    """Return a folder's files and their hash.

    Raises:
        Invalid: `plugin.load`: it can't be read, is too large, or holds links and devices

    """
    return _walk(home, None)


def copy(home: Path, target: Path) -> Tree:
    """Copy a folder's files into a new folder; the hash is that of the copy.

    Raises:
        Invalid: `plugin.load`, as for `look`

    """
    return _walk(home, target)


def signature(home: Path) -> dict[str, tuple[int, ...]]:
    """Return what changes when a file does, that with the signature too, without reading any.

    Raises:
        Invalid: `plugin.load`, as for `look`

    """
    found: dict[str, tuple[int, ...]] = {}
    try:
        signatures = [SIGNATURE_NAME] if (home / SIGNATURE_NAME).exists() else []
        for name in _names(home) + signatures:
            about = (home / name).lstat()
            found[name] = about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns
    except OSError as error:
        raise errors.new("plugin.load", f"{home} can't be read: {error}") from error
    return found


def _walk(home: Path, target: Path | None) -> Tree:
    left = TREE_BYTES_MAX
    parts, names = [], []
    try:
        if target is not None:
            target.mkdir(mode=0o700)
        for name in sorted(_names(home), key=str.encode):
            content = _content(home / name, left)
            left -= len(content)
            if target is not None:
                place = target / name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content)
            encoded = name.encode()
            parts.append(len(encoded).to_bytes(4, "little") + encoded + hashing.blake3(content))
            names.append(name)
    except OSError as error:
        raise errors.new("plugin.load", f"{home} can't be read: {error}") from error
    except UnicodeEncodeError:
        raise errors.new("plugin.load", f"a name in {home} is not UTF-8") from None
    return Tree(names, hashing.blake3(b"".join(parts)).hex())


def _names(home: Path) -> list[str]:
    found: list[str] = []
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        with os.scandir(home / folder) as entries:
            for entry in entries:
                if entry.name in _LEFT_OUT or entry.name.endswith((".pyc", ".egg-info")):
                    continue
                name = f"{folder}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{name}/")
                elif entry.is_file(follow_symlinks=False):
                    found.append(name)
                else:
                    text = f"{home / name} is neither a file nor a folder (links are refused)"
                    raise errors.new("plugin.load", text, path=home / name)
                if len(found) + len(waiting) > FILES_MAX:
                    raise errors.new("plugin.load", f"{home} has more than {FILES_MAX:,} files")
    return found


def _content(path: Path, bytes_max: int) -> bytes:
    # Without following a link that somebody puts there meanwhile, nor waiting for a pipe.
    opened = os.open(
        path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    )
    with open(opened, "rb") as file:  # noqa: PTH123 - a descriptor
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            raise errors.new("plugin.load", f"{path} is no plain file", path=path)
        content = file.read(bytes_max + 1)
    if len(content) > bytes_max:
        text = f"{path.parent} is larger than {TREE_BYTES_MAX >> 20} MiB"
        raise errors.new("plugin.load", text, path=path)
    return content
