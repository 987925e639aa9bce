"""Versions side by side, each with modules of its own, and gone without a rest."""

from __future__ import annotations

import gc
import linecache
import logging
import os
import shutil
import subprocess
import sys
import sysconfig
import traceback
import weakref
from pathlib import Path
from typing import Any

import pytest

import plugin_maker
from dwkernel import _native, errors
from dwkernel.plugins import discovery, loader
from dwkernel.plugins.output import Log
from expect import code_of, until


@pytest.fixture
def stages(tmp_path: Path) -> loader.Stages:
    return loader.Stages(tmp_path)


def load(home: Path, stages: loader.Stages) -> loader.Loaded:
    return loader.load(discovery.at(home), stages, Log("p"))


def traces(namespace: str) -> list[str]:
    """Return what the interpreter still knows of a namespace."""
    found = [name for name in sys.modules if name.startswith(namespace)]
    found += [name for name in logging.Logger.manager.loggerDict if name.startswith(namespace)]
    return found


SIDE_BY_SIDE = (
    """
import json, rules, inner.rules
from inner import deep
from . import rules as here
"""
    + plugin_maker.POLICY
    + """
    def say(self):
        return (rules.NUMBER, inner.rules.NUMBER, deep.of(), here.NUMBER, json.dumps(1))
"""
)
DEEP = """
from .rules import NUMBER

def of():
    import rules
    return NUMBER + rules.NUMBER
"""


def test_two_versions_live_side_by_side_with_their_own_modules(
    tmp_path: Path, stages: loader.Stages
) -> None:
    def version(number: int) -> Path:
        files = {
            "main.py": SIDE_BY_SIDE,
            "rules.py": f"NUMBER = {number}",
            "inner/__init__.py": "",
            "inner/rules.py": f"NUMBER = {number * 10}",
            "inner/deep.py": DEEP,
        }
        return plugin_maker.write(tmp_path / f"v{number}", files=files)

    before = list(sys.path)
    one, two = load(version(1), stages), load(version(2), stages)
    assert one.make().say() == (1, 10, 11, 1, "1")
    assert two.make().say() == (2, 20, 22, 2, "1")
    assert type(one.make()) is not type(two.make())
    assert sys.path == before
    assert "rules" not in sys.modules
    for loaded in (one, two):
        assert loaded.unload().settle(5.0) == []
        assert traces(loaded.namespace) == []


def test_a_package_finds_itself_by_its_name(tmp_path: Path, stages: loader.Stages) -> None:
    home = plugin_maker.write(
        tmp_path / "mine",
        entry="mine.main:Plugin",
        files={
            "__init__.py": "from mine.rules import NUMBER\n__version__ = '1.0'",
            "rules.py": "NUMBER = 7",
            "json.py": "raise AssertionError('a package does not hide the program its modules')",
            "main.py": "import json\nimport mine.rules\nfrom mine import NUMBER\n"
            + plugin_maker.POLICY
            + "\n    def say(self): return (mine.rules.NUMBER, NUMBER, json.dumps(1))\n",
        },
    )
    loaded = load(home, stages)
    assert loaded.make().say() == (7, 7, "1")
    # It may have another name where it was installed.
    moved = home.rename(tmp_path / "mine-1.0")
    again = load(moved, stages)
    assert again.make().say() == (7, 7, "1")
    for one in (loaded, again):
        assert one.unload().settle(5.0) == []


def test_an_edit_of_the_folder_changes_nothing_of_what_is_loaded(
    tmp_path: Path, stages: loader.Stages
) -> None:
    home = plugin_maker.write(
        tmp_path / "p",
        "def say(self):\n    import late\n    return late.NUMBER",
        files={"late.py": "NUMBER = 1"},
    )
    first = load(home, stages)
    (home / "late.py").write_text("NUMBER = 2")  # of the same size, in the same second
    assert first.make().say() == 1
    second = load(home, stages)
    assert second.make().say() == 2
    shutil.rmtree(home)
    assert (first.make().say(), second.make().say()) == (1, 2)
    assert not list(first.stage.rglob("__pycache__"))
    first.unload()
    second.unload()


