"""Those who want to hear of changes: asked first, all of them, and then told, in order.

All of it runs on threads of its own, so that one who hangs holds up nothing but itself. Who has not
returned from a call is *busy*; a change that concerns somebody busy is refused at once, so no
thread is ever added to one that hangs.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from dwkernel import errors
from dwkernel._latch import Latch
from dwkernel.config.layers import dotted
from dwkernel.config.looking import MISSING, value_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from dwkernel.config.layers import Route
    from dwkernel.config.sections import Config

__all__ = ["Board", "Subscriber", "Told", "ask", "is_inside", "refuse_inside", "tell", "tell_back"]

_log = logging.getLogger("dwkernel.config")

# Another thread helps whenever not all have answered after so long.
_HELP_AFTER_S = 0.02
_HELPERS_MAX = 32
# While rolling back each one who hangs is waited for no longer.
_BACK_TIMEOUT_S = 1.0


class _Thread(threading.Thread):
    """A thread that calls subscribers."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__(target=work, name="dwk-config-call", daemon=True)


def is_inside() -> bool:
    """Return whether this is a subscriber's call."""
    return isinstance(threading.current_thread(), _Thread)


def refuse_inside() -> None:
    """Refuse a change out of a subscriber's call: it would wait for itself.

    Raises:
        Conflict: `config.refused`

    """
    if is_inside():
        text = "a subscriber that is being told of a change cannot make another one in its call"
        raise errors.new("config.refused", text)


class Subscriber:
    """Somebody who wants to hear of what is at a path and below."""

    def __init__(
        self,
        route: Route,
        callback: Callable[[Any, Any], object],
        prepare: Callable[[Any, Any], object] | None,
    ) -> None:
        """Take a callback, and what may refuse before."""
        self.route = route
        self.callback = callback
        self.prepare = prepare
        self.is_gone = False
        self.is_busy = False

    def __str__(self) -> str:
        """Name it: by its path and its function."""
        name = getattr(self.callback, "__qualname__", type(self.callback).__name__)
        return f"{name} on {dotted(self.route) or 'everything'}"


class Told(NamedTuple):
    """What a subscriber is told."""

    subscriber: Subscriber
    old: Any
    new: Any


class Board:
    """All subscribers, in the order of their subscription."""

    def __init__(self) -> None:
        """Begin with none."""
        self._lock = threading.Lock()
        self._all: tuple[Subscriber, ...] = ()

    def add(self, subscriber: Subscriber) -> Callable[[], None]:
        """Take one in; returns what takes it out."""
        with self._lock:
            self._all = (*self._all, subscriber)

        def unsubscribe() -> None:
            subscriber.is_gone = True
            with self._lock:
                self._all = tuple(one for one in self._all if one is not subscriber)

        return unsubscribe

    def held(self) -> threading.Lock:
        """Return what lets nobody subscribe while it is held."""
        return self._lock

    def concerned(self, old: Config, new: Config) -> list[Told]:
        """Return whom a change concerns, with what they are told."""
        found = []
        # Many subscribe to the same paths.
        looked: dict[Route, tuple[Any, Any] | None] = {}
        for one in self._all:
            if one.route not in looked:
                pair = _at(old, one.route), _at(new, one.route)
                looked[one.route] = None if pair[0] == pair[1] else pair
            values = looked[one.route]
            if values is not None:
                found.append(Told(one, *values))
        return found

    def forked(self) -> None:
        """Begin anew in a forked child: whoever is busy is so in the parent."""
        self._lock = threading.Lock()
        for one in self._all:
            one.is_busy = False

    def stuck(self) -> list[str]:
        """Return the names of those who have not returned from a call."""
        return [str(one) for one in self._all if one.is_busy]


def _at(config: Config, route: Route) -> Any:
    value = value_at(config, route)
    return None if value is MISSING else value


def _late(names: Iterable[Subscriber]) -> errors.DwError:
    listed = ", ".join(str(one) for one in names)
    text = f"not in time, or still busy with the change before: {listed}"
    return errors.new("config.timeout", text, subscribers=listed)


def _refused(refusals: Sequence[tuple[Subscriber, BaseException]]) -> errors.DwError:
    told = "; ".join(f"{one}: {_said(error)}" for one, error in refusals)
    listed = ", ".join(str(one) for one, _ in refusals)
    return errors.new("config.refused", f"refused by {told}", subscribers=listed)


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


