"""`plugins.enabled` and `plugins.disabled` in a file of settings, with its comments kept."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

from dwkernel import errors

__all__ = ["switch"]


def switch(path: Path, plugin_id: str, *, enabled: bool) -> bool:
    """Let a plugin be enabled or disabled by a TOML file; the file is replaced whole, and durable.

    Args:
        path: the file; it is made if it is not there. A link stays one.
        plugin_id: which; nobody looks whether there is such a plugin.
        enabled: what it is from now on.

    Returns:
        Whether something was changed.

    Raises:
        Invalid: `config.syntax`: the file is no TOML; `config.value`: it has something else there
        OSError: it can't be written

    """
    import tomlkit  # noqa: PLC0415 - only who changes a file pays for it
    from tomlkit.exceptions import TOMLKitError  # noqa: PLC0415 - as above

    target = Path(os.path.realpath(path))
    before = ""
    with contextlib.suppress(FileNotFoundError):
        before = target.read_text(encoding="utf-8")
    try:
        document: Any = tomlkit.parse(before)
    except TOMLKitError as error:
        raise errors.new("config.syntax", f"{path}: {error}", path=path) from error
    section = document.setdefault("plugins", tomlkit.table())
    if not hasattr(section, "items"):
        raise errors.new("config.value", f"{path}: plugins is a table, not {section!r:.60}")
    to, out = ("enabled", "disabled") if enabled else ("disabled", "enabled")
    _put(path, section, out, plugin_id, is_in=False)
    _put(path, section, to, plugin_id, is_in="*" not in section.get(to, ()) or not enabled)
    after = tomlkit.dumps(document)
    if after == before:
        return False
    _replace(target, after)
    return True


def _put(path: Path, section: Any, name: str, plugin_id: str, *, is_in: bool) -> None:
    import tomlkit  # noqa: PLC0415 - as above

    ids = section.get(name)
    if ids is None:
        if not is_in:
            return
        ids = section[name] = tomlkit.array()
    if not isinstance(ids, list):
        raise errors.new("config.value", f"{path}: plugins.{name} is a list, not {ids!r:.60}")
    if is_in and plugin_id not in ids:
        ids.append(plugin_id)
    while not is_in and plugin_id in ids:
        ids.remove(plugin_id)


def _replace(target: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
    beside = Path(name)
    try:
        with open(handle, "w", encoding="utf-8", newline="") as file:  # noqa: PTH123 - a descriptor
            file.write(text)
            file.flush()
            mode = 0o644
            with contextlib.suppress(FileNotFoundError):
                mode = stat.S_IMODE(target.stat().st_mode)
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        beside.replace(target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    opened = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
