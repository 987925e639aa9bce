"""Disks that somebody else fills to the last block, under a load, and a power cut while they are.

What is refused is refused whole, what was acknowledged stays, deleting makes room, and the store
goes on.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import time
from typing import TYPE_CHECKING

import pytest

import dwkernel as dw
from dwkernel import errors
from machine import IS_LONG, drawn, machine, pairs, power_up
from mixed_load import Book, loading
from volatile_disks import run

if TYPE_CHECKING:
    from pathlib import Path

    from volatile_disks import Disks

__all__ = ["machine"]

ALL = [0, 1, 2]
ALONE = 64 << 10
ROUNDS = 20 if IS_LONG else 2


def fill(place: Path, left: int) -> None:
    """Have nothing left on a file system but `left` bytes, if so much was free."""
    with (place / "ballast").open("ab", buffering=0) as file:
        for size in (1 << 20, 1 << 16, 4096, 512):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as error:
                assert error.errno == errno.ENOSPC  # noqa: PT017 - what it should be
        os.fsync(file.fileno())
        file.truncate(max(0, file.tell() - left))
        os.fsync(file.fileno())


def empty(machine: Disks) -> None:
    for number in ALL:
        (machine.at(number) / "ballast").unlink(missing_ok=True)


def free_bytes(machine: Disks) -> int:
    """Return what is free on all disks or the journal's, once the file systems know.

    On a full disk the journal takes its next segment when there is room for it.
    """
    for number in ALL:
        run("sync", "-f", str(machine.at(number)))
    states = [os.statvfs(machine.at(number)) for number in ALL]
    free = sum(state.f_bfree * state.f_frsize for state in states)
    for log in (log for number in ALL for log in (machine.at(number) / "drive/logs").iterdir()):
        with contextlib.suppress(FileNotFoundError):
            free += log.stat().st_blocks * 512
    return free


def delete_all(machine: Disks, kernel: dw.Kernel, book: Book) -> None:
    """Delete on full disks: that is done, and gives back what lay in stripes of its own."""
    before, large = free_bytes(machine), 0
    for key in sorted(key for key, at in book.state.items() if at is not None):
        size = kernel.head(key).size
        large += size if size > ALONE else 0
        kernel.delete(key)
        book.state[key] = None
    assert not list(kernel.list("docs"))
    # What catches up with drives in the background still reads for a while, and XFS frees later.
    for _ in range(40):
        # What is dead is given back also where there is no room to pack what lives.
        with contextlib.suppress(errors.Full):
            kernel.pool.pack()
        if free_bytes(machine) - before >= large * 9 // 10:
            return
        time.sleep(0.25)
    pytest.fail(f"{free_bytes(machine) - before} bytes of {large} were given back")


@pairs("2+1", "mirror:3")
def test_full_disks_lose_nothing_and_deleting_makes_room(machine: Disks, geometry: str) -> None:
    seed, chance = drawn()
    drives = [str(machine.at(number) / "drive") for number in ALL]
    with dw.open(drives=drives, geometry=geometry, create=True) as kernel:
        Book.begin(kernel)
    book = Book(seed)
    for epoch in range(ROUNDS):
        works = [["scrub"], ["rebuild"], ["pack"]]
        full = chance.choice([ALL, [0], [0, 1], ALL]) if epoch else ALL
        with loading(seed, epoch, works, drives=drives) as said:
            book.listen(itertools.islice(said, chance.randrange(100, 400)))
            for number in full:
                left = chance.choice([0, 0, 4096, 65536, 1 << 20, 4 << 20]) if epoch else 0
                fill(machine.at(number), left)
            book.listen(itertools.islice(said, chance.randrange(50, 400)))
            for _ in range(100):
                if book.refused:
                    break
                book.listen(itertools.islice(said, 50))
            machine.cut(ALL, chance.choice([0, 0.5, 0.9]), chance.randrange(1 << 30))
            # What is refused asks no disk, and would be refused for ever.
            said.kill()
            book.listen(said)
        power_up(machine, without=chance.choice([None, *ALL]))
        with dw.open(drives=drives) as kernel:
            book.check(kernel)
        power_up(machine)
        with dw.open(drives=drives) as kernel:
            book.check(kernel)
            if chance.random() < 0.5:
                delete_all(machine, kernel, book)
        with dw.open(drives=drives) as kernel:
            book.check(kernel)
            empty(machine)
            kernel.put("docs/room", bytes(1_500_000))
            assert kernel["docs/room"] == bytes(1_500_000)
            kernel.delete("docs/room")
            kernel.pool.rebuild()
            assert not kernel.pool.scrub().lost_stripes
            assert kernel.pool.status().redundancy == "full", kernel.pool.status()
            book.check(kernel)
    print(book.refused, book.done, book.ended)  # noqa: T201
    assert book.refused
