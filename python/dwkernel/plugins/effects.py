"""What a plugin does to the process besides its own business: noticed, undone, told.

The interpreter is one for all: a working directory, a locale or a patched function is everybody's.
So they are looked at before and after each import and each step of the life cycle, one plugin at a
time, and put back. What another thread of the program changes in the same moment is taken for the
plugin's. Between the steps nobody looks; and what ends the process (`os._exit`, a crash of compiled
code) cannot be undone by anything: what is not trusted belongs into a process of its own.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import locale
import os
import signal
import socket
import sys
import threading
import types
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dwkernel.plugins import output

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Before", "leaked_threads", "look", "put_back"]

# Where patches hurt everybody. Only functions and classes count: modules keep state of their own.
_WATCHED = (
    "builtins",
    "io",
    "json",
    "logging",
    "os",
    "pathlib",
    "socket",
    "ssl",
    "subprocess",
    "threading",
    "time",
    "dwkernel.errors",
)
_CLASSES = (
    ("threading", "Thread"),
    ("socket", "socket"),
    ("pathlib", "Path"),
    ("subprocess", "Popen"),
    ("dwkernel.kernel", "Kernel"),
)
_CALLABLE = (types.FunctionType, types.BuiltinFunctionType, type, staticmethod, classmethod)


class _Setting(NamedTuple):
    name: str
    get: Callable[[], Any]
    put: Callable[[Any], object]


def _umask() -> int | None:
    """Return the umask without setting it: another thread may be making a file."""
    try:
        with Path("/proc/self/status").open(encoding="ascii", errors="replace") as file:
            lines = [line for line in file if line.startswith("Umask:")]
        return int(lines[0].split()[1], 8)
    except (OSError, IndexError, ValueError):
        return None


def _put_umask(value: int | None) -> None:
    if value is not None:
        os.umask(value)


def _cwd() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 - a path that is gone stays text
    except OSError:
        return None


def _put_cwd(value: str | None) -> None:
    if value is not None:
        os.chdir(value)


def _put_environment(value: dict[str, str]) -> None:
    for name in set(os.environ) - set(value):
        del os.environ[name]
    os.environ.update(value)


def _put_filters(value: list[Any]) -> None:
    filters: list[Any] = warnings.filters  # type: ignore[assignment]  # typeshed says sequence
    filters[:] = value
    # What warnings keeps of filters has to be made anew; `simplefilter` does it, on a copy.
    with warnings.catch_warnings():
        warnings.simplefilter("default")


def _put_list(target: list[Any]) -> Callable[[list[Any]], None]:
    def put(value: list[Any]) -> None:
        target[:] = value

    return put


def _is_own(finder: Any) -> bool:
    """Return whether a finder is a plugin's; those of libraries are needed by who imports them."""
    named = isinstance(finder, type | types.FunctionType)
    module = getattr(finder if named else type(finder), "__module__", None)
    return str(module).startswith("dwkernel_plugin_")


def _attribute(holder: Any, name: str) -> _Setting:
    label = f"{holder.__name__}.{name}"
    return _Setting(
        label, lambda: getattr(holder, name), lambda value: setattr(holder, name, value)
    )


