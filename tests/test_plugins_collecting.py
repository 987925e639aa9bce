"""What was a version of a plugin is freed without a look through all that the program has."""

from __future__ import annotations

import gc
import json
import logging
import subprocess
import sys
import threading
import time
import types
from typing import TYPE_CHECKING, Any

import pytest

import dwkernel as dw
import plugin_maker
from dwkernel import _native
from dwkernel.cli.plugin.making import make
from dwkernel.plugins import Plugins, collecting, discovery, loader
from dwkernel.plugins.output import Log

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dwkernel.plugins.proof import Proof

# Code that Python keeps in circles, each of another kind.
CIRCLES = """
import abc, dataclasses, enum, functools, json, logging, threading, types, typing
from dwkernel.plugins import Verdict

logger = logging.getLogger("some.where")

@dataclasses.dataclass(frozen=True)
class Data:
    other: "Data | None" = None

class Colour(enum.Enum):
    RED = 1

class Base(abc.ABC):
    @abc.abstractmethod
    def one(self): ...

class Child(Base):
    def one(self): return super().one()
    @functools.cached_property
    def two(self): return self
    @property
    def three(self): return Child

class Meta(type):
    pass

class Made(metaclass=Meta):
    __slots__ = ("to",)

@typing.runtime_checkable
class Asked(typing.Protocol):
    def one(self) -> None: ...

class Failing(Exception):
    pass

def outer():
    child = Child()
    def inner(): return child, inner
    return inner

@functools.lru_cache
def cached(of): return of

def lazy():
    yield Child
    yield lazy

@functools.wraps(json.dumps)
def wrapped(*given): return Child, wrapped

ring = Made(); ring.to = ring
kept = [outer(), cached(Child), types.MethodType(Child.one, Child()), isinstance(Child(), Asked)]
kept.append(kept)
kept.append(lazy()); next(kept[-1])
local = threading.local(); local.own = Child()
try:
    raise Failing
except Failing as error:
    failed = error
"""
GENERICS = """
import typing
class Own: pass
def first(of: typing.Optional["Own"]) -> typing.List[Own]: ...
typing.List[Own], typing.Dict[str, Own], typing.Optional[Own]
"""


@pytest.fixture
def stages(tmp_path: Path) -> loader.Stages:
    return loader.Stages(tmp_path)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, float]]]:
    """Generations that were collected, and for how long; nothing is collected by itself."""
    collect, found = gc.collect, []

    def counted(generation: int = 2) -> int:
        began = time.monotonic()
        count = collect(generation)
        found.append((generation, time.monotonic() - began))
        return count

    monkeypatch.setattr(gc, "collect", counted)
    gc.disable()
    yield found
    gc.enable()


def old(home: Path, stages: loader.Stages) -> loader.Loaded:
    """Load a version, and have the collector know it for long."""
    loaded = loader.load(discovery.at(home), stages, Log("p"))
    for _ in range(3):
        gc.collect()
    return loaded


def unloaded(home: Path, stages: loader.Stages) -> Proof:
    return old(home, stages).unload()


@pytest.mark.parametrize("code", ["", CIRCLES, GENERICS], ids=["plain", "circles", "generics"])
def test_nothing_else_is_looked_through(
    code: str, tmp_path: Path, stages: loader.Stages, looks: list[tuple[int, float]]
) -> None:
    files = {"main.py": code + plugin_maker.POLICY}
    proof = unloaded(plugin_maker.write(tmp_path / "p", files=files), stages)
    looks.clear()
    assert proof.alive()
    assert proof.settle(0.0) == []
    assert {generation for generation, _ in looks} == {0}


UNASKED = """
def shout(self): raise SystemExit("nobody asked")

class Loud(type):
    __module__ = property(shout)
    __class__ = property(shout)

class Thing(metaclass=Loud):
    __class__ = property(shout)

kept = [Thing(), Thing]
"""


