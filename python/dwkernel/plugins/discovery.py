"""Which plugins are there: in folders, and as entry points of installed distributions.

Nothing of a plugin runs for it: manifests are read as files. An entry point of the group
`dwkernel.plugins` has the plugin's id as its name and the package that holds `plugin.toml` as its
value.
"""

from __future__ import annotations

import os
import stat
import sys
from importlib import machinery, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from packaging.version import InvalidVersion, Version

from dwkernel import errors
from dwkernel.plugins import manifest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from dwkernel.plugins.manifest import Manifest

__all__ = ["GROUP", "Discovery", "Found", "at", "discover"]

GROUP = "dwkernel.plugins"
_FOUND_MAX = 10_000
# Where a project may have its package with the manifest. A folder of plugins has many `*/`.
_IN_SOURCE = "src/*/plugin.toml"
_WITHIN = ("*/plugin.toml", _IN_SOURCE)


class Found(NamedTuple):
    """A plugin that is there.

    Attributes:
        manifest: what it says of itself.
        home: the folder with its manifest; None for the kernel's own.
        source: `"folder"`, `"installed"` or `"kernel"`.
        place: the folder or distribution, for people.

    """

    manifest: Manifest
    home: Path | None
    source: Literal["folder", "installed", "kernel"]
    place: str

    @property
    def id(self) -> str:
        """Its id."""
        return self.manifest.id


class Discovery(NamedTuple):
    """What was found.

    Attributes:
        plugins: by id; several of one id are versions of it, side by side in one folder.
        wrong: what can't be used, by where it is.

    """

    plugins: dict[str, list[Found]]
    wrong: dict[str, errors.DwError]


def discover(folders: Iterable[Path] = (), path: Sequence[str] | None = None) -> Discovery:
    """Look through folders and installed distributions; nothing of a plugin is imported.

    Args:
        folders: each holds a folder or project for each plugin, or is one itself.
        path: where distributions are; by default `sys.path`.

    An id that is found in two places is in `wrong` with both, and in `plugins` with neither. A
    plugin to which two of the folders lead is in one place.

    """
    wrong: dict[str, errors.DwError] = {}
    found: list[tuple[str, Found]] = []  # with the place that it counts as being in
    seen: set[str] = set()
    for folder in folders:
        here = {os.path.realpath(one.place): one for one in _in_folder(Path(folder), wrong)}
        found += [(str(folder), one) for home, one in here.items() if home not in seen]
        seen.update(here)
    found += [("", one) for one in _installed(path, wrong)]
    plugins: dict[str, list[Found]] = {}
    places: dict[str, dict[str, list[Found]]] = {}
    for place, one in found[:_FOUND_MAX]:
        places.setdefault(one.id, {}).setdefault(place, []).append(one)
    for name, by_place in places.items():
        several = [one for group in by_place.values() for one in group]
        versions = {one.manifest.version for one in several}
        if len(by_place) > 1 or len(versions) < len(several):
            wrong[name] = _twice(name, several)
        else:
            plugins[name] = sorted(several, key=lambda one: one.manifest.version)
    return Discovery(plugins, wrong)


def at(path: Path) -> Found:
    """Return the plugin at a folder, or of a project's folder.

    Raises:
        NotFound: `plugin.not_found`: no manifest is there
        Invalid: `plugin.manifest`: it is wrong, or can't be read

    """
    if _has_manifest(path):
        return Found(manifest.read(path / manifest.FILE_NAME), path, "folder", str(path))
    inner = [place for pattern in _WITHIN for place in path.glob(pattern)]
    if len(inner) != 1:
        text = f"{path} holds {len(inner) or 'no'} {manifest.FILE_NAME}"
        raise errors.new("plugin.not_found", text, path=path)
    return Found(manifest.read(inner[0]), inner[0].parent, "folder", str(path))


def _twice(name: str, several: list[Found]) -> errors.DwError:
    places = " and ".join(one.place for one in several)
    return errors.new("plugin.exists", f"{name} is in {places}", id=name, places=places)


