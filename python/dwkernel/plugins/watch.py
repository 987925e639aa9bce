"""Reloading plugins when their files change: for people who are writing one."""

from __future__ import annotations

import contextlib
import logging
import time
import weakref
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel._watching import Watching
from dwkernel.plugins import tree

if TYPE_CHECKING:
    from pathlib import Path

    from dwkernel.plugins.manager import Plugins

__all__ = ["Watcher"]

_logger = logging.getLogger("dwkernel.plugins")
# For so long nothing must have been written; files that never rest are taken as often as the other.
_QUIET_S = 0.1
_MOST_S = 1.0


class Watcher(Watching):
    """Reloads the plugins of folders after each change, on a thread of its own.

    A version that does not load is told in the log and in `info`, and the old one runs on. It ends
    with the plugins, if nobody uses them any more.
    """

    def __init__(self, plugins: Plugins) -> None:
        """Begin to watch."""
        super().__init__("dwk-plugins-watch")
        self._plugins = weakref.ref(plugins)
        # How the files of each folder looked when they were last looked at.
        self._seen: dict[Path, Any] = {}
        self.begin()

    def _watch(self) -> None:
        homes = self._homes()
        folders = _folders(homes)
        self._seen = {home: seen for home, seen in self._seen.items() if home in homes}
        with contextlib.closing(self._moments(folders, recursive=True)) as moments:
            for _ in moments:
                for home, name in homes.items():
                    if not self._stop.is_set() and self._is_new(home, name):
                        self._reload(name)
                homes_now = self._homes()
                if homes_now != homes or _folders(homes_now) != folders:
                    return

    def _homes(self) -> dict[Path, str]:
        """Return the folders of the plugins that run."""
        plugins = self._plugins()
        if plugins is None:
            self._stop.set()
            return {}
        return plugins.homes()

    def _is_new(self, home: Path, name: str) -> bool:
        """Return whether files changed and are not what runs."""
        looked = _look(home)
        if home in self._seen:
            if looked == self._seen[home]:
                return False
            looked = self._quiet(home, looked)
        self._seen[home] = looked
        plugins = self._plugins()
        if plugins is None:
            return False
        try:
            info = plugins.info(name)
            # After a failure what runs is loaded once more: nobody shall read an old error.
            return info.error is not None or tree.look(home).hash != info.hash
        except errors.DwError:
            return True  # the reload says what is wrong

    def _quiet(self, home: Path, looked: Any) -> Any:
        """Wait until files have been as they are for a while; return how that is."""
        end = time.monotonic() + _MOST_S
        while time.monotonic() < end and not self._stop.wait(_QUIET_S):
            before, looked = looked, _look(home)
            if looked == before:
                break
        return looked

    def _reload(self, name: str) -> None:
        plugins = self._plugins()
        if plugins is None:
            return
        try:
            report = plugins.reload(name)
        except errors.DwError as error:
            _logger.warning("%s was not reloaded: %s", name, error)
        except Exception:
            _logger.exception("reloading %s failed", name)
        else:
            _logger.info("%s", report)


def _folders(homes: dict[Path, str]) -> dict[str, tuple[int, int]]:
    """Return the folders that are there, and their inodes: they may be replaced."""
    found = {}
    for home in homes:
        with contextlib.suppress(OSError):
            about = home.stat()
            found[str(home)] = about.st_dev, about.st_ino
    return found


def _look(home: Path) -> Any:
    """Return what tells one state of a folder's files from another; as text why it can't be had."""
    try:
        return tree.signature(home)
    except errors.DwError as error:
        return str(error)
