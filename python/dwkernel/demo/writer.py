"""The writer that is killed: puts objects and says each one that was acknowledged.

Its arguments are the path of the store and a seed.
"""

from __future__ import annotations

import os
import random
import sys
from concurrent.futures import ThreadPoolExecutor

import dwkernel as dw

_THREADS = 8
_LARGE_EVERY = 20
_LARGE_BYTES = 3 << 20
_SMALL_BYTES = 40_000


def content(seed: int, number: int) -> bytes:
    """Return what object `number` holds: the reader makes it again from the same numbers."""
    chance = random.Random(seed * 1_000_003 + number)  # noqa: S311 - test data
    large = number % _LARGE_EVERY == 0
    return chance.randbytes(_LARGE_BYTES if large else chance.randrange(_SMALL_BYTES))


def main() -> None:
    """Write until killed."""
    store, seed = sys.argv[1], int(sys.argv[2])
    with dw.open(store) as kernel, ThreadPoolExecutor(_THREADS) as pool:

        def one(number: int) -> None:
            kernel.put(f"killed/{number:07}", content(seed, number))
            # One write each, so that a line is there whole or not at all.
            os.write(1, f"{number}\n".encode())

        for start in range(0, 10_000_000, 64):
            list(pool.map(one, range(start, start + 64)))
