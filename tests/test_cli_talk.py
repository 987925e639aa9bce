"""How the command line talks: errors in one line, terminals, pipes, progress, Ctrl-C."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import dwkernel as dw
from dwkernel import _progress, reports
from dwkernel.cli import app, output

if TYPE_CHECKING:
    from conftest import Cli

NAMES = {"esc\x1b[31mred": "esc\\x1b[31mred", "new\nline": "new\\nline", "\x9bq": "\\x9bq"}
ODD = ["[bold]x", "back\\[slash", ":smile:"]


@pytest.fixture
def store(path: Path) -> Path:
    with dw.open(path, drives=3, create=True) as kernel:
        kernel.containers.create("docs")
        for name in [*NAMES, *ODD]:
            kernel.put(f"docs/{name}", b"x")
        kernel.put("docs/large", os.urandom(3 << 20))
    return path


def on_a_terminal(cli: Cli, *arguments: object, stream: str = "stdout") -> str:
    """Run a command with one of its outputs a terminal; return what that showed."""
    master, end = pty.openpty()
    with cli.start(*arguments, **{stream: end}):
        os.close(end)
        shown = b""
        while select.select([master], [], [], 60)[0]:
            try:
                piece = os.read(master, 65536)
            except OSError:
                break
            if not piece:
                break
            shown += piece
    os.close(master)
    return shown.decode()


@pytest.mark.parametrize(
    "arguments",
    [
        ["bogus"],
        ["create"],
        ["status", "--bogus"],
        ["cp", "s", "a", "b"],
        ["create", "s", "--drives", "0"],
        ["create", "s", "-n", "3", "-d", "x"],
        ["cat", "s", "c/x"],
        ["put", "s", b"c/bad\xff"],
    ],
)
def test_wrong_use_is_told_as_json_too(cli: Cli, arguments: list[str | bytes]) -> None:
    words = [os.fsdecode(word) for word in arguments]
    error = cli.answer(*words, status=2)["error"]
    assert error["code"] == "usage"
    assert error["message"]
    assert set(error) == {"code", "message", "retryable", "details", "correlation_id"}


def test_json_after_the_options_is_a_word_like_any_other() -> None:
    assert output.wants_json(["ls", "s", "--json"])
    assert not output.wants_json(["rm", "s", "--", "--json"])


def test_an_unexpected_error_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        message = "first\nsecond"
        raise ZeroDivisionError(message)

    monkeypatch.setattr(dw, "open", fail)
    monkeypatch.setattr(sys, "argv", ["dwkernel", "status", "store"])
    assert app.run() == 1
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("error: ZeroDivisionError: first second")
    monkeypatch.setenv("DWKERNEL_TRACEBACK", "1")
    assert app.run() == 1
    assert "Traceback" in capfd.readouterr().err


def test_a_name_that_is_not_utf8_is_wrong_use(cli: Cli, store: Path) -> None:
    for command in (["put"], ["get"], ["cat"], ["rm"], ["ls"], ["stat"]):
        said = cli.run(*command, store, os.fsdecode(b"docs/bad\xff"), status=2).stderr
        assert "docs/bad\\xff is not UTF-8" in said
    cli.run("cp", store, __file__, os.fsdecode(b"dw:docs/bad\xff"), status=2)
    cli.run("status", os.fsdecode(b"\xff"), status=2)


@pytest.mark.parametrize(
    ("arguments", "closed", "says"),
    [
        (["put", "docs/x"], "<&-", "standard input is closed"),
        (["cat", "docs/large"], ">&-", "standard output is closed"),
        (["get", "docs/large", "-"], ">&-", "standard output is closed"),
    ],
)
def test_closed_streams_are_wrong_use(
    cli: Cli, store: Path, arguments: list[str], closed: str, says: str
) -> None:
    words = [*cli.command, arguments[0], str(store), *arguments[1:]]
    command = ["sh", "-c", f'"$@" {closed}', "sh", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, says in done.stderr) == (2, True), done
    assert "Traceback" not in done.stderr


def test_names_move_no_cursor_on_a_terminal_and_are_exact_elsewhere(cli: Cli, store: Path) -> None:
    shown = on_a_terminal(cli, "ls", store, "docs/")
    for name, escaped in NAMES.items():
        assert name not in shown
        assert escaped in shown
    for name in ODD:
        assert name in shown
        assert name in on_a_terminal(cli, "stat", store, f"docs/{name}")
        assert name in cli.run("put", store, f"docs/{name}", "-").stdout
    keys = [entry["key"] for entry in cli.answer("ls", store, "docs/")]
    assert {f"docs/{name}" for name in [*NAMES, *ODD]} < set(keys)


def test_a_bar_on_a_terminal_counts_as_results_do(cli: Cli, store: Path, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(bytes(24 << 20))
    shown = on_a_terminal(cli, "put", store, "docs/x", large, stream="stderr")
    assert "put" in shown
    assert "of 24.0 MiB" in shown
    assert "MB" not in shown.replace("MiB", "")
    commands: list[list[str]] = [["get", str(store), "docs/x", str(tmp_path / "x")]]
    for arguments in [*commands, ["scrub", str(store)]]:
        assert arguments[0] in on_a_terminal(cli, *arguments, stream="stderr")


def test_lines_elsewhere(
    kernel: dw.Kernel, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_progress, "_LINE_EVERY_S", 0.0)
    with _progress.showing(progress=True, work="put", unit="bytes", total=4 << 20) as tell:
        assert tell
        tell(1 << 20, None)
    assert re.fullmatch(r"put: 1.0 MiB of 4.0 MiB, \S+ ms\n", capfd.readouterr().err)
    with _progress.showing(progress=True, work="put", unit="bytes", total=0) as tell:
        assert tell
        tell(5, None)
    assert capfd.readouterr().err.startswith("put: 5 B, ")
    kernel.put("docs/a", bytes(8 << 20), progress=True)
    kernel.pool.scrub(progress=True)
    assert "of 0" not in capfd.readouterr().err


def test_who_stops_reading_ends_the_command_quietly(cli: Cli, store: Path) -> None:
    for arguments in (["cat", store, *["docs/large"] * 9], ["get", store, "docs/large", "-"]):
        with cli.start(*arguments) as command:
            assert command.stdout
            assert command.stderr
            command.stdout.read(1)
            command.stdout.close()
            assert command.stderr.read() == b""
            assert command.wait(60) == 1
    for arguments in (["ls", store, "docs/"], ["status", store, "--json"]):
        read, write = os.pipe()
        os.close(read)
        with cli.start(*arguments, stdout=write) as command:
            os.close(write)
            assert command.stderr
            assert command.stderr.read() == b""
            assert command.wait(60) == 1


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_says_what_was_done_and_how_it_goes_on(cli: Cli, store: Path) -> None:
    with dw.open(store) as kernel:
        for number in range(8):
            kernel.put(f"docs/{number}", os.urandom(2 << 20))
    scrubbing = cli.start("scrub", store, "--rate", "2 MiB")
    assert scrubbing.stderr
    # In a pipe it says now and then how far it is: by then it is in the middle.
    assert re.match(rb"scrub: \d+ of \d+ stripes, ", scrubbing.stderr.readline())
    scrubbing.send_signal(signal.SIGINT)
    _, said = scrubbing.communicate(timeout=60)
    assert scrubbing.returncode == 130
    assert re.search(r"scrub: stopped at \d+ of \d+ stripes after ", said.decode())
    assert "stays repaired; the next `dwkernel scrub` goes on" in said.decode()


def test_a_rate_holds(cli: Cli, store: Path) -> None:
    assert cli.answer("scrub", store, "--rate", "3 MiB")["seconds"] > 0.7
    assert cli.answer("scrub", store, "--rate", "nonsense", status=2)["error"]["code"]


def test_doctor_says_that_a_store_is_held(cli: Cli, store: Path) -> None:
    with dw.open(store):
        findings = cli.answer("doctor", store)
    held = next(finding for finding in findings if "has the store open" in finding["text"])
    assert held["mark"] == "note"
    assert f"process {os.getpid()}" in held["text"]


def test_bench_measures_something_small(cli: Cli, tmp_path: Path) -> None:
    report = tmp_path / "bench.html"
    options = ["--size", "1 MiB", "--seconds", "0.1", "--report", report]
    result = cli.answer("bench", tmp_path / "bench", *options)
    assert len(result["measurements"]) >= 5
    assert all(one["store"] > 0 for one in result["measurements"])
    assert "<svg" in report.read_text(encoding="utf-8")
    assert list((tmp_path / "bench").iterdir()) == []


def test_advice_is_a_command_that_can_be_pasted(cli: Cli, store: Path, tmp_path: Path) -> None:
    (store / "d2").rename(tmp_path / "gone")
    assert f"`dwkernel drive replace {store} d2 NEW`" in cli.run("status", store).stdout
    [advice] = cli.answer("status", store)["advice"]
    assert f"`dwkernel drive replace {store} d2 NEW`" in advice
    assert output.advised("run `scrub`, and", "my store") == "run `dwkernel scrub 'my store'`, and"


def test_the_command_has_a_version_and_a_module(cli: Cli) -> None:
    assert cli.run("--version").stdout == f"dwkernel {dw.__version__}\n"


def test_looking_is_allowed_where_writing_is_not(cli: Cli, store: Path) -> None:
    assert cli.answer("status", store)["read_only"] is None
    assert cli.answer("open", store, "--read-only")["read_only"]
    before = (store / "store.json").read_bytes()
    for drive in ("d1", "d2", "d3"):
        (store / drive).rename(store / f"{drive}-moved")
    moved = [word for n in (1, 2, 3) for word in ("-d", store / f"d{n}-moved")]
    cli.run("open", store, "--read-only", *moved)
    assert (store / "store.json").read_bytes() == before
    cli.run("open", store, *moved)
    assert (store / "store.json").read_bytes() != before


FORCED: list[list[str]] = [
    *(["open"], ["status"], ["scrub"], ["rebuild"], ["ls"]),
    *([name, "c/x"] for name in ("get", "cat", "stat", "rm")),
    ["put", "c/x", __file__],
    ["cp", __file__, "dw:c/x"],
]


@pytest.mark.parametrize("arguments", FORCED, ids=lambda words: words[0])
def test_every_command_that_opens_a_store_can_be_forced(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    asked: list[object] = []

    def refuse(_: object, **options: object) -> None:
        asked.append(options["force"])
        raise dw.errors.new("store.not_found", "none here")

    monkeypatch.setattr(dw, "open", refuse)
    for more in ([], ["--force"]):
        words = ["dwkernel", arguments[0], *more, "store", *arguments[1:]]
        monkeypatch.setattr(sys, "argv", words)
        assert app.run() == 1
    assert asked == [False, True]


def test_reports_say_first_what_is_not_nothing() -> None:
    numbers = {"stripes": 13, "good_shards": 78, "damaged_shards": 0, "read_bytes": 1 << 20}
    text = str(reports.ScrubReport(4.3, numbers))
    assert text == "13 stripes, 78 shards verified, nothing wrong, 1.0 MiB read in 4.3 s"
    text = str(reports.ScrubReport(4.3, {**numbers, "damaged_shards": 1, "restored_shards": 1}))
    assert "78 shards verified, 1 damaged shard, 1 restored shard, 1.0 MiB read" in text
    text = str(reports.RebuildReport(1.0, {"stripes": 1, "missing_shards": 0}))
    assert text == "1 stripe, nothing missing in 1.0 s"
    assert json.loads(json.dumps(reports.ScrubReport(1.0, numbers).to_dict()))["stripes"] == 13


def test_a_replace_says_if_the_new_drive_shares_a_file_system_with_another(
    cli: Cli, tmp_path: Path
) -> None:
    elsewhere = Path("/dev/shm")  # noqa: S108 - another file system is the point
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other file system to write to")
    with tempfile.TemporaryDirectory(dir=elsewhere) as home:
        drives = [tmp_path / "a", Path(home) / "b"]
        store = tmp_path / "store"
        given = [word for drive in drives for word in ("--drive", drive)]
        cli.run("create", store, *given, "--geometry", "mirror:2")
        assert cli.answer("status", store)["warnings"] == []
        said = "d1, d2 lie on one file system and fail together"
        replaced = cli.run("drive", "replace", store, "d2", tmp_path / "c")
        assert said in replaced.stderr + replaced.stdout
        [warning] = cli.answer("status", store)["warnings"]
        assert said in warning
        back = cli.run("drive", "replace", store, "d2", Path(home) / "d")
        assert said not in back.stderr + back.stdout
        assert cli.answer("status", store)["warnings"] == []
