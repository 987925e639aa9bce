"""Using what stands at a path: now, and after each change."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from dwkernel.config.layers import route_of
from dwkernel.config.looking import value_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwkernel.config.manager import Configuration

__all__ = ["follow"]


def follow(
    configuration: Configuration, path: str, use: Callable[[Any], object]
) -> Callable[[], None]:
    """Have `use` called with what is at a path now, and after each change; return what ends that.

    The last value that it is called with is the one that counts, whatever changes meanwhile: it is
    subscribed before it is read, and called by one thread at a time.
    """
    lock = threading.Lock()

    def renew(old: Any, new: Any) -> None:
        del old
        with lock:
            use(new)

    stop = configuration.on_change(path, renew)
    try:
        with lock:
            use(value_at(configuration.current, route_of(path)))
    except BaseException:
        stop()
        raise
    return stop
