"""The last lines that a process printed, however much that was."""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Printed"]

_LINES = 100
_LINE_BYTES = 1000


class Printed:
    """Reads a pipe a piece at a time; what is not read yet makes who prints wait."""

    def __init__(self, descriptor: int) -> None:
        """Take the reading end of a pipe."""
        os.set_blocking(descriptor, False)
        self.descriptor = descriptor
        self.ended = False
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._fresh: deque[str] = deque(maxlen=_LINES)
        self._rest = b""

    def read(self, bytes_max: int) -> None:
        """Take at most so much of what is there."""
        try:
            data = os.read(self.descriptor, bytes_max)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.ended = not data
        *whole, rest = (self._rest + data).split(b"\n")
        for line in whole[-_LINES:]:
            self._lines.append(_text(line))
            self._fresh.append(_text(line))
        # The beginning of an endless line says more than its middle.
        self._rest = rest[:_LINE_BYTES]
        if self.ended and self._rest:
            self._fresh.append(_text(self._rest))

    @property
    def is_fresh(self) -> bool:
        """Whether there are lines that `fresh` did not give yet."""
        return bool(self._fresh)

    def fresh(self) -> Iterator[str]:
        """Yield the lines since the last time; of very many the last."""
        while self._fresh:
            yield self._fresh.popleft()

    @property
    def lines(self) -> tuple[str, ...]:
        """The last lines, an unfinished one among them."""
        rest = self._rest
        return (*self._lines, _text(rest)) if rest else tuple(self._lines)


def _text(line: bytes) -> str:
    return line[:_LINE_BYTES].decode("utf-8", "replace").rstrip("\r")
