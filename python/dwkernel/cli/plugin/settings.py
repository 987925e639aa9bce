"""`plugins.enabled` and `plugins.disabled` in a file of settings, with its comments kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dwkernel import errors

__all__ = ["file_of", "switch"]

_ALL = "*"


def file_of(config: str) -> Path:
    """Return the file that is meant: a directory stands for the `dwkernel.toml` in it."""
    from dwkernel.config import files  # noqa: PLC0415 - only who changes one pays for it

    path = Path(config)
    return path / files.FILE_NAME if path.is_dir() else path


def switch(path: Path, plugin_id: str, *, enabled: bool) -> bool:
    """Let a plugin be enabled or disabled by a TOML file; the file is replaced whole, and durable.

    Args:
        path: the file; it is made if it is not there. A link stays one.
        plugin_id: which; nobody looks whether there is such a plugin. `*` means all that is
            found: enabled, or no more so; those that are named stay.
        enabled: what it is from now on.

    Returns:
        Whether something was changed.

    Raises:
        Invalid: `config.syntax`: the file is no TOML; `config.value`: it has something else there;
            `plugin.option`: what is to be enabled can't be an id
        Unavailable: `config.file`: it cannot be read, or written

    """
    from dwkernel.config import editing, files  # noqa: PLC0415 - only who changes one pays for it
    from dwkernel.plugins.manifest import ID_FORM, is_id  # noqa: PLC0415 - as above

    if enabled and plugin_id != _ALL and not is_id(plugin_id):
        text = f"{plugin_id!r} is no plugin's id: {ID_FORM}"
        raise errors.new("plugin.option", text, id=plugin_id)
    before = files.read_text(path) if path.exists() else ""
    section = files.parsed(before, str(path)).get("plugins", {})
    if not isinstance(section, dict):
        raise errors.new("config.value", f"{path}: plugins is a table, not {section!r:.60}")
    to, out = ("enabled", "disabled") if enabled else ("disabled", "enabled")
    wanted = {out: [one for one in _ids(path, section, out) if one != plugin_id]}
    there = _ids(path, section, to)
    # All can be enabled, and those that are named disabled.
    if plugin_id not in there and (_ALL not in there if enabled else plugin_id != _ALL):
        wanted[to] = [*there, plugin_id]
    after = before
    for name, ids in wanted.items():
        if ids != section.get(name, []):
            after = editing.with_value(after, ("plugins", name), ids, str(path))
    if after == before:
        return False
    editing.write(path, before, after)
    return True


def _ids(path: Path, section: dict[str, Any], name: str) -> list[Any]:
    ids = section.get(name, [])
    if not isinstance(ids, list):
        raise errors.new("config.value", f"{path}: plugins.{name} is a list, not {ids!r:.60}")
    return ids
