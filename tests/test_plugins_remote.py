"""Plugins in a process of their own, through the same registry, reloads included."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

import plugin_maker
from dwkernel import errors
from dwkernel.plugins import Finished, Plugins, Request, kinds, manifest
from dwkernel.plugins.kinds.policy import Verdict
from dwkernel.plugins.remote import CONFINABLE, Remote
from expect import code_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dwkernel.plugins.discovery import Found

CONFINED = """
class Plugin:
    def __init__(self, config):
        self.limit = config["limit"]
        self.count = 0

    def before(self, requests):
        self.count += len(requests)
        return [
            "too long" if len(one["key"]) > self.limit
            else {"annotations": {"count": str(self.count)}}
            for one in requests
        ]

    def after(self, finished):
        self.last = finished[0]["request"]["key"]

    def where(self):
        import os
        return os.getpid()

    def export_state(self):
        return self.count

    def import_state(self, state, from_version):
        self.count = state
"""
CONFIG = {"properties": {"limit": {"type": "integer", "default": 10}}}
REQUESTS = [Request("put", "a/b"), Request("put", "a/ccccccccccc")]


class Here:
    """Answers as a confined process does, in this one: what crosses must be plain."""

    def __init__(self, plugin: Any) -> None:
        self.plugin = plugin
        self.calls: list[str] = []
        self.is_stopped = False

    def call(self, method: str, *arguments: Any) -> Any:
        from dwkernel.plugins.plain import plain

        self.calls.append(method)
        found = getattr(self.plugin, method, None)
        if found is None:
            text = f"the plugin has no method {method}"
            raise errors.new("plugin.failed", text, type="NoMethodError")
        return plain(found(*plain(list(arguments))))

    def stop(self, deadline_s: float) -> None:
        assert deadline_s > 0
        self.is_stopped = True


def write(home: Path, **fields: Any) -> Path:
    given = {"run": "confined", "config": CONFIG, "state_version": 1, "keep_state": True, **fields}
    return plugin_maker.write(home, files={"main.py": CONFINED}, **given)


def test_a_confined_policy_is_asked_by_plain_data_and_reloaded_with_its_state(
    tmp_path: Path,
) -> None:
    started: list[Here] = []
    folders: list[Path] = []

    def confine(found: Found, folder: Path, config: Mapping[str, Any]) -> Remote:
        names: dict[str, Any] = {}
        exec((folder / "main.py").read_text(), names)  # noqa: S102 - the test's own
        started.append(Here(names["Plugin"](dict(config))))
        folders.append(folder)
        return Remote(found.manifest, started[-1])

    with Plugins(confine=confine) as opened:
        opened.load(write(tmp_path / "p"))
        handle = opened.get("policy")
        for count in (2, 4):
            assert handle.call("before", REQUESTS) == [
                Verdict.annotate({"count": str(count)}),
                Verdict.refuse("too long"),
            ]
            handle.call("after", [Finished(REQUESTS[0])])
            assert opened.reload("p").state
            assert started[-2].is_stopped
        assert started[0].plugin.last == "a/b"
        assert started[0].calls[:2] == ["handshake", "start"]
    assert all(one.is_stopped for one in started)
    assert len(folders) == 3
    assert not any(folder.exists() for folder in folders)


def test_every_kind_that_can_be_confined_has_all_its_methods() -> None:
    for kind in CONFINABLE:
        said = manifest.parse(plugin_maker.manifest(kinds=[kind]).encode())
        assert kinds.missing(kind, Remote(said, Here(None))) == []


def test_kinds_that_hand_out_objects_are_refused(tmp_path: Path) -> None:
    with Plugins() as opened:
        home = plugin_maker.write(tmp_path / "p", kinds=["drive"], run="confined")
        assert code_of(lambda: opened.load(home)) == "plugin.sandbox"


def test_a_verdict_that_can_not_be_read_refuses() -> None:
    class Odd:
        def before(self, _: list[Any]) -> list[Any]:
            return [{"kind": "maybe"}, 1, None, {"kind": "refuse", "reason": "no"}, {}]

    said = manifest.parse(plugin_maker.manifest().encode())
    remote: Any = Remote(said, Here(Odd()))
    assert [one.kind for one in remote.before([])] == ["refuse"] * 4 + ["allow"]


LINUX = pytest.mark.skipif(sys.platform != "linux", reason="confined processes are Linux only")


@LINUX
def test_a_confined_plugin_runs_in_another_process(tmp_path: Path) -> None:
    with Plugins() as opened:
        try:
            opened.load(write(tmp_path / "p"))
        except errors.Unsupported as error:
            pytest.skip(f"this system can't confine: {error}")
        handle = opened.get("policy")
        assert [one.kind for one in handle.call("before", REQUESTS)] == ["allow", "refuse"]
        first = handle.call("ask", "where", ())
        assert first != os.getpid()
        assert opened.reload("p").state
        assert handle.call("ask", "where", ()) not in (first, os.getpid())
        assert handle.call("before", REQUESTS)[0].annotations == {"count": "4"}


@LINUX
def test_what_a_confined_plugin_does_not_implement_is_not_taken_for_a_missing_method(
    tmp_path: Path,
) -> None:
    raises = "raise NotImplementedError('not today')"  # the plugin's, which is what is tested
    code = CONFINED + f"\n    def start(self):\n        {raises}\n"
    with Plugins() as opened:
        home = plugin_maker.write(
            tmp_path / "p", run="confined", config=CONFIG, files={"main.py": code}
        )
        with pytest.raises(errors.DwError, match="not today"):
            opened.load(home)
