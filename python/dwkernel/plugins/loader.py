"""Loading a version of a plugin beside others, and unloading it for good.

Each version has a module namespace of its own, `dwkernel_plugin_ID_HASH_N`, and runs from a copy of
its files. Its modules have builtins of their own, whose `__import__` finds the plugin's modules
before those of the program: `import rules` in a plugin means its own `rules.py` of its version,
and so does the plugin's package by its name. Nothing is added to `sys.path`, and `importlib.reload`
is not used: it leaves the old classes alive in the new module.
"""

from __future__ import annotations

import atexit
import builtins
import contextlib
import copyreg
import fcntl
import functools
import importlib
import itertools
import linecache
import logging
import os
import re
import shutil
import sys
import tempfile
import threading
import time
import weakref
from importlib import machinery, util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel.plugins import manifest, tree
from dwkernel.plugins.proof import Proof
from dwkernel.plugins.watchdog import told

if TYPE_CHECKING:
    import types
    from collections.abc import Callable, Mapping, Sequence

    from dwkernel.plugins.discovery import Found
    from dwkernel.plugins.output import Log

__all__ = ["Loaded", "Stages", "agree", "load"]

_PREFIX = "dwkernel_plugin_"
_STAGES = "dwkernel-plugins-"
# What was made a moment ago is not held yet.
_FRESH_S = 60.0
_MISSING = object()
_count = itertools.count(1)
_true_import = builtins.__import__


class Stages:
    """A folder for copies of plugins' files; it is removed at the end of the process.

    Those of processes that were killed, or cut off, are removed by the next that makes one there.
    """

    def __init__(self, place: Path | None = None) -> None:
        """Make none yet.

        Args:
            place: where to make it; by default where temporary files are. Compiled plugins need a
                place whose file system lets programs run.

        """
        self._place = place
        self._lock = threading.Lock()
        self._root: Path | None = None

    def new(self, name: str) -> Path:
        """Return a name in it, for a folder that is not there.

        Raises:
            Invalid: `plugin.load`: nothing can be written there

        """
        with self._lock:
            if self._root is None:
                try:
                    made = tempfile.mkdtemp(prefix=_STAGES, dir=self._place)
                except OSError as error:
                    text = f"no folder for plugins' files can be made: {error}"
                    raise errors.new("plugin.load", text) from error
                self._root = Path(made)
                held = _hold(self._root)
                weakref.finalize(self, _remove, self._root, os.getpid(), held)
                _sweep(self._root)
            return self._root / name


def load(
    found: Found, stages: Stages, log: Log, vouch: Callable[[str], None] = lambda _: None
) -> Loaded:
    """Import a version of a plugin under a namespace of its own.

    Args:
        found: which.
        stages: where its files are copied to.
        log: what it prints while it is imported, and later.
        vouch: is called with the hash of the copy, before anything of it runs; may raise.

    Raises:
        Invalid: `plugin.load`: it can't be copied or imported, or the entry is not there;
            `plugin.manifest`: its `__version__` is another than its manifest says, or this one
            changed since it was read

    What `vouch` raises is passed on. After an error nothing of it is left.

    """
    assert found.home is not None  # noqa: S101 - the kernel's own are not loaded
    number = next(_count)
    stage = stages.new(f"{found.id}-{number}")
    try:
        files = tree.copy(found.home, stage)
        vouch(files.hash)
        agree(found, stage)
        plain_id = re.sub(r"\W", "_", found.id)
        space = f"{_PREFIX}{plain_id}_{files.hash[:8]}_{number}"
        loaded = Loaded(found, space, stage, files.hash, log)
        try:
            loaded.begin()
        except BaseException:
            loaded.unload()
            raise
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise
    return loaded


def agree(found: Found, stage: Path) -> None:
    """Hold what a manifest said when it was read to the one among the files that will run.

    Raises:
        Invalid: `plugin.manifest`

    """
    if manifest.read(stage / manifest.FILE_NAME) != found.manifest:
        text = f"{found.id}: its manifest changed since it was read; have it looked for anew"
        raise errors.new("plugin.manifest", text, id=found.id, path=found.home)


