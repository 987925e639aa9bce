"""The folder that a plugin's process may fill: weighed while it runs, removed when it is gone."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

__all__ = ["make", "remove", "weigh"]

# A folder of more entries than this is not weighed to its end: it is too much.
_ENTRIES_MAX = 10_000
_BLOCK_BYTES = 512


def make() -> Path:
    """Make one, that only this user can enter."""
    return Path(tempfile.mkdtemp(prefix="dwkernel-plugin-"))


def weigh(folder: Path) -> int | None:
    """Return the bytes that it takes on its disk; None if it hides some, or is too much."""
    total, entries, folders = 0, 0, [str(folder)]
    while folders:
        try:
            with os.scandir(folders.pop()) as found:
                for entry in found:
                    entries += 1
                    if entries > _ENTRIES_MAX:
                        return None
                    total += entry.stat(follow_symlinks=False).st_blocks * _BLOCK_BYTES
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
        except (FileNotFoundError, NotADirectoryError):
            continue  # it went away meanwhile
        except OSError:
            return None  # nested beyond what a path can name, or closed to us
    return total


def remove(folder: Path) -> None:
    """Remove it with all that is in it, however deep that is; what cannot be removed is left.

    Nobody else uses it any more. Folders in folders are moved up before they are emptied, so
    that neither a stack nor a path grows with the depth.
    """
    with contextlib.suppress(OSError):
        top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            _empty(top)
        finally:
            os.close(top)
        folder.rmdir()


def _empty(top: int) -> None:
    moved = 0
    names = os.listdir(top)
    while names:
        name = names.pop()
        if _unlinked(name, top):
            continue
        os.chmod(name, 0o700, dir_fd=top)
        inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
        try:
            for below in os.listdir(inner):  # noqa: PTH208 - of a descriptor
                if not _unlinked(below, inner):
                    moved += 1
                    # To move a folder it must be writable: its `..` changes.
                    os.chmod(below, 0o700, dir_fd=inner)
                    up = f".moved-{os.getpid()}-{moved}"
                    os.rename(below, up, src_dir_fd=inner, dst_dir_fd=top)
                    names.append(up)
        finally:
            os.close(inner)
        os.rmdir(name, dir_fd=top)


def _unlinked(name: str, folder: int) -> bool:
    try:
        os.unlink(name, dir_fd=folder)
    except IsADirectoryError:
        return False
    return True
