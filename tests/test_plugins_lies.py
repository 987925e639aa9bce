"""Manifests that lie: what one says is held against the code, and against what was granted."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

import plugin_maker
from dwkernel import errors
from expect import code_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dwkernel.plugins import Plugins


@pytest.fixture
def opened() -> Iterator[Plugins]:
    with plugin_maker.plugins() as opened:
        yield opened


@pytest.mark.parametrize(
    ("fields", "code", "says"),
    [
        ({"entry": "main:Nothing"}, "plugin.load", "not there"),
        ({"entry": "nothing:Plugin"}, "plugin.load", "ModuleNotFoundError"),
        ({"kinds": ["codec"]}, "plugin.kind", "it lacks name, encode(data), decode(data, length)"),
        ({"kinds": ["policy", "sink"]}, "plugin.kind", "deliver(messages)"),
        ({"kernel": ">=2"}, "plugin.api", "kernel's API"),
        ({"requires": {"x": ">=1"}}, "plugin.dependency", "no x is there"),
        (
            {"permissions": {"network": True, "read": ["/etc"]}},
            "plugin.permission",
            "network, read:/etc",
        ),
        ({"run": "confined", "kinds": ["drive"]}, "plugin.sandbox", "can't be confined"),
        ({"config": {"required": ["a"]}}, "plugin.option", "a is missing"),
    ],
)
def test_a_plugin_that_can_not_be_what_it_says_is_refused(
    fields: dict[str, Any], code: str, says: str, opened: Plugins, tmp_path: Path
) -> None:
    home = plugin_maker.write(tmp_path / "p", **fields)
    with pytest.raises(errors.DwError) as caught:
        opened.load(home)
    assert caught.value.code == code
    assert says in str(caught.value)
    assert opened.find("policy") == []
    assert not [name for name in sys.modules if name.startswith("dwkernel_plugin_")]


def test_what_was_granted_may_be_asked_for(tmp_path: Path) -> None:
    home = plugin_maker.write(tmp_path / "p", permissions={"network": True, "read": ["/etc"]})
    for grant, state in ((["network", "read:/etc"], "started"), (["*"], "started")):
        with plugin_maker.plugins(grant={"p": grant}) as opened:
            assert opened.load(home).state == state
    with plugin_maker.plugins(grant={"p": ["network"]}) as opened:
        assert code_of(lambda: opened.load(home)) == "plugin.permission"


def test_a_model_of_the_plugin_checks_its_configuration(tmp_path: Path) -> None:
    code = "import pydantic\nclass Settings(pydantic.BaseModel):\n    size: int = 3\n"
    code += (
        plugin_maker.POLICY
        + "\n    def handshake(self, context): self.size = context.config.size\n"
    )
    home = plugin_maker.write(
        tmp_path / "p", files={"main.py": code}, config={"model": "main:Settings"}
    )
    with plugin_maker.plugins(config={"p": {"size": 7}}) as opened:
        opened.load(home)
        with opened.get("policy").use() as instance:
            assert instance.size == 7
        del instance
    with plugin_maker.plugins(config={"p": {"size": "many"}}) as opened:
        assert code_of(lambda: opened.load(home)) == "plugin.option"


CODEC = """
class Plugin:
    name = "one"
    def encode(self, data): return bytes(data)
    def decode(self, data, length): return bytes(data)
    def before(self, requests): ...
    def after(self, finished): ...
"""
PROMISES = [
    ({"state_version": 1}, "state_version 1, and its code no export_state"),
    (
        {"kinds": ["codec"], "capabilities": {"codec": ["two"]}},
        "codec 'one', and its manifest 'two'",
    ),
]


@pytest.mark.parametrize(
    "run",
    [
        "trusted",
        pytest.param(
            "confined",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="confining needs Linux"),
        ),
    ],
)
@pytest.mark.parametrize(("fields", "says"), PROMISES)
def test_what_a_manifest_promises_of_the_code_is_held_against_it(
    fields: dict[str, Any], says: str, run: str, opened: Plugins, tmp_path: Path
) -> None:
    home = plugin_maker.write(tmp_path / "p", files={"main.py": CODEC}, run=run, **fields)
    with pytest.raises(errors.DwError) as caught:
        opened.load(home)
    assert caught.value.code == "plugin.manifest"
    assert says in str(caught.value)
    fields = {"kinds": ["codec"], "capabilities": {"codec": ["two", "one"]}}
    home = plugin_maker.write(tmp_path / "p", files={"main.py": CODEC}, run=run, **fields)
    assert opened.load(home).state == "started"