class Loaded:
    """A version of a plugin whose modules are there.

    Attributes:
        namespace: the name of its outermost module.
        hash: of its files.
        stage: the folder with the copy that it runs from.

    """

    def __init__(self, found: Found, namespace: str, stage: Path, tree_hash: str, log: Log) -> None:
        """Made by `load`."""
        assert found.home is not None  # noqa: S101 - as above
        self.namespace = namespace
        self.stage = stage
        self.hash = tree_hash
        self._found = found
        self._factory: Any = None
        # The folder is a package itself: its entry is named from the package on, or from within.
        is_package = (stage / "__init__.py").is_file()
        own = found.manifest.entry.partition(":")[0].partition(".")[0]
        if _is_there(stage, own):
            own = found.home.name
        space = _Space(namespace, stage, own if is_package else None)
        # An attribute of itself would make a circle that only the collector breaks.
        table = dict(vars(builtins))
        table["__import__"] = functools.partial(_import, space)
        table["print"] = log.print
        # Those of `site` close the standard input, which is the program's.
        table["exit"] = table["quit"] = _exit
        space.builtins = table
        self._space: _Space | None = space
        # A kernel that nobody closed leaves nothing behind either.
        self._pid = os.getpid()
        self._left = weakref.finalize(self, _clear, namespace, stage, self._pid)
        self._left.atexit = False

    def begin(self) -> None:
        """Import the module with the entry; raises as `load`."""
        assert self._space is not None  # noqa: S101 - it is not unloaded
        _finder.spaces[self.namespace] = self._space
        module_name, _, attribute = self._found.manifest.entry.partition(":")
        inner = self._inner(module_name)
        module = cause = None
        try:
            module = importlib.import_module(inner)
        except BaseException as error:  # noqa: BLE001 - SystemExit, too: it is the plugin's
            cause = told(error)
        if module is None or cause is not None:
            # Raised out here: within, it would refer to the plugin's own as its context.
            text = f"{self._found.id} can't be imported: {cause}"
            trace = cause.trace if cause else ""
            raise errors.new("plugin.load", text, id=self._found.id, traceback=trace) from cause
        value: Any = module
        for name in attribute.split("."):
            value = getattr(value, name, _MISSING)
        if not callable(value):
            text = f"{self._found.id} names the entry {self._found.manifest.entry}, "
            text += "which is not there" if value is _MISSING else "which can't be called"
            raise errors.new("plugin.load", text, id=self._found.id)
        self._agree(module)
        self._factory = value

    def _inner(self, module_name: str) -> str:
        own = self._space and self._space.own_name
        if own == module_name.partition(".")[0]:
            module_name = module_name.partition(".")[2]
        return f"{self.namespace}.{module_name}" if module_name else self.namespace

    def _agree(self, module: types.ModuleType) -> None:
        said = self._found.manifest.version
        for one in (sys.modules.get(self.namespace), module):
            version = getattr(one, "__version__", None)
            if isinstance(version, str) and version != str(said):
                text = f"{self._found.id}: its manifest says version {said}, "
                text += f"and its code {version}"
                raise errors.new("plugin.manifest", text, id=self._found.id)

    def make(self) -> Any:
        """Return a new instance, from calling the entry."""
        return self._factory()

    def attribute(self, place: str) -> Any:
        """Return what `module:attribute` means in this version.

        Raises:
            Invalid: `plugin.load`

        """
        module_name, _, name = place.partition(":")
        try:
            return getattr(importlib.import_module(self._inner(module_name)), name)
        except (ImportError, AttributeError) as error:
            raise errors.new("plugin.load", f"{place} is not there: {error}") from None

    def unload(self) -> Proof:
        """Take everything of it out of the interpreter; return what can prove that it is gone.

        Whoever still holds something of it can use that further, with its modules.
        """
        self._factory = None
        self._left.detach()
        proof = Proof(self.namespace, _clear(self.namespace, self.stage, self._pid))
        if self._space is not None:
            self._space.builtins = {}
            self._space = None
        return proof


