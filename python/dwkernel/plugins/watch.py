"""Reloading plugins when their files change: for people who are writing one."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from dwkernel import errors
from dwkernel.plugins import tree

if TYPE_CHECKING:
    from pathlib import Path

    from dwkernel.plugins.manager import Plugins

__all__ = ["Watcher"]

_logger = logging.getLogger("dwkernel.plugins")
_QUIET_MS = 100
_MOST_MS = 1000
# How soon it notices plugins that were loaded since.
_LOOK_MS = 500
_JOIN_S = 5.0


class Watcher:
    """Reloads the plugins of folders after each change, on a thread of its own.

    A version that does not load is told in the log and in `info`, and the old one runs on.
    """

    def __init__(self, plugins: Plugins) -> None:
        """Begin to watch.

        Raises:
            Unsupported: `plugin.sandbox` is not among them: without `watchfiles` it is
                `plugin.load`, Invalid

        """
        try:
            import watchfiles  # noqa: F401, PLC0415 - who develops pays for it
        except ImportError as error:
            text = "watching needs watchfiles: pip install watchfiles"
            raise errors.new("plugin.load", text) from error
        self._plugins = plugins
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dwk-plugins-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self._end.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(_JOIN_S)

    def _run(self) -> None:
        import watchfiles  # noqa: PLC0415 - as above

        while not self._end.is_set():
            homes = self._homes()
            if not homes:
                self._end.wait(_LOOK_MS / 1000)
                continue
            missed = True
            for changes in watchfiles.watch(
                *homes,
                stop_event=self._end,
                debounce=_MOST_MS,
                step=_QUIET_MS,
                rust_timeout=_LOOK_MS,
                yield_on_timeout=True,
                raise_interrupt=False,
            ):
                changed = {path for _, path in changes}
                for home, name in homes.items():
                    is_changed = any(path.startswith(f"{home}/") for path in changed)
                    if is_changed or (missed and self._differs(home, name)):
                        self._reload(name)
                missed = False
                if self._homes() != homes:
                    break

    def _differs(self, home: Path, name: str) -> bool:
        """Return whether files changed between loading and watching."""
        try:
            return tree.look(home).hash != self._plugins.info(name).hash
        except errors.DwError:
            return False  # half written or closed: a change follows, or nothing does

    def _homes(self) -> dict[Path, str]:
        """Return the folders of the plugins that run."""
        return self._plugins.homes()

    def _reload(self, name: str) -> None:
        try:
            report = self._plugins.reload(name)
        except errors.DwError as error:
            _logger.warning("%s was not reloaded: %s", name, error)
        except Exception:
            _logger.exception("reloading %s failed", name)
        else:
            _logger.info("%s", report)
