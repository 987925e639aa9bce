"""Whom plugins serve: all, one tenant or nobody, as a configuration that changes says."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import dwkernel as dw
import plugin_maker
from dwkernel import _native, errors
from dwkernel.plugins import Plugins, PluginsSection
from expect import code_of, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

REFUSES = "def before(self, requests): return [Verdict.refuse('no') for _ in requests]"


def named(folder: Path, plugin_id: str, body: str = "", **fields: Any) -> Path:
    return plugin_maker.write(folder / plugin_id, body, plugin_id=plugin_id, **fields)


def serving(opened: Plugins, tenant: str | None = None) -> list[str]:
    return [handle.id for handle in opened.find("policy", tenant=tenant)]


def urls(name: str) -> list[str]:
    return [f"memory://tenants-{name}-{number}" for number in range(3)]


def is_refused(call: Callable[[], object]) -> bool:
    try:
        call()
    except errors.DwError as error:
        assert error.code == "policy.refused"  # noqa: PT017 - both ways are right
        return True
    return False


# --- Tenants ---


def test_what_a_tenants_plugin_needs_serves_nobody_else(tmp_path: Path) -> None:
    named(tmp_path, "a", requires={"b": ">=1"})
    named(tmp_path, "b")
    named(tmp_path, "c", requires={"d": ">=1"})
    named(tmp_path, "d")
    named(tmp_path, "e", requires={"f": ">=1"})
    named(tmp_path, "f")
    section = {"enabled": ["e"], "tenants": {"zoo": {"enabled": ["a"]}}}
    with plugin_maker.plugins(folders=[tmp_path], **section) as opened:
        served: dict[str, list[str]] = {}
        opened.on(lambda _, data: served.update({data["id"]: serving(opened)}))
        assert opened.start() == {}
        opened.enable("c", "acme")
        assert (serving(opened), serving(opened, "zoo")) == (["e", "f"], ["a", "e", "f"])
        assert serving(opened, "acme") == ["c", "e", "f"]
        # Not for a moment, either.
        assert not {"a", "b", "c", "d"} & {one for ids in served.values() for one in ids}
        opened.enable("b")
        assert serving(opened) == ["b", "e", "f"]


def test_what_only_a_tenant_had_serves_all_once_the_section_says_so(tmp_path: Path) -> None:
    named(tmp_path, "a")
    section: dict[str, Any] = {"folders": [tmp_path], "installed": False}
    now = [PluginsSection.model_validate({**section, "tenants": {"zoo": {"enabled": ["a"]}}})]
    heard: list[str] = []
    with Plugins(lambda: now[0]) as opened:
        assert opened.start() == opened.apply() == {}
        assert (serving(opened), serving(opened, "zoo")) == ([], ["a"])
        now[0] = PluginsSection.model_validate({**section, "enabled": ["a"]})
        opened.on(lambda subject, _: heard.append(subject))
        assert opened.apply() == opened.apply() == {}
        assert (serving(opened), heard) == (["a"], ["plugin.enabled"])


def test_what_was_said_of_a_tenant_counts_whether_the_plugin_runs_or_not(tmp_path: Path) -> None:
    with plugin_maker.plugins(folders=[named(tmp_path, "a")]) as opened:
        opened.disable("a", "acme")
        opened.load("a")
        assert (serving(opened), serving(opened, "acme")) == (["a"], [])
        opened.disable("a")
        opened.enable("a")
        assert (serving(opened), serving(opened, "acme")) == (["a"], [])
        opened.disable("a")
        opened.enable("a", "acme")
        assert (serving(opened), serving(opened, "acme")) == ([], ["a"])


def test_what_somebody_disabled_is_left_alone_and_has_not_failed(tmp_path: Path) -> None:
    for name in "ab":
        named(tmp_path, name)
    named(tmp_path, "c", requires={"b": ">=1"})
    heard: list[str] = []
    with plugin_maker.plugins(folders=[tmp_path], enabled=["a"]) as opened:
        assert opened.start() == {}
        opened.disable("a")
        opened.disable("b")
        opened.on(lambda subject, _: heard.append(subject))
        assert opened.apply() == {}
        assert code_of(lambda: opened.load("c")) == "plugin.dependency"
        states = [opened.info(name).state for name in "abc"]
        assert (states, heard) == (["stopped", "discovered", "discovered"], [])


# --- A configuration that changes ---


def test_a_store_begins_with_what_only_a_tenant_has_enabled(tmp_path: Path) -> None:
    named(tmp_path, "a", REFUSES)
    plugins = {
        "folders": [str(tmp_path)],
        "installed": False,
        "tenants": {"acme": {"enabled": ["a"]}},
    }
    with dw.open(drives=urls("only"), create=True, config={"plugins": plugins}) as kernel:
        kernel.containers.create("c")
        kernel._caller = _native.Caller("somebody", "acme")
        assert code_of(lambda: kernel.put("c/x", b"1")) == "policy.refused"


def test_a_policy_that_a_change_enables_is_asked_though_there_were_no_plugins(
    tmp_path: Path,
) -> None:
    folder = named(tmp_path, "a", REFUSES)
    with dw.open(drives=urls("late"), create=True) as kernel:
        kernel.containers.create("c")
        kernel.config.set({"plugins.folders": [str(folder)], "plugins.installed": False})
        assert kernel._plugins is None
        kernel.config.set({"plugins.enabled": ["a"]})
        until(lambda: is_refused(lambda: kernel.put("c/x", b"1")))
        kernel.config.set({"plugins.disabled": ["a"]})
        until(lambda: not is_refused(lambda: kernel.put("c/x", b"1")))


def test_plugins_follow_the_configuration_on_after_something_went_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named(tmp_path, "a", REFUSES)
    failed: list[int] = []

    def apply() -> dict[str, errors.DwError]:
        failed.append(1)
        raise RuntimeError

    with dw.open(drives=urls("follow"), create=True) as kernel:
        with monkeypatch.context() as patch:
            patch.setattr(kernel.plugins, "apply", apply)
            kernel.config.set({"plugins.folders": [str(tmp_path)], "plugins.installed": False})
            until(lambda: failed)
        kernel.config.set({"plugins.enabled": ["a"]})
        until(lambda: kernel.plugins.info("a").state == "started")


def test_rules_of_health_count_from_the_next_version_on(tmp_path: Path) -> None:
    body = "def before(self, requests): raise ValueError"
    section: dict[str, Any] = {"folders": [tmp_path], "installed": False}
    now = [PluginsSection.model_validate(section)]
    with Plugins(lambda: now[0]) as opened:
        named(tmp_path, "a", body)
        opened.load("a")
        handle = opened.get("policy")
        strict = {"failures_max": 2, "failures_in_row": 99, "quarantines": ["1h"]}
        now[0] = PluginsSection.model_validate({**section, "health": strict})
        named(tmp_path, "a", body, version="1.1")
        opened.reload("a")
        for state in ("started", "quarantined"):
            assert code_of(lambda: handle.call("before", [])) == "plugin.failed"
            assert opened.info("a").state == state
        strict["failures_in_row"] = 1
        opened.disable("a")
        now[0] = PluginsSection.model_validate({**section, "health": strict})
        opened.enable("a")
        assert code_of(lambda: handle.call("before", [])) == "plugin.failed"
        assert code_of(lambda: handle.call("before", [])) == "plugin.quarantined"


def test_a_new_version_begins_all_that_it_needs_and_what_that_needs(tmp_path: Path) -> None:
    named(tmp_path, "a")
    named(tmp_path, "b", requires={"c": ">=1"})
    named(tmp_path, "c", requires={"d": ">=1"})
    named(tmp_path, "d")
    with plugin_maker.plugins(folders=[tmp_path]) as opened:
        opened.enable("a", "zoo")
        named(tmp_path, "a", version="1.1", requires={"b": ">=1"})
        assert opened.reload("a").after == "1.1"
        assert [opened.info(name).state for name in "abcd"] == ["started"] * 4
        # As for the one that needs them: for whom nobody asked they serve nobody.
        assert (serving(opened), serving(opened, "zoo")) == ([], ["a"])


# --- Ends ---


def test_plugins_that_do_not_stop_hold_nobody_up_for_longer_than_closing_may_take(
    tmp_path: Path,
) -> None:
    hangs = "def drain(self, deadline_s): self.stop()\ndef stop(self): threading.Event().wait(600)"
    code = (
        "import threading\n"
        + plugin_maker.POLICY
        + "\n".join(f"    {line}" for line in hangs.splitlines())
    )
    for name in "abcde":
        named(tmp_path, name, files={"main.py": code})
    named(tmp_path, "f", "def stop(self): self.done.append(1)\ndone = []")
    opened = Plugins(PluginsSection(folders=(tmp_path,), installed=False, enabled=("*",)))
    assert opened.start() == {}
    heard: dict[str, list[str]] = {}
    opened.on(lambda _, data: heard.update({data["id"]: data.get("wrong", [])}))
    began = time.monotonic()
    opened.close(deadline="0.5s")
    assert time.monotonic() - began < 20, "each has ten seconds for `stop`"
    assert opened.closed
    assert heard["f"] == []
    assert "stop of a did not end" in " ".join(heard["a"])


def test_two_that_serve_one_scheme_do_not_take_it_from_each_other(tmp_path: Path) -> None:
    body = "def open(self, location, make):\n    from dwkernel import errors\n"
    body += "    raise errors.new('drive.io', 'opened by ' + type(self).__module__)"

    def one(name: str) -> Plugins:
        home = named(
            tmp_path,
            name,
            files={"main.py": f"class Plugin:\n    {body.replace(chr(10), chr(10) + '    ')}"},
            kinds=["drive"],
            capabilities={"drive": ["shared"]},
        )
        opened = Plugins(PluginsSection(installed=False))
        opened.load(home)
        return opened

    def opens() -> str:
        try:
            dw.open(drives=["shared://1"], create=True).close()
        except errors.DwError as error:
            return str(error)
        return ""

    first, second = one("first"), one("second")
    assert "plugin_second_" in opens()
    second.close()
    assert "plugin_first_" in opens()
    first.disable("first")
    assert "drive.url" in opens()
    first.enable("first")
    assert "plugin_first_" in opens()
    first.close()
    assert "drive.url" in opens()


def test_a_forked_child_is_refused_though_somebody_was_in_the_middle_of_a_step() -> None:
    opened = Plugins(PluginsSection(installed=False))
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with opened._doing:
            held.set()
            done.wait()

    threading.Thread(target=hold, daemon=True).start()
    held.wait()
    pid, opened._pid = opened._pid, -1  # as it is seen from a child
    codes: list[str] = []
    calls = [lambda: opened.pause("a"), lambda: opened.resume("a"), opened.start, opened.apply]
    worker = threading.Thread(target=lambda: codes.extend(map(code_of, calls)), daemon=True)
    worker.start()
    until(lambda: not worker.is_alive())
    assert codes == ["plugin.state"] * 4
    opened._pid = pid
    done.set()
    opened.close()
