"""Disks that fail reads and writes, that damage what lies on them, and that come back as they were.

The file systems above them stop, or show other bytes. The store shows what was put, or says by a
coded error why it cannot.
"""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import dwkernel as dw
from dwkernel import errors
from machine import IS_LONG, drawn, machine, pairs, power_up
from mixed_load import REPAIRING, Book, content, loading
from volatile_disks import FSYNC, READ, WRITE

if TYPE_CHECKING:
    import random

    from volatile_disks import Disks

__all__ = ["machine"]

ALL = [0, 1, 2]
ROUNDS = 20 if IS_LONG else 1
# What an operation may fail with because of a disk. Each says what to do.
OF_DISKS = {
    "data.corrupt",
    "drive.failed",
    "drive.io",
    "drive.missing",
    "drive.read_only",
    "drive.timeout",
    "drives.too_many_lost",
    "journal.members",
    "pool.read_only",
    "pool.repairing",
    "store.closed",
}


def drives_on(machine: Disks) -> list[str]:
    return [str(machine.at(number) / "drive") for number in ALL]


def made(machine: Disks, geometry: str, seed: int) -> Book:
    with dw.open(drives=drives_on(machine), geometry=geometry, create=True) as kernel:
        Book.begin(kernel)
    return Book(seed)


def mend(machine: Disks, book: Book) -> None:
    """Hold the store against the book, restore what is missing, and do without each disk then."""
    restore(machine, book)
    for number in ALL:
        power_up(machine, without=number)
        with dw.open(drives=drives_on(machine)) as kernel:
            book.check(kernel)
        power_up(machine)
        restore(machine, book)


def restore(machine: Disks, book: Book) -> None:
    with dw.open(drives=drives_on(machine)) as kernel:
        book.check(kernel)
        kernel.pool.rebuild()
        report = kernel.pool.scrub(restart=True)
        assert not report.lost_stripes, report
        assert kernel.pool.status().redundancy == "full", (report, kernel.pool.status())


@pairs("2+1", "mirror:3")
def test_disks_that_fail_requests_lose_nothing_acknowledged(machine: Disks, geometry: str) -> None:
    """One, then all of them: each refusal has a reason, and what was acknowledged is there."""
    seed, chance = drawn()
    book = made(machine, geometry, seed)
    for epoch in range(ROUNDS):
        first = chance.choice(ALL)
        kinds = chance.choice([[READ], [WRITE], [FSYNC], [READ, WRITE], [READ, WRITE, FSYNC]])
        share = chance.choice([0.01, 0.1, 0.5, 1])
        with loading(seed, epoch, REPAIRING, drives=drives_on(machine)) as said:
            book.listen(itertools.islice(said, chance.randrange(20, 300)))
            machine.fail([first], kinds, share, chance.randrange(1 << 30))
            # The load goes on, with one disk less.
            before = len(book.ended)
            book.listen(itertools.islice(said, 200))
            assert not set(book.ended[before:]) - {"drive.failed"}, book.ended[before:]
            if chance.random() < 0.5:
                machine.fail(ALL, [READ, WRITE, FSYNC], share, chance.randrange(1 << 30))
                book.listen(itertools.islice(said, 100))
            machine.fail(ALL, [READ, WRITE, FSYNC], 1, 0)
            book.listen(said)
        assert set(book.ended) <= OF_DISKS, book.ended
        power_up(machine)
        mend(machine, book)


def damage(machine: Disks, number: int, share: float, chance: random.Random) -> int:
    files = [file for file in (machine.at(number) / "drive").rglob("*") if file.is_file()]
    return machine.damage(number, files, share, chance.randrange(1 << 30))


@pairs("2+1", "mirror:3")
def test_a_disk_that_damages_what_lies_on_it_is_found_out_and_mended(
    machine: Disks, geometry: str
) -> None:
    """Blobs, the journal, superblocks and the lock: everything of one disk may be hit."""
    seed, chance = drawn()
    book = made(machine, geometry, seed)
    for epoch in range(ROUNDS):
        number = chance.choice(ALL)
        with loading(seed, epoch, REPAIRING, drives=drives_on(machine)) as said:
            book.listen(itertools.islice(said, chance.randrange(20, 300)))
            if chance.random() < 0.5:
                damage(machine, number, chance.choice([0.01, 0.3]), chance)
                book.listen(itertools.islice(said, 100))
            said.kill()
            book.listen(said)
        power_up(machine)
        damage(machine, number, chance.choice([0.001, 0.01, 0.1, 0.5]), chance)
        power_up(machine)
        mend(machine, book)


def test_damage_beyond_tolerance_shows_errors_and_never_other_bytes(machine: Disks) -> None:
    seed, chance = drawn()
    said_by: set[str] = set()
    for _ in range(ROUNDS):
        for drive in map(Path, drives_on(machine)):
            shutil.rmtree(drive, ignore_errors=True)
        book = made(machine, "2+1", seed)
        with loading(seed, 0, REPAIRING, drives=drives_on(machine)) as said:
            book.listen(itertools.islice(said, 300))
            said.kill()
            book.listen(said)
        with dw.open(drives=drives_on(machine)) as kernel:
            book.check(kernel)
        power_up(machine)
        share = chance.choice([0.001, 0.02, 0.2])
        for number in ALL:
            damage(machine, number, share, chance)
        power_up(machine)
        try:
            with dw.open(drives=drives_on(machine)) as kernel:
                show_no_other(kernel, book)
        except errors.DwError as error:
            said_by.add(error.code)
    assert said_by <= {"drives.too_many_lost", "journal.damaged", "superblock.damaged"}


def show_no_other(kernel: dw.Kernel, book: Book) -> None:
    for key in book.state:
        try:
            at = kernel.head(key).metadata["at"]
            found = kernel[key]
        except (errors.Corrupt, errors.NotFound):
            continue
        assert found == content(book.seed, at), key


@pairs("2+1", "mirror:3")
def test_a_disk_that_comes_back_as_it_was_earlier_is_brought_up_to_date(
    machine: Disks, geometry: str
) -> None:
    """Earlier in the same opening of the store, or in one before."""
    seed, chance = drawn()
    book = made(machine, geometry, seed)
    epochs = itertools.count()
    for _ in range(ROUNDS):
        number = chance.choice(ALL)
        machine.remember(number)
        for _ in range(chance.choice([1, 1, 2])):
            with loading(seed, next(epochs), REPAIRING, drives=drives_on(machine)) as said:
                book.listen(itertools.islice(said, chance.randrange(5, 200)))
                if chance.random() < 0.5:
                    machine.remember(number)
                book.listen(itertools.islice(said, chance.randrange(5, 200)))
                if chance.random() < 0.5:
                    machine.cut(ALL, chance.random(), chance.randrange(1 << 30))
                said.kill()
                book.listen(said)
            power_up(machine)
            with dw.open(drives=drives_on(machine)) as kernel:
                book.check(kernel)
        machine.unmount(number)
        machine.recall(number)
        machine.mount(number)
        mend(machine, book)
