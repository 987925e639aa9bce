"""Watching files: for changes of any kind, with bounded work.

The system's notices (`watchfiles`) say that something may have changed in a folder; what a file is
now, by its inode, size and times, says whether it did. That is looked at once a second as well, so
nothing is missed that gives no notice: network drives, links into folders elsewhere, folders that
go and come back. Without `watchfiles`, or where the system gives no notices, it is looked at four
times a second.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dwkernel import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

__all__ = ["Look", "Watcher"]

_log = logging.getLogger("dwkernel.config")

_LOOK_EVERY_S = 1.0
_LOOK_ALONE_S = 0.25
# A file that is never quiet is read as often.
_DEBOUNCE_MAX_S = 1.0
_DEBOUNCE_MIN_S = 0.001
# As often `watchfiles` looks whether there was a notice, or whether it is to end.
_STEP_MS = 25
_CLOSE_S = 5.0

# Of a signature, where the file is there.
_PARTS = 5

_watchers: weakref.WeakSet[Watcher] = weakref.WeakSet()


class Look:
    """How some files are, before somebody reads them."""

    def __init__(self, paths: Iterable[Path], debounce_s: float) -> None:
        """Look at files; they are to be quiet for `debounce_s` after a change.

        Raises:
            Invalid: `config.value`: a debounce outside 1 ms to 1 s

        """
        if not _DEBOUNCE_MIN_S <= debounce_s <= _DEBOUNCE_MAX_S:
            raise errors.new("config.value", f"debounce={debounce_s}s is not within 1 ms to 1 s")
        self.paths = list(paths)
        self.debounce_s = debounce_s
        self.seen = _look(self.paths)


class Watcher:
    """A thread that says when one of some files changed."""

    def __init__(self, first: Look, hear: Callable[[], bool]) -> None:
        """Call `hear` after each change since the first look, until it returns False."""
        self._paths = first.paths
        self._hear = hear
        self._debounce_s = first.debounce_s
        self._stop = threading.Event()
        self._seen = first.seen
        self._is_told = False
        self._thread = threading.Thread(target=self._run, name="dwk-config-watch", daemon=True)
        _watchers.add(self)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether it watches."""
        return self._thread.is_alive()

    def close(self, *, wait: bool = True) -> None:
        """End it, and wait until it has."""
        self._stop.set()
        if wait and self._thread is not threading.current_thread():
            self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._watch()
            except Exception:  # noqa: BLE001 - of any platform
                # Folders may go in any moment; what comes then is looked for in the next round.
                _log.debug("watching begins anew", exc_info=True)
                self._stop.wait(_LOOK_ALONE_S)

    def _watch(self) -> None:
        """Watch until the folders are other ones."""
        folders = self._folders()
        with contextlib.closing(self._notices(folders)) as notices:
            for _ in notices:
                if self._stop.is_set():
                    return
                now = self._look()
                if now != self._seen:
                    self._seen = self._quiet(now)
                    if not self._hear():
                        self._stop.set()
                        return
                if self._folders() != folders:
                    return

    def _notices(self, folders: dict[str, Any]) -> Generator[None, None, None]:
        """Iterate over moments to look."""
        notify = self._notify(folders)
        if notify is None:
            while not self._stop.wait(_LOOK_ALONE_S):
                yield
            return
        with notify:
            found: Any = ""
            while found != "stop":
                yield
                found = notify.watch(_STEP_MS, _STEP_MS, int(_LOOK_EVERY_S * 1000), self._stop)

    def _notify(self, folders: dict[str, Any]) -> Any:
        """Return what gives notices of the system, if it can be had."""
        try:
            from watchfiles._rust_notify import RustNotify  # noqa: PLC0415 - documented
        except ImportError:
            return None
        # `watchfiles.watch` would begin with the first notice that is asked for, after the first
        # look: what changes in between would be missed.
        polls, poll_ms, recursive, skips = False, 300, False, False
        try:
            return RustNotify(list(folders), False, polls, poll_ms, recursive, skips)  # noqa: FBT003 - no debugging
        except Exception as error:  # noqa: BLE001 - of any platform
            # Such as that the system has given out all it has.
            if not self._is_told:
                text = "the system gives no notices (%s): files are looked at instead, %g s apart"
                _log.warning(text, error, _LOOK_ALONE_S)
            self._is_told = True
            return None

    def _quiet(self, now: list[Any]) -> list[Any]:
        """Wait until the files have been as they are for a while; return how that is."""
        began = last = time.monotonic()
        while (moment := time.monotonic()) - began < _DEBOUNCE_MAX_S:
            # How long ago a file changed it says itself; one that is gone does not.
            quiet_s = max(moment - last, _age_s(now))
            if quiet_s >= self._debounce_s or self._stop.wait(self._debounce_s - quiet_s):
                break
            before, now = now, self._look()
            if now != before:
                last = time.monotonic()
        return now

    def _look(self) -> list[Any]:
        return _look(self._paths)

    def _folders(self) -> dict[str, Any]:
        """Return the folders in which things happen, and their inodes: they may be replaced."""
        found: dict[str, Any] = {}
        for path in self._paths:
            for place in (path, Path(os.path.realpath(path))):
                folder = next((one for one in place.parents if one.is_dir()), None)
                if folder is not None:
                    found[str(folder)] = _signature(folder)[:2]
        return found


def _look(paths: Iterable[Path]) -> list[Any]:
    return [(_signature(path, follow=False), _signature(path)) for path in paths]


def _age_s(looked: list[Any]) -> float:
    """Return how long ago the youngest of the files changed; 0 if one is gone."""
    found = [one for pair in looked for one in pair]
    if any(len(one) != _PARTS for one in found):
        return 0.0
    return time.time() - max((one[-1] for one in found), default=0) / 1e9


def _signature(path: Path, *, follow: bool = True) -> tuple[Any, ...]:
    try:
        found = os.stat(path, follow_symlinks=follow)  # noqa: PTH116 - both kinds alike
    except OSError as error:
        return error.errno, 0
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@atexit.register
def _end() -> None:
    """End all before the interpreter does: a thread in compiled code must not come back later."""
    for watcher in list(_watchers):
        watcher._stop.set()  # noqa: SLF001 - of this module
    for watcher in list(_watchers):
        watcher.close()
