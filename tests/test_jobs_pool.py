"""Packing and rebuilding as jobs: stopped in the middle nothing is lost, and later they go on."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import dwkernel as dw
from dwkernel import _native
from expect import PATIENCE_S, code_of, until
from python_drive import DictDrive, DictDrives

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typing_extensions import Buffer

    from dwkernel.jobs import Job

URL = "slow://1"
# Packed in three steps, and not so much garbage that the store's keeper packs it by itself.
COUNT, SIZE = 2080, 50_000


class SlowDrive(DictDrive):
    """A drive whose blobs wait for a gate when they are written, and for a moment behind it."""

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self.is_slow = False
        self.reached = threading.Event()
        self.gate = threading.Event()

    def used(self) -> int:
        return sum(map(len, self.blobs.values()))

    def put(self, name: str, parts: Sequence[Buffer]) -> None:
        if self.is_slow:
            self.reached.set()
            self.gate.wait(PATIENCE_S)
            # Long enough for the one that packs to be asked whether to go on.
            threading.Event().wait(0.1)
        super().put(name, parts)


@pytest.fixture
def drive() -> Iterator[SlowDrive]:
    made, drive = DictDrives(), SlowDrive(URL)
    made.drives[URL] = drive
    _native.register_drives("slow", made.open)
    yield drive
    drive.gate.set()
    _native.unregister_drives("slow")


def content(number: int) -> bytes:
    return number.to_bytes(4) * (SIZE // 4)


def is_left(number: int) -> bool:
    return number % 25 < 10


def check(kernel: dw.Kernel) -> None:
    assert sorted(kernel) == [f"c/{n:04}" for n in range(COUNT) if is_left(n)]
    assert all(kernel[f"c/{n:04}"] == content(n) for n in range(COUNT) if is_left(n))


def shards(drive: Path) -> list[Path]:
    return [file for file in (drive / "blobs" / "s").rglob("*") if file.is_file()]


def half_empty() -> dw.Kernel:
    """Open a store in whose stripes less than half lives."""
    with dw.open(drives=[URL], create=True) as kernel:
        kernel.containers.create("c")
        for number in range(COUNT):
            kernel.put(f"c/{number:04}", content(number))
    kernel = dw.open(drives=[URL])
    for number in range(COUNT):
        if not is_left(number):
            kernel.delete(f"c/{number:04}")
    return kernel


def stopped(kernel: dw.Kernel, job: Job, how: str) -> None:
    if how == "cancel":
        assert job.cancel()
    else:
        kernel.jobs.pause()


@pytest.mark.parametrize("how", ["cancel", "pause"])
def test_packing_that_is_stopped_in_the_middle_loses_nothing_and_goes_on(
    drive: SlowDrive, how: str
) -> None:
    with half_empty() as kernel:
        used = drive.used()
        drive.is_slow = True
        job = kernel.jobs.submit("pack")
        assert drive.reached.wait(PATIENCE_S)
        stopped(kernel, job, how)
        drive.gate.set()
        if how == "cancel":
            assert code_of(lambda: job.wait(PATIENCE_S)) == "job.cancelled"
        else:
            until(lambda: job.state == "interrupted")
        drive.is_slow = False
        part = drive.used()
        assert part < used, "nothing was done"
        check(kernel)
    with dw.open(drives=[URL]) as kernel:
        check(kernel)
        if how == "cancel":
            assert kernel.jobs.get(job.id).state == "cancelled"
            again = kernel.jobs.submit("pack")
        else:
            again = kernel.jobs.get(job.id)
            kernel.jobs.resume()
            kernel.jobs.start()
        report = again.wait(PATIENCE_S)
        # A part of it only: the rest was done when it was stopped.
        assert 0 < report["packed_bytes"] < COUNT * SIZE * 10 // 25 * 3 // 4
        assert again.attempts == 1
        assert drive.used() < part
        check(kernel)
        assert kernel.pool.scrub().lost_stripes == 0


def slow_rebuild(path: Path) -> dw.Kernel:
    """Open a store in which one stripe is rebuilt in a minute or two, at 16 KiB a second."""
    with dw.open(path, drives=3, create=True) as kernel:
        kernel.containers.create("c")
        kernel["c/a"], kernel["c/b"] = os.urandom(1_000_000), os.urandom(1_000_000)
        for file in shards(Path(kernel.pool.status().drives[1].path)):
            file.unlink()
    return dw.open(path)


class Looking:
    """A progress callable that raises while there is nothing to tell."""

    def __init__(self) -> None:
        self.looks = 0

    def __call__(self, progress: object) -> None:
        pass

    def look(self) -> None:
        self.looks += 1
        if self.looks > 3:
            raise LookupError


def test_long_work_ends_when_its_caller_looks_and_raises(path: Path) -> None:
    with slow_rebuild(path) as kernel:
        began_s = time.monotonic()
        with pytest.raises(LookupError):
            kernel.pool.rebuild(rate="16 KiB", progress=Looking())
        assert time.monotonic() - began_s < PATIENCE_S / 2
        assert kernel.pool.rebuild().unrestored_shards == 0


def test_a_job_that_has_nothing_to_tell_hears_of_a_cancel_and_counts_as_silent(path: Path) -> None:
    with slow_rebuild(path) as kernel:
        kernel.config.set({"jobs.stall_after": "0.3s"})
        job = kernel.jobs.submit("rebuild", {"rate": "16 KiB"})
        until(lambda: job.state == "running" and job.is_stalled)
        began_s = time.monotonic()
        assert job.cancel()
        assert code_of(lambda: job.wait(PATIENCE_S)) == "job.cancelled"
        assert time.monotonic() - began_s < PATIENCE_S / 2


@pytest.mark.parametrize("how", ["cancel", "pause"])
def test_rebuilding_that_is_stopped_in_the_middle_loses_nothing_and_goes_on(
    path: Path, how: str
) -> None:
    count = 40
    data: dict[str, Any] = {f"c/{n}": os.urandom(100_000) for n in range(count)}
    with dw.open(path, drives=3, create=True) as kernel:
        kernel.containers.create("c")
        for key, value in data.items():
            kernel[key] = value
        lost = Path(kernel.pool.status().drives[1].path)
        assert len(shards(lost)) == count
        for file in shards(lost):
            file.unlink()
        job = kernel.jobs.submit("rebuild", {"rate": "2 MiB"})
        until(lambda: job.progress is not None and job.progress["done"] > 3)
        stopped(kernel, job, how)
        if how == "cancel":
            assert code_of(lambda: job.wait(PATIENCE_S)) == "job.cancelled"
        else:
            until(lambda: job.state == "interrupted")
        there = len(shards(lost))
        assert 0 < there < count
        assert {key: kernel[key] for key in kernel} == data
    with dw.open(path) as kernel:
        again = kernel.jobs.get(job.id)
        if how == "cancel":
            again = kernel.jobs.submit("rebuild")
        kernel.jobs.resume()
        kernel.jobs.start()
        report = again.wait(PATIENCE_S)
        assert report["restored_shards"] == count - there
        assert kernel.pool.scrub().absent_shards == 0
        assert {key: kernel[key] for key in kernel} == data
