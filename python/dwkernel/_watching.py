"""A thread that looks at files when something happened where they are, and once in a while.

The system's notices (`watchfiles`) say that something may have changed in a folder; whether it did
is for those who look. They look once a second as well, so nothing is missed that gives no notice:
network drives, links into folders elsewhere, folders that go and come back. Without `watchfiles`,
or where the system gives no notices, they look four times a second.
"""

from __future__ import annotations

import atexit
import logging
import threading
import weakref
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

__all__ = ["Watching"]

_log = logging.getLogger("dwkernel")

_LOOK_EVERY_S = 1.0
_LOOK_ALONE_S = 0.25
# As often `watchfiles` looks whether there was a notice, or whether it is to end.
_STEP_MS = 25
_CLOSE_S = 5.0

_all: weakref.WeakSet[Watching] = weakref.WeakSet()


class Watching(ABC):
    """Watches on a thread of its own, until it is closed or the program ends."""

    def __init__(self, name: str) -> None:
        """Be ready; `begin` begins."""
        self._stop = threading.Event()
        self._is_told = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def is_alive(self) -> bool:
        """Whether it watches."""
        return self._thread.is_alive()

    def begin(self) -> None:
        """Begin to watch."""
        _all.add(self)
        self._thread.start()

    def close(self, *, wait: bool = True) -> None:
        """End it, and wait until it has."""
        self._stop.set()
        if wait and self._thread is not threading.current_thread():
            self._thread.join(_CLOSE_S)

    @abstractmethod
    def _watch(self) -> None:
        """Watch until there is something else to watch; called again until it is stopped."""

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._watch()
            except Exception:  # noqa: BLE001 - of any platform
                # Folders may go in any moment; what comes then is looked for in the next round.
                _log.debug("%s begins anew", self._thread.name, exc_info=True)
                self._stop.wait(_LOOK_ALONE_S)

    def _moments(
        self, folders: Iterable[str], *, recursive: bool = False
    ) -> Generator[None, None, None]:
        """Iterate over moments to look, until it is stopped; they are watched before the first."""
        notify = self._notify(list(folders), recursive=recursive)
        if notify is None:
            while not self._stop.is_set():
                yield
                self._stop.wait(_LOOK_ALONE_S)
            return
        with notify:
            found: Any = ""
            while found != "stop":
                yield
                found = notify.watch(_STEP_MS, _STEP_MS, int(_LOOK_EVERY_S * 1000), self._stop)

    def _notify(self, folders: list[str], *, recursive: bool) -> Any:
        """Return what gives notices of the system, if it can be had."""
        try:
            from watchfiles._rust_notify import RustNotify  # noqa: PLC0415 - documented
        except ImportError:
            return None
        # `watchfiles.watch` would begin with the first notice that is asked for, after the first
        # look: what changes in between would be missed.
        polls, poll_ms, skips = False, 300, False
        try:
            return RustNotify(folders, False, polls, poll_ms, recursive, skips)  # noqa: FBT003 - no debugging
        except Exception as error:  # noqa: BLE001 - of any platform
            # Such as that the system has given out all it has.
            if not self._is_told:
                text = "the system gives no notices (%s): files are looked at instead, %g s apart"
                _log.warning(text, error, _LOOK_ALONE_S)
            self._is_told = True
            return None


@atexit.register
def _end() -> None:
    """End all before the interpreter does: a thread in compiled code must not come back later."""
    for one in list(_all):
        one._stop.set()  # noqa: SLF001 - of this module
    for one in list(_all):
        one.close()
