"""What a plugin may say to its kernel; see the package."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from .wire import Plain

__all__ = ["cancelled", "emit", "log"]

_LINE_CHARACTERS = 4096


class Kernel:
    """The way to the kernel, where there is one: `serve` makes it."""

    send_event: Callable[[str, Plain], None] | None = None
    is_cancelled: Callable[[], bool] | None = None


kernel = Kernel()


def emit(name: str, data: Plain = None) -> None:
    """Tell the kernel something.

    Args:
        name: what it is about, at most 100 characters.
        data: plain data, at most 60 KiB of it.

    Raises:
        ValueError: the data is not plain, or too long

    Who tells more than 400 things a second waits here for the next second.
    """
    if kernel.send_event is not None:
        kernel.send_event(name, data)


def log(text: str, level: str = "info") -> None:
    """Say a line for the kernel's log; `level` is debug, info, warning or error."""
    emit("log", {"level": level, "text": text[:_LINE_CHARACTERS]})


def cancelled() -> bool:
    """Return whether nobody waits any more for the call that this thread works at."""
    return kernel.is_cancelled is not None and kernel.is_cancelled()
