"""Which plugins a command is about."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dwkernel import errors
from dwkernel.cli.arguments import all_utf8, utf8

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dwkernel.config.layers import Layer
    from dwkernel.plugins import Plugins, PluginsSection

__all__ = [
    "Config",
    "Folders",
    "PluginId",
    "Target",
    "folder_of",
    "looked_at",
    "one_of",
    "section_of",
]

Folders = Annotated[
    list[str] | None,
    typer.Option(
        "--folder",
        "-f",
        help="a folder of plugins, or a plugin's; may be repeated",
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
Target = Annotated[
    str,
    typer.Argument(
        metavar="FOLDER|ID",
        help="the plugin's folder or project, or the id of one that is found",
        show_default=False,
        callback=utf8,
    ),
]
# What of a file and the environment says which plugins there are, and how they are treated.
_PARTS = ("plugins", "mode")


def section_of(config: str | None, folders: Iterable[str | Path] | None) -> PluginsSection:
    """Return the settings as a program in this folder has them, with folders added.

    Raises:
        Unavailable: `config.file`
        Invalid: `config.syntax`, `config.unknown`, `config.value`

    """
    from dwkernel.config import files, registry, resolving  # noqa: PLC0415 - help does without
    from dwkernel.plugins import PluginsSection  # noqa: PLC0415 - as above

    shape = registry.shape()
    given = resolving.read(shape, files.places(config if config is not None else []))
    layers = resolving.Layers(tuple(map(_parted, given.files)), _parted(given.environment))
    section = resolving.resolve(shape, layers).config.plugins
    assert isinstance(section, PluginsSection)  # noqa: S101 - that is what is registered
    return section.model_copy(update={"folders": (*section.folders, *map(Path, folders or ()))})


def _parted(layer: Layer) -> Layer:
    """Leave out what is no plugin's: a program may have sections that nobody knows here."""
    return replace(layer, tree={name: layer.tree[name] for name in _PARTS if name in layer.tree})


def folder_of(target: str) -> Path | None:
    """Return the folder that an argument names; None for an id."""
    from dwkernel.plugins import discovery  # noqa: PLC0415 - help does without

    place = Path(target)
    if {"/", os.sep} & set(target) or target in (os.curdir, os.pardir):
        return place
    try:
        return discovery.at(place).home and place
    except errors.NotFound:
        return None  # another folder of that name


@contextlib.contextmanager
def looked_at(config: str | None, folders: Iterable[str | Path] | None) -> Iterator[Plugins]:
    """Look at plugins; none of them is started by it."""
    from dwkernel.plugins import Plugins  # noqa: PLC0415 - help does without

    with Plugins(section_of(config, folders)) as plugins:
        yield plugins


@contextlib.contextmanager
def one_of(
    target: str, config: str | None, folders: list[str] | None, *, grants: bool = False
) -> Iterator[tuple[Plugins, str]]:
    """Look at plugins as above, one of which is meant; give its id, too.

    With `grants` it gets what it asks for, if no file says what it gets.

    Raises:
        NotFound: `plugin.not_found`
        Invalid: `plugin.manifest`

    """
    from dwkernel.plugins import Plugins, discovery  # noqa: PLC0415 - help does without

    place = folder_of(target)
    found = None if place is None else discovery.at(place)
    plugin_id = target if found is None else found.id
    homes = [found.home] if found is not None and found.home is not None else []
    section = section_of(config, [*(folders or ()), *homes])
    if grants and config is None:
        granted = {**section.grant, plugin_id: ("*",)}
        section = section.model_copy(update={"grant": granted})
    with Plugins(section) as plugins:
        yield plugins, plugin_id
