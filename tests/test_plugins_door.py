"""Plugins where they count: policies at the door, drives under a store, while they are reloaded."""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import os
import sys
import textwrap
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest

import dwkernel as dw
import plugin_maker
from dwkernel import _native, errors
from dwkernel.plugins import discovery, vouching
from expect import code_of, uncollected, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from dwkernel.plugins import Plugins

URLS = [f"memory://door-{number}" for number in range(3)]

COUNTS = """
    def __init__(self):
        import collections
        self.seen, self.ended = collections.Counter(), []

    def before(self, requests):
        self.seen.update(one.operation for one in requests)
        return [
            Verdict.refuse(f"{one.principal} may not") if one.key.startswith("c/no") else
            Verdict.annotate({"v": "1"}) for one in requests
        ]

    def after(self, finished):
        self.ended += [(one.request.operation, one.code, dict(one.annotations)) for one in finished]

    def export_state(self):
        return {"seen": dict(self.seen)}

    def import_state(self, state, from_version):
        self.seen.update(state["seen"])
"""


CLIENTS = 64


def refusal(call: Callable[[], object]) -> errors.DwError:
    with pytest.raises(errors.DwError) as caught:
        call()
    assert caught.value.code == "policy.refused"
    return caught.value


@contextlib.contextmanager
def hammered(turn: Callable[[int, int], None]) -> Iterator[None]:
    """Have many clients do `turn(client, count)` again and again meanwhile; none may fail."""
    stop, wrong, done = threading.Event(), list[BaseException](), [0] * CLIENTS

    def work(number: int) -> None:
        try:
            while not stop.is_set():
                turn(number, done[number])
                done[number] += 1
        except BaseException as error:  # noqa: BLE001 - whatever it is
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield
        until(lambda: wrong or min(done) > 0)
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert not wrong, wrong[0]


@pytest.fixture
def kernel() -> Iterator[dw.Kernel]:
    with dw.open(drives=URLS, geometry="2+1", create=True) as kernel:
        kernel.containers.create("c")
        yield kernel


def test_a_policy_decides_at_the_door_and_hears_how_things_ended(
    kernel: dw.Kernel, tmp_path: Path
) -> None:
    kernel.plugins.load(plugin_maker.write(tmp_path / "p", COUNTS))
    kernel.put("c/yes", b"1")
    assert code_of(lambda: kernel.put("c/no/1", b"1")) == "policy.refused"
    assert code_of(lambda: kernel["c/missing"]) == "object.not_found"
    assert "c/no/1" not in list(kernel)
    policy = kernel.plugins.get("policy")

    def ended() -> list[tuple[str, str | None, dict[str, str]]]:
        with policy.use() as instance:
            return list(instance.ended)

    until(lambda: ("object.get", "object.not_found", {"v": "1"}) in ended())
    assert ended().count(("object.put", None, {"v": "1"})) == 1
    with policy.use() as instance:
        assert instance.seen["object.put"] == 2
    del instance
    kernel.plugins.disable("p")
    kernel.put("c/no/1", b"nobody is asked any more")


HANGS = """
    {wish}
    def before(self, requests):
        import threading
        threading.Event().wait({hangs_s})
        return [Verdict.allow() for _ in requests]
"""


@pytest.mark.parametrize("wish", ["timeout_s = 0.2", "timeout_s = -1", ""])
def test_a_policy_that_hangs_costs_its_own_time_limit_or_the_configurations(
    kernel: dw.Kernel, tmp_path: Path, wish: str
) -> None:
    # The policy is asked about what loading commits, too.
    kernel.config.set({"plugins.limits.drain": "0.1s", "plugins.limits.call": "1s"})
    body = HANGS.format(wish=wish, hangs_s=600)
    kernel.plugins.load(plugin_maker.write(tmp_path / "p", body))
    is_own = wish == "timeout_s = 0.2"
    if not is_own:
        # It counts at once, for a policy that was loaded before.
        kernel.config.set({"plugins.limits.call": "0.3s"})
    error = refusal(lambda: kernel.put("c/x", b"1"))
    assert f"did not end in {'0.2' if is_own else '0.3'} s" in str(error)
    if is_own:
        # A reload may change it.
        home = plugin_maker.write(tmp_path / "p", body.replace("0.2", "0.1"), version="1.1")
        kernel.plugins.reload("p", home)
        assert "did not end in 0.1 s" in str(refusal(lambda: kernel.put("c/x", b"1")))
    kernel.plugins.disable("p")
    kernel.put("c/x", b"1")


