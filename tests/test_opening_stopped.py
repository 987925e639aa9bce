"""An opening that nobody waits for any more: Ctrl-C, a cancelled task, a callable that raises."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
import re
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import dwkernel as dw
from dwkernel import _native
from python_drive import DictDrive, DictDrives

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dwkernel.reports import Progress

# What a busy machine may add to the tenth of a second in which it is heard.
_HEARD_S = 1.0


class _Interrupt(Exception):
    """Ctrl-C, of a test."""


class SlowDrive(DictDrive):
    """Each read of the journal takes a moment, counted in bytes if it is long."""

    pause_s = 0.0

    def read_log(self, name: str, offset: int, length: int) -> bytes:
        time.sleep(self.pause_s)
        return super().read_log(name, offset, length)

    def read(self, name: str, offset: int, length: int) -> bytes:
        time.sleep(self.pause_s)
        return super().read(name, offset, length)

    def as_after_a_cut(self, others: SlowDrive) -> None:
        """Become what another drive is now, as if the power had gone."""
        self.blobs, self.slots = dict(others.blobs), dict(others.slots)
        self.logs = copy.deepcopy(others.logs)


class Drives(DictDrives):
    """Two slow drives."""

    def __init__(self) -> None:
        super().__init__()
        self.names = ["dict://a", "dict://b"]
        for name in self.names:
            self.drives[name] = SlowDrive(name)

    def pause(self, seconds: float) -> None:
        for drive in self.drives.values():
            assert isinstance(drive, SlowDrive)
            drive.pause_s = seconds

    @property
    def is_locked(self) -> bool:
        return any(drive.held is not None for drive in self.drives.values())


@pytest.fixture
def drives() -> Iterator[Drives]:
    drives = Drives()
    _native.register_drives("dict", drives.open)
    yield drives
    drives.pause(0)
    _native.unregister_drives("dict")


_CONTENT = os.urandom(60_000)
_COUNT = 150


def _filled(drives: Drives) -> None:
    """Make a mirror whose journal holds much."""
    with dw.open(drives=drives.names, geometry="mirror:2", create=True) as kernel:
        kernel.containers.create("docs")
        for number in range(_COUNT):
            kernel.put(f"docs/{number}", _CONTENT)


def _cut(drives: Drives) -> None:
    """Have the power go while a store is open whose journal holds much."""
    before = dict(drives.drives)
    with dw.open(drives=drives.names, geometry="mirror:2", create=True) as kernel:
        kernel.containers.create("docs")
        for number in range(_COUNT):
            kernel.put(f"docs/{number}", _CONTENT)
        for name, drive in before.items():
            fresh = drives.drives[name] = SlowDrive(name)
            assert isinstance(drive, SlowDrive)
            fresh.as_after_a_cut(drive)


def _all_is_there(kernel: dw.Kernel) -> None:
    assert all(kernel[f"docs/{number}"] == _CONTENT for number in range(_COUNT))


@pytest.fixture
def _no_alarm() -> Iterator[None]:
    before = signal.getsignal(signal.SIGALRM)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("_no_alarm")
@pytest.mark.parametrize("read_only", [False, True])
def test_ctrl_c_ends_a_long_recovery_and_leaves_the_drives_as_they_were(
    drives: Drives, *, read_only: bool
) -> None:
    _cut(drives)
    raised_at: list[float] = []

    def raise_it(*_: object) -> None:
        raised_at.append(time.monotonic())
        raise _Interrupt

    signal.signal(signal.SIGALRM, raise_it)
    drives.pause(0.05)
    stopped = 0
    for seconds in (0.05, 0.2, 0.4, 0.8, 1.6):
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            dw.open(drives=drives.names, read_only=read_only).close()
        except _Interrupt:
            stopped += 1
            assert time.monotonic() - raised_at[-1] < _HEARD_S
            assert not drives.is_locked
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert stopped >= 3
    drives.pause(0)
    with dw.open(drives=drives.names) as kernel:
        _all_is_there(kernel)
        assert kernel.pool.status().redundancy == "full"


@pytest.mark.usefixtures("_no_alarm")
def test_half_of_a_mirror_opens_after_an_opening_of_both_was_stopped(drives: Drives) -> None:
    _filled(drives)

    def raise_it(*_: object) -> None:
        raise _Interrupt

    signal.signal(signal.SIGALRM, raise_it)
    stopped = 0
    for step in range(1, 12):
        drives.pause(0.03)
        signal.setitimer(signal.ITIMER_REAL, step * 0.05)
        try:
            dw.open(drives=drives.names).close()
        except _Interrupt:
            stopped += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        drives.pause(0)
        # One that was not closed cleanly would be read only.
        with dw.open(drives=drives.names[:1]) as kernel:
            assert kernel.pool.status().read_only is None
            kernel.put("docs/more", b"x")
        dw.open(drives=drives.names).close()
    assert stopped >= 2


def test_a_callable_hears_how_far_an_opening_is_and_ends_it(drives: Drives) -> None:
    _cut(drives)
    drives.pause(0.02)
    told: list[Progress] = []

    def tell(progress: Progress) -> None:
        told.append(progress)
        if progress.done > 1 << 20:
            raise _Interrupt

    with pytest.raises(_Interrupt):
        dw.open(drives=drives.names, progress=tell)
    assert not drives.is_locked
    done = [progress.done for progress in told]
    assert done == sorted(done)
    assert {(progress.work, progress.unit) for progress in told} == {("open", "bytes")}
    drives.pause(0)
    dw.open(drives=drives.names, progress=lambda _: None).close()


def test_a_cancelled_opening_ends_soon(drives: Drives) -> None:
    _cut(drives)
    drives.pause(0.05)

    async def story() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(dw.aio.open(drives=drives.names), 0.3)
        # In well less than what is left to read takes.
        await asyncio.sleep(_HEARD_S)
        assert not drives.is_locked

    asyncio.run(story())
    drives.pause(0)
    with dw.open(drives=drives.names) as kernel:
        _all_is_there(kernel)


def test_a_stopped_opening_of_plain_directories_can_be_repeated(path: Any) -> None:
    with dw.open(path, drives=3, create=True) as kernel:
        kernel.containers.create("docs")

    def at_once(_: Progress) -> None:
        raise _Interrupt

    for _ in range(5):
        # One that is done before anybody looks is there.
        with contextlib.suppress(_Interrupt):
            dw.open(path, progress=at_once).close()
        dw.open(path).close()


def test_what_is_raised_while_a_store_is_let_go_is_raised_all_the_same(drives: Drives) -> None:
    dw.open(drives=drives.names, geometry="mirror:2", create=True).close()

    def opened() -> _native.Store:
        return _native.Store.open(
            _native.Caller("test"),
            60.0,
            path=None,
            drives=drives.names,
            geometry=None,
            labels={},
            create="never",
            read_only=False,
            force=False,
            program="test",
        )

    def fail() -> None:
        raise _Interrupt

    # The drives are written in Python, and closed when the store goes.
    with pytest.raises(_Interrupt):
        str((opened(), fail()))  # type: ignore[func-returns-value]
    assert not drives.is_locked


def test_a_long_opening_says_how_far_it_is_and_a_short_one_nothing(
    drives: Drives, capfd: pytest.CaptureFixture[str]
) -> None:
    _cut(drives)
    drives.pause(0.1)
    # Slow until it has said something: a line comes after two seconds.
    enough = threading.Timer(4, drives.pause, [0])
    enough.start()
    with dw.open(drives=drives.names, progress=True):
        first = capfd.readouterr().err.splitlines()[0]
        assert re.fullmatch(r"open: [0-9.]+ [KM]iB, 2(\.[0-9]+)? s", first), first
    enough.join()
    with dw.open(drives=drives.names, progress=True):
        assert capfd.readouterr().err == ""


class HangingDrive(DictDrive):
    """Hangs in one of its calls until it is let go."""

    hangs_in = ""

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self.go_on = threading.Event()

    def _note(self, what: str) -> None:
        super()._note(what)
        if what == self.hangs_in:
            self.go_on.wait(60)


@pytest.fixture
def fresh() -> Iterator[dict[str, DictDrive]]:
    """Two new drives, the second of which may hang."""
    drives = {"dict://a": DictDrive("dict://a"), "dict://b": HangingDrive("dict://b")}
    _native.register_drives("dict", lambda url, *_: drives[url])
    yield drives
    _native.unregister_drives("dict")


@pytest.mark.usefixtures("_no_alarm")
@pytest.mark.parametrize(
    "call", ["read_superblock", "lock", "list", "capacity", "write_superblock"]
)
def test_ctrl_c_ends_the_making_of_a_store_on_a_drive_that_hangs(
    fresh: dict[str, DictDrive], call: str
) -> None:
    hanging = fresh["dict://b"]
    assert isinstance(hanging, HangingDrive)
    hanging.hangs_in = call
    raised_at: list[float] = []

    def raise_it(*_: object) -> None:
        raised_at.append(time.monotonic())
        raise _Interrupt

    signal.signal(signal.SIGALRM, raise_it)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    with pytest.raises(_Interrupt):
        dw.open(drives=list(fresh), geometry="mirror:2", create=True)
    # What hangs had a second to end in order.
    assert time.monotonic() - raised_at[-1] < 1 + _HEARD_S
    assert call in hanging.calls
    hanging.hangs_in = ""
    hanging.go_on.set()
    give_up_at = time.monotonic() + 20
    while any(drive.held is not None for drive in fresh.values()):
        assert time.monotonic() < give_up_at, "a drive stays locked"
        time.sleep(0.01)
    with dw.open(drives=list(fresh), geometry="mirror:2", create=True) as kernel:
        kernel.containers.create("docs")
        kernel.put("docs/a", b"kept")
        assert kernel["docs/a"] == b"kept"
