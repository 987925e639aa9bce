"""The power is cut while drives are replaced, rebuilt, scrubbed, packed, and what is resumed after.

Nothing acknowledged is lost meanwhile, and at the end everything is as redundant as it should be.
"""

from __future__ import annotations

import itertools
import shutil
import time
from typing import TYPE_CHECKING

import dwkernel as dw
from machine import IS_LONG, drawn, machine, pairs, power_up
from mixed_load import Book, loading

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from mixed_load import Said
    from volatile_disks import Disks

__all__ = ["machine"]

DISKS = 4
ALL = list(range(DISKS))
ROUNDS = 20 if IS_LONG else 2
SHARES = [0, 0.2, 0.5, 0.9, 1]


class Store:
    """Three drives on four disks; the one without a drive takes the next."""

    def __init__(self, machine: Disks, geometry: str, chance: random.Random) -> None:
        """Make it."""
        self.machine = machine
        self.chance = chance
        self.path = machine.place / "store"
        self.made = itertools.count()
        drives = [str(self.empty(number)) for number in ALL[:3]]
        with dw.open(self.path, drives=drives, geometry=geometry, create=True) as kernel:
            Book.begin(kernel)

    def empty(self, number: int) -> Path:
        """Return a directory for a new drive on a disk, where nothing else lies then."""
        for old in self.machine.at(number).glob("drive*"):
            shutil.rmtree(old)
        return self.machine.at(number) / f"drive{next(self.made)}"

    def used(self) -> dict[int, str]:
        """Return which disks hold drives of the pool, and their names."""
        with dw.open(self.path) as kernel:
            drives = kernel.pool.status().drives
        return {self.number(drive.path): drive.id for drive in drives}

    def number(self, path: str) -> int:
        return next(number for number in ALL if path.startswith(f"{self.machine.at(number)}/"))

    def cut(self, numbers: list[int]) -> None:
        self.machine.cut(numbers, self.chance.choice(SHARES), self.chance.randrange(1 << 30))

    def works(self) -> list[list[str]]:
        """Choose what is done: a replacement twice, so that the second sees what the first left."""
        works = [["rebuild"], ["scrub"], ["pack"]]
        self.chance.shuffle(works)
        used = self.used()
        spare = next((number for number in ALL if number not in used), None)
        if spare is None:
            return works
        old = self.chance.choice(list(used.values()))
        return [["replace", old, str(self.empty(spare))], *works]

    def check(self, book: Book, without: int | None = None) -> None:
        """Hold the store against the book, with all its disks or without one."""
        power_up(self.machine, without)
        with dw.open(self.path) as kernel:
            book.check(kernel)

    def finish(self, book: Book) -> None:
        """Resume what was cut off, until nothing is left to do; then each disk may go."""
        power_up(self.machine)
        with dw.open(self.path) as kernel:
            report = kernel.pool.rebuild()
            status = kernel.pool.status()
            assert status.redundancy == "full", (report, status)
            assert not kernel.pool.scrub(restart=True).lost_stripes
            book.check(kernel)
        for number in ALL:
            self.check(book, without=number)
        power_up(self.machine)


def while_it_works(said: Said, book: Book, lines: int, seconds: float) -> None:
    book.listen(itertools.islice(said, lines))
    time.sleep(seconds)


@pairs("2+1", "mirror:2")
def test_a_power_cut_in_a_repair_and_another_in_its_resumption_lose_nothing(
    machine: Disks, geometry: str
) -> None:
    """In half of the rounds a disk goes first, so that there is something to restore."""
    seed, chance = drawn()
    store = Store(machine, geometry, chance)
    book = Book(seed)
    epochs = itertools.count()
    for _ in range(ROUNDS):
        gone = chance.choice([None, *store.used()])
        with loading(seed, next(epochs), store.works(), path=str(store.path)) as said:
            while_it_works(said, book, chance.randrange(20, 200), chance.random() / 4)
            if gone is not None and chance.random() < 0.5:
                store.cut([gone])
                while_it_works(said, book, chance.randrange(20, 100), 0)
            store.cut(ALL)
            book.listen(said)
        # Again, in the recovery or in what is resumed after it.
        power_up(machine)
        with loading(seed, next(epochs), [["rebuild"], ["scrub"]], path=str(store.path)) as said:
            time.sleep(chance.random() * chance.choice([0.1, 1]))
            store.cut(ALL)
            book.listen(said)
        power_up(machine)
        store.check(book)
        store.finish(book)
    print(book.done)  # noqa: T201 - what was done to its end
