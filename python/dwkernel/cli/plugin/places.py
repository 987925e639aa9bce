"""Which plugins a command is about."""

from __future__ import annotations

import contextlib
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dwkernel import errors
from dwkernel.cli.arguments import all_utf8, utf8

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dwkernel.plugins import Plugins, PluginsSection

__all__ = ["Config", "Folders", "PluginId", "homes", "looked_at", "section_of"]

Folders = Annotated[
    list[str] | None,
    typer.Option(
        "--folder",
        "-f",
        help="a folder of plugins, or of one; may be repeated",
        show_default=False,
        callback=all_utf8,
    ),
]
Config = Annotated[
    str | None,
    typer.Option(
        "--config",
        help="a TOML file with [plugins]: folders, grants, limits, …",
        show_default=False,
        callback=utf8,
    ),
]
PluginId = Annotated[
    str, typer.Argument(metavar="ID", help="the plugin's id", show_default=False, callback=utf8)
]


def homes(folders: list[str] | None) -> tuple[Path, ...]:
    """Return folders of plugins; for a project the folder of its package."""
    found = []
    for folder in map(Path, folders or ()):
        inner = sorted(folder.glob("src/*/plugin.toml"))
        found.append(inner[0].parent if len(inner) == 1 else folder)
    return tuple(found)


def section_of(config: str | None, folders: list[str] | None) -> PluginsSection:
    """Return the settings of a file, with folders added; paths are from the file's folder on.

    Raises:
        Unavailable: `config.file`
        Invalid: `config.syntax`, `config.value`

    """
    from pydantic import ValidationError  # noqa: PLC0415 - what needs no settings is quicker

    from dwkernel.plugins import PluginsSection  # noqa: PLC0415 - as above

    given: dict[str, Any] = {}
    if config is not None:
        path = Path(config)
        try:
            given = dict(tomllib.loads(path.read_text(encoding="utf-8")).get("plugins", {}))
        except (OSError, UnicodeDecodeError) as error:
            text = f"{config} can't be read: {getattr(error, 'strerror', None) or error}"
            raise errors.new("config.file", text, path=config) from error
        except (tomllib.TOMLDecodeError, TypeError, ValueError) as error:
            raise errors.new("config.syntax", f"{config}: {error}", path=config) from error
        named = given.get("folders", [])
        if isinstance(named, list):
            given["folders"] = [path.parent / str(one) for one in named]
    try:
        section = PluginsSection.model_validate(given)
    except ValidationError as error:
        told = [f"plugins.{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise errors.new("config.value", f"{config}: {'; '.join(told)}", path=config) from error
    return section.model_copy(update={"folders": (*section.folders, *homes(folders))})


@contextlib.contextmanager
def looked_at(config: str | None, folders: list[str] | None) -> Iterator[Plugins]:
    """Look at plugins; none of them is started by it."""
    from dwkernel.plugins import Plugins  # noqa: PLC0415 - help does without

    with Plugins(section_of(config, folders)) as plugins:
        yield plugins
