"""What plugins there are to choose from, for a manager."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from dwkernel import errors
from dwkernel.plugins import discovery
from dwkernel.plugins.fitting import near

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dwkernel.plugins.discovery import Discovery, Found
    from dwkernel.plugins.manifest import Manifest
    from dwkernel.plugins.settings import PluginsSection

__all__ = ["Catalogue", "may_follow"]


class Catalogue:
    """What was found in folders and distributions, and the folders that somebody named."""

    def __init__(self, section: Callable[[], PluginsSection]) -> None:
        """Look for nothing yet."""
        self._section = section
        self._discovery: Discovery | None = None
        self._named: dict[str, Found] = {}

    def found(self) -> Discovery:
        """Return what is in folders and distributions, as it was when it was first asked for."""
        found = self._discovery
        if found is None:
            section = self._section()
            path = None if section.installed else ()
            found = self._discovery = discovery.discover(section.folders, path)
        return found

    def refresh(self) -> None:
        """Look anew when it is asked next."""
        self._discovery = None

    def ids(self) -> set[str]:
        """Return the ids of all."""
        return {*self.found().plugins, *self._named}

    def candidates(self, running: Mapping[str, Found]) -> dict[str, list[Manifest]]:
        """Return all versions that are there; of those that run, the one that does."""
        found = {
            name: [one.manifest for one in several]
            for name, several in self.found().plugins.items()
        }
        found |= {name: [one.manifest] for name, one in self._named.items()}
        return found | {name: [one.manifest] for name, one in running.items()}

    def newest(self, plugin_id: str) -> Found:
        """Return the newest version of a plugin.

        Raises:
            NotFound: `plugin.not_found`
            Exists: `plugin.exists`

        """
        if plugin_id in self._named:
            return self._named[plugin_id]
        found = self.found()
        if plugin_id in found.wrong:
            raise found.wrong[plugin_id].with_traceback(None)
        if plugin_id not in found.plugins:
            # One whose manifest is wrong has no id: it may be the one.
            places = f" ({len(found.wrong)} can't be used: check() says why)" if found.wrong else ""
            text = f"no plugin has the id {plugin_id!r}{near(plugin_id, self.ids())}{places}"
            raise errors.new("plugin.not_found", text, id=plugin_id)
        return found.plugins[plugin_id][-1]

    def of(self, manifest: Manifest) -> Found:
        """Return what a manifest was read from."""
        if manifest.id in self._named:
            return self._named[manifest.id]
        several = self.found().plugins[manifest.id]
        return next(one for one in several if one.manifest.version == manifest.version)

    def known(self, path_or_id: str | os.PathLike[str], running: Mapping[str, Found]) -> str:
        """Return the id of what is meant; a folder is known from now on.

        Raises:
            NotFound: `plugin.not_found`
            Exists: `plugin.exists`: that id is in another place, too
            Invalid: `plugin.manifest`

        """
        text = os.fspath(path_or_id)
        if isinstance(path_or_id, str) and not {"/", os.sep} & set(text):
            if text not in running:
                # As it is now: what did not begin may have been mended.
                now = self.again(text, None, None)
                if text in self._named:
                    self.name(now)
            return text
        found = discovery.at(Path(text))
        known = self.found().plugins.get(found.id, [])
        if any(_is_same(one, found) for one in known):
            return found.id
        for other in (self._named.get(found.id), running.get(found.id), *known):
            if other is not None and not _is_same(other, found):
                text = f"{other.place} and {found.place}"
                raise errors.new(
                    "plugin.exists", f"{found.id} is in {text}", id=found.id, places=text
                )
        self._named[found.id] = found
        return found.id

    def name(self, found: Found) -> None:
        """Take a folder as the place of a plugin from now on."""
        self._named[found.id] = found

    def again(
        self, plugin_id: str, source: str | os.PathLike[str] | None, now: Found | None
    ) -> Found:
        """Return what is to run next: at a place, or where the plugin is, as it is now.

        Raises:
            NotFound: `plugin.not_found`: another plugin is there, or none
            Exists: `plugin.exists`
            Invalid: `plugin.manifest`

        """
        if source is not None:
            return _same_id(discovery.at(Path(source)), plugin_id)
        self.refresh()
        named = self._named.get(plugin_id)
        if named is not None and named.home is not None:
            return _same_id(discovery.at(named.home), plugin_id)
        if now is not None and now.home is not None and plugin_id not in self.found().plugins:
            # Where it is, there may be a manifest that says what is wrong.
            return _same_id(discovery.at(now.home), plugin_id)
        # A folder of versions side by side may have a newer one by now.
        return self.newest(plugin_id)


def _is_same(one: Found, other: Found) -> bool:
    try:
        return bool(one.home and other.home and one.home.samefile(other.home))
    except OSError:
        return False  # one of them is gone


def _same_id(found: Found, plugin_id: str) -> Found:
    if found.id != plugin_id:
        text = f"{found.place} holds {found.id}, and not {plugin_id}"
        raise errors.new("plugin.not_found", text, id=plugin_id)
    return found


def may_follow(old: Manifest, new: Manifest, *, downgrade: bool) -> None:
    """Hold a version against the one that it is to follow.

    Raises:
        State: `plugin.state`: it is older, or can't read the state of the other

    """
    if new.version < old.version and not (downgrade or new.downgrades):
        text = f"{new.id} {new.version} is older than {old.version}, which runs"
        text += ": say downgrade=True if that is meant"
        raise errors.new("plugin.state", text, id=new.id)
    if old.state_version and old.state_version not in new.state_reads:
        reads = ", ".join(map(str, new.state_reads)) or "none"
        text = f"{new.id} {new.version} reads state of the versions {reads}"
        text += f", and that of {old.version} has the version {old.state_version}"
        raise errors.new("plugin.state", text, id=new.id)