class _Space:
    """A namespace: where its files are, and what its modules see as builtins."""

    def __init__(self, name: str, stage: Path, own_name: str | None) -> None:
        self.name = name
        self.stage = stage
        self.own_name = own_name
        self.builtins: dict[str, Any] = {}
        self._known: dict[str, str | None] = {}

    def inner(self, name: str) -> str | None:
        """Return what an absolute name means in here; None if it is not the plugin's."""
        first, dot, rest = name.partition(".")
        if first not in self._known:
            self._known[first] = self._first(first)
        found = self._known[first]
        return None if found is None else f"{found}{dot}{rest}"

    def _first(self, first: str) -> str | None:
        if self.own_name is not None:
            return self.name if first == self.own_name else None
        return f"{self.name}.{first}" if _is_there(self.stage, first) else None


def _is_there(folder: Path, name: str) -> bool:
    return (
        (folder / name).is_dir()
        or (folder / f"{name}.py").is_file()
        or any((folder / f"{name}{end}").is_file() for end in machinery.EXTENSION_SUFFIXES)
    )


def _import(
    space: _Space,
    name: str,
    globals: Mapping[str, Any] | None = None,  # noqa: A002 - as `__import__`
    locals: Mapping[str, Any] | None = None,  # noqa: A002 - as `__import__`
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> types.ModuleType:
    """Import as `__import__` does, but the plugin's own modules first."""
    inner = space.inner(name) if level == 0 else None
    if inner is None:
        return _true_import(name, globals, locals, fromlist or (), level)
    found = importlib.import_module(inner)
    if fromlist:
        return _true_import(inner, globals, locals, fromlist, 0)
    depth = name.count(".")
    outermost = inner.rsplit(".", depth)[0] if depth else inner
    return found if depth == 0 else sys.modules[outermost]


class _Finder:
    """Finds modules of plugins' namespaces; stands in `sys.meta_path` once."""

    def __init__(self) -> None:
        self.spaces: dict[str, _Space] = {}

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None,  # noqa: ARG002 - importlib's
        target: types.ModuleType | None = None,  # noqa: ARG002 - importlib's
    ) -> machinery.ModuleSpec | None:
        first, _, rest = name.partition(".")
        space = self.spaces.get(first)
        if space is None:
            return None
        place = space.stage.joinpath(*rest.split(".")) if rest else space.stage
        init = place / "__init__.py"
        if init.is_file():
            return _source(name, init, space, [str(place)])
        if rest:
            for end in machinery.EXTENSION_SUFFIXES:
                compiled = place.with_name(place.name + end)
                if compiled.is_file():
                    loader = machinery.ExtensionFileLoader(name, str(compiled))
                    return util.spec_from_file_location(name, compiled, loader=loader)
            source = place.with_name(f"{place.name}.py")
            if source.is_file():
                return _source(name, source, space, None)
        if place.is_dir():
            spec = machinery.ModuleSpec(name, _Folder(), is_package=True)  # type: ignore[arg-type]  # it has what is used
            spec.submodule_search_locations = [str(place)]
            return spec
        return None


class _Folder:
    """Loads a folder without `__init__.py`: there is nothing to run."""

    def create_module(self, spec: machinery.ModuleSpec) -> None:
        """Leave it to importlib."""

    def exec_module(self, module: types.ModuleType) -> None:
        """Run nothing."""


class _Source(machinery.SourceFileLoader):
    """Runs source with a plugin's builtins. No bytecode is kept: it goes by time and size only."""

    builtins: dict[str, Any]

    def get_code(self, fullname: str) -> types.CodeType:
        """Compile the source, always."""
        path = self.get_filename(fullname)
        code: types.CodeType = self.source_to_code(self.get_data(path), path)
        return code

    def exec_module(self, module: types.ModuleType) -> None:
        """Run it."""
        vars(module)["__builtins__"] = self.builtins
        super().exec_module(module)


