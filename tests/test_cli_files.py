"""What `put`, `get`, `cp` and `rm` make of files, links, pipes and directories."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

import dwkernel as dw
from dwkernel.cli import copying

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli

CONTENT = b"content" * 1000


@pytest.fixture
def store(path: Path) -> Path:
    with dw.open(path, drives=3, create=True) as kernel:
        kernel.containers.create("docs")
        kernel.put("docs/tree/a", CONTENT, metadata={"mode": "640"})
        kernel.put("docs/tree/sub/b", b"b")
    return path


def containers(store: Path) -> list[str]:
    with dw.open(store, read_only=True) as kernel:
        return [found.name for found in kernel.containers]


@pytest.mark.parametrize("command", ["get", "cp"])
def test_a_link_is_followed_and_stays(cli: Cli, store: Path, tmp_path: Path, command: str) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    link = out / "link"
    link.symlink_to(elsewhere / "real")
    source = "docs/tree/a" if command == "get" else "dw:docs/tree/a"
    for _ in ("a link to nothing", "a link to a file"):
        cli.run(command, store, source, link)
        assert link.is_symlink()
        assert (elsewhere / "real").read_bytes() == CONTENT
    assert [at.name for at in elsewhere.iterdir()] == ["real"]


def test_the_temporary_file_lies_beside_the_real_target(
    cli: Cli, store: Path, tmp_path: Path
) -> None:
    out, real = tmp_path / "out", tmp_path / "elsewhere" / "real"
    out.mkdir()
    real.parent.mkdir()
    (out / "link").symlink_to(real)
    out.chmod(0o500)
    seen: set[str] = set()
    with dw.open(store, read_only=True) as kernel:
        from dwkernel.cli import files

        info = kernel.head("docs/tree/a")
        files.get_file(
            kernel, info, out / "link", lambda _: seen.update(map(str, real.parent.iterdir()))
        )
    assert any("/elsewhere/.dwkernel-" in name for name in seen)
    assert list(out.iterdir()) == [out / "link"]
    assert cli.run("get", store, "docs/tree/a", "-", text=False).stdout == CONTENT
    out.chmod(0o700)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this platform has no pipes with names")
def test_a_pipe_is_written_into_and_stays(cli: Cli, store: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()), daemon=True)
    reader.start()
    cli.run("get", store, "docs/tree/a", pipe)
    reader.join(20)
    assert got == [CONTENT]
    assert pipe.is_fifo()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this platform has no pipes with names")
def test_a_pipe_in_the_way_of_a_tree_stops_nothing(cli: Cli, store: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    os.mkfifo(tmp_path / "out" / "a")
    copied = cli.answer("cp", "-r", store, "dw:docs/tree", tmp_path / "out", status=1)
    assert (copied["files"], list(copied["failed"])) == (1, ["docs/tree/a"])
    assert (tmp_path / "out" / "a").is_fifo()


def test_standard_output_takes_content_and_nothing_else(cli: Cli, store: Path) -> None:
    for arguments in (["get", store, "docs/tree/a", "-"], ["cp", store, "dw:docs/tree/a", "-"]):
        assert cli.run(*arguments, text=False).stdout == CONTENT
        assert cli.answer(*arguments, status=2)["error"]["code"] == "usage"


def test_a_key_cannot_choose_a_place_above(cli: Cli, store: Path, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    with dw.open(store) as kernel:
        kernel.put("docs/..", b"evil")
        kernel.put("docs/a/..", b"evil")
    before = sorted(tmp_path.iterdir())
    for key in ("docs/..", "docs/a/.."):
        cli.run("get", store, key, cwd=inner, status=2)
        cli.run("get", store, key, inner, status=2)
        cli.run("cp", store, f"dw:{key}", inner, status=2)
    assert sorted(tmp_path.iterdir()) == before
    assert list(inner.iterdir()) == []
    cli.run("get", store, "docs/..", inner / "named")
    assert (inner / "named").read_bytes() == b"evil"


def test_errors_of_the_system_name_what_the_user_named(
    cli: Cli, store: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    place = tmp_path / "file" / "below"
    said = cli.run("get", store, "docs/tree/a", place, status=1).stderr
    assert said == f"error: {place}: Not a directory\n"


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["put", "STORE", "nokey", "FILE"], 2),
        (["put", "STORE", "new/", "FILE"], 2),
        (["put", "STORE", "new/x", "MISSING"], 1),
        (["put", "STORE", "new/x", "."], 1),
        (["cp", "STORE", "MISSING", "dw:new/x"], 1),
        (["cp", "-r", "STORE", "MISSING", "dw:new/x"], 1),
        (["cp", "STORE", ".", "dw:new/x"], 2),
    ],
)
def test_nothing_is_made_before_source_and_key_are_known_to_be_right(
    cli: Cli, store: Path, tmp_path: Path, arguments: list[str], status: int
) -> None:
    (tmp_path / "file").write_bytes(b"x")
    names = {"STORE": store, "FILE": tmp_path / "file", "MISSING": tmp_path / "missing"}
    done = cli.run(*(names.get(word, word) for word in arguments), status=status, cwd=tmp_path)
    if "MISSING" in arguments:
        assert f"cannot read {tmp_path / 'missing'}: No such file" in done.stderr
    assert containers(store) == ["docs"]


def test_a_container_that_was_made_for_nothing_goes_again(cli: Cli, store: Path) -> None:
    code = """