def test_the_door_waits_as_long_as_policies_may_take(kernel: dw.Kernel, tmp_path: Path) -> None:
    kernel.config.set({"plugins.limits.call": "0.1s"})
    body = HANGS.format(wish="timeout_s = 60", hangs_s=2)
    kernel.plugins.load(plugin_maker.write(tmp_path / "p", body))
    kernel.put("c/x", b"1")


def test_a_policy_that_serves_one_tenant_is_asked_for_that_one_only(
    kernel: dw.Kernel, tmp_path: Path
) -> None:
    kernel.plugins.load(plugin_maker.write(tmp_path / "p", COUNTS))
    kernel.plugins.disable("p")
    kernel.plugins.enable("p", "acme")
    kernel.put("c/no/1", b"1")
    kernel._caller = _native.Caller("somebody", "acme")
    refusal(lambda: kernel.put("c/no/1", b"1"))
    kernel.plugins.disable("p", "acme")
    kernel.put("c/no/1", b"1")


# How a version fails, by the step of its reload.
FAILS = {
    "load": "raise ImportError",
    "handshake": "def handshake(self, context): raise ValueError",
    "start": "def start(self): raise SystemExit(1)",
    "import": "def import_state(self, state, from_version): raise KeyError",
    "health": "def health(self): return False",
    "open": "def open(self, location, make): raise OSError",
}
STEPS = ["resolve", "verify", "load", "handshake", "start", "export", "import", "health"]


def reload_100_times(
    plugins: Plugins, name: str, write: Callable[..., Path], steps: Iterable[str]
) -> None:
    """Put 90 versions in each other's place; one in ten fails, at each of the steps in turn."""
    in_turn = itertools.cycle(steps)
    for number in range(1, 101):
        version = f"1.{number}"
        if number % 10:
            write(version)
            report = plugins.reload(name)
            assert (report.after, report.is_unloaded, report.wrong) == (version, True, []), report
            continue
        step = next(in_turn)
        home = write(
            version, FAILS.get(step, ""), requires={"nowhere": ">=1"} if step == "resolve" else {}
        )
        if step == "verify":
            vouching.record(home.parent, discovery.at(home), "0" * 64)
        with contextlib.ExitStack() as stack:
            if step == "export":
                (home.parent / "mute").touch()
                stack.callback((home.parent / "mute").unlink)
            with pytest.raises(errors.Conflict) as caught:
                plugins.reload(name)
        assert caught.value.details["step"] == step
        del caught


def test_no_operation_fails_because_a_policy_is_reloaded(kernel: dw.Kernel, tmp_path: Path) -> None:
    counts = f"""{COUNTS}
    def export_state(self):
        from pathlib import Path
        if Path({str(tmp_path / "mute")!r}).exists():
            raise ValueError
        return {{"seen": dict(self.seen), "told": len(self.ended)}}

    def import_state(self, state, from_version):
        self.seen.update(state["seen"])
        self.ended += [None] * state.get("told", 0)
"""

    def write(version: str, fails: str = "", **fields: Any) -> Path:
        given = {"version": version, "keep_state": True, "state_version": 1, **fields}
        return plugin_maker.write(tmp_path / "p", f"{textwrap.dedent(counts)}\n{fails}\n", **given)

    kernel.config.set({"plugins.limits.freeze": "30s", "plugins.limits.state": "30s"})
    kernel.plugins.load(write("1.0"))
    kernel.put("c/x", b"1")
    done = [0] * CLIENTS

    def turn(number: int, count: int) -> None:
        assert kernel["c/x"] == b"1"
        done[number] = count + 1

    with hammered(turn):
        reload_100_times(kernel.plugins, "p", write, STEPS)
    assert kernel.plugins.info("p").reloads == 90
    with kernel.plugins.get("policy").use() as instance:
        # Each read asks for the object and for its bytes; nothing that was counted is lost.
        assert instance.seen["object.get"] == sum(done)
        assert len(instance.ended) > 0
    del instance