def _has_manifest(home: Path) -> bool:
    """Return whether a plugin lies in a folder; raises `plugin.manifest` if nobody can tell."""
    try:
        return stat.S_ISREG((home / manifest.FILE_NAME).stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:  # a path with a null in it is a ValueError
        text = f"nobody can look into {home}: {getattr(error, 'strerror', None) or error}"
        raise errors.new("plugin.manifest", text, path=home) from error


def _in_folder(folder: Path, wrong: dict[str, errors.DwError]) -> list[Found]:
    found = []
    for home in _homes_in(folder, wrong):
        try:
            content = manifest.read(home / manifest.FILE_NAME)
            found.append(Found(content, home, "folder", str(home)))
        except errors.DwError as error:
            wrong[str(home)] = error
    return found


def _homes_in(folder: Path, wrong: dict[str, errors.DwError]) -> Iterator[Path]:
    """Yield a folder, or the folders of plugins in it; `wrong` has what can't be looked into."""
    try:
        if homes := _homes(folder):
            yield from homes
            return
        inner = sorted(one for one in folder.iterdir() if not one.name.startswith("."))
    except OSError as error:
        text = f"the folder {folder} can't be read: {error.strerror}"
        wrong[str(folder)] = errors.new("plugin.not_found", text, path=folder)
        return
    except errors.DwError as error:
        wrong[str(folder)] = error
        return
    for one in inner:
        try:
            yield from _homes(one)
        except errors.DwError as error:
            wrong[str(one)] = error


def _homes(folder: Path) -> list[Path]:
    """Return a folder if it is a plugin's; of a project the one with the manifest."""
    if _has_manifest(folder):
        return [folder]
    return [one.parent for one in sorted(folder.glob(_IN_SOURCE)) if one.is_file()]


def _installed(path: Sequence[str] | None, wrong: dict[str, errors.DwError]) -> list[Found]:
    search = list(sys.path) if path is None else list(path)
    found: dict[tuple[str, str], Found] = {}
    for distribution in metadata.distributions(path=search):
        place = str(getattr(distribution, "_path", distribution))
        try:
            points = [one for one in distribution.entry_points if one.group == GROUP]
            if not points:
                continue
            name = distribution.metadata["Name"]
            place = f"{name} {distribution.version}"
        except Exception as error:  # noqa: BLE001 - what others install must not stop a kernel
            wrong[place] = _unreadable(place, error)
            continue
        for point in points:
            # A distribution that is on the path twice shadows its second self.
            if (name, point.name) in found:
                continue
            try:
                home = _package_folder(point.value, search)
                one = Found(manifest.read(home / manifest.FILE_NAME), home, "installed", place)
                _agree(one, point.name, distribution.version)
                found[name, point.name] = one
            except errors.DwError as error:
                wrong[place] = error
            except Exception as error:  # noqa: BLE001 - as above: finders are anybody's
                wrong[place] = _unreadable(place, error)
    return list(found.values())


def _unreadable(place: str, error: Exception) -> errors.DwError:
    text = f"{place} can't be read: {type(error).__name__}: {error}"
    return errors.new("plugin.manifest", text, path=place)


def _package_folder(package: str, search: list[str]) -> Path:
    """Return a package's folder without importing it, nor what it is in."""
    first, _, rest = package.partition(":")[0].strip().partition(".")
    spec = machinery.PathFinder.find_spec(first, search)
    if spec is None and search == sys.path:
        # Editable installations have finders of their own.
        finders = [one for one in sys.meta_path if one is not machinery.PathFinder]
        specs = (one.find_spec(first, None) for one in finders if hasattr(one, "find_spec"))
        spec = next((one for one in specs if one is not None), None)
    for place in (spec and spec.submodule_search_locations) or ():
        home = Path(place, *rest.split(".")) if rest else Path(place)
        if _has_manifest(home):
            return home
    text = f"the package {package!r} of an entry point has no {manifest.FILE_NAME}"
    raise errors.new("plugin.manifest", text)


def _agree(found: Found, name: str, version: str) -> None:
    """Hold a manifest against the distribution that brings it."""
    said = found.manifest
    text = ""
    if said.id != name:
        text = f"the entry point calls it {name!r}, and its manifest {said.id!r}"
    elif said.package is not None and _differs(version, said.version):
        text = f"its manifest says version {said.version}, and the distribution {version}"
    if text:
        raise errors.new("plugin.manifest", f"{found.place}: {text}", path=found.home)


def _differs(version: str, said: Version) -> bool:
    try:
        return Version(version) != said
    except InvalidVersion:
        return True
