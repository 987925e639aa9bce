"""The scripts behind make: what is missing on a machine is said in one line each."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def bare_path(tmp_path: Path) -> Path:
    """Make a PATH with a shell's helpers and nothing to build with."""
    for name in ("sh", "sed", "cut", "sort", "head", "printf"):
        found = shutil.which(name)
        assert found
        (tmp_path / name).symlink_to(found)
    return tmp_path


def check_tools(python: str, path: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["tools/check-tools", python],
        cwd=ROOT,
        env={"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_machine_with_everything_passes_in_silence() -> None:
    done = subprocess.run(
        ["tools/check-tools", sys.executable], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_every_missing_tool_gets_one_line_that_says_how_to_get_it(bare_path: Path) -> None:
    done = check_tools("no-such-python", str(bare_path))
    assert done.returncode != 0
    python, compiler, rust = done.stderr.splitlines()
    assert python.startswith("missing: Python 3.11")
    assert "PYTHON=" in python
    assert compiler.startswith("missing: a C compiler")
    assert "build-essential" in compiler
    assert rust.startswith("missing: Rust")
    assert "rustup" in rust


def test_an_old_rust_is_told_from_a_missing_one(bare_path: Path) -> None:
    for name, says in (("cargo", "cargo 1.60.0"), ("rustc", "rustc 1.60.0 (old)"), ("cc", "cc")):
        script = bare_path / name
        script.write_text(f"#!/bin/sh\necho {says!r}\n", encoding="utf-8")
        script.chmod(0o755)
    done = check_tools(sys.executable, str(bare_path))
    assert done.returncode != 0
    assert "found 1.60.0: run rustup update stable" in done.stderr


def test_workflows_are_valid() -> None:
    done = subprocess.run(
        ["tools/check-workflows", sys.executable],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
