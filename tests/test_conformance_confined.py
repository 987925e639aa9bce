"""The suite runs plugins that are confined where they run: in a process of their own."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

import plugin_maker
from dwkernel.cli.plugin.making import make
from dwkernel.conformance import plugins

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="confining needs Linux")

POLICY = """
class Plugin:
    def __init__(self, config):
        self.count = 0

    def before(self, requests):
        self.count += len(requests)
        return [{} if one["access"] == "read" else "only reading" for one in requests]

    def after(self, finished):
        pass

    def export_state(self):
        return {"count": self.count}

    def import_state(self, state, from_version):
        self.count = state["count"]
"""


def results(folder: Path) -> dict[str, plugins.Result]:
    return {one.name: one for one in plugins.check(plugins.Subject(folder))}


def test_a_confined_codec_passes_every_case(tmp_path: Path) -> None:
    make("codec", "own-codec", tmp_path / "codec")
    home = next((tmp_path / "codec").glob("src/*"))
    manifest, code = home / "plugin.toml", home / "plugin.py"
    manifest.write_text(f'run = "confined"\n{manifest.read_text()}')
    # Its entry gets the configuration.
    begin = "    def __init__(self, config: dict[str, object]) -> None:\n        del config\n\n"
    text = code.read_text()
    assert text.count("    def encode(") == 1
    code.write_text(text.replace("    def encode(", f"{begin}    def encode("))
    found = results(tmp_path / "codec")
    assert {name: one.text for name, one in found.items() if one.status == "failed"} == {}
    left_out = {name for name, one in found.items() if one.status == "left out"}
    assert left_out == {"its_state_comes_over_a_reload"}


def test_a_confined_policy_passes_every_case(tmp_path: Path) -> None:
    fields = {"run": "confined", "state_version": 1, "summary": "only reading"}
    home = plugin_maker.write(tmp_path / "p", files={"main.py": POLICY}, **fields)  # type: ignore[arg-type]  # fields of a manifest
    assert {name: one.status for name, one in results(home).items() if one.status != "passed"} == {}


def test_a_confined_policy_that_breaks_a_claim_fails_that_case(tmp_path: Path) -> None:
    code = POLICY.replace("for one in requests]", "for one in requests[1:]]")
    fields = {"run": "confined", "state_version": 1, "summary": "only reading"}
    home = plugin_maker.write(tmp_path / "p", files={"main.py": code}, **fields)  # type: ignore[arg-type]  # fields of a manifest
    assert results(home)["each_request_has_a_verdict"].status == "failed"
