"""Options of verbs, checked: callers without a type checker give anything."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dwkernel import errors
from dwkernel.pool import place

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dwkernel.kernel import Location

__all__ = ["create_of", "drive_labels", "drives_of", "flag", "labels_of", "principal", "program"]


# The longest name of a caller, in bytes.
_NAME_BYTES_MAX = 255


def principal() -> str:
    """Return who the caller is, as the system says; what no name can be is nobody's."""
    try:
        name = getpass.getuser()
    except (ImportError, KeyError, OSError):
        name = ""
    if name.isprintable() and 0 < len(name.encode()) <= _NAME_BYTES_MAX:
        return name
    return f"uid:{os.getuid()}"


def program() -> str:
    """Return what others see who find the drives locked."""
    path = Path(sys.argv[0] if sys.argv else "")
    # What `python -m name` runs is called by its package.
    name = path.parent.name if path.name == "__main__.py" else path.name
    if name in ("", "-", "-c", "-m"):
        return "python"
    # It goes onto the drives as text.
    return os.fsencode(name).decode(errors="backslashreplace")


def drives_of(drives: int | Sequence[Location] | None) -> int | list[str] | None:
    """Return `drives=` as the native side takes it."""
    if drives is None or isinstance(drives, int):
        if isinstance(drives, bool) or (drives is not None and not 0 <= drives < 1 << 32):
            raise errors.new("store.option", f"drives={drives!r} is no number of drives")
        return drives
    if isinstance(drives, str | bytes):
        raise errors.new("store.option", f"drives={drives!r} is one drive: write a list")
    try:
        places = list(drives)
    except TypeError:
        text = f"drives={drives!r} is neither a number nor a list of drives"
        raise errors.new("store.option", text) from None
    return [place(drive, "drive.url") for drive in places]


def create_of(create: bool | str) -> str:
    """Return the word for `create=`."""
    known = {False: "never", True: "new", "if_missing": "if_missing"}
    try:
        return known[create]
    except (KeyError, TypeError):
        text = f'create={create!r} is neither True, False nor "if_missing"'
        raise errors.new("store.option", text) from None


def drive_labels(labels: Mapping[str, Mapping[str, str]] | None) -> dict[str, dict[str, str]]:
    """Return `labels=` as plain dicts of text."""
    try:
        found = {drive: dict(given) for drive, given in dict(labels or {}).items()}
        texts = [text for drive, given in found.items() for pair in given.items() for text in pair]
        _ = "".join([*found, *texts]).encode()
    except (TypeError, ValueError):
        text = f'labels={labels!r} is not like {{"d1": {{"rack": "a"}}}}'
        raise errors.new("store.option", text) from None
    return found


def flag(name: str, value: object) -> bool:
    """Return an option that is True or False."""
    if not isinstance(value, bool):
        text = f"{name} is True or False, not {value!r}"
        raise errors.new("store.option", text, option=name)
    return value


def labels_of(labels: Mapping[str, str] | None) -> dict[str, str]:
    """Return metadata or tags as a plain dict."""
    try:
        return dict(labels or {})
    except (TypeError, ValueError):
        text = f"metadata and tags are a mapping, not {type(labels).__name__}"
        raise errors.new("object.metadata", text) from None
