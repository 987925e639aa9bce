"""The power is cut in a mixed load on real file systems: nothing acknowledged is lost, or half.

The disks have write caches that forget what was not flushed (`volatile_disks`).
"""

from __future__ import annotations

import itertools
import mmap
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

import dwkernel as dw
from dwkernel import errors
from machine import IS_LONG, drawn, machine, power_up
from mixed_load import REPAIRING, Book, loading

if TYPE_CHECKING:
    from pathlib import Path

    from volatile_disks import Disks

ROUNDS = 60 if IS_LONG else 4
ALL = [0, 1, 2]
__all__ = ["machine"]


def put_past_the_page_cache(file: Path, content: bytes) -> None:
    opened = os.open(file, os.O_WRONLY | os.O_DIRECT)
    aligned = mmap.mmap(-1, len(content))
    aligned[:] = content
    try:
        os.write(opened, aligned)
    finally:
        os.close(opened)


def test_these_disks_keep_what_was_synced_and_forget_the_rest(machine: Disks) -> None:
    files = [machine.at(number) / "file" for number in ALL]
    for file in files:
        with file.open("wb") as opened:
            opened.write(b"1" * 8192)
            opened.flush()
            os.fsync(opened.fileno())
    for file in files:
        put_past_the_page_cache(file, b"2" * 8192)
        assert file.read_bytes() == b"2" * 8192
    for kept, lost in machine.cut(ALL, share=0, seed=1):
        assert kept == 0
        assert lost >= 2
    with pytest.raises(OSError, match="Input/output error"):
        put_past_the_page_cache(files[0], b"3" * 8192)
    power_up(machine)
    assert [file.read_bytes() for file in files] == [b"1" * 8192] * 3


@pytest.mark.parametrize("geometry", ["2+1", "mirror:3"])
def test_a_power_cut_loses_nothing_acknowledged(machine: Disks, geometry: str) -> None:
    """In half of the rounds one disk loses its power, and its cache, before the others."""
    seed, chance = drawn()
    drives = [str(machine.at(number) / "drive") for number in ALL]
    with dw.open(drives=drives, geometry=geometry, create=True) as kernel:
        Book.begin(kernel)
    book = Book(seed)
    for epoch in range(ROUNDS):
        first = chance.choice([None, None, None, *ALL])
        with loading(seed, epoch, REPAIRING * (epoch % 2), drives=drives) as said:
            book.listen(itertools.islice(said, chance.randrange(20, 600)))
            if first is not None:
                machine.cut([first], chance.random(), chance.randrange(1 << 30))
                book.listen(itertools.islice(said, chance.randrange(20, 200)))
            machine.cut(ALL, chance.choice([0, 0.2, 0.5, 0.9]), chance.randrange(1 << 30))
            book.listen(said)
        # What came since is not on the first: then all others are needed.
        power_up(machine, without=chance.choice(ALL) if first is None else None)
        with dw.open(drives=drives) as kernel:
            book.check(kernel)
        power_up(machine)
        with dw.open(drives=drives) as kernel:
            report = kernel.pool.scrub()
            assert not report.lost_stripes, report
            book.check(kernel)


def test_a_disk_that_hangs_holds_up_nobody_for_long(machine: Disks) -> None:
    """Not even who closes: letting a drive go writes to it."""
    drives = [str(machine.at(number) / "drive") for number in ALL]
    store: dict[str, Any] = {"drives": drives, "config": {"pool.drive_timeout": "2s"}}
    contents = {f"docs/{number}": bytes([number]) * 300_000 for number in range(20)}
    with dw.open(geometry="2+1", create=True, **store) as kernel:
        kernel.containers.create("docs")
        for key, content in contents.items():
            kernel.put(key, content)
        machine.hang([1])
        contents |= {"docs/small": b"1", "docs/large": bytes(2_000_000)}
        kernel.put("docs/small", contents["docs/small"])
        kernel.put("docs/large", contents["docs/large"])
        assert all(kernel[key] == content for key, content in contents.items())
        assert kernel.pool.status().redundancy == "degraded"
        begin = time.monotonic()
    assert time.monotonic() - begin < 10
    for _ in range(2):
        with dw.open(**store) as kernel:
            assert kernel.pool.status().redundancy == "degraded"
            assert all(kernel[key] == content for key, content in contents.items())
            kernel.put("docs/late", b"2")
            begin = time.monotonic()
        assert time.monotonic() - begin < 10
    machine.restore([1])
    with when_let_go(store) as kernel:
        assert all(kernel[key] == content for key, content in contents.items())
        kernel.pool.rebuild()
        assert kernel.pool.status().redundancy == "full"


def when_let_go(store: dict[str, Any]) -> dw.Kernel:
    """Open once the disk that hung has let go of those who closed while it did."""
    end = time.monotonic() + 20
    while True:
        try:
            return dw.open(**store)
        except errors.Unavailable as error:
            if error.code != "store.locked" or time.monotonic() > end:
                raise
            time.sleep(0.05)