def test_what_a_version_left_in_the_interpreter_goes_with_it(
    tmp_path: Path, stages: loader.Stages
) -> None:
    home = plugin_maker.write(
        tmp_path / "p",
        files={
            "main.py": plugin_maker.POLICY
            + """
import atexit, copyreg, logging, typing

class Handler(logging.Handler):
    pass

class Generic(typing.Generic[typing.TypeVar("T")]):
    pass

HANDLER = Handler()
logging.getLogger(__name__).addHandler(HANDLER)
logging.getLogger("of.somebody.else").addHandler(HANDLER)
logging.getLogger().addHandler(HANDLER)
atexit.register(Plugin().after, None)
copyreg.pickle(Plugin, lambda one: (Plugin, ()))
typing.List[Plugin]

def fail():
    raise ValueError
"""
        },
    )
    loaded = load(home, stages)
    module = sys.modules[f"{loaded.namespace}.main"]
    try:
        module.fail()
    except ValueError:
        traceback.format_exc()  # reads lines, which are cached
    del module
    gc.collect()
    namespace, stage = loaded.namespace, str(loaded.stage)
    assert any(name.startswith(stage) for name in linecache.cache)
    proof = loaded.unload()
    del loaded
    assert proof.settle(5.0) == []
    assert traces(namespace) == []
    assert not any(name.startswith(stage) for name in linecache.cache)
    assert not [one for one in logging.root.handlers if type(one).__name__ == "Handler"]
    assert not logging.getLogger("of.somebody.else").handlers
    assert not Path(stage).exists()


def test_a_child_that_is_forked_leaves_the_files_of_its_parent(tmp_path: Path) -> None:
    body = "def say(self):\n    import late\n    return late.NUMBER"
    home = plugin_maker.write(tmp_path / "p", body, files={"late.py": "NUMBER = 7"})
    program = f"""
import gc, os, pathlib, sys
from dwkernel.plugins import discovery, loader
from dwkernel.plugins.output import Log
stages = loader.Stages(pathlib.Path({str(tmp_path)!r}))
loaded = loader.load(discovery.at(pathlib.Path({str(home)!r})), stages, Log("p"))
made = loaded.make()
child = os.fork()
if child == 0:
    if sys.argv[1] == "forgets":
        del loaded, made, stages
        gc.collect()
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert made.say() == 7
"""
    for word in ("ends", "forgets"):
        subprocess.run([sys.executable, "-c", program, word], check=True, timeout=60)
    assert not list(tmp_path.glob("dwkernel-plugins-*"))


def test_what_was_registered_for_the_end_does_not_run_after_unloading(tmp_path: Path) -> None:
    code = """
import atexit, functools
def left(): print("left", flush=True, file=sys.__stdout__)
import sys
class Plugin:
    def before(self, requests): pass
    def after(self, finished): pass
    def bye(self): print("bound", flush=True, file=sys.__stdout__)
atexit.register(left)
atexit.register(functools.partial(left))
atexit.register(Plugin().bye)
"""
    home = plugin_maker.write(tmp_path / "p", files={"main.py": code})
    program = f"""
import atexit, pathlib, sys
from dwkernel.plugins import discovery, loader
from dwkernel.plugins.output import Log
atexit.register(print, "the program")
loaded = loader.load(discovery.at(pathlib.Path({str(home)!r})), loader.Stages(), Log("p"))
if sys.argv[1] == "unload":
    loaded.unload()
"""
    said = {
        word: subprocess.run(
            [sys.executable, "-c", program, word], capture_output=True, text=True, check=True
        ).stdout.split("\n")
        for word in ("unload", "keep")
    }
    assert said == {
        "unload": ["the program", ""],
        "keep": ["bound", "left", "left", "the program", ""],
    }


KEPT: list[Any] = []


def test_who_keeps_a_version_alive_is_told_by_name(tmp_path: Path, stages: loader.Stages) -> None:
    loaded = load(plugin_maker.write(tmp_path / "p"), stages)
    KEPT.append(loaded.make())
    proof = loaded.unload()
    alive = proof.settle(0.0)
    holder = f"class Plugin, held by {__name__}.KEPT"
    assert [one for one in alive if one.startswith(holder)], alive
    KEPT.clear()
    assert proof.settle(5.0) == []


