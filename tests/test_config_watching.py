"""Files that change in all the ways in which files change, while somebody watches."""

from __future__ import annotations

import builtins
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from dwkernel import _watching, config
from dwkernel.config import watching
from expect import code_of, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest.importorskip("watchfiles", reason="watching needs watchfiles")


def write(path: Path, rate: object) -> None:
    path.write_text(f"[limits]\nrate = {rate}\n")


def replace(path: Path, rate: object) -> None:
    """Write beside and rename, as careful editors do."""
    beside = path.with_name(f".{path.name}.swp")
    write(beside, rate)
    beside.replace(path)


@contextmanager
def watched(*paths: Path, **options: Any) -> Iterator[config.Configuration]:
    with config.Configuration(paths, environment={}, **options) as made:
        yield made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "etc" / "dwkernel.toml"
    path.parent.mkdir()
    write(path, 1)
    return path


@pytest.fixture
def made(path: Path) -> Iterator[config.Configuration]:
    with watched(path, debounce="20ms") as made:
        assert made.status().watching
        yield made


def becomes(made: config.Configuration, rate: float | None) -> None:
    until(lambda: made.current.limits.rate == rate)


def fails(made: config.Configuration, code: str) -> None:
    until(lambda: made.status().last_error_code == code)


# --- Ways to change a file ------------------------------------------------------------------------


def test_a_change_counts_whoever_makes_it(made: config.Configuration, path: Path) -> None:
    write(path, 2)
    becomes(made, 2)
    replace(path, 3)
    becomes(made, 3)
    replace(path, 4)
    becomes(made, 4)
    write(path, 5)
    becomes(made, 5)
    until(lambda: made.version == made.history()[-1].version)
    assert {entry.why for entry in made.history()[1:]} == {"file"}


def test_a_file_that_goes_leaves_what_was_and_counts_when_it_is_back(
    made: config.Configuration, path: Path
) -> None:
    path.unlink()
    fails(made, "config.file")
    assert made.current.limits.rate == 1
    write(path, 2)
    becomes(made, 2)
    until(lambda: made.status().last_error is None)


def test_a_file_that_is_replaced_by_a_link_counts_and_so_does_its_target(
    made: config.Configuration, path: Path, tmp_path: Path
) -> None:
    target = tmp_path / "elsewhere" / "real.toml"
    target.parent.mkdir()
    write(target, 2)
    path.unlink()
    path.symlink_to(target)
    becomes(made, 2)
    write(target, 3)
    becomes(made, 3)
    replace(target, 4)
    becomes(made, 4)


def test_folders_that_are_swapped_behind_a_link_count(tmp_path: Path) -> None:
    # As volumes of configuration are updated: one link is replaced, nothing else.
    for number in (1, 2):
        (tmp_path / f"v{number}").mkdir()
        write(tmp_path / f"v{number}" / "a.toml", number)
    (tmp_path / "data").symlink_to("v1")
    (tmp_path / "a.toml").symlink_to("data/a.toml")
    with watched(tmp_path / "a.toml", debounce="20ms") as made:
        (tmp_path / "new").symlink_to("v2")
        (tmp_path / "new").replace(tmp_path / "data")
        becomes(made, 2)


def test_a_folder_that_goes_and_comes_back_counts(made: config.Configuration, path: Path) -> None:
    shutil.rmtree(path.parent)
    fails(made, "config.file")
    path.parent.mkdir()
    write(path, 2)
    becomes(made, 2)
    # And again, by a rename: the old folder is still there, under another name.
    path.parent.rename(path.parent.with_name("old"))
    fails(made, "config.file")
    path.parent.mkdir()
    write(path, 3)
    becomes(made, 3)
    write(path, 4)
    becomes(made, 4)


def test_a_folder_that_comes_back_is_watched_and_not_only_looked_at(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_watching, "_LOOK_EVERY_S", 40.0)
    with watched(path, debounce="20ms") as made:
        began = time.monotonic()
        shutil.rmtree(path.parent)
        fails(made, "config.file")
        for rate in (2, 3, 4):
            path.parent.mkdir(exist_ok=True)
            write(path, rate)
            becomes(made, rate)
        path.parent.rename(path.parent.with_name("old"))
        fails(made, "config.file")
        path.parent.mkdir()
        write(path, 5)
        becomes(made, 5)
        replace(path, 6)
        becomes(made, 6)
        assert time.monotonic() - began < 30