_SETTINGS = (
    _Setting("the working directory", _cwd, _put_cwd),
    _Setting(
        "the locale",
        lambda: locale.setlocale(locale.LC_ALL),
        lambda value: locale.setlocale(locale.LC_ALL, value),
    ),
    _Setting("the umask", _umask, _put_umask),
    _Setting("sys.path", lambda: list(sys.path), _put_list(sys.path)),
    _Setting("os.environ", lambda: dict(os.environ), _put_environment),
    _Setting("the filters of warnings", lambda: list(warnings.filters), _put_filters),
    _Setting("the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
    _Setting("the switch interval", sys.getswitchinterval, sys.setswitchinterval),
    _Setting(
        "the collector's thresholds", gc.get_threshold, lambda value: gc.set_threshold(*value)
    ),
    _Setting("the collector", gc.isenabled, lambda value: gc.enable() if value else gc.disable()),
    _Setting("sockets' default timeout", socket.getdefaulttimeout, socket.setdefaulttimeout),
    _Setting("the standard streams", output.streams, output.put_streams),
    _attribute(sys, "excepthook"),
    _attribute(sys, "unraisablehook"),
    _attribute(threading, "excepthook"),
)


_FINDERS: tuple[tuple[str, list[Any]], ...] = (
    ("sys.meta_path", sys.meta_path),
    ("sys.path_hooks", sys.path_hooks),
)


class Before(NamedTuple):
    """How the process stood."""

    settings: list[Any]
    finders: list[list[Any]]
    signals: dict[int, Any]
    modules: dict[str, dict[str, Any]]
    classes: dict[tuple[str, str], dict[str, Any]]
    loaded: dict[str, Any]


def look() -> Before:
    """Return how the process stands."""
    for name in _WATCHED:
        # Also what the program has not imported yet: a plugin may do so, and patch it.
        if name not in sys.modules:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    loaded = {name: sys.modules[name] for name in _WATCHED if name in sys.modules}
    return Before(
        [setting.get() for setting in _SETTINGS],
        [list(finders) for _, finders in _FINDERS],
        {number: signal.getsignal(number) for number in signal.valid_signals()},
        {name: _functions(vars(module)) for name, module in loaded.items()},
        {
            (module, name): _functions(vars(getattr(sys.modules[module], name)))
            for module, name in _CLASSES
            if module in sys.modules
        },
        loaded,
    )


def put_back(before: Before) -> list[str]:
    """Put everything back as it stood; return what had changed, for people."""
    told = []
    for setting, value in zip(_SETTINGS, before.settings, strict=True):
        if _same(setting.get(), value):
            continue
        said = f"changed {setting.name}"
        try:
            setting.put(value)
        except Exception as error:  # noqa: BLE001 - a folder may be gone; it is told
            said += f", which can't be put back: {type(error).__name__}"
        told.append(said)
    for (label, finders), stood in zip(_FINDERS, before.finders, strict=True):
        told += _put_back_finders(label, finders, stood)
    told += _put_back_signals(before.signals)
    for name, module in before.loaded.items():
        if sys.modules.get(name) is not module:
            sys.modules[name] = module
            told.append(f"replaced the module {name}")
        told += _put_back_functions(name, module, before.modules[name])
    for (name, cls), had in before.classes.items():
        holder = getattr(sys.modules[name], cls)
        told += _put_back_functions(f"{name}.{cls}", holder, had)
        # What it only inherited before can be patched by adding to it.
        for added in _functions(vars(holder)).keys() - had.keys():
            with contextlib.suppress(AttributeError, TypeError):
                delattr(holder, added)
            told.append(f"patched {name}.{cls}.{added}")
    return told


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(
            a is b or a == b for a, b in zip(one, other, strict=True)
        )
    return bool(one is other or one == other)


def _functions(table: Any) -> dict[str, Any]:
    return {name: value for name, value in list(table.items()) if isinstance(value, _CALLABLE)}


def _put_back_functions(label: str, holder: Any, had: dict[str, Any]) -> list[str]:
    told = []
    table = vars(holder)
    for name, value in had.items():
        if table.get(name) is not value:
            with contextlib.suppress(AttributeError, TypeError):
                setattr(holder, name, value)
            told.append(f"patched {label}.{name}")
    return told


def _put_back_finders(label: str, finders: list[Any], had: list[Any]) -> list[str]:
    """Take out a plugin's own finders, and leave those of libraries that it imported."""
    before = {id(one) for one in had}
    kept = [one for one in finders if id(one) in before or not _is_own(one)]
    if [id(one) for one in kept if id(one) in before] != [id(one) for one in had]:
        kept = [*(one for one in kept if id(one) not in before), *had]
    if [id(one) for one in kept] == [id(one) for one in finders]:
        return []
    finders[:] = kept
    return [f"changed {label}"]


def _put_back_signals(had: dict[int, Any]) -> list[str]:
    told = []
    for number, handler in had.items():
        if signal.getsignal(number) == handler:
            continue
        said = f"took the signal {signal.Signals(number).name}"
        try:
            signal.signal(number, handler)
        except (ValueError, TypeError, OSError):
            said += ", which only the main thread can put back"
        told.append(said)
    return told


def leaked_threads(namespace: str, label: str) -> list[str]:
    """Return the names of threads that run a plugin's code, which are named after it.

    A thread counts that was made with a function of the plugin, or has one on its stack.
    """
    frames = sys._current_frames()  # noqa: SLF001 - the documented way to see other stacks
    found = []
    known = {threading.get_ident()}
    for thread in threading.enumerate():
        known.add(thread.ident or 0)
        if thread is threading.current_thread():
            continue
        target = getattr(thread, "_target", None)
        of_plugin = _is_of(getattr(target, "__module__", None), namespace)
        of_plugin = of_plugin or _is_of(type(thread).__module__, namespace)
        if of_plugin or _runs(frames.get(thread.ident or 0), namespace):
            if not thread.name.startswith(label):
                thread.name = f"{label}/{thread.name}"
            found.append(thread.name)
    # Those that were started below `threading` have no name.
    unknown = [ident for ident in frames if ident not in known]
    return found + [f"{label}/{ident}" for ident in unknown if _runs(frames[ident], namespace)]


def _runs(frame: types.FrameType | None, namespace: str) -> bool:
    while frame is not None:
        if _is_of(frame.f_globals.get("__name__"), namespace):
            return True
        frame = frame.f_back
    return False


def _is_of(module: Any, namespace: str) -> bool:
    return isinstance(module, str) and (module == namespace or module.startswith(f"{namespace}."))
