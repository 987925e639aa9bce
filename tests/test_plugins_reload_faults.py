"""Reloads that are interrupted, or meet what nobody expects: callers notice nothing."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import plugin_maker
from dwkernel.plugins import Plugins, manager, swap
from dwkernel.plugins.reload import Reload
from dwkernel.plugins.serving import PluginDrive
from expect import code_of, until
from test_plugins_reload import counter, namespaces, reloading_fails

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE_S = 30.0


@pytest.fixture
def opened() -> Iterator[Plugins]:
    with plugin_maker.plugins() as opened:
        yield opened


# --- Ctrl-C ---


def interrupting(real: Callable[..., Any], *, after: bool, times: int = 1) -> Callable[..., Any]:
    """Return a function that is interrupted before or after it did its work."""
    left = [times]

    def call(*arguments: Any, **options: Any) -> Any:
        is_now = bool(left[0]) and threading.current_thread() is threading.main_thread()
        left[0] -= is_now
        if is_now and not after:
            raise KeyboardInterrupt
        result = real(*arguments, **options)
        if is_now:
            raise KeyboardInterrupt
        return result

    return call


MOMENTS = {
    "swap": (swap.Slot, "swap"),
    "settling": (manager.Plugins, "_took_over"),
    "registering": (manager.Plugins, "_register"),
    "draining": (swap.Slot, "drain"),
    "ending": (Reload, "finish"),
}


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_leaves_one_version_at_work_which_everybody_knows(
    moment: str, after: bool, opened: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[tuple[str, str]] = []
    opened.on(lambda subject, data: heard.append((subject, data["version"])))
    opened.load(counter(tmp_path / "p", 1))
    handle = opened.get("policy")
    handle.call("add")
    owner, name = MOMENTS[moment]
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, interrupting(getattr(owner, name), after=after))
        with pytest.raises(KeyboardInterrupt):
            opened.reload("p", counter(tmp_path / "next", 2, version="1.1"))
        until(lambda: heard[-1][0] != "plugin.reloading")
    swapped = (moment, after) != ("swap", False)
    assert heard[-1] == (("plugin.reloaded", "1.1") if swapped else ("plugin.reload_failed", "1.0"))
    assert handle.call("add") == (2 if swapped else 1)
    info = opened.info("p")
    assert (info.version, info.reloads) == (("1.1", 1) if swapped else ("1.0", 0))
    # The other one is gone, and the next reload has the state of the one that is there.
    until(lambda: len(namespaces()) == 1)
    report = opened.reload("p", counter(tmp_path / "last", 3, version="1.2"))
    assert (report.is_unloaded, report.unused) == (True, True)
    with handle.use() as instance:
        assert instance.count == 2
    del instance


def test_ctrl_c_in_a_drain_cuts_nobody_short(opened: Plugins, tmp_path: Path) -> None:
    opened.load(counter(tmp_path / "p", 1, keep_state=False))
    handle = opened.get("policy")
    heard: list[str] = []
    opened.on(lambda subject, _: heard.append(subject))
    inside, leave = threading.Event(), threading.Event()
    stopped: list[bool] = []

    def user() -> None:
        with handle.use() as instance:
            instance.stop = lambda: stopped.append(leave.is_set())
            inside.set()
            leave.wait(PATIENCE_S)

    thread = threading.Thread(target=user)
    thread.start()
    assert inside.wait(PATIENCE_S)
    real = swap._drained

    def drained(held: Any, limit_s: float) -> list[str]:
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        return real(held, limit_s)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(swap, "_drained", drained)
        with pytest.raises(KeyboardInterrupt):
            opened.reload("p", counter(tmp_path / "next", 2, keep_state=False))
    assert handle.call("add") == 2
    assert (stopped, heard) == ([], ["plugin.reloading"])
    leave.set()
    thread.join()
    until(lambda: heard == ["plugin.reloading", "plugin.reloaded"])
    assert stopped == [True]


# --- What is no error of the plugin's, or not in a step of its life ---


def test_a_failure_that_nobody_foresaw_is_coded_and_leaves_the_old_one(
    opened: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened.load(counter(tmp_path / "p", 1))
    handle = opened.get("policy")

    def none_left(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr("dwkernel.plugins.life.Life.export_state", none_left)
        error = reloading_fails(opened, counter(tmp_path / "next", 2))
    assert (error.details["step"], error.details["cause"]) == ("export", "plugin.failed")
    assert "MemoryError" in str(error)
    assert handle.call("add") == 1
    # Even an attribute is code of the plugin's.
    asks = "def __getattr__(self, name): raise ValueError(f'no {name}')"
    error = reloading_fails(opened, counter(tmp_path / "next", 2, asks))
    assert "no " in str(error)
    assert (handle.call("add"), len(namespaces())) == (1, 1)


@pytest.mark.parametrize("keeps", [True, False])
def test_health_has_its_own_limit(keeps: bool, tmp_path: Path) -> None:
    hangs = f"import time\ndef health(self): self.time.sleep({PATIENCE_S})"
    with plugin_maker.plugins(limits={"health": 0.2, "stop": 1.0}) as opened:
        opened.load(counter(tmp_path / "p", 1, keep_state=keeps))
        began = time.monotonic()
        error = reloading_fails(opened, counter(tmp_path / "bad", 2, hangs, keep_state=keeps))
        assert (error.details["step"], error.details["cause"]) == ("health", "plugin.timeout")
        assert time.monotonic() - began < PATIENCE_S / 2


@pytest.mark.parametrize("step", ["export", "import", "health"])
def test_what_a_version_does_to_the_process_while_it_takes_over_is_undone(
    step: str, opened: Plugins, tmp_path: Path
) -> None:
    here = Path.cwd()
    bodies = {
        "export": "def export_state(self): __import__('os').chdir('/'); return {'count': 0}",
        "import": "def import_state(self, state, version): __import__('os').chdir('/')",
        "health": "def health(self): __import__('os').chdir('/')",
    }
    is_old = step == "export"
    opened.load(counter(tmp_path / "p", 1, bodies[step] if is_old else ""))
    opened.reload("p", counter(tmp_path / "next", 2, "" if is_old else bodies[step]))
    assert Path.cwd() == here
    assert "carrying over: changed the working directory" in opened.info("p").effects


def test_what_hangs_while_it_is_collected_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dwkernel.plugins.version._UNLOAD_S", 0.2)
    hangs = f"""
