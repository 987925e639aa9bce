"""Plugins that are reloaded when their files change, for people who write one."""

from __future__ import annotations

import builtins
import gc
import shutil
import subprocess
import sys
import threading
import time
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

import plugin_maker
from dwkernel import _watching
from dwkernel.plugins import Plugins, PluginsSection, watch
from expect import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def write(home: Path, number: int, **fields: Any) -> Path:
    return plugin_maker.write(home, f"def say(self): return {number}", **fields)


@contextmanager
def watched(folder: Path) -> Iterator[tuple[Callable[[int], None], list[str], Plugins]]:
    """Watch a folder; give what waits until its plugin says a number, and what happens to it."""
    heard: list[str] = []
    with plugin_maker.plugins(folders=[folder], enabled=["*"], watch=True) as opened:
        opened.on(lambda subject, _: heard.append(subject))
        assert opened.start() == {}
        handle = opened.get("policy")
        yield (lambda number: until(lambda: handle.call("say") == number)), heard, opened


def test_files_that_change_are_reloaded_and_errors_leave_the_old_one(tmp_path: Path) -> None:
    main = write(tmp_path / "p", 1) / "main.py"
    code = main.read_text()
    with watched(tmp_path) as (says, heard, opened):
        main.write_text(code.replace("return 1", "return 2"))
        says(2)
        main.write_text("def broken(:")
        until(lambda: "plugin.reload_failed" in heard)
        says(2)
        assert "SyntaxError" in str(opened.info("p").error)
        # What runs again is no change, but nobody shall read of an error that is mended.
        main.write_text(code.replace("return 1", "return 2"))
        until(lambda: opened.info("p").error is None)
        (tmp_path / "p" / "link").symlink_to("/etc/passwd")
        until(lambda: "links are refused" in str(opened.info("p").error))
        (tmp_path / "p" / "link").unlink()
        main.write_text(code.replace("return 1", "return 3"))
        says(3)


def test_what_changes_right_after_the_first_look_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("watchfiles", reason="watching by notices needs watchfiles")
    # Only notices count: nobody looks again in the time of a test.
    monkeypatch.setattr(_watching, "_LOOK_EVERY_S", 10_000.0)
    main = write(tmp_path / "p", 1) / "main.py"
    real, looks = watch.Watcher._is_new, [0]

    def is_new(self: watch.Watcher, home: Path, name: str) -> bool:
        found = real(self, home, name)
        looks[0] += 1
        if looks[0] == 1:
            assert not found
            main.write_text(main.read_text().replace("return 1", "return 2"))
        return found

    monkeypatch.setattr(watch.Watcher, "_is_new", is_new)
    with watched(tmp_path) as (says, _, _opened):
        says(2)


def test_what_changed_between_loading_and_watching_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = write(tmp_path / "p", 1) / "main.py"
    real = watch.Watcher.begin

    def begin(self: watch.Watcher) -> None:
        main.write_text(main.read_text().replace("return 1", "return 2"))
        real(self)

    monkeypatch.setattr(watch.Watcher, "begin", begin)
    with watched(tmp_path) as (says, _, _opened):
        says(2)


def test_a_folder_that_is_replaced_is_watched_on(tmp_path: Path) -> None:
    home = write(tmp_path / "p", 1)
    with watched(tmp_path) as (says, heard, _):
        for number in (2, 3):
            write(home, number)  # the folder is removed and made anew
            says(number)
        home.rename(tmp_path.with_name(f"{tmp_path.name}-away"))
        until(lambda: "plugin.reload_failed" in heard)
        says(3)
        write(home, 4)
        says(4)
        (home / "main.py").write_text((home / "main.py").read_text().replace("n 4", "n 5"))
        says(5)
    shutil.rmtree(tmp_path.with_name(f"{tmp_path.name}-away"))


def test_a_package_that_is_installed_for_development_is_watched_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = write(tmp_path / "mine", 1, entry="mine.main:Plugin", files={"__init__.py": ""})
    info = tmp_path / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[dwkernel.plugins]\np = mine\n")
    monkeypatch.syspath_prepend(tmp_path)
    with plugin_maker.plugins(installed=True, enabled=["p"], watch=True) as opened:
        assert opened.start() == {}
        handle = opened.get("policy")
        main = package / "main.py"
        main.write_text(main.read_text().replace("return 1", "return 2"))
        until(lambda: handle.call("say") == 2)


def test_what_is_written_and_is_no_change_is_not_reloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = write(tmp_path / "p", 1)

    def change(number: int) -> None:
        beside = tmp_path / "main.py"
        beside.write_text((home / "main.py").read_text().replace(f"n {number - 1}", f"n {number}"))
        beside.replace(home / "main.py")

    with watched(tmp_path) as (says, heard, opened):
        (home / "__pycache__").mkdir()
        (home / "__pycache__" / "main.pyc").write_bytes(b"x")
        (home / "main.py").touch()
        change(2)
        says(2)
        until(lambda: "plugin.reloaded" in heard)
        assert heard.count("plugin.reloading") == 1
        monkeypatch.setattr(watch, "_QUIET_S", 0.5)
        change(3)
        opened.reload("p")  # somebody was quicker
        says(3)
        monkeypatch.undo()
        time.sleep(1)
        change(4)
        says(4)
    assert heard.count("plugin.reloading") == 3


def test_the_watcher_survives_what_it_does_not_expect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = write(tmp_path / "p", 1)
    real, broken = watch._folders, [3]

    def folders(homes: dict[Path, str]) -> dict[str, tuple[int, int]]:
        if broken[0]:
            broken[0] -= 1
            raise OSError(28, "No space left on device: too many watches")
        return real(homes)

    monkeypatch.setattr(watch, "_folders", folders)
    with watched(tmp_path) as (says, _, _opened):
        write(home, 2)
        says(2)
    assert not broken[0]


def test_without_watchfiles_files_are_looked_at_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("watchfiles"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    home = write(tmp_path / "p", 1)
    with watched(tmp_path) as (says, _, _opened):
        write(home, 2)
        says(2)


def names() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name == "dwk-plugins-watch"]


def test_plugins_that_nobody_has_end_with_their_watcher(tmp_path: Path) -> None:
    write(tmp_path / "p", 1)
    section = PluginsSection(folders=(tmp_path,), enabled=("p",), installed=False, watch=True)
    opened = Plugins(section)
    assert opened.start() == {}
    assert names()
    left = weakref.ref(opened)
    del opened
    # It holds them while it looks.
    until(lambda: gc.collect() >= 0 and left() is None)
    until(lambda: not names())


PROGRAM = """
import sys, time
from pathlib import Path
from dwkernel.plugins import Plugins, PluginsSection
home = Path(sys.argv[1])
section = PluginsSection(folders=(home,), enabled=("p",), installed=False, watch=True)
opened = Plugins(section)
assert opened.start() == {}
"""


@pytest.mark.parametrize("end", ["", "time.sleep(0.3)", "opened.close()"])
def test_a_program_that_watches_ends_at_once_and_in_peace(tmp_path: Path, end: str) -> None:
    home = write(tmp_path / "p", 1)
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", PROGRAM + end, str(home)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")
    assert time.monotonic() - began < 20
