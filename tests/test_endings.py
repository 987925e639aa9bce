"""What ends in the middle: Ctrl-C, a task that is cancelled, an interpreter that is done."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import dwkernel as dw
from dwkernel import _native, errors
from expect import until
from python_drive import DictDrive, DictDrives

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dwkernel.reports import Progress


class _Interrupt(Exception):
    """Ctrl-C, of a test."""


def _interrupt_in(seconds: float) -> None:
    def raise_it(*_: object) -> None:
        raise _Interrupt

    signal.signal(signal.SIGALRM, raise_it)
    signal.setitimer(signal.ITIMER_REAL, seconds)


@pytest.fixture(autouse=True)
def _no_alarm() -> Iterator[None]:
    before = signal.getsignal(signal.SIGALRM)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


class _SlowDrive(DictDrive):
    """Each read takes a moment."""

    pause_s = 0.0

    def read(self, name: str, offset: int, length: int) -> bytes:
        time.sleep(self.pause_s)
        return super().read(name, offset, length)


def test_a_signal_ends_a_long_read_in_the_middle() -> None:
    drives = DictDrives()
    drive = drives.drives["dict://slow"] = _SlowDrive("slow")
    _native.register_drives("dict", drives.open)
    try:
        size = 32 << 20
        with dw.open(drives=["dict://slow"], create=True) as kernel:
            kernel.containers.create("docs")
            kernel.put("docs/a", b"\xff" * size)
            drive.pause_s = 0.01
            into = bytearray(size)
            with kernel.get("docs/a") as reader:
                _interrupt_in(0.1)
                with pytest.raises(_Interrupt):
                    reader.readinto(into)
                drive.pause_s = 0.0
                assert into[-1] == 0, "it was read to its end before the signal was heard"
                assert reader.read() == b"\xff" * size
    finally:
        _native.unregister_drives("dict")


class _Blocked:
    """A source that gives nothing before it is let go."""

    def __init__(self) -> None:
        self.asked, self.go_on = threading.Event(), threading.Event()

    def read(self, _: int) -> bytes:
        self.asked.set()
        self.go_on.wait(60)
        return b""


def test_a_signal_ends_the_wait_of_closing_and_closing_again_goes_on(path: Path) -> None:
    kernel = dw.open(path, drives=3, create=True)
    kernel.containers.create("docs")
    source = _Blocked()
    putting = threading.Thread(target=kernel.put, args=("docs/a", source))
    putting.start()
    source.asked.wait(60)
    # Where it does not end the wait, the put does, later.
    late = threading.Timer(20, source.go_on.set)
    late.start()
    _interrupt_in(0.3)
    with pytest.raises(_Interrupt):
        kernel.close()
    assert not source.go_on.is_set(), "the signal was heard after the wait"
    late.cancel()
    source.go_on.set()
    putting.join()
    kernel.close()
    with dw.open(path) as again:
        assert again["docs/a"] == b""


class _Endless:
    def __init__(self) -> None:
        self.asked = 0

    def read(self, size: int) -> bytes:
        self.asked += 1
        time.sleep(0.01)
        return bytes(size)


def test_a_cancelled_put_asks_its_source_no_more_and_stores_nothing(path: Path) -> None:
    async def story() -> None:
        async with dw.aio.open(path, drives=3, create=True) as kernel:
            await kernel.containers.create("docs")
            source = _Endless()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(kernel.put("docs/a", source, timeout="30s"), 0.3)  # type: ignore[arg-type]
            # It looks at most every 50 ms.
            await asyncio.sleep(1)
            asked = source.asked
            await asyncio.sleep(0.5)
            assert source.asked == asked
            assert "docs/a" not in kernel.sync

    asyncio.run(story())


def test_a_cancelled_scrub_ends_also_where_it_shows_a_bar(path: Path) -> None:
    with dw.open(path, drives=3, create=True) as kernel:
        kernel.containers.create("docs")
        for number in range(8):
            kernel.put(f"docs/{number}", os.urandom(300_000))

    async def story() -> None:
        told: list[Progress] = []
        async with dw.aio.open(path) as kernel:
            for progress in (None, True, told.append):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(scrub(kernel, progress), 1)
        # Closing waits for what is under way: the last one.

    async def scrub(kernel: dw.aio.AsyncKernel, progress: Any) -> None:
        while True:
            try:
                await kernel.pool.scrub(rate="20 KiB", progress=progress, restart=True)
            except errors.Unavailable:
                # The one before has a moment to end.
                await asyncio.sleep(0.01)
            else:
                return

    start = time.monotonic()
    asyncio.run(story())
    assert time.monotonic() - start < 30


def _opens(opening: Callable[[Path], dw.Kernel], path: Path) -> bool:
    try:
        opening(path).close()
    except errors.Unavailable:
        return False
    return True


def test_a_cancelled_opening_holds_no_drives(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dw.open(path, drives=3, create=True).close()
    from dwkernel import kernel as module

    opened, real = threading.Event(), module.open

    def slow(*args: object, **options: object) -> dw.Kernel:
        try:
            kernel = real(*args, **options)  # type: ignore[arg-type]
            time.sleep(0.5)
            return kernel
        finally:
            opened.set()

    monkeypatch.setattr(module, "open", slow)

    async def story() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(dw.aio.open(path), 0.1)

    gc.disable()
    try:
        asyncio.run(story())
        assert opened.wait(60)
        until(lambda: _opens(real, path))
    finally:
        gc.enable()


# Ends while threads that nobody waits for are in a source, or in a callable that hears of progress.
_ENDING = """
import sys, threading, time
import dwkernel as dw
kernel = dw.open(drives=["memory://a"], create=True)
kernel.containers.create("docs")
class Slow:
    def read(self, size):
        time.sleep(0.001)
        return bytes(100)