DRIVES = """
import threading
from pathlib import Path
from dwkernel import errors

class Plugin:
    def __init__(self):
        self.locks = {}

    def open(self, location, make):
        home = Path(location.removeprefix("kv://"))
        if not home.is_dir() and not make:
            raise errors.new("drive.missing", f"no drive at {location}")
        home.mkdir(parents=True, exist_ok=True)
        return Drive(home, self.locks.setdefault(location, []))

    def export_state(self):
        return self.locks

    def import_state(self, state, from_version):
        self.locks = state

class Drive:
    def __init__(self, home, locks):
        self.home, self.locks = home, locks
    def at(self, name):
        return self.home / name.replace("/", "@")
    def describe(self):
        return {"kind": "files"}
    def put(self, name, parts):
        try:
            with self.at(name).open("xb") as file:
                file.writelines(parts)
        except FileExistsError:
            raise errors.new("blob.exists", name)
    def read(self, name, offset, length):
        try:
            return self.at(name).read_bytes()[offset:offset + length]
        except FileNotFoundError:
            raise errors.new("blob.not_found", name)
    def list(self, folder, after, limit):
        names = sorted(one.name.replace("@", "/") for one in self.home.iterdir())
        names = [n for n in names if n.rpartition("/")[0] == (folder or "")]
        names = [n for n in names if not n.startswith("slot.") and (after is None or n > after)]
        return [(name, self.stat(name)) for name in names[:limit]]
    def delete(self, name):
        self.at(name).unlink()
    def stat(self, name):
        try:
            return self.at(name).stat().st_size
        except FileNotFoundError:
            raise errors.new("blob.not_found", name)
    def capacity(self):
        return (1 << 30, 1 << 29)
    def sync(self, tag):
        pass
    def read_superblock(self, slot):
        path = self.home / f"slot.{slot}"
        return path.read_bytes() if path.exists() else None
    def write_superblock(self, slot, content):
        (self.home / f"slot.{slot}").write_bytes(content)
    def lock(self, holder, *, shared):
        if self.locks and not shared:
            raise errors.new("store.locked", "it is held")
        self.locks.append("t")
        return "t"
    def unlock(self, token):
        self.locks.remove(token)
    def holder(self):
        return None
    def log(self):
        return None
"""


def test_no_operation_fails_because_the_plugin_of_its_drives_is_reloaded(tmp_path: Path) -> None:
    mute = f"if Path({str(tmp_path / 'mute')!r}).exists(): raise ValueError"
    code = DRIVES.replace("        return self.locks", f"        {mute}\n        return self.locks")

    def write(version: str, fails: str = "", **fields: Any) -> Path:
        return plugin_maker.write(
            tmp_path / "d",
            plugin_id="d",
            version=version,
            kinds=["drive"],
            capabilities={"drive": ["kv"]},
            keep_state=True,
            state_version=1,
            files={"main.py": code.replace("class Drive:", f"    {fails}\n\nclass Drive:")},
            **fields,
        )

    long = os.urandom(100_000)
    urls = [f"kv://{tmp_path}/drive-{number}" for number in range(3)]
    with plugin_maker.plugins() as plugins:
        plugins.load(write("1.0"))
        with dw.open(drives=urls, geometry="2+1", create=True) as kernel:
            kernel.containers.create("c")
            kernel.put("c/x", long)

            def turn(number: int, count: int) -> None:
                key = f"c/{number}-{count}"
                kernel.put(key, long[: 1000 * (number + 1)])
                assert kernel[key] == long[: 1000 * (number + 1)]
                assert kernel["c/x"] == long
                del kernel[key]

            with hammered(turn):
                reload_100_times(plugins, "d", write, [*STEPS[:7], "open", *STEPS[7:]])
            assert plugins.info("d").reloads == 90
            assert {drive.state for drive in kernel.pool.status().drives} == {"ok"}
        with dw.open(drives=urls) as kernel:
            assert kernel["c/x"] == long
    assert code_of(lambda: dw.open(drives=urls)) == "drive.url", "nobody opens them any more"