def test_a_function_that_somebody_keeps_is_told(tmp_path: Path, stages: loader.Stages) -> None:
    files = {"hooks.py": "def hook():\n    pass", "main.py": f"import hooks\n{plugin_maker.POLICY}"}
    loaded = load(plugin_maker.write(tmp_path / "p", files=files), stages)
    kept = [sys.modules[f"{loaded.namespace}.hooks"].hook]
    proof = loaded.unload()
    assert any(one.startswith("function hook") for one in proof.settle(0.0))
    kept.clear()
    assert proof.settle(5.0) == []


def test_a_cache_of_the_program_that_keeps_a_class_is_told(
    tmp_path: Path, stages: loader.Stages
) -> None:
    loaded = load(plugin_maker.write(tmp_path / "p"), stages)

    class Cache:
        def __init__(self, kept: type) -> None:
            self.kept = kept

    cache = Cache(type(loaded.make()))
    proof = loaded.unload()
    alive = proof.settle(0.0)
    assert any(f"{__name__}" in one and "Cache" in one for one in alive), alive
    del cache
    assert proof.settle(5.0) == []


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import nothing_there", "ModuleNotFoundError"),
        ("def broken(:", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        (
            "class E(BaseException):\n    def __str__(self): raise SystemExit\nraise E",
            "can't be shown",
        ),
        ("Plugin = None", "can't be called"),
        ("x = 1", "not there"),
        ("import main.Plugin", "ModuleNotFoundError"),
    ],
)
def test_what_can_not_be_imported_is_an_error_and_leaves_nothing(
    code: str, says: str, tmp_path: Path, stages: loader.Stages
) -> None:
    home = plugin_maker.write(tmp_path / "p", files={"main.py": code})
    before = set(sys.modules)
    with pytest.raises(errors.Invalid) as caught:
        load(home, stages)
    assert caught.value.code == "plugin.load"
    assert says in str(caught.value)
    assert not [name for name in set(sys.modules) - before if name.startswith("dwkernel_plugin_")]
    assert not [name for one in tmp_path.glob("dwkernel-plugins-*") for name in one.iterdir()]


def test_a_manifest_that_lies_about_its_version_is_found_at_loading(
    tmp_path: Path, stages: loader.Stages
) -> None:
    code = plugin_maker.POLICY + "\n__version__ = '1.1'\n"
    home = plugin_maker.write(tmp_path / "p", files={"main.py": code})
    assert code_of(lambda: load(home, stages)) == "plugin.manifest"


def test_a_manifest_that_changes_before_the_files_are_copied_is_not_gone_by(
    tmp_path: Path, stages: loader.Stages
) -> None:
    found = discovery.at(plugin_maker.write(tmp_path / "p"))
    # Whoever signed the files signed this manifest, and not the one that was read.
    plugin_maker.write(tmp_path / "p", permissions={"network": True})
    with pytest.raises(errors.Invalid, match="its manifest changed"):
        loader.load(found, stages, Log("p"))
    with plugin_maker.plugins(folders=[tmp_path], grant={"p": ["*"]}) as opened:
        assert opened.info("p").state == "discovered"
        plugin_maker.write(tmp_path / "p", version="2.0")
        # By its id it is read anew, and what was read is what counts.
        assert opened.load("p").version == "2.0"


def test_a_place_for_stages_that_is_not_there_is_a_coded_error(tmp_path: Path) -> None:
    home = plugin_maker.write(tmp_path / "p")
    with plugin_maker.plugins(stage=tmp_path / "gone") as opened:
        assert code_of(lambda: opened.load(home)) == "plugin.load"


def test_stages_are_removed_with_what_they_were_for(tmp_path: Path) -> None:
    stages = loader.Stages(tmp_path)
    load(plugin_maker.write(tmp_path / "p"), stages).unload()
    (root,) = tmp_path.glob("dwkernel-plugins-*")
    assert list(root.iterdir()) == []
    reference = weakref.ref(stages)
    del stages
    until(lambda: reference() is None)
    assert not root.exists()


