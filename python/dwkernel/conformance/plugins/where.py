"""Where in a plugin's code something went wrong: the first thing that its author wants to know."""

from __future__ import annotations

import re
import sys
import sysconfig
import threading
import traceback
from pathlib import Path

from dwkernel import errors

__all__ = ["failed_at", "is_at", "readable"]

_LINE = re.compile(r'File "([^"\n]+)", line (\d+)(?:, in (\S+))?')
_NAMESPACE = re.compile(r"\bdwkernel_plugin_\w+_[0-9a-f]{8}_\d+\b(\.?)")
# What is no plugin's: the interpreter, and the kernel with this suite.
_OTHERS = (
    *{sysconfig.get_path(name) for name in ("stdlib", "platstdlib")},
    str(Path(__file__).parents[2]),
)


def failed_at(error: BaseException, home: Path | None) -> str:
    """Return ` (FILE:LINE, in FUNCTION)` of the innermost place in a plugin; empty if none is.

    Args:
        error: with its traceback, or one of the kernel's that has the plugin's as a detail.
        home: the plugin's folder; None for an object.

    """
    traces = []
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, errors.DwError):
            traces.append(str(at.details.get("traceback", "")))
        traces.append("".join(traceback.format_exception(None, at, at.__traceback__, chain=False)))
        at = at.__cause__
    return next(filter(None, (_last(trace, home) for trace in traces)), "")


def is_at(plugin_id: str, home: Path | None, name: str) -> str:
    """Return where a plugin is while a case named `name` hangs, as `failed_at` does."""
    frames = sys._current_frames()  # noqa: SLF001 - there is no other way to see a thread
    wanted = (f"conformance:{name}", f"plugin:{plugin_id}/")
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        if frame is not None and thread.name.startswith(wanted):
            found = _last("".join(traceback.format_stack(frame)), home)
            if found:
                return found
    return ""


def readable(text: str, home: Path | None) -> str:
    """Return a text with names of modules as the plugin's author knows them."""
    is_package = home is not None and (home / "__init__.py").is_file()
    own = home.name if home is not None else ""
    return _NAMESPACE.sub(rf"{own}\1" if is_package else "", text)


def _last(trace: str, home: Path | None) -> str:
    for file, line, function in reversed(_LINE.findall(trace)):
        path = _own(Path(file), home)
        if path is not None:
            inside = f", in {function}" if function and function != "<module>" else ""
            return f" ({path}:{line}{inside})"
    return ""


def _own(file: Path, home: Path | None) -> Path | None:
    """Return the author's file; what runs is a copy of it."""
    if not file.is_absolute() or str(file).startswith(_OTHERS):
        return None
    if home is None:
        return file
    inner = (Path(*file.parts[n:]) for n in range(1, len(file.parts)))
    return next((home / one for one in inner if (home / one).is_file()), None)
