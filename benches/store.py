"""A store beside plain files: what `dwkernel bench` measures, on a disk and in memory.

Limited by the device, and in memory by the copies that the kernel makes.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benches.duel import Row
from dwkernel import bench

if TYPE_CHECKING:
    from collections.abc import Iterator

MEMORY = Path("/dev/shm")  # noqa: S108 - the file system in memory, not a file in it
SIZE = os.environ.get("DWK_BENCH_SIZE", "1 GiB")
SECONDS = 6.0
# By where it is and what is measured: the least ratio that is wanted.
GOALS = {
    ("disk", "put"): 1.0,
    ("disk", "get, warm"): 0.9,
    ("disk", "get, cold"): 0.9,
    ("disk", "rebuild of a drive"): 0.6,
    ("memory", "put"): 0.5,
    ("memory", "get, warm"): 0.5,
    ("memory", "get, cold"): 0.5,
    ("disk", "1 KiB puts, 1 writer"): 0.7,
}


def rows() -> Iterator[Row]:
    """Measure below DWK_BENCH_DIR (or where temporary files go), then in memory."""
    disk = Path(os.environ.get("DWK_BENCH_DIR", tempfile.gettempdir()))
    for where, place in (("disk", disk), ("memory", MEMORY)):
        if not place.is_dir():
            print(f"without {where}: there is no {place}")
            continue
        for one in bench.run(place, size=SIZE, seconds=SECONDS).measurements:
            goal = GOALS.get((where, one.name))
            yield Row(
                f"{one.name}, {where}",
                1e9 if one.unit == "B/s" else 1,
                {"dwkernel": 1 / (one.store / 1e9), "plain files": 1 / (one.plain / 1e9)}
                if one.unit == "B/s"
                else {"dwkernel": 1 / one.store, "plain files": 1 / one.plain},
                unit="GB/s" if one.unit == "B/s" else "/s",
                goals={} if goal is None else {"plain files": goal},
            )