import sys, dwkernel as dw
from dwkernel.cli import cp
from dwkernel.cli.output import Output
with dw.open(sys.argv[1]) as kernel:
    try:
        with cp.container_of(kernel, "new/x", Output(as_json=False)):
            raise RuntimeError
    except RuntimeError:
        print([found.name for found in kernel.containers])
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(store)], check=True, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("['docs']\n", "")
    assert "made container new" in cli.run("put", store, "new/x", "-").stderr


def test_a_copy_of_a_tree_says_how_much_there_is_to_do(store: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "link").symlink_to("0")
    for number in range(8):
        (tree / "sub" / str(number)).write_bytes(bytes(1000 * (number + 1)))
    seen: list[tuple[int, int | None]] = []

    def tell(done: int, total: int | None) -> None:
        seen.append((done, total))
        time.sleep(0.05)

    with dw.open(store) as kernel:
        copying.copy_in(kernel, tree, "docs/in/", tell=tell, threads=1)
        assert seen.pop() == (37_000, 37_000)
        assert all(total in {None, 37_000} and done <= 37_000 for done, total in seen)
        copying.copy_out(kernel, "docs/in/", tmp_path / "out", tell=tell, threads=1)
    assert seen.pop() == (37_000, 37_000)


def test_what_a_tree_loses_is_said_and_empty_directories_are_kept(
    cli: Cli, store: Path, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "empty" / "deep").mkdir(parents=True)
    (tree / "sub" / "file").write_bytes(b"x")
    os.utime(tree / "empty" / "deep", ns=(10**18, 10**18))
    (tree / "empty" / "deep").chmod(0o750)
    os.link(tree / "sub" / "file", tree / "hard")
    (tree / "link").symlink_to("sub/file")
    (tree / "up").symlink_to("..")
    (tree / "dangling").symlink_to("nowhere")
    os.mkfifo(tree / "pipe")
    copied = cli.answer("cp", "-r", store, tree, "dw:docs/in", status=1)
    assert copied["files"] == 3
    assert copied["directories"] == 1
    assert copied["links_followed"] == 1
    assert copied["hard_links_split"] == 2
    assert copied["left_out"] == {str(tree / "up"): "a link to the directory .."}
    assert copied["failed"] == {
        str(tree / "dangling"): "a link to nothing",
        str(tree / "pipe"): "neither a file nor a directory",
    }
    (tree / "pipe").unlink()
    (tree / "dangling").unlink()
    said = cli.run("cp", "-r", store, tree, "dw:docs/in").stdout.splitlines()
    assert said[0] == "3 files, 3 B, 1 empty directory"
    assert said[1] == "changed: 1 link to files, copied as the files"
    assert said[2] == "changed: 2 hard links, each copied as a file of its own"
    assert said[3] == f"left out: {tree / 'up'}: a link to the directory .."
    out = tmp_path / "out"
    assert cli.answer("cp", "-r", store, "dw:docs/in", out)["directories"] == 1
    assert (out / "empty" / "deep").stat().st_mode & 0o777 == 0o750
    assert (out / "empty" / "deep").stat().st_mtime_ns == 10**18
    assert (out / "link").read_bytes() == b"x"
    assert not (out / "up").exists()


