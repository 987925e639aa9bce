"""What `plugin new` makes passes its suite confined, too, by one line of its manifest."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from dwkernel.cli.plugin.making import make
from dwkernel.conformance import plugins
from dwkernel.plugins.kinds import CONFINABLE

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="confining needs Linux")


def confined(kind: str, folder: Path) -> Path:
    """Make a plugin of a kind, and let it run confined; return the file with its code."""
    make(kind, "own-one", folder)
    manifest = next(folder.glob("src/*/plugin.toml"))
    manifest.write_text(f'run = "confined"\n{manifest.read_text()}')
    return manifest.with_name("plugin.py")


def results(folder: Path) -> dict[str, plugins.Result]:
    return {one.name: one for one in plugins.check(plugins.Subject(folder))}


@pytest.mark.parametrize("kind", sorted(CONFINABLE))
def test_a_plugin_of_each_kind_passes_every_case_as_it_is_written(
    kind: str, tmp_path: Path
) -> None:
    trusted, folder = tmp_path / "trusted", tmp_path / "confined"
    make(kind, "own-one", trusted)
    confined(kind, folder)
    expected = {name: one.status for name, one in results(trusted).items()}
    found = results(folder)
    assert {name: one.text for name, one in found.items() if one.status == "failed"} == {}
    assert {name: one.status for name, one in found.items()} == expected


@pytest.mark.parametrize(
    ("old", "new", "fails"),
    [
        ("for request in requests]", "for request in requests[1:]]", "each_request_has_a_verdict"),
        ('self._asked = state["asked"]', "self._asked = 0", "its_state_comes_over_a_reload"),
    ],
)
def test_one_that_breaks_a_claim_fails_that_case(
    old: str, new: str, fails: str, tmp_path: Path
) -> None:
    code = confined("policy", tmp_path / "p")
    text = code.read_text()
    assert text.count(old) == 1
    code.write_text(text.replace(old, new))
    assert results(tmp_path / "p")[fails].status == "failed"
