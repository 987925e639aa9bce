"""The command line, from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import dwkernel as dw

if TYPE_CHECKING:
    from pathlib import Path


def dwkernel(*arguments: object, stdin: bytes = b"", check: int | None = 0) -> str:
    """Run a command and return what it printed; `check` is the exit status that it must have."""
    done = _run(*arguments, stdin=stdin)
    assert check is None or done.returncode == check, (done.returncode, done.stdout, done.stderr)
    return done.stdout.decode()


def _run(*arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", "from dwkernel.cli import main; main()"]
    return subprocess.run(
        [*command, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        check=False,
        timeout=120,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
    )


def answer(*arguments: object, **options: Any) -> Any:
    return json.loads(dwkernel(*arguments, "--json", **options))


@pytest.fixture
def store(path: Path) -> Path:
    dwkernel("create", path, "--drives", 3)
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for name, content in [("a.txt", b"a"), ("sub/b.bin", bytes(300_000)), ("sub/deep/ä", b"")]:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    (root / "a.txt").chmod(0o640)
    os.utime(root / "a.txt", ns=(10**18, 10**18))
    return root


def contents(root: Path) -> dict[str, bytes]:
    files = (at for at in root.rglob("*") if at.is_file())
    return {at.relative_to(root).as_posix(): at.read_bytes() for at in files}


def test_a_store_from_creation_to_deletion(store: Path, tmp_path: Path) -> None:
    assert "redundancy full" in dwkernel("status", store)
    dwkernel("put", store, "docs/a", "-", stdin=b"hello")
    assert dwkernel("cat", store, "docs/a") == "hello"
    dwkernel("get", store, "docs/a", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"hello"
    assert dwkernel("ls", store, "docs/").startswith("docs/a\t5 B\t")
    assert dwkernel("ls", store).startswith("docs/\t")
    assert "etag" in dwkernel("stat", store, "docs/a")
    assert answer("stat", store, "docs/a")["size"] == 5
    dwkernel("rm", store, "docs/a")
    dwkernel("cat", store, "docs/a", check=1)


def test_a_tree_goes_in_and_comes_out_as_it_was(store: Path, tree: Path, tmp_path: Path) -> None:
    copied = answer("cp", "-r", store, tree, "dw:docs/tree")
    assert (copied["files"], copied["failed"]) == (3, {})
    listed = [entry["key"] for entry in answer("ls", "-r", store, "docs/")]
    assert listed == ["docs/tree/a.txt", "docs/tree/sub/b.bin", "docs/tree/sub/deep/ä"]
    out = tmp_path / "out"
    assert answer("cp", "-r", store, "dw:docs/tree", out)["files"] == 3
    assert contents(out) == contents(tree)
    assert (out / "a.txt").stat().st_mode & 0o777 == 0o640
    assert (out / "a.txt").stat().st_mtime_ns == 10**18
    dwkernel("cp", store, tree / "a.txt", "dw:docs/single")
    dwkernel("cp", store, "dw:docs/single", tmp_path)
    assert (tmp_path / "single").read_bytes() == b"a"
    dwkernel("rm", "-r", store, "docs")
    assert answer("ls", store) == []


def test_a_key_cannot_leave_the_target_directory(store: Path, tmp_path: Path) -> None:
    with dw.open(store) as kernel:
        kernel.containers.create("docs")
        for name in ["docs/../../evil", "docs//absolute", "docs/a/../b", "docs/fine"]:
            kernel.put(name, b"x")
    out = tmp_path / "out" / "inner"
    copied = answer("cp", "-r", store, "dw:docs", out, check=1)
    assert copied["files"] == 1
    assert len(copied["failed"]) == 3
    assert set(contents(tmp_path / "out")) == {"inner/fine"}


def test_work_on_drives(store: Path, tmp_path: Path) -> None:
    dwkernel("put", store, "docs/a", "-", stdin=bytes(500_000))
    (store / "d2").rename(tmp_path / "gone")
    status = answer("status", store)
    assert status["redundancy"] == "degraded"
    assert [drive["state"] for drive in status["drives"]] == ["ok", "missing", "ok"]
    dwkernel("drive", "replace", store, "d2", tmp_path / "new")
    assert answer("status", store)["redundancy"] == "full"
    assert answer("scrub", store)["seconds"] >= 0
    assert answer("rebuild", store)["seconds"] >= 0
    assert answer("open", store)["redundancy"] == "full"


def test_status_of_a_held_store_says_who_and_since_when(store: Path) -> None:
    with dw.open(store):
        done = _run("status", store)
        assert done.returncode == 1
        said = done.stderr.decode()
        assert f"process {os.getpid()}" in said
        assert "since 2" in said
        error = answer("status", store, check=1)["error"]
        assert (error["code"], error["retryable"]) == ("store.locked", True)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["status", "/none/such"], 1),
        (["create"], 2),
        (["bogus"], 2),
        (["create", "x", "--geometry", "nonsense"], 2),
        (["create", "x", "--drives", "0"], 2),
        (["cp", "x", "a", "b"], 2),
        (["cp", "x", "dw:a/a", "dw:b/b"], 2),
        (["version"], 0),
        (["--help"], 0),
    ],
)
def test_exit_status(
    tmp_path: Path, arguments: list[str], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    dwkernel(*arguments, check=status)
    assert not (tmp_path / "x").exists()


def test_doctor_looks_at_the_machine_and_the_store(store: Path, tmp_path: Path) -> None:
    assert "durable after" in dwkernel("doctor", tmp_path)
    assert "redundancy full" in dwkernel("doctor", store)
    (store / "d1").rename(tmp_path / "gone")
    findings = answer("doctor", store, check=1)
    assert any(finding["mark"] == "bad" for finding in findings)


def test_version_says_so() -> None:
    assert answer("version")["dwkernel"] == dw.__version__