import time, sys
def __del__(self):
    print("going")
    self.time.sleep({PATIENCE_S * 20})
"""
    with plugin_maker.plugins() as opened:
        opened.load(counter(tmp_path / "p", 1, hangs))
        began = time.monotonic()
        report = opened.reload("p", counter(tmp_path / "next", 2))
        assert time.monotonic() - began < PATIENCE_S * 10
        assert "unloading of p did not end" in report.alive[0]
        assert (opened.get("policy").call("add"), opened.info("p").stuck) == (2, 1)
        assert "going" in opened.info("p").lines


def test_a_thread_without_a_name_that_the_old_one_left_is_told(
    opened: Plugins, tmp_path: Path
) -> None:
    leaks = """
import _thread, threading
END = threading.Event()
def start(self):
    self._thread.start_new_thread(self.END.wait, (30,))
    self._thread.start_new_thread(self.work, ())
def work(self):
    self.END.wait(30)
"""
    opened.load(counter(tmp_path / "p", 1, leaks))
    with opened.get("policy").use() as instance:
        end = instance.END
    del instance
    report = opened.reload("p", counter(tmp_path / "next", 2))
    end.set()
    assert [one.rpartition("/")[0] for one in report.leaked] == ["plugin:p"]
    assert (report.leaked[0].rpartition("/")[2].isdigit(), report.is_unloaded) == (True, False)


def test_calls_that_fail_on_the_old_version_are_not_laid_to_the_new_one(tmp_path: Path) -> None:
    fails = "def fail(self, inside, leave): inside.set(); leave.wait(60); 1 / 0"
    with plugin_maker.plugins(health={"failures_in_row": 3, "failures_max": 3}) as opened:
        opened.load(counter(tmp_path / "p", 1, fails, keep_state=False))
        handle = opened.get("policy")
        inside, leave = [threading.Event() for _ in range(8)], threading.Event()
        codes: list[str] = []

        def call(begun: threading.Event, limit_s: float | None) -> None:
            codes.append(code_of(lambda: handle.call("fail", begun, leave, limit_s=limit_s)))

        threads = [
            threading.Thread(target=call, args=(one, PATIENCE_S if number % 2 else None))
            for number, one in enumerate(inside)
        ]
        for thread in threads:
            thread.start()
        assert all(one.wait(PATIENCE_S) for one in inside)

        def release() -> None:
            until(lambda: opened.info("p").version == "1.1")
            leave.set()

        until_new = threading.Thread(target=release)
        until_new.start()
        assert opened.reload(
            "p", counter(tmp_path / "n", 2, version="1.1", keep_state=False)
        ).unused
        for thread in [*threads, until_new]:
            thread.join()
        assert codes == ["plugin.failed"] * 8
        assert (handle.call("add"), handle.health.report().failures) == (2, 0)


def test_what_is_told_of_a_plugin_is_bounded_over_all_its_reloads(
    opened: Plugins, tmp_path: Path
) -> None:
    opened.load(counter(tmp_path / "p", 1))
    for number in range(150):
        with opened._records["p"].watchdog.looking("a step"):
            os.environ[f"DWK_{number}"] = "1"
    assert len(opened.info("p").effects) == 100


# --- Drives that are open ---

DRIVES = """
from pathlib import Path
from dwkernel import errors