def put(number):
    told = (lambda _: time.sleep(0.001)) if sys.argv[1] == "progress" else None
    while True:
        kernel.put(f"docs/{number}", Slow(), progress=told)
for number in range(4):
    threading.Thread(target=put, args=(number,), daemon=True).start()
time.sleep(0.3)
"""


@pytest.mark.parametrize("where", ["source", "progress"])
def test_an_interpreter_ends_in_order_while_threads_are_in_a_put(where: str) -> None:
    for _ in range(3):
        command = [sys.executable, "-c", _ENDING, where]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, b"")


# A program that has no file left to open, for a moment: reads and writes meanwhile, and after it.
_SHORT = """
import contextlib, os, resource, sys
import dwkernel as dw
kernel = dw.open(sys.argv[1], drives=3, create=True)
kernel.containers.create("docs")
kernel.put("docs/a", b"a" * 400_000)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
held = []
with contextlib.suppress(OSError):
    while True:
        held.append(os.open("/dev/null", os.O_RDONLY))
for use in (lambda: kernel["docs/a"], lambda: kernel.put("docs/b", os.urandom(3_000_000))):
    try:
        use()
    except dw.DwError as error:
        print(error.code, error.retryable)
for one in held:
    os.close(one)
status = kernel.pool.status()
print([drive.state for drive in status.drives], status.redundancy)
print(kernel["docs/a"] == b"a" * 400_000, kernel.put("docs/b", os.urandom(3_000_000)).size)
kernel.close()
"""


def test_a_program_without_a_file_left_to_open_blames_no_drive(path: Path) -> None:
    command = [sys.executable, "-c", _SHORT, str(path)]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False, text=True)
    *refused, states, after = done.stdout.splitlines() or pytest.fail(done.stderr)
    # What the drives keep open they let go, which may be enough.
    assert set(refused) <= {"process.exhausted True"}
    assert (states, after) == ("['ok', 'ok', 'ok'] full", "True 3000000"), done.stderr


# Small content while nothing can be opened, through several segments of the journal.
_COMMITS = """
import contextlib, os, resource, sys
import dwkernel as dw
kernel = dw.open(sys.argv[1], drives=3, create=True)
kernel.containers.create("docs")
kernel.put("docs/large", os.urandom(3_000_000))
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
held, refused, stored = [], [], {}
for number in range(700):
    for _ in range(2):
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        with contextlib.suppress(dw.DwError):
            kernel["docs/large"]  # has the drives let go of what they can do without
    key, value = f"docs/{number}", os.urandom(60_000)
    try:
        kernel.put(key, value)
        stored[key] = value
    except dw.DwError as error:
        refused.append(f"{error.code} {error.retryable}")
        for one in held:
            os.close(one)
        held = []
        kernel.put(key, value)
        stored[key] = value
for one in held:
    os.close(one)
kernel.close()
with dw.open(sys.argv[1]) as kernel:
    print(set(refused), len(refused) < 10)
    print([drive.state for drive in kernel.pool.status().drives], kernel.pool.status().redundancy)
    print(all(kernel[key] == value for key, value in stored.items()))
"""


def test_a_program_without_a_file_left_to_open_commits_and_no_drive_leaves_the_journal(
    path: Path,
) -> None:
    command = [sys.executable, "-c", _COMMITS, str(path)]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False, text=True)
    refused, states, after = done.stdout.splitlines() or pytest.fail(done.stderr)
    # At the end of a segment of the journal, which is longer than 200 of them.
    assert refused in {"set() True", "{'process.exhausted True'} True"}
    assert (states, after) == ("['ok', 'ok', 'ok'] full", "True"), done.stderr


# A program that may write short files only, which stops nobody but itself.
_SHORT_FILES = """
import os, resource, signal, sys
import dwkernel as dw
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
path, big = sys.argv[1], os.urandom(3_000_000)
kernel = dw.open(path, drives=3, create=True)
kernel.containers.create("docs")
kernel.put("docs/a", big)
def limited(files, use):
    resource.setrlimit(resource.RLIMIT_FSIZE, (files, -1))
    try:
        use()
        return "worked"
    except dw.DwError as error:
        return f"{error.code} {error.retryable}"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
print(limited(400_000, lambda: kernel.put("docs/b", big)))
print([drive.state for drive in kernel.pool.status().drives], kernel["docs/a"] == big)
kernel.close()
print(limited(1 << 20, lambda: dw.open(path).close()))
with dw.open(path) as kernel:
    print([drive.state for drive in kernel.pool.status().drives], kernel.pool.status().redundancy)
    print(kernel["docs/a"] == big, kernel.put("docs/b", big).size)
"""


def test_a_program_that_may_write_short_files_only_is_told_so_and_blames_no_drive(
    path: Path,
) -> None:
    command = [sys.executable, "-c", _SHORT_FILES, str(path)]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False, text=True)
    refused = "process.file_size False"
    states = "['ok', 'ok', 'ok']"
    expected = [refused, f"{states} True", refused, f"{states} full", "True 3000000"]
    assert done.stdout.splitlines() == expected, (done.returncode, done.stderr)
