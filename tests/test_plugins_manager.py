"""All plugins of a kernel: which serves, in which order they begin and end, who is asked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pydantic
import pytest

import dwkernel as dw
import plugin_maker
from dwkernel import errors
from dwkernel.plugins import Plugins, PluginsSection
from dwkernel.plugins.life import MOVES, Context, Life, Limits
from dwkernel.plugins.output import Log
from dwkernel.plugins.watchdog import Watchdog
from expect import code_of, until

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE_S = 30.0


def named(folder: Path, plugin_id: str, body: str = "", **fields: Any) -> Path:
    return plugin_maker.write(folder / plugin_id, body, plugin_id=plugin_id, **fields)


def ids(handles: list[Any]) -> list[str]:
    return [handle.id for handle in handles]


# --- Who serves ---


def test_the_kernels_own_drives_and_sinks_are_plugins(tmp_path: Path) -> None:
    with plugin_maker.plugins() as opened:
        own = [info for info in opened.list() if info.source == "kernel"]
        assert {info.id: info.state for info in own} == {
            f"kernel.{name}": "started"
            for name in (
                "drive.file", "drive.memory",
                "sink.call", "sink.files", "sink.forward", "sink.webhook",
            )
        }  # fmt: skip
        assert opened.get("drive", "memory").call("open", "memory://x", False) == "memory://x"  # noqa: FBT003 - as the pool calls it
        with opened.get("sink", "call").use() as sink:
            assert isinstance(sink.make(print), dw.sinks.Call)
        assert opened.check().is_good
        assert code_of(lambda: opened.reload("kernel.drive.file")) == "plugin.state"
        # Whoever brings the same is asked first.
        drives = "class Plugin:\n    def open(self, location, make): return 'mine'"
        named(
            tmp_path,
            "mine",
            kinds=["drive"],
            capabilities={"drive": ["memory"]},
            files={"main.py": drives},
        )
        opened.load(tmp_path / "mine")
        assert opened.get("drive", "memory").call("open", "", False) == "mine"  # noqa: FBT003 - the same
        assert opened.get("drive", "file").id == "kernel.drive.file"
        opened.disable("kernel.drive.file")
        assert code_of(lambda: opened.get("drive", "file")) == "plugin.not_found"


def test_the_highest_priority_of_the_operating_mode_serves(tmp_path: Path) -> None:
    for name in "abc":
        named(tmp_path, name)
    section = PluginsSection.model_validate(
        {
            "folders": [tmp_path],
            "installed": False,
            "enabled": ["*"],
            "priority": {"b": 5},
            "priority_by_mode": {"nas": {"c": 9, "b": -1}},
        }
    )
    mode = ["workstation"]
    with Plugins(section, mode=lambda: mode[0]) as opened:
        assert opened.start() == {}
        assert ids(opened.find("policy")) == ["b", "a", "c"]
        mode[0] = "nas"
        assert ids(opened.find("policy")) == ["c", "a", "b"]


def test_tenants_have_their_own_choice(tmp_path: Path) -> None:
    for name in "ab":
        named(tmp_path, name)
    tenants = {"acme": {"disabled": ["a"]}, "zoo": {"enabled": ["b"]}}
    with plugin_maker.plugins(folders=[tmp_path], enabled=["*"], tenants=tenants) as opened:
        assert opened.start() == {}
        assert ids(opened.find("policy")) == ["a", "b"]
        assert ids(opened.find("policy", tenant="acme")) == ["b"]
        opened.enable("a", "acme")
        opened.disable("b", "acme")
        assert ids(opened.find("policy", tenant="acme")) == ["a"]
        assert ids(opened.find("policy", tenant="zoo")) == ["a", "b"]
        opened.reload("a")
        assert opened.info("a").tenants == {"acme": True}


def test_what_only_a_tenant_has_enabled_serves_that_one_only(tmp_path: Path) -> None:
    for name in "ab":
        named(tmp_path, name)
    with plugin_maker.plugins(
        folders=[tmp_path], enabled=[], tenants={"zoo": {"enabled": ["a"]}}
    ) as opened:
        assert opened.start() == {}
        opened.enable("b", "acme")
        found = {who: ids(opened.find("policy", tenant=who)) for who in (None, "zoo", "acme")}
        assert found == {None: [], "zoo": ["a"], "acme": ["b"]}
        opened.enable("b")
        assert ids(opened.find("policy")) == ["b"]
        opened.reload("a")
        assert ids(opened.find("policy", tenant="zoo")) == ["a", "b"]
        assert ids(opened.find("policy")) == ["b"]


def test_what_is_not_enabled_does_not_start_and_can_be_enabled_later(tmp_path: Path) -> None:
    for name in "abc":
        named(tmp_path, name)
    with plugin_maker.plugins(
        folders=[tmp_path], enabled=["a", "b", "x"], disabled=["b"]
    ) as opened:
        wrong = opened.start()
        assert {name: error.code for name, error in wrong.items()} == {"x": "plugin.not_found"}
        states = {name: opened.info(name).state for name in "abc"}
        assert states == {"a": "started", "b": "discovered", "c": "discovered"}
        assert code_of(lambda: opened.load("b")) == "plugin.state"
        opened.enable("b")
        assert opened.info("b").state == "started"
        opened.disable("a")
        assert (opened.info("a").state, ids(opened.find("policy"))) == ("stopped", ["b"])
        assert code_of(lambda: opened.load("a")) == "plugin.state"
        opened.enable("a")
        assert ids(opened.find("policy")) == ["a", "b"]
        assert code_of(lambda: opened.info("x")) == "plugin.not_found"
        assert code_of(lambda: opened.enable("x")) == "plugin.not_found"


def test_a_changed_section_is_applied_to_what_runs(tmp_path: Path) -> None:
    for name in "abc":
        named(tmp_path, name)
    named(tmp_path, "d", requires={"c": ">=1"})
    section: dict[str, Any] = {"folders": [tmp_path], "installed": False, "enabled": ["a", "d"]}
    now = [PluginsSection.model_validate(section)]
    with Plugins(lambda: now[0]) as opened:
        assert opened.start() == {}
        opened.enable("a", "zoo")
        assert ids(opened.find("policy")) == ["a", "c", "d"]
        named(tmp_path, "e")
        changed = {"enabled": ["b", "e", "x"], "disabled": ["a", "c"], "priority": {"e": 1}}
        now[0] = PluginsSection.model_validate({**section, **changed})
        wrong = opened.apply()
        assert {name: error.code for name, error in wrong.items()} == {
            "x": "plugin.not_found",
            "c": "plugin.dependency",
        }
        assert ids(opened.find("policy")) == ["e", "b", "c", "d"]
        now[0] = PluginsSection.model_validate({**section, "tenants": {"zoo": {"disabled": ["b"]}}})
        assert opened.apply() == {}
        assert ids(opened.find("policy")) == ["a", "b", "c", "d", "e"]
        assert ids(opened.find("policy", tenant="zoo")) == ["a", "c", "d", "e"]


def test_a_section_says_what_each_field_is_and_refuses_nonsense() -> None:
    fields = PluginsSection.model_fields
    assert all(one.description for one in fields.values())
    live = {name for name, one in fields.items() if one.json_schema_extra == {"live": True}}
    assert set(fields) - live == {"watch", "stage"}
    assert PluginsSection.model_validate({"limits": {"drain": "1min"}}).limits.drain == 60.0
    nonsense: list[dict[str, Any]] = [
        {"enable": []},
        {"limits": {"drain": 0}},
        {"health": {"pauses": []}},
    ]
    for wrong in nonsense:
        with pytest.raises(pydantic.ValidationError):
            PluginsSection.model_validate(wrong)


def test_a_handle_stays_good_when_its_plugin_is_disabled_and_enabled(tmp_path: Path) -> None:
    with plugin_maker.plugins(folders=[named(tmp_path, "a")]) as opened:
        opened.load("a")
        handle = opened.get("policy")
        opened.disable("a")
        assert code_of(lambda: handle.call("after", [])) == "plugin.state"
        opened.enable("a")
        assert handle.call("after", []) is None
        assert opened.get("policy") is handle


def test_plugins_begin_after_those_that_they_need_and_end_before_them(tmp_path: Path) -> None:
    heard: list[tuple[str, str]] = []
    named(tmp_path, "a", requires={"b": ">=1"})
    named(tmp_path, "b", requires={"c": ">=1"})
    named(tmp_path, "c")
    named(tmp_path, "d", "def start(self): raise ValueError('no')")
    named(tmp_path, "e", requires={"d": ">=1"})
    with plugin_maker.plugins(folders=[tmp_path], enabled=["a", "e"]) as opened:
        opened.on(lambda subject, data: heard.append((subject, data["id"])))
        wrong = opened.start()
    assert {name: error.code for name, error in wrong.items()} == {
        "d": "plugin.failed",
        "e": "plugin.dependency",
    }
    assert "e 1.0 needs d, which does not run (plugin.failed)" in str(wrong["e"])
    loaded = [name for subject, name in heard if subject == "plugin.loaded"]
    stopped = [name for subject, name in heard if subject == "plugin.stopped"]
    assert (loaded, stopped) == (["c", "b", "a"], ["a", "b", "c"])


def test_a_second_folder_with_the_same_id_is_refused(tmp_path: Path) -> None:
    one = plugin_maker.write(tmp_path / "one")
    two = plugin_maker.write(tmp_path / "two")
    with plugin_maker.plugins() as opened:
        opened.load(one)
        assert code_of(lambda: opened.load(two)) == "plugin.exists"
        assert opened.load(one).reloads == 0
    with plugin_maker.plugins(folders=[tmp_path]) as opened:
        assert code_of(lambda: opened.load("p")) == "plugin.exists"
        assert list(opened.check().wrong) == ["p"]


def test_check_tells_what_does_not_fit_without_loading(tmp_path: Path) -> None:
    named(tmp_path, "a", requires={"b": ">=2"}, files={"main.py": "raise SystemExit"})
    named(tmp_path, "b", version="1.4")
    with plugin_maker.plugins(folders=[tmp_path]) as opened:
        check = opened.check()
        assert not check.is_good
        assert list(check.wrong) == ["a"]
        row = next(row for row in check.rows if row.needs == "b")
        assert (row.plugin, row.found, row.is_met) == ("a", "1.4", False)


def test_after_closing_everything_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with plugin_maker.plugins() as opened:
        opened.load(plugin_maker.write(tmp_path / "p"))
        handle = opened.get("policy")
    opened.close()
    assert opened.closed
    for call in (opened.list, opened.start, lambda: opened.load("p"), lambda: opened.reload("p")):
        assert code_of(call) == "plugin.state"
    assert code_of(lambda: handle.call("after", [])) == "plugin.state"
    assert not [name for name in sys.modules if name.startswith("dwkernel_plugin_")]


def test_closing_takes_no_longer_than_it_may(tmp_path: Path) -> None:
    opened = Plugins(PluginsSection.model_validate({"installed": False, "limits": {"stop": 0.1}}))
    opened.load(
        plugin_maker.write(tmp_path / "p", "def stop(self):\n    import time\n    time.sleep(2)")
    )
    with opened.get("policy").use():
        began = time.monotonic()
        opened.close(deadline="0.2s")
        assert time.monotonic() - began < 1.5
    assert opened.closed


def test_many_threads_may_do_everything_at_once(tmp_path: Path) -> None:
    for name in "abcd":
        named(tmp_path, name)
    allowed = {"plugin.state", "plugin.not_found"}
    met: list[BaseException] = []
    with plugin_maker.plugins(folders=[tmp_path], enabled=["*"]) as opened:
        opened.start()

        def work(seed: int) -> None:
            chance = random.Random(seed)
            for _ in range(30):
                name = chance.choice("abcd")
                verbs = ["enable", "disable", "pause", "resume", "reload", "info", "call"]
                verb = chance.choice(verbs)
                try:
                    if verb == "call":
                        opened.get("policy").call("after", [])
                    else:
                        getattr(opened, verb)(name)
                except BaseException as error:  # noqa: BLE001 - it is looked at below
                    if getattr(error, "code", "") not in allowed:
                        met.append(error)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            assert len(opened.list()) == 10
            time.sleep(0.005)
        assert met == []
        for name in "abcd":
            opened.enable(name)
            with contextlib.suppress(errors.State):
                opened.resume(name)
        assert ids(opened.find("policy")) == list("abcd")
    assert not [name for name in sys.modules if name.startswith("dwkernel_plugin_")]


def test_a_kernel_tells_of_its_plugins_on_its_bus_and_closes_them(
    kernel: dw.Kernel, tmp_path: Path
) -> None:
    heard: list[tuple[str, dict[str, Any]]] = []
    kernel.bus.subscribe(
        "plugin.*", lambda message: heard.append((message.subject, json.loads(message.data)))
    )
    plugins = kernel.plugins
    assert plugins is kernel.plugins
    plugins.load(plugin_maker.write(tmp_path / "p"))
    plugins.reload("p")
    until(lambda: len(heard) == 3)
    assert [(subject, data["id"]) for subject, data in heard] == [
        ("plugin.loaded", "p"),
        ("plugin.reloading", "p"),
        ("plugin.reloaded", "p"),
    ]
    assert heard[2][1]["report"]["is_unloaded"]
    kernel.close()
    assert plugins.closed
    assert code_of(lambda: kernel.plugins) == "store.closed"


# --- A life against its model ---


@pytest.mark.parametrize("seed", range(40))
def test_a_life_goes_only_where_its_model_does(seed: int) -> None:
    chance = random.Random(seed)
    calls: list[str] = []

    class Instance:
        raises = False

        def __getattr__(self, name: str) -> Any:
            if name not in MOVES:
                raise AttributeError(name)

            def method(*_: Any) -> None:
                calls.append(name)
                if self.raises:
                    raise SystemExit

            return method

    instance = Instance()
    log = Log("p")
    life = Life(instance, Watchdog("p", log), Limits(start=PATIENCE_S, pause=PATIENCE_S))
    context = Context("p", "1.0", "1.0", {}, log, {})
    arguments: dict[str, tuple[Any, ...]] = {"handshake": (context,), "drain": (PATIENCE_S,)}
    # The model: what each state leads to, written down by hand.
    model = {
        ("loaded", "handshake"): ("greeted", "failed"),
        ("greeted", "start"): ("started", "failed"),
        ("started", "pause"): ("paused", "started"),
        ("paused", "resume"): ("started", "paused"),
        ("started", "drain"): ("draining", "draining"),
        ("paused", "drain"): ("draining", "draining"),
        **{
            (state, "stop"): ("stopped", "stopped")
            for state in ("loaded", "greeted", "started", "paused", "draining", "failed")
        },
    }
    state = "loaded"
    for _ in range(60):
        step = chance.choice([*MOVES, "handshake", "start"])
        instance.raises = chance.random() < 0.15
        before = len(calls)
        if step == "stop" and (state == "stopped" or chance.random() < 0.7):
            continue
        expected = model.get((state, step))
        try:
            getattr(life, step)(*arguments.get(step, ()))
            code = None
        except errors.DwError as error:
            code = error.code
        if expected is None:
            assert (code, len(calls)) == ("plugin.state", before)
        else:
            assert code == ("plugin.failed" if instance.raises else None)
            assert calls[before:] == [step]
            state = expected[instance.raises]
        assert life.state == state


GOOD, BAD = "def of(self): return NUMBER", "def start(self): raise ValueError('no')"


class Model:
    """How a plugin stands, by what was asked of it: written down by hand."""

    def __init__(self) -> None:
        self.state = "discovered"
        self.runs = 0
        self.is_disabled = False

    def does(self, verb: str, number: int, *, good: bool) -> str | None:
        """Return the code that a verb fails with; `number` is the version that is there."""
        is_up = self.state in ("started", "paused")
        if verb == "disable":
            self.is_disabled = True
            self.state = "stopped" if is_up else self.state
            return None
        if verb in ("pause", "resume"):
            return self._rests(verb)
        if verb == "enable":
            self.is_disabled = False
        if is_up:
            return self._follows(number, good=good) if verb == "reload" else None
        return "plugin.state" if self.is_disabled else self._begins(number, good=good)

    def _rests(self, verb: str) -> str | None:
        before, after = ("started", "paused") if verb == "pause" else ("paused", "started")
        if self.state != before:
            return "plugin.state"
        self.state = after
        return None

    def _follows(self, number: int, *, good: bool) -> str | None:
        self.runs = number if good else self.runs
        return None if good else "plugin.reload"

    def _begins(self, number: int, *, good: bool) -> str | None:
        self.state, self.runs = ("started" if good else "failed"), number
        return None if good else "plugin.failed"


@pytest.mark.parametrize("seed", range(12))
def test_plugins_stand_as_their_model_says_after_any_history(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    models = {name: Model() for name in "ab"}
    verbs = ["load", "enable", "disable", "pause", "resume", "reload", "reload"]

    def write(name: str, number: int, *, good: bool) -> None:
        body = GOOD.replace("NUMBER", str(number)) if good else BAD
        plugin_maker.write(tmp_path / name, body, plugin_id=name, version=f"{number}.0")

    for name in models:
        write(name, 1, good=True)
    with plugin_maker.plugins(folders=[tmp_path]) as opened:
        for number in range(1, 30):
            name, verb, good = chance.choice("ab"), chance.choice(verbs), chance.random() < 0.7
            write(name, number, good=good)
            opened.refresh()
            code = models[name].does(verb, number, good=good)
            found = None
            try:
                getattr(opened, verb)(name)
            except errors.DwError as error:
                found = error.code
            assert found == code, (number, verb, name)
            for each, model in models.items():
                assert opened.info(each).state == model.state, (number, verb, name, each)
            serving = [each for each, model in models.items() if model.state == "started"]
            answers = [(handle.id, handle.call("of")) for handle in opened.find("policy")]
            assert answers == [(each, models[each].runs) for each in serving]


def test_a_program_of_asyncio_has_plugins_and_the_configuration(tmp_path: Path) -> None:
    async def work() -> None:
        drives = [f"memory://aio-plugins-{number}" for number in range(3)]
        async with dw.aio.open(drives=drives, create=True) as kernel:
            assert kernel.config.current.mode == "workstation"
            info = await kernel.plugins.load(plugin_maker.write(tmp_path / "p"))
            assert info.state == "started"
            await kernel.plugins.pause("p")
            assert (await kernel.plugins.info("p")).state == "paused"
            await kernel.plugins.resume("p")
            assert (await kernel.plugins.info("p")).state == "started"
            assert (await kernel.plugins.reload("p")).is_unloaded
            await kernel.plugins.disable("p")
            assert [one.id for one in await kernel.plugins.list() if one.state == "stopped"] == [
                "p"
            ]
            await kernel.plugins.enable("p")

    asyncio.run(work())


def test_what_did_not_begin_is_looked_at_anew_when_it_is_to_begin(tmp_path: Path) -> None:
    home = tmp_path / "plugins" / "p"
    for folders, named in (((home.parent,), False), ((), True)):
        plugin_maker.write(home, files={"main.py": "1 / 0"})
        with plugin_maker.plugins(folders=folders) as opened:
            first = home if named else "p"
            assert code_of(lambda: opened.load(first)) == "plugin.load"  # noqa: B023 - called at once
            plugin_maker.write(home, version="1.1")
            assert opened.load("p").version == "1.1"
            opened.disable("p")
            plugin_maker.write(home, version="1.2")
            opened.enable("p")
            assert opened.info("p").version == "1.2"


def test_who_is_not_well_when_it_is_asked_has_failed_and_is_told_of_until_it_is_again(
    tmp_path: Path,
) -> None:
    ill = tmp_path / "ill"
    code = f"def health(self):\n    import os\n    return not os.path.exists({str(ill)!r})\n"
    heard: list[str] = []
    with plugin_maker.plugins(health={"failures_in_row": 3}) as opened:
        opened.on(lambda subject, data: heard.append(f"{subject} {data['id']}"))
        opened.load(plugin_maker.write(tmp_path / "p", code))
        opened.load(plugin_maker.write(tmp_path / "q", plugin_id="q"))
        opened.probe()
        ill.touch()
        for _ in range(3):
            opened.probe()
        found = opened.info("p").health
        assert found is not None
        assert (found.failures, found.state) == (3, "failing")
        assert "not well" in str(found.last_error)
        ill.unlink()
        opened.probe()
        opened.probe()
    assert heard[2:4] == ["plugin.unwell p", "plugin.well p"]
    assert code_of(opened.probe) == "plugin.state"


def test_a_check_tells_of_options_that_no_manifest_allows(tmp_path: Path) -> None:
    home = tmp_path / "plugins" / "p"
    plugin_maker.write(home, config={"properties": {"limit": {"type": "integer"}}})
    with plugin_maker.plugins(folders=[home.parent], config={"p": {"limt": 1}}) as opened:
        found = opened.check()
        assert not found.is_good
        assert found.wrong["p"].startswith("plugins.config.p.limt is not known, did you mean")