def test_what_gives_no_notice_is_seen_all_the_same(tmp_path: Path) -> None:
    # The file's folder is a link: nothing happens in any folder where the file is.
    for number in (1, 2):
        (tmp_path / f"v{number}").mkdir()
        write(tmp_path / f"v{number}" / "a.toml", number)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "now").symlink_to("../v1")
    with watched(tmp_path / "links" / "now" / "a.toml", debounce="20ms") as made:
        for number in (2, 1, 2):
            (tmp_path / "links" / "new").symlink_to(f"../v{number}")
            (tmp_path / "links" / "new").replace(tmp_path / "links" / "now")
            becomes(made, number)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"[limits]\nra", "config.syntax"),
        (b"[limits]\nrate = \xff", "config.syntax"),
        (b"[limits]\nrte = 2", "config.unknown"),
        (b"[limits]\nrate = -2", "config.value"),
    ],
)
def test_a_broken_file_leaves_what_was_and_is_told(
    made: config.Configuration, path: Path, text: bytes, code: str
) -> None:
    told: list[str] = []
    made.announce_to(lambda subject, data: told.append(f"{subject} {data.get('code')}"))
    path.write_bytes(text)
    fails(made, code)
    assert str(path) in str(made.status().last_error)
    assert (made.current.limits.rate, made.version) == (1, 1)
    write(path, 2)
    becomes(made, 2)
    until(lambda: made.status().last_error is None)
    assert told == [f"config.failed {code}", "config.changed None"]