class Drive:
    def __init__(self, home):
        self.home = home
    def capacity(self):
        if not self.home.is_dir():
            raise errors.new("drive.missing", "it is gone")
        return (1, 1)

class Plugin:
    def open(self, location, make):
        home = Path(location.removeprefix("kv://"))
        if make:
            home.mkdir(exist_ok=True)
        drive = Drive(home)
        drive.capacity()
        return drive
"""


RAISES = ("        if make", "        raise OSError('no')\n        if make")


def drives(home: Path, version: str, old: str = "", new: str = "") -> Path:
    return plugin_maker.write(
        home,
        version=version,
        kinds=["drive"],
        capabilities={"drive": ["kv"]},
        files={"main.py": DRIVES.replace(old, new) if old else DRIVES},
    )


def test_a_version_that_can_not_open_the_drives_that_are_open_does_not_take_over(
    opened: Plugins, tmp_path: Path
) -> None:
    opened.load(drives(tmp_path / "p", "1.0"))
    drive = PluginDrive(opened.get("drive").slot, f"kv://{tmp_path}/d", make=True)
    assert drive.capacity() == (1, 1)
    bad = drives(tmp_path / "bad", "1.1", *RAISES)
    error = reloading_fails(opened, bad)
    assert (error.details["step"], error.details["cause"]) == ("open", "plugin.failed")
    assert (drive.capacity(), len(namespaces())) == ((1, 1), 1)
    report = opened.reload("p", drives(tmp_path / "next", "1.2"))
    assert ("open" in report.seconds, report.is_unloaded) == (True, True)
    # It is open already: nobody waits for that later.
    assert len(opened.get("drive").slot.held.kept) == 1
    assert drive.capacity() == (1, 1)


def test_a_drive_that_is_gone_is_not_made_anew_and_stops_no_reload(
    opened: Plugins, tmp_path: Path
) -> None:
    opened.load(drives(tmp_path / "p", "1.0"))
    drive = PluginDrive(opened.get("drive").slot, f"kv://{tmp_path}/d", make=True)
    assert drive.capacity() == (1, 1)
    (tmp_path / "d").rmdir()
    assert opened.reload("p", drives(tmp_path / "next", "1.1")).is_unloaded
    assert code_of(drive.capacity) == "drive.missing"
    assert not (tmp_path / "d").exists()
    (tmp_path / "d").mkdir()
    assert drive.capacity() == (1, 1)


def test_a_drive_that_nobody_uses_any_more_is_not_opened(opened: Plugins, tmp_path: Path) -> None:
    opened.load(drives(tmp_path / "p", "1.0"))
    drive = PluginDrive(opened.get("drive").slot, f"kv://{tmp_path}/d", make=True)
    assert drive.capacity() == (1, 1)
    del drive
    assert opened.reload("p", drives(tmp_path / "next", "1.1", *RAISES)).is_unloaded
    assert not opened.get("drive").slot.held.kept