def test_a_configuration_brings_drives_and_policies_and_takes_them_away(tmp_path: Path) -> None:
    plugin_maker.write(
        tmp_path / "plugins" / "d",
        plugin_id="d",
        kinds=["drive"],
        capabilities={"drive": ["kv"]},
        files={"main.py": DRIVES},
    )
    plugin_maker.write(tmp_path / "plugins" / "p", COUNTS, state_version=1)
    values = {
        "store": {"drives": [f"kv://{tmp_path}/drive-{number}" for number in range(3)]},
        "plugins": {
            "folders": [str(tmp_path / "plugins")],
            "installed": False,
            "enabled": ["d", "p"],
        },
    }
    with dw.open(config=values, create=True, geometry="2+1") as kernel:
        assert {one.id for one in kernel.plugins.list()} >= {"d", "p"}
        kernel.containers.create("c")
        assert code_of(lambda: kernel.put("c/no", b"1")) == "policy.refused"
        kernel.config.set({"plugins.disabled": ["p"]})
        until(lambda: kernel.plugins.info("p").state != "started")
        kernel.put("c/no", b"1")
        kernel.config.set({"plugins.disabled": []})
        until(lambda: kernel.plugins.info("p").state == "started")
        assert code_of(lambda: kernel.put("c/no", b"2")) == "policy.refused"
    with dw.open(config=values) as kernel:
        assert "c/no" in list(kernel)
    values["plugins"]["enabled"] = ["p"]  # type: ignore[index]
    assert code_of(lambda: dw.open(config=values)) == "drive.url"


def test_what_happens_to_plugins_is_published(kernel: dw.Kernel, tmp_path: Path) -> None:
    with kernel.bus.subscribe("plugin.>") as heard:
        kernel.plugins.load(plugin_maker.write(tmp_path / "p"))
        message = heard.next("20s")
        assert message is not None
        assert message.subject == "plugin.loaded"
        assert json.loads(message.data)["id"] == "p"


def test_a_kernel_that_nobody_closed_leaves_no_thread_and_no_module_behind(tmp_path: Path) -> None:
    def threads() -> set[threading.Thread]:
        return set(threading.enumerate())

    before = threads()
    urls = [f"{url}-left" for url in URLS]
    kernel = dw.open(drives=urls, geometry="2+1", create=True)
    kernel.plugins.load(plugin_maker.write(tmp_path / "p", COUNTS, state_version=1))
    # The policy is told of operations on a thread of that call.
    until(lambda: {one.name for one in threads() - before} == {"dwk-plugins", "dwk-policies"})
    left = weakref.ref(kernel)
    with uncollected():
        del kernel
        with pytest.warns(ResourceWarning, match="unclosed"):
            gc.collect()
    assert left() is None
    # What those threads held is garbage once they have ended.
    until(lambda: gc.collect() >= 0 and not threads() - before)
    until(lambda: gc.collect() >= 0 and not [name for name in sys.modules if "plugin_p_" in name])
    dw.open(drives=urls).close()


def test_a_kernel_asks_its_plugins_whether_they_are_well(tmp_path: Path) -> None:
    urls = [f"{url}-well" for url in URLS]
    config = {"plugins": {"health": {"every": "20ms"}}}
    with dw.open(drives=urls, geometry="2+1", create=True, config=config) as kernel:
        body = "is_well = True\n\ndef health(self): return self.is_well"
        home = plugin_maker.write(tmp_path / "p", body)
        kernel.plugins.load(home)
        with kernel.plugins.get("policy").use() as instance:
            instance.is_well = False
        del instance
        until(lambda: kernel.plugins.get("policy").health.report().failures > 1)
