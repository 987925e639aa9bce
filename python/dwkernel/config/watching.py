"""Watching files: for changes of any kind, with bounded work.

What a file is now, by its inode, size and times, says whether it changed; when to look is said by
`dwkernel._watching`.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dwkernel import errors
from dwkernel._watching import Watching

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Heard", "Look", "Watcher"]

# Nobody hears any more; all was said; somebody did not answer in time.
Heard = Literal["gone", "told", "late"]

# A file that is never quiet is read as often.
_DEBOUNCE_MAX_S = 1.0
_DEBOUNCE_MIN_S = 0.001
# So long after somebody did not answer in time the same is tried again, and at most.
_AGAIN_MIN_S = 1.0
_AGAIN_MAX_S = 60.0

# Of a signature, where the file is there.
_PARTS = 5


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


class Watcher(Watching):
    """A thread that says when one of some files changed."""

    def __init__(self, first: Look, hear: Callable[[], Heard]) -> None:
        """Call `hear` after each change since the first look, until nobody hears any more.

        Where somebody did not answer in time it is called again, later and later.
        """
        super().__init__("dwk-config-watch")
        self._paths = first.paths
        self._hear = hear
        self._debounce_s = first.debounce_s
        self._seen = first.seen
        # When it is called again without a change, and how long it waits after the next try.
        self._again_at: float | None = None
        self._pause_s = _AGAIN_MIN_S
        self.begin()

    def _watch(self) -> None:
        """Watch until the folders are other ones."""
        folders = self._folders()
        with contextlib.closing(self._moments(folders)) as moments:
            for _ in moments:
                if self._stop.is_set():
                    return
                now = self._look()
                if now != self._seen:
                    self._seen, self._pause_s = self._quiet(now), _AGAIN_MIN_S
                    self._tell()
                elif self._again_at is not None and time.monotonic() >= self._again_at:
                    self._tell()
                if self._stop.is_set():
                    return
                if self._folders() != folders:
                    return

    def _tell(self) -> None:
        heard, self._again_at = self._hear(), None
        if heard == "gone":
            self._stop.set()
        elif heard == "late":
            self._again_at = time.monotonic() + self._pause_s
            self._pause_s = min(2 * self._pause_s, _AGAIN_MAX_S)

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
