"""A process is killed, or interrupted, while one of its disks hangs; then the store opens again."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

import dwkernel as dw
from dwkernel import errors
from machine import IS_LONG, drawn, machine, pairs, power_up
from mixed_load import REPAIRING, Book, loading

if TYPE_CHECKING:
    from volatile_disks import Disks

__all__ = ["machine"]

ALL = [0, 1, 2]
ROUNDS = 10 if IS_LONG else 1
# What is interrupted says when it works, and when it has closed the store.
INTERRUPTED = """
import contextlib, json, signal, sys
import dwkernel as dw

verb, store = sys.argv[1], json.loads(sys.argv[2])
signal.signal(signal.SIGINT, signal.default_int_handler)
with contextlib.suppress(KeyboardInterrupt):
    if verb == "open":
        print("works", flush=True)
        sys.stdin.readline()
    with dw.open(**store) as kernel:
        print("works", flush=True)
        while True:
            if verb == "put":
                kernel.put("docs/interrupted", bytes(200_000))
            elif verb != "open":
                getattr(kernel.pool, verb)()
    print("went on", flush=True)
print("stopped", flush=True)
"""


def made(machine: Disks, geometry: str, seed: int, timeout: str) -> tuple[dict[str, Any], Book]:
    drives = [str(machine.at(number) / "drive") for number in ALL]
    store: dict[str, Any] = {"drives": drives, "config": {"pool.drive_timeout": timeout}}
    with dw.open(geometry=geometry, create=True, **store) as kernel:
        Book.begin(kernel)
    return store, Book(seed)


@pairs("2+1", "mirror:3")
def test_a_store_whose_process_was_killed_beside_a_disk_that_hangs_opens_once_it_answers(
    machine: Disks, geometry: str
) -> None:
    """Until then the system keeps what the process had, and who opens is told so."""
    seed, chance = drawn()
    store, book = made(machine, geometry, seed, "2s")
    for epoch in range(ROUNDS):
        hanging = chance.choice(ALL)
        with loading(seed, epoch, REPAIRING, **store) as said:
            book.listen(itertools.islice(said, chance.randrange(20, 200)))
            machine.hang([hanging])
            book.listen(itertools.islice(said, chance.randrange(20, 200)))
            said.kill()
            time.sleep(0.5)
            begin = time.monotonic()
            with pytest.raises(errors.Unavailable, match="once that disk answers") as refused:
                dw.open(**store)
            assert time.monotonic() - begin < 10
            assert refused.value.code == "store.locked"
            machine.restore([hanging])
            book.listen(said)
        if chance.random() < 0.5:
            machine.cut([hanging], chance.random(), chance.randrange(1 << 30))
            power_up(machine)
        with dw.open(**store) as kernel:
            book.check(kernel)
            kernel.pool.rebuild()
            assert kernel.pool.status().redundancy == "full", kernel.pool.status()


@pairs("2+1")
def test_ctrl_c_ends_work_beside_a_disk_that_hangs_once_the_disk_has_had_its_time(
    machine: Disks, geometry: str
) -> None:
    """So does closing; what was acknowledged is there, without that disk, too."""
    seed, chance = drawn()
    store, _ = made(machine, geometry, seed, "2s")
    contents = {f"docs/{number}": chance.randbytes(300_000) for number in range(10)}
    with dw.open(**store) as kernel:
        for key, content in contents.items():
            kernel.put(key, content)
    for verb in ["put", "scrub", "rebuild", "open"] if IS_LONG else ["put", "open"]:
        command = [sys.executable, "-c", INTERRUPTED, verb, json.dumps(store)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout
            assert process.stdin
            assert process.stdout.readline() == "works\n"
            machine.hang([1])
            print(file=process.stdin, flush=True)
            time.sleep(0.5)
            begin = time.monotonic()
            process.send_signal(signal.SIGINT)
            said = process.stdout.readline()
            if said == "works\n":  # the opening was faster
                said = process.stdout.readline()
            assert said == "stopped\n"
            assert time.monotonic() - begin < 10
            machine.restore([1])
        for number in (None, 1):
            power_up(machine, without=number)
            with dw.open(**store) as kernel:
                assert all(kernel[key] == content for key, content in contents.items())
        power_up(machine)
        with dw.open(**store) as kernel:
            kernel.pool.rebuild()
            assert kernel.pool.status().redundancy == "full", kernel.pool.status()
