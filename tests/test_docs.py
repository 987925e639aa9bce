"""What README and guide show runs, and what documents point at is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHOWN = ["README.md", "docs/guide.md", "docs/plugins.md"]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob(".github/**/*.md")])
# Written by `make bench`, on the machine that it describes.
MADE_LATER = {ROOT / "docs" / "benchmarks.md"}

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def blocks(page: str, *languages: str) -> list[tuple[int, str]]:
    """Return the blocks of a page with the line where each begins."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, found.start(2)), found[2])
        for found in _BLOCK.finditer(text)
        if found[1] in languages
    ]


@pytest.mark.parametrize("page", SHOWN)
def test_python_blocks_run_from_top_to_bottom(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = blocks(page, "python")
    assert len(found) >= 2
    names: dict[str, object] = {}
    for line, code in found:
        # Errors name the line of the page.
        exec(compile("\n" * line + code, page, "exec", dont_inherit=True), names)  # noqa: S102 - our own pages


@pytest.mark.parametrize("page", SHOWN)
def test_commands_run_from_top_to_bottom(page: str, tmp_path: Path) -> None:
    photo = tmp_path / "photos" / "2024" / "a.jpg"
    photo.parent.mkdir(parents=True)
    photo.write_bytes(os.urandom(100_000))
    lines = "".join(text for _, text in blocks(page, "sh", "console")).splitlines()
    commands = [line.removeprefix("$ ") for line in lines]
    commands = [line for line in commands if line.startswith("dwkernel ")]
    assert len(commands) >= 5
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "HOME": str(tmp_path), "PATH": programs}
    for command in commands:
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    for copy in ("a.jpg", "b.jpg", "back/a.jpg"):
        if copy in " ".join(commands):
            assert (tmp_path / copy).read_bytes() == photo.read_bytes()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in _LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in target or target.startswith(("#", "mailto:")):
            continue
        place = (page.parent / target.split("#", 1)[0]).resolve()
        assert place.exists() or place in MADE_LATER, f"{page.name}: {target}"