def test_no_code_of_what_is_looked_at_runs(
    tmp_path: Path,
    stages: loader.Stages,
    looks: list[tuple[int, float]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    class Lazy(types.ModuleType):
        @property
        def __dict__(self) -> Any:  # type: ignore[override]  # as libraries load on first use
            asked.append(self)
            return {}

    monkeypatch.setitem(sys.modules, "lazy", Lazy("lazy"))
    monkeypatch.setitem(sys.modules, "odd", 7)  # some put anything there
    files = {"main.py": UNASKED + plugin_maker.POLICY}
    loaded = old(plugin_maker.write(tmp_path / "p", files=files), stages)
    roots = [sys.modules.pop(f"{loaded.namespace}.main")]
    looks.clear()
    collecting.collect(loaded.namespace, roots)
    assert (asked, roots) == ([], [])
    assert loaded.unload().settle(0.0) == []
    assert {generation for generation, _ in looks} == {0}


def test_a_reload_beside_open_drives_looks_through_nothing_else(
    tmp_path: Path, looks: list[tuple[int, float]]
) -> None:
    make("drive", "own-drive", tmp_path / "drive")
    urls = [f"own-drive://{tmp_path}/{number}" for number in range(3)]
    plugins = {"folders": [str(tmp_path / "drive" / "src")], "enabled": ["own-drive"]}
    with dw.open(config={"plugins": plugins}, drives=urls, geometry="2+1", create=True) as kernel:
        kernel.containers.create("c")
        for _ in range(3):
            kernel.put("c/a", b"x" * 100)
            gc.collect()
            looks.clear()
            assert kernel.plugins.reload("own-drive").is_unloaded
            assert {generation for generation, _ in looks} == {0}


def test_an_operator_that_freezes_what_there_is_does_not_keep_it(
    tmp_path: Path, stages: loader.Stages, looks: list[tuple[int, float]]
) -> None:
    loaded = old(
        plugin_maker.write(tmp_path / "p", files={"main.py": CIRCLES + plugin_maker.POLICY}), stages
    )
    gc.freeze()
    try:
        proof = loaded.unload()
        del loaded
        looks.clear()
        assert proof.settle(0.0) == []
        assert {generation for generation, _ in looks} == {0}
    finally:
        gc.unfreeze()


def test_what_others_own_is_left_where_it_is(tmp_path: Path, stages: loader.Stages) -> None:
    home = plugin_maker.write(tmp_path / "p", files={"main.py": CIRCLES + plugin_maker.POLICY})
    loaded = old(home, stages)
    proof = loaded.unload()
    within = collecting._within(loaded.namespace, proof._there())
    ids = {id(one) for one in within}
    foreign = (json, vars(json), logging, vars(logging), dict, Exception, sys.modules, Plugins)
    assert [one for one in foreign if id(one) in ids] == []
    assert {one.__name__ for one in within if isinstance(one, type)} >= {"Child", "Colour", "Meta"}
    assert len(within) < 1000
    del within
    assert proof.settle(5.0) == []


def test_what_is_large_is_left_to_a_look_through_everything(
    tmp_path: Path,
    stages: loader.Stages,
    looks: list[tuple[int, float]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(collecting, "_MOST", 1000)
    code = "class Node: pass\ntop = last = Node()\n"
    code += "for _ in range(20_000): last.next = Node(); last.next.back = last; last = last.next\n"
    proof = unloaded(
        plugin_maker.write(tmp_path / "p", files={"main.py": code + plugin_maker.POLICY}), stages
    )
    looks.clear()
    assert proof.settle(5.0) == []
    assert {generation for generation, _ in looks} == {0, 2}


def test_while_somebody_holds_it_others_get_their_turn(
    tmp_path: Path, stages: loader.Stages, looks: list[tuple[int, float]]
) -> None:
    loaded = old(plugin_maker.write(tmp_path / "p"), stages)
    instance = loaded.make()
    proof = loaded.unload()
    looks.clear()
    limit_s = 1.0
    assert any("class Plugin" in one for one in proof.settle(limit_s))
    full = [took for generation, took in looks if generation == 2]
    # Once at the beginning and once at the end, and in between for a tenth of the time.
    assert len(full) > 1
    assert sum(full[1:-1]) < limit_s / 5
    del instance
    assert proof.settle(0.0) == []


def test_it_is_gone_soon_after_who_holds_it_lets_go(tmp_path: Path, stages: loader.Stages) -> None:
    loaded = old(plugin_maker.write(tmp_path / "p"), stages)
    kept = [loaded.make()]
    proof = loaded.unload()
    timer = threading.Timer(0.1, kept.clear)
    timer.start()
    began = time.monotonic()
    assert proof.settle(10.0) == []
    assert time.monotonic() - began < 5.0
    timer.join()


def young() -> set[int]:
    return {id(one) for one in gc.get_objects(generation=0)}


def test_objects_are_made_young_again() -> None:
    ring: list[Any] = []
    ring.append(ring)
    atoms: list[Any] = [1, "text", (), (1, 2), {}, {"a": 1}, None, int]
    gc.collect()
    assert id(ring) not in young()
    tracked = [gc.is_tracked(one) for one in atoms]
    _native.rejuvenate([ring, *atoms, ring])
    assert id(ring) in young()
    assert [gc.is_tracked(one) for one in atoms] == tracked


FINALIZER = """
import gc, sys, threading, time
from dwkernel import _native

class Slow:
    def __init__(self): self.me = self
    def __del__(self):
        time.sleep(0.0001)

stop = threading.Event()
def other():
    while not stop.is_set():
        _native.rejuvenate(gc.get_objects())
thread = threading.Thread(target=other)
thread.start()
made = 0
end = time.monotonic() + 3
while time.monotonic() < end:
    for _ in range(50):
        Slow(); made += 1
    gc.collect()
stop.set(); thread.join()
gc.collect(); gc.collect()
left = sum(isinstance(one, Slow) for one in gc.get_objects())
print(made > 100, left)
"""


def test_a_collection_in_another_thread_is_not_disturbed() -> None:
    said = subprocess.run(
        [sys.executable, "-X", "dev", "-c", FINALIZER], capture_output=True, text=True, check=False
    )
    assert (said.returncode, said.stdout.split()) == (0, ["True", "0"]), said.stderr