def test_what_cannot_be_read_is_told(
    made: config.Configuration, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.unlink()
    os.mkfifo(path)
    fails(made, "config.file")
    path.unlink()
    path.mkdir()
    until(lambda: "dwkernel.toml cannot be read" in str(made.status().last_error))
    path.rmdir()
    write(path, 2)
    becomes(made, 2)
    # Modes do not stop everybody who runs tests.
    real, is_denied = os.open, [True]

    def opens(place: Any, *rest: Any) -> int:
        if is_denied[0] and str(place) == str(path):
            raise PermissionError(13, "Permission denied", str(place))
        return real(place, *rest)

    monkeypatch.setattr(os, "open", opens)
    path.chmod(0)
    fails(made, "config.file")
    assert "Permission denied" in str(made.status().last_error)
    is_denied[0] = False
    path.chmod(0o600)
    until(lambda: made.status().last_error is None)


def test_the_same_content_again_is_no_new_version(made: config.Configuration, path: Path) -> None:
    heard: list[Any] = []
    made.on_change("", lambda *told: heard.append(told))
    before = made.status().last_attempt
    # Not in place: on a busy machine the empty file would be quiet for long enough to be read.
    beside = path.with_name("beside")
    beside.write_text("# other words, the same meaning\n[limits]\nrate = 1.0\n")
    beside.replace(path)
    until(lambda: made.status().last_attempt != before)
    replace(path, 2)
    becomes(made, 2)
    until(lambda: len(heard) == 1)
    assert made.version == 2


def test_a_refusal_leaves_the_file_waiting_for_the_next_change(
    made: config.Configuration, path: Path
) -> None:
    def refuses(_old: Any, new: Any) -> None:
        if new > 5:
            raise ValueError

    made.on_change("limits.rate", lambda *_: None, refuses)
    write(path, 6)
    fails(made, "config.refused")
    assert made.current.limits.rate == 1
    write(path, 4)
    becomes(made, 4)


def test_who_did_not_answer_in_time_is_asked_again_without_another_change(path: Path) -> None:
    release = threading.Event()

    def hangs(_old: Any, _new: Any) -> None:
        release.wait(20)

    with watched(path, debounce="20ms", timeout="100ms") as made:
        made.on_change("limits.rate", lambda *_: None, hangs)
        write(path, 6)
        fails(made, "config.timeout")
        assert made.current.limits.rate == 1
        release.set()
        becomes(made, 6)
        assert made.version == 2


def test_the_last_of_several_files_wins_whichever_changes(tmp_path: Path, path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text("[limits]\nburst = 1\n")
    with watched(path, other, debounce="20ms") as made:
        write(path, 2)
        becomes(made, 2)
        write(other, 3)
        becomes(made, 3)
        assert made.current.limits.burst is None
        other.write_text("")
        becomes(made, 2)


# --- Bounded work ---------------------------------------------------------------------------------


def test_a_thousand_changes_a_second_are_a_few_reloads(path: Path) -> None:
    with watched(path) as made:
        reads: list[float] = []
        made.on_change("limits.rate", lambda *_: reads.append(time.monotonic()))
        began = time.monotonic()
        written = 1
        while time.monotonic() - began < 2.2:
            written += 1
            replace(path, written)
            time.sleep(0.0005)
        seconds = time.monotonic() - began
        becomes(made, written)
    assert written > 100
    # Once a second while it goes on, and once at the end.
    assert 1 <= len(reads) <= seconds + 2


def test_a_change_counts_after_the_quiet_and_not_before(path: Path) -> None:
    with watched(path, debounce="300ms") as made:
        until(lambda: made.status().watching)
        began = time.monotonic()
        write(path, 2)
        becomes(made, 2)
        assert time.monotonic() - began >= 0.25


@pytest.mark.parametrize("debounce", ["0s", "2s", "1h"])
def test_a_debounce_without_sense_is_refused(path: Path, debounce: str) -> None:
    assert code_of(lambda: config.Configuration(path, debounce=debounce)) == "config.value"


def test_without_watchfiles_files_are_looked_at_all_the_same(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("watchfiles"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with watched(path, debounce="20ms") as made:
        write(path, 2)
        becomes(made, 2)
        replace(path, 3)
        becomes(made, 3)


def test_where_the_system_gives_no_notices_files_are_looked_at_all_the_same(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("watchfiles._rust_notify.RustNotify", full)
    with watched(path, debounce="20ms") as made:
        write(path, 2)
        becomes(made, 2)
        shutil.rmtree(path.parent)
        fails(made, "config.file")
        path.parent.mkdir()
        write(path, 3)
        becomes(made, 3)
    assert caplog.text.count("the system gives no notices") == 1


# --- Threads and ends -----------------------------------------------------------------------------


def names() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith("dwk-config")]


def test_threads_end_with_close_and_with_a_configuration_that_nobody_has(path: Path) -> None:
    made = config.Configuration(path, environment={}, debounce="20ms")
    assert names() == ["dwk-config-watch"]
    made.close()
    assert names() == []
    made = config.Configuration(path, environment={}, debounce="20ms")
    del made
    # It is noticed with the next change.
    write(path, 2)
    until(lambda: names() == [])


SCRIPT = """
import os, sys, time
from dwkernel import _watching, config
path = sys.argv[1]
made = config.Configuration(path, environment={}, debounce="20ms")
"""


def run(path: Path, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "dev", "-c", SCRIPT + code, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("end", ["", "sys.exit(0)", "made.close()", "time.sleep(0.3)"])
def test_a_program_ends_at_once_and_in_peace(path: Path, end: str) -> None:
    began = time.monotonic()
    done = run(path, end)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")
    assert time.monotonic() - began < 10


def test_a_forked_child_ends_and_the_parent_goes_on_watching(path: Path) -> None:
    code = """
child = os.fork()
if child == 0:
    assert not made.status().watching
    assert made.reload().changed == []
    made.close()
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
with open(path, "w") as file:
    file.write("[limits]\\nrate = 9\\n")
while made.current.limits.rate != 9:
    time.sleep(0.01)
"""
    done = run(path, code)
    assert (done.returncode, done.stderr) == (0, "")


# --- Signals --------------------------------------------------------------------------------------


def test_sighup_reloads_and_calls_who_was_there(tmp_path: Path, path: Path) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, _frame: heard.append(number))
    try:
        with watched(path, watch=False) as made:
            stop = made.reload_on_sighup()
            write(path, 2)
            os.kill(os.getpid(), signal.SIGHUP)
            becomes(made, 2)
            until(lambda: made.history()[-1].why == "signal")
            assert heard == [signal.SIGHUP]
            path.rename(tmp_path / "gone")
            os.kill(os.getpid(), signal.SIGHUP)
            fails(made, "config.file")
            write(path, 3)
            for _ in range(1000):
                os.kill(os.getpid(), signal.SIGHUP)
            becomes(made, 3)
            stop()
            assert len(heard) == 1002
            write(path, 4)
            os.kill(os.getpid(), signal.SIGHUP)
            until(lambda: len(heard) == 1003)
            assert made.current.limits.rate == 3
        until(lambda: names() == [])
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_handler_is_set_on_the_main_thread_only(path: Path) -> None:
    codes: list[str] = []
    with watched(path, watch=False) as made:
        thread = threading.Thread(target=lambda: codes.append(code_of(made.reload_on_sighup)))
        thread.start()
        thread.join()
    assert codes == ["config.value"]


def test_a_signal_in_the_middle_of_a_reload_hangs_nobody(path: Path) -> None:
    with watched(path, watch=False) as made:
        before = signal.getsignal(signal.SIGHUP)
        made.reload_on_sighup()

        def interrupted(_old: Any, new: Any) -> None:
            if new == 2:
                # The main thread waits in `reload`, holding its lock.
                os.kill(os.getpid(), signal.SIGHUP)
                write(path, 3)

        made.on_change("limits.rate", interrupted)
        write(path, 2)
        made.reload()
        becomes(made, 3)
        made.close()
        assert signal.getsignal(signal.SIGHUP) == before


def test_the_watcher_survives_what_it_does_not_expect(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with watched(path, debounce="20ms") as made:
        real, broken = watching.Watcher._folders, [3]

        def folders(self: watching.Watcher) -> dict[str, Any]:
            if broken[0]:
                broken[0] -= 1
                raise OSError(5, "Input/output error")
            return real(self)

        monkeypatch.setattr(watching.Watcher, "_folders", folders)
        write(path, 2)
        becomes(made, 2)
        until(lambda: not broken[0])
        write(path, 3)
        becomes(made, 3)