def _source(
    name: str, path: Path, space: _Space, folders: list[str] | None
) -> machinery.ModuleSpec | None:
    loader = _Source(name, str(path))
    loader.builtins = space.builtins
    return util.spec_from_file_location(
        name, path, loader=loader, submodule_search_locations=folders
    )


_finder = _Finder()
sys.meta_path.insert(0, _finder)


def _exit(code: object = None) -> None:
    raise SystemExit(code)


def _remove(folder: Path, pid: int, held: int | None = None) -> None:
    """Remove a folder, but not in a child that was forked: its parent runs from it."""
    if os.getpid() == pid:
        shutil.rmtree(folder, ignore_errors=True)
    if held is not None:
        os.close(held)


def _hold(folder: Path) -> int | None:
    """Lock a folder for as long as this process lives; None if somebody else has, or nobody can."""
    held = None
    try:
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        if held is not None:
            os.close(held)
        return None
    return held


def _sweep(own: Path) -> None:
    """Remove the folders of processes that are gone."""
    with contextlib.suppress(OSError):
        for left in own.parent.glob(f"{_STAGES}*"):
            about = left.lstat()
            is_fresh = time.time() - about.st_mtime < _FRESH_S
            if left == own or is_fresh or about.st_uid != os.geteuid():
                continue
            held = _hold(left)
            if held is not None:
                shutil.rmtree(left, ignore_errors=True)
                os.close(held)


def _clear(namespace: str, stage: Path, pid: int) -> list[types.ModuleType]:
    """Take a namespace out of the interpreter, with its files; return its modules."""
    _finder.spaces.pop(namespace, None)
    names = [
        one for one in list(sys.modules) if one == namespace or one.startswith(f"{namespace}.")
    ]
    modules = [sys.modules.pop(name) for name in names]
    _forget(namespace, str(stage))
    _remove(stage, pid)
    return modules


class _Of:
    """Is equal to whatever belongs to a namespace: `atexit` looks for what is equal."""

    __hash__ = None  # type: ignore[assignment]  # it is for comparing only

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace

    def __eq__(self, other: object) -> bool:
        while isinstance(other, functools.partial):
            other = other.func
        module = getattr(getattr(other, "__func__", other), "__module__", None)
        owner = type(getattr(other, "__self__", None)).__module__
        return any(
            isinstance(one, str) and f"{one}.".startswith(f"{self._namespace}.")
            for one in (module, owner)
        )


def _forget(namespace: str, stage: str) -> None:
    """Take out what the interpreter's own tables keep of a namespace."""
    with contextlib.suppress(Exception):  # what is registered may compare itself in any way
        atexit.unregister(_Of(namespace))  # type: ignore[arg-type]  # it is compared, not called
    for table in (linecache.cache, sys.path_importer_cache):
        for name in [one for one in list(table) if str(one).startswith(stage)]:
            table.pop(name, None)
    for kind in [one for one in list(copyreg.dispatch_table) if _of(one, namespace)]:
        copyreg.dispatch_table.pop(kind, None)
    known = logging.Logger.manager.loggerDict
    # The names between loggers have entries, too, which are none.
    loggers = [one for one in list(known.values()) if isinstance(one, logging.Logger)]
    for logger in [logging.root, *loggers]:
        for handler in list(logger.handlers):
            if _of(type(handler), namespace):
                logger.removeHandler(handler)
    for name in [one for one in list(known) if f"{one}.".startswith(f"{namespace}.")]:
        known.pop(name, None)


def _of(kind: type, namespace: str) -> bool:
    module = getattr(kind, "__module__", None)
    return isinstance(module, str) and f"{module}.".startswith(f"{namespace}.")