def test_a_prefix_that_matches_nothing_is_an_error(cli: Cli, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for inside in ("dw:docs/none", "dw:docs/none/", "dw:docs/tre"):
        error = cli.answer("cp", "-r", store, inside, out, status=1)["error"]
        assert error["code"] == "object.not_found"
    error = cli.answer("cp", "-r", store, "dw:none", out, status=1)["error"]
    assert error["code"] == "container.not_found"
    assert not out.exists()


def test_a_prefix_without_r_is_wrong_use(cli: Cli, store: Path, tmp_path: Path) -> None:
    for inside in ("dw:docs", "dw:docs/tree", "dw:docs/tree/"):
        assert "use -r" in cli.run("cp", store, inside, tmp_path / "out", status=2).stderr
    error = cli.answer("cp", store, "dw:docs/none", tmp_path / "out", status=1)["error"]
    assert error["code"] == "object.not_found"


@pytest.mark.parametrize("mtime_ns", ["9" * 40, "9" * 5000, "²", "x", "", "-1000000000"])
def test_odd_metadata_costs_no_file(cli: Cli, store: Path, tmp_path: Path, mtime_ns: str) -> None:
    with dw.open(store) as kernel:
        kernel.put("docs/tree/odd", b"x", metadata={"mtime_ns": mtime_ns, "mode": "7777777"})
    assert cli.answer("cp", "-r", store, "dw:docs/tree", tmp_path / "out")["files"] == 3
    assert (tmp_path / "out" / "odd").stat().st_mode & 0o7000 == 0
    if mtime_ns == "-1000000000":
        assert (tmp_path / "out" / "odd").stat().st_mtime == -1


def test_an_object_is_copied_with_or_without_r(cli: Cli, store: Path, tmp_path: Path) -> None:
    assert cli.answer("cp", "-r", store, "dw:docs/tree/a", tmp_path / "out")["files"] == 1
    assert (tmp_path / "out").read_bytes() == CONTENT


def test_an_empty_container_is_an_empty_directory(cli: Cli, store: Path, tmp_path: Path) -> None:
    with dw.open(store) as kernel:
        kernel.containers.create("bare")
    assert cli.answer("cp", "-r", store, "dw:bare", tmp_path / "out")["files"] == 0
    assert (tmp_path / "out").is_dir()


def test_rm_of_several_says_what_went(cli: Cli, store: Path) -> None:
    done = cli.run("rm", store, "docs/tree/a", "docs/none", "docs/tree/sub/b", status=1)
    assert done.stdout.startswith("2 objects deleted\nnot deleted: docs/none: no object")
    assert cli.answer("rm", store, "docs/none", status=1)["error"]["code"] == "object.not_found"
    gone = cli.answer("rm", "-r", store, "docs")
    assert gone == {"deleted": [], "containers": ["docs"], "failed": {}}


def test_rm_of_a_tree_leaves_its_neighbours(cli: Cli, store: Path) -> None:
    with dw.open(store) as kernel:
        for name in ("a", "a/1", "a/b/2", "ab", "a.txt", "a0/3"):
            kernel.put(f"docs/rm/{name}", b"")
    gone = cli.answer("rm", "-r", store, "docs/rm/a")
    assert gone["deleted"] == ["docs/rm/a", "docs/rm/a/1", "docs/rm/a/b/2"]
    with dw.open(store) as kernel:
        left = ["docs/rm/a.txt", "docs/rm/a0/3", "docs/rm/ab"]
        assert kernel.list("docs/rm/").keys() == left
    told = cli.answer("rm", "-r", store, "docs/rm/a", status=1)
    assert told["error"]["code"] == "object.not_found"
    assert cli.answer("rm", "-r", store, "docs/rm/")["deleted"] == left


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_stops_a_copy_in_the_middle_of_a_file(cli: Cli, store: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    with (tree / "large").open("wb") as file:
        file.truncate(8 << 30)
    copying = cli.start("cp", "-r", store, tree, "dw:docs/large")
    shards = store / "d1" / "blobs"
    while sum(1 for _ in shards.rglob("*.*")) < 8:
        assert copying.poll() is None
        time.sleep(0.02)
    copying.send_signal(signal.SIGINT)
    _, said = copying.communicate(timeout=60)
    assert copying.returncode == 130
    assert b"cp: stopped at" in said
    assert b"files that were copied stay copied" in said
    with dw.open(store, read_only=True) as kernel:
        assert "docs/large/large" not in kernel


def test_a_stopped_copy_out_leaves_no_file(store: Path, tmp_path: Path) -> None:
    from dwkernel.cli import files

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with dw.open(store, read_only=True) as kernel:
        info = kernel.head("docs/tree/a")
        with pytest.raises(KeyboardInterrupt):
            files.get_file(kernel, info, tmp_path / "out" / "a", stop)
    assert list((tmp_path / "out").iterdir()) == []