def test_what_a_process_that_was_killed_left_is_removed_by_the_next(tmp_path: Path) -> None:
    home = plugin_maker.write(tmp_path / "p")
    program = f"""
import os, pathlib, signal, sys
from dwkernel.plugins import discovery, loader
from dwkernel.plugins.output import Log
stages = loader.Stages(pathlib.Path({str(tmp_path)!r}))
loader.load(discovery.at(pathlib.Path({str(home)!r})), stages, Log("p"))
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == -9
    (left,) = tmp_path.glob("dwkernel-plugins-*")
    mine = loader.Stages(tmp_path)
    used = mine.new("used").parent
    fresh = tmp_path / "dwkernel-plugins-fresh"
    fresh.mkdir()
    (tmp_path / "dwkernel-plugins-link").symlink_to(home)
    for one in (left, used, tmp_path / "dwkernel-plugins-link"):
        os.utime(one, (0, 0), follow_symlinks=False)
    other = loader.Stages(tmp_path)
    own = other.new("other").parent
    assert sorted(one for one in tmp_path.glob("dwkernel-plugins-*") if one.is_dir()) == sorted(
        [used, own, fresh, tmp_path / "dwkernel-plugins-link"]
    )
    assert (home / "plugin.toml").exists()


EXTENSION = """
#define PY_SSIZE_T_CLEAN
#include <Python.h>

static int calls = 0;

static PyObject *say(PyObject *self, PyObject *ignored) {
    return Py_BuildValue("ii", NUMBER, ++calls);
}

static PyMethodDef methods[] = {{"say", say, METH_NOARGS, NULL}, {NULL, NULL, 0, NULL}};
static PyModuleDef_Slot slots[] = {{0, NULL}};
static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "fast", NULL, 0, methods, slots, NULL, NULL, NULL
};
PyMODINIT_FUNC PyInit_fast(void) { return PyModuleDef_Init(&module); }
"""


def compiled(home: Path, number: int) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    include = sysconfig.get_paths()["include"]
    if compiler is None or not Path(include, "Python.h").exists():
        pytest.skip("no C compiler, or no headers of Python: a compiled plugin can't be built")
    plugin_maker.write(
        home, "def say(self):\n    import fast\n    return fast.say()", files={"fast.c": EXTENSION}
    )
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    target = home / f"fast{suffix}"
    subprocess.run(
        [
            compiler,
            "-shared",
            "-fPIC",
            f"-DNUMBER={number}",
            f"-I{include}",
            str(home / "fast.c"),
            "-o",
            str(target),
        ],
        check=True,
    )
    return home


def test_compiled_versions_load_side_by_side_from_paths_of_their_own(
    tmp_path: Path, stages: loader.Stages
) -> None:
    home = compiled(tmp_path / "p", 1)
    one = load(home, stages)
    again = load(home, stages)
    home = compiled(tmp_path / "p", 2)
    two = load(home, stages)
    assert one.make().say() == (1, 1)
    assert two.make().say() == (2, 1)
    assert one.make().say() == (1, 2)
    assert two.make().say() == (2, 2)
    # The same file, loaded twice, has its static variables twice.
    assert again.make().say() == (1, 1)
    for loaded in (one, two, again):
        loaded.unload()


def test_a_pyo3_extension_loads_side_by_side_too(tmp_path: Path, stages: loader.Stages) -> None:
    # The kernel's own is one: the same file, which three have loaded, each as if it were alone.
    file = Path(str(_native.__file__))
    if file.stat().st_size > 100 << 20:
        pytest.skip("the extension was built with all it takes to debug it: too large to copy")
    home = plugin_maker.write(
        tmp_path / "p", "def native(self):\n    import _native\n    return _native"
    )
    shutil.copy(file, home / file.name)
    several = [load(home, stages), load(home, stages)]
    modules = [_native, *(loaded.make().native() for loaded in several)]
    for module in modules:
        assert module.blake3(b"abc") == _native.blake3(b"abc")
    assert len({str(module.__file__) for module in modules}) == 3
    assert len({id(module.BoundedQueue) for module in modules}) == 3
    del module, modules
    for loaded in several:
        assert loaded.unload().settle(5.0) == []


def test_a_compiled_plugin_is_reloaded_while_it_is_used(tmp_path: Path) -> None:
    with plugin_maker.plugins() as opened:
        opened.load(compiled(tmp_path / "p", 1))
        handle = opened.get("policy")
        for number in (2, 3):
            with handle.use() as instance:
                assert instance.say() == (number - 1, 1)
            del instance
            report = opened.reload("p", compiled(tmp_path / "p", number))
            assert report.is_unloaded, report
        assert handle.call("say") == (3, 1)