class _Asking:
    """Everybody with a `prepare` is asked, by one thread, and by more if somebody is slow."""

    def __init__(self, told: Sequence[Told]) -> None:
        self.todo = deque(one for one in told if one.subscriber.prepare is not None)
        self.lock = threading.Lock()
        self.answered = Latch()
        self.asked: list[Subscriber] = []
        self.left = len(self.todo)
        self.refusals: list[tuple[Subscriber, BaseException]] = []
        self.helpers = 0
        self.is_over = False

    def help(self) -> None:
        # Nobody is called before the thread has begun: who interrupts that would leave it halfway.
        with self.lock:
            if self.todo and self.helpers < _HELPERS_MAX:
                self.helpers += 1
                _Thread(self.work).start()

    def work(self) -> None:
        while True:
            with self.lock:
                if self.is_over or not self.todo:
                    return
                one = self.todo.popleft()
                self.asked.append(one.subscriber)
                one.subscriber.is_busy = True
            refusal = _called(one.subscriber.prepare, one.old, one.new)
            with self.lock:
                one.subscriber.is_busy = False
                self.asked.remove(one.subscriber)
                self.left -= 1
                if refusal is not None and not one.subscriber.is_gone:
                    self.refusals.append((one.subscriber, refusal))
                if not self.left:
                    self.answered.open()

    def run(self, timeout_s: float) -> None:
        try:
            self._run(timeout_s)
        finally:
            # Also after an interruption.
            self.is_over = True

    def _run(self, timeout_s: float) -> None:
        if not self.left:
            return
        end = time.monotonic() + timeout_s
        self.help()
        while not self.answered.wait(min(_HELP_AFTER_S, end - time.monotonic())):
            if time.monotonic() >= end:
                break
            self.help()
        with self.lock:
            self.is_over = True
            late = [*self.asked, *(one.subscriber for one in self.todo)]
            if self.refusals:
                raise _refused(self.refusals)
            if self.left and late:
                raise _late(late)


def _called(call: Callable[[Any, Any], object] | None, old: Any, new: Any) -> BaseException | None:
    try:
        if call is not None:
            call(old, new)
    except BaseException as error:  # noqa: BLE001 - also `sys.exit` is a refusal
        return error
    return None


def ask(told: Sequence[Told], timeout_s: float) -> None:
    """Ask everybody who wants to be asked.

    Raises:
        Conflict: `config.refused`: with the reasons of all who refuse
        Timeout: `config.timeout`: with the names of those who did not answer in time

    """
    busy = [one.subscriber for one in told if one.subscriber.is_busy]
    if busy:
        raise _late(busy)
    _Asking(told).run(timeout_s)


class _Telling:
    """One thread tells everybody in order, until one raises or hangs."""

    def __init__(self, told: Sequence[Told], done: list[Told], *, is_back: bool) -> None:
        self.told = told
        self.is_back = is_back
        self.lock = threading.Lock()
        self.ended = Latch()
        self.done = done
        self.at: Told | None = None
        self.error: BaseException | None = None
        self.is_over = False

    def work(self) -> None:
        for one in self.told:
            with self.lock:
                if self.is_over:
                    return
                if one.subscriber.is_gone:
                    continue
                self.at = one
                one.subscriber.is_busy = True
            error = _called(one.subscriber.callback, one.old, one.new)
            if not self._returned(one, error):
                return
        with self.lock:
            self._end()

    def _returned(self, one: Told, error: BaseException | None) -> bool:
        with self.lock:
            is_late = self.is_over
            if not is_late:
                one.subscriber.is_busy = False
                self.done.append(one)
                self.at = None
                if error is None or self.is_back:
                    if error is not None:
                        _log.error("%s raised while rolling back: %s", one.subscriber, _said(error))
                    return True
                self.error = error
                self._end()
                return False
        # Nobody waits any more: the change was rolled back meanwhile, so it is told that, too.
        if not self.is_back and not one.subscriber.is_gone:
            _called(one.subscriber.callback, one.new, one.old)
        one.subscriber.is_busy = False
        return False

    def _end(self) -> None:
        if not self.is_over:
            self.is_over = True
            self.ended.open()

    def run(self, timeout_s: float) -> None:
        """Tell everybody; afterwards `at` is who hangs, `error` what somebody raised."""
        with self.lock:
            _Thread(self.work).start()
        self.ended.wait(timeout_s)
        with self.lock:
            self.is_over = True


def tell(told: Sequence[Told], timeout_s: float, done: list[Told]) -> BaseException | None:
    """Tell everybody, in order; return what went wrong, if anything. `done` has who was told.

    An interruption (Ctrl-C) is returned, too: what was told has to be taken back first.
    """
    if not told:
        return None
    telling = _Telling(told, done, is_back=False)
    try:
        telling.run(timeout_s)
    except BaseException as interruption:  # noqa: BLE001 - raised by who takes it back
        with telling.lock:
            telling.is_over = True
            return interruption
    if telling.error is not None:
        return _refused([(done[-1].subscriber, telling.error)])
    if telling.at is not None:
        return _late([telling.at.subscriber])
    reached = {id(one.subscriber) for one in done}
    late = [one.subscriber for one in told if id(one.subscriber) not in reached]
    late = [one for one in late if not one.is_gone]
    return _late(late) if late else None


def tell_back(told: Sequence[Told]) -> None:
    """Tell those who were told a change that it was rolled back, the last one first."""
    rest = [Told(one.subscriber, one.new, one.old) for one in reversed(told)]
    while rest:
        telling = _Telling(rest, [], is_back=True)
        telling.run(_BACK_TIMEOUT_S)
        settled = {id(one.subscriber) for one in telling.done}
        if telling.at is not None:
            _log.error("%s hangs while rolling back", telling.at.subscriber)
            settled.add(id(telling.at.subscriber))
        left = [one for one in rest if id(one.subscriber) not in settled]
        rest = [one for one in left if not one.subscriber.is_gone]
