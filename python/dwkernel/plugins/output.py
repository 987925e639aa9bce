"""What plugins print: it is kept with the plugin, and does not go where the program prints."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections import deque
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Log", "captured", "put_streams", "streams"]

_LINES_MAX = 500
_LETTERS_MAX = 2000
_STREAMS = ("stdout", "stderr", "stdin")


class Log:
    """The last lines of a plugin: what it printed, and what the kernel noticed of it.

    They go to the logger `dwkernel.plugins.ID`, too: printed ones as INFO, noticed ones as WARNING.
    """

    def __init__(self, name: str) -> None:
        """Begin with none."""
        self._lines: deque[str] = deque(maxlen=_LINES_MAX)
        self._logger = logging.getLogger(f"dwkernel.plugins.{name}")
        self._lock = threading.Lock()
        self._part = ""

    def write(self, text: str) -> int:
        """Take what is printed; a line counts when it ends, or is very long."""
        with self._lock:
            *lines, part = (self._part + text).split("\n")
            if len(part) > _LETTERS_MAX:
                lines, part = [*lines, part], ""
            self._part = part
        for line in lines:
            self._lines.append(line[:_LETTERS_MAX])
            self._logger.info("%s", line[:_LETTERS_MAX])
        return len(text)

    def flush(self) -> None:
        """Do nothing: it is taken."""

    def isatty(self) -> bool:
        """Return that it is no terminal."""
        return False

    def print(
        self, *values: object, sep: str | None = " ", end: str | None = "\n", **rest: Any
    ) -> None:
        """Print as the builtin does: into this log, unless a file is named."""
        if rest.get("file") is None:
            rest["file"] = self
        print(*values, sep=sep, end=end, **rest)  # noqa: T201 - into the log

    def notice(self, text: str) -> None:
        """Write down what the kernel noticed."""
        self._lines.append(f"! {text}"[:_LETTERS_MAX])
        self._logger.warning("%s", text)

    @property
    def lines(self) -> list[str]:
        """The last lines, the oldest first."""
        part = self._part
        return [*self._lines, part] if part else list(self._lines)


class _Router:
    """Stands in for a stream of the process: some threads' output goes elsewhere."""

    def __init__(self, original: IO[str]) -> None:
        self.original = original

    def write(self, text: str) -> int:
        target = _routes.get(threading.get_ident())
        return self.original.write(text) if target is None else target.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)


_routes: dict[int, Log] = {}
_users = 0
_lock = threading.Lock()


@contextlib.contextmanager
def captured(log: Log) -> Iterator[None]:
    """Send what this thread prints to a log; other threads print where they did."""
    global _users  # noqa: PLW0603 - streams are one for all
    with _lock:
        _users += 1
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is not None and not isinstance(stream, _Router):
                setattr(sys, name, _Router(stream))
    own = threading.get_ident()
    _routes[own] = log
    try:
        yield
    finally:
        _routes.pop(own, None)
        with _lock:
            _users -= 1
            for name in ("stdout", "stderr"):
                stream = getattr(sys, name)
                if _users == 0 and isinstance(stream, _Router):
                    setattr(sys, name, stream.original)


def streams() -> list[Any]:
    """Return the standard streams of the process, as they are when nothing is captured."""
    found = [getattr(sys, name) for name in _STREAMS]
    return [one.original if isinstance(one, _Router) else one for one in found]


def put_streams(value: list[Any]) -> None:
    """Put streams in their places."""
    with _lock:
        for name, stream in zip(_STREAMS, value, strict=True):
            is_captured = _users and name != "stdin" and stream is not None
            setattr(sys, name, _Router(stream) if is_captured else stream)
