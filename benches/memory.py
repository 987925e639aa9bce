"""The most memory that a long stream takes, in and out: `python -m benches.memory [GiB] [DIR]`."""

from __future__ import annotations

import io
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import BinaryIO, cast

import dwkernel as dw
from dwkernel.units import parse_size

_PIECE_BYTES = 4 << 20


class Stream(io.RawIOBase):
    """A source of so many bytes, in pieces of which no two are equal."""

    def __init__(self, size: int) -> None:
        """Begin."""
        super().__init__()
        self._left, self._turn = size, 0
        self._block = random.Random(1).randbytes(2 * _PIECE_BYTES)

    def read(self, size: int = -1) -> bytes:
        """Return at most a piece."""
        count = min(size if size >= 0 else _PIECE_BYTES, self._left, _PIECE_BYTES)
        self._turn = (self._turn + 4099) % _PIECE_BYTES
        self._left -= count
        return self._block[self._turn : self._turn + count]


def most_mib() -> float:
    """Return the most memory that this process had resident so far."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def get(kernel: dw.Kernel, what: str) -> None:
    """Get the object, and say what it took."""
    start, got = time.perf_counter(), 0
    with kernel.get("bench/stream") as reader:
        while piece := reader.read(_PIECE_BYTES):
            got += len(piece)
    print(f"{what}: {most_mib():.0f} MiB, {got / (time.perf_counter() - start) / 1e6:.0f} MB/s")


def main() -> None:
    """Put and get one object, get it with two drives away, and say what it took."""
    size = parse_size(f"{sys.argv[1] if len(sys.argv) > 1 else 10} GiB")
    below = sys.argv[2] if len(sys.argv) > 2 else None
    with tempfile.TemporaryDirectory(dir=below) as place:
        store = Path(place) / "store"
        with dw.open(store, drives=6, geometry="4+2", create=True) as kernel:
            kernel.containers.create("bench")
            print(f"open: {most_mib():.0f} MiB")
            start = time.perf_counter()
            kernel.put("bench/stream", cast("BinaryIO", Stream(size)))
            print(
                f"put: {most_mib():.0f} MiB, {size / (time.perf_counter() - start) / 1e6:.0f} MB/s"
            )
            get(kernel, "get")
        for drive in ["d1", "d2"]:
            (store / drive).rename(Path(place) / drive)
        with dw.open(store, read_only=True) as kernel:
            get(kernel, "degraded")


if __name__ == "__main__":
    main()
