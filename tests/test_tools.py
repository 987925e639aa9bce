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


def get_servers(path: Path, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run the script where no server is but in `path`."""
    return subprocess.run(
        ["tools/get-servers", str(directory)],
        cwd=ROOT,
        env={"PATH": str(path), "DWK_SYSTEM_PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )


def executable(place: Path, text: str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    place.chmod(0o755)


@pytest.fixture
def server_path(bare_path: Path) -> Path:
    """Make a PATH with what the script uses besides."""
    for name in ("tr", "mkdir", "rm", "cat"):
        found = shutil.which(name)
        assert found
        (bare_path / name).symlink_to(found)
    return bare_path


def test_servers_that_are_there_are_left_alone(server_path: Path, tmp_path: Path) -> None:
    for name in ("nats-server", "redis-server"):
        executable(server_path / name, "exit 1")
    done = get_servers(server_path, tmp_path / "servers")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (tmp_path / "servers").exists()


def test_where_servers_cannot_be_had_one_line_says_how_to_get_each(
    server_path: Path, tmp_path: Path
) -> None:
    done = get_servers(server_path, tmp_path / "servers")
    assert (done.returncode, done.stderr) == (0, "")
    nats, redis = done.stdout.splitlines()
    assert nats.startswith("nats-server: not installed, its tests are skipped")
    assert "apt-get install redis-server" in redis


def test_servers_are_unpacked_and_not_installed(server_path: Path, tmp_path: Path) -> None:
    # An apt-get that has packages, and a dpkg that unpacks what their names say.
    executable(server_path / "apt-get", '[ "$1" = download ] && echo "$2" >"$2_1_amd64.deb"')
    executable(
        server_path / "dpkg",
        '[ "$1" = -x ] || exit 1; mkdir -p "$3/usr/sbin"; p="$3/usr/sbin/$(cat "$2")"; '
        "printf '#!/bin/sh\\n' >\"$p\"; " + f'{shutil.which("chmod")} +x "$p"',
    )
    directory = tmp_path / "servers"
    done = get_servers(server_path, directory)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"{name}: unpacked into {directory}" for name in ("nats-server", "redis-server")
    ]
    assert (directory / "usr/sbin/nats-server").exists()
    assert not (directory / "packages").exists()
    assert get_servers(server_path, directory).stdout == ""
