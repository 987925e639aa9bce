"""The place that callers go through, so that what they call can be exchanged under them.

>>> from dwkernel.plugins.swap import Slot
>>> slot = Slot("old")
>>> with slot.use() as instance:
...     old = slot.swap("new")  # nobody waits for it
...     slot.drain(old, 0.0), instance
(['MainThread'], 'old')
>>> slot.drain(old, 1.0), slot.use().__enter__()
([], 'new')

A caller writes itself down at what it found, and then looks whether that is still what is there; if
not it goes on to the next. So once a swap has happened, whoever is not written down at the old
instance will not come to use it, and a drain waits for those who are. Both steps are one operation
of a dict and one of an attribute; nobody holds a lock.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from dwkernel._latch import Condition, Latch

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from dwkernel import errors

__all__ = ["Held", "Slot", "Use"]

T = TypeVar("T")
_get_ident = threading.get_ident
_LOST_REFERENCES = 4


class Held(Generic[T]):
    """An instance with those who use it.

    Attributes:
        instance: what they use.
        is_open: whether new ones get in without further questions.
        users: who is in, with the thread that it came on.
        kept: what callers made of the instance, by who did; it goes with it. Who makes something
            has `renewed(instance, made)`, which makes it of the next instance.

    """

    __slots__ = ("__weakref__", "empty", "instance", "is_open", "is_watched", "kept", "users")

    def __init__(self, instance: T, kept: dict[Any, Any] | None = None) -> None:
        """Hold an instance."""
        self.instance = instance
        self.is_open = True
        self.is_watched = False
        self.users: dict[Use[T], int] = {}
        self.kept: dict[Any, Any] = {} if kept is None else kept
        self.empty = Latch()


class Use(Generic[T]):
    """One use of what is in a slot, as a context manager."""

    __slots__ = ("_held", "_slot")

    def __init__(self, slot: Slot[T]) -> None:
        """Made by `Slot.use`."""
        self._slot = slot

    @property
    def held(self) -> Held[T]:
        """What is used, within the `with`."""
        return self._held

    def __enter__(self) -> T:
        """Return the instance, which stays as it is until the end."""
        slot = self._slot
        held = slot._held  # noqa: SLF001 - two halves of one thing
        held.users[self] = _get_ident()
        if held.is_open and slot._held is held:  # noqa: SLF001 - as above
            self._held = held
            return held.instance
        _leave(held, self)
        held = self._held = slot._enter(self)  # noqa: SLF001 - as above
        return held.instance

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let it go."""
        held = self._held
        del self._held
        del held.users[self]
        if held.is_watched and not held.users:
            held.empty.open()


def _leave(held: Held[Any], use: Use[Any]) -> None:
    held.users.pop(use, None)
    if held.is_watched and not held.users:
        held.empty.open()


class Slot(Generic[T]):
    """Holds an instance that callers use and others exchange, at the same time.

    Safe from any thread. A use is never cut short, and none fails because of a swap. Uses wait
    only while the slot is frozen.
    """

    def __init__(self, instance: T) -> None:
        """Begin with an instance."""
        self._held = Held(instance)
        self._lock = self._change = Condition()
        self._refusal: Callable[[], errors.DwError] | None = None
        self._frozen = False

    def use(self) -> Use[T]:
        """Return a context manager that gives what is there.

        Entering it raises what `refuse` was told, while it refuses.
        """
        return Use(self)

    @property
    def held(self) -> Held[T]:
        """What is there, with those who use it."""
        return self._held

    @property
    def is_open(self) -> bool:
        """Whether it refuses nobody; a frozen one lets everybody in, in a moment."""
        return self._refusal is None

    @property
    def is_paused(self) -> bool:
        """Whether it refuses for a reason that is no failure."""
        refusal = self._refusal
        return refusal is not None and refusal().code == "plugin.state"

    @property
    def in_flight(self) -> int:
        """How many use what is there now."""
        return len(self._held.users)

    def swap(self, instance: T, kept: dict[Any, Any] | None = None) -> Held[T]:
        """Put an instance in the place of the one that is there, which is returned to be drained.

        A slot that was frozen goes on with the new one; one that refuses refuses on.

        Args:
            instance: the new one.
            kept: what was made of it already.

        """
        fresh = Held(instance, kept)
        with self._lock:
            fresh.is_open = self._refusal is None
            old, self._held = self._held, fresh
            self._frozen = False
            self._change.notify_all()
        return old

    def drain(self, old: Held[T], limit_s: float) -> list[str]:
        """Wait until nobody uses an instance that was swapped out, or the slot is frozen.

        Returns:
            The names of the threads that still do after `limit_s` seconds; empty if none.

        """
        return _drained(old, limit_s)

    def freeze(self, limit_s: float) -> bool:
        """Let new uses wait, and those that are under way end.

        A use within a use, on the same thread, does not wait: the outer one could not end.

        Returns:
            Whether nobody is in; if not, it is open again.

        """
        with self._lock:
            if self._frozen:
                return False
            self._frozen = True
            held = self._held
            held.is_open = False
        is_empty = False
        try:
            is_empty = not _drained(held, limit_s)
        finally:
            if not is_empty:
                self.thaw()
        return is_empty

    def thaw(self) -> None:
        """Let those who wait in, to the instance that is there."""
        with self._lock:
            self._frozen = False
            self._held.is_open = self._refusal is None
            self._change.notify_all()

    def refuse(self, refusal: Callable[[], errors.DwError] | None) -> None:
        """Let new uses fail with an error that a function makes; None lets them in again."""
        with self._lock:
            self._refusal = refusal
            self._held.is_open = refusal is None and not self._frozen
            self._change.notify_all()

    def _enter(self, use: Use[T]) -> Held[T]:
        """Get in where a first look did not suffice."""
        try:
            return self._entered(use)
        except BaseException:
            # Ctrl-C between getting in and being told so: nobody would leave.
            _leave(self._held, use)
            raise

    def _entered(self, use: Use[T]) -> Held[T]:
        own = _get_ident()
        with self._lock:
            while True:
                held = self._held
                # A list of a dict's values is made at once.
                is_nested = own in list(held.users.values())
                if self._refusal is not None and not is_nested:
                    raise self._refusal()
                if not self._frozen or is_nested:
                    held.users[use] = own
                    return held
                self._change.wait()


def _drained(held: Held[Any], limit_s: float) -> list[str]:
    end = time.monotonic() + limit_s
    held.is_watched = True
    _forget_lost(held)
    try:
        while held.users:
            held.empty = Latch()
            if not held.users:
                break
            left = end - time.monotonic()
            if left <= 0:
                break
            held.empty.wait(left)
        _forget_lost(held)
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        return sorted({names.get(one, "a thread that ended") for one in list(held.users.values())})
    finally:
        held.is_watched = False


def _forget_lost(held: Held[Any]) -> None:
    """Let go of uses that nobody has any more: Ctrl-C came just before they would have left."""
    for use in list(held.users):
        # The dict, the list, the name and the argument; a `with` that is under way has it, too.
        if sys.getrefcount(use) <= _LOST_REFERENCES:
            held.users.pop(use, None)
