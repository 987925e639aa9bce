"""Computers of disks with real file systems, for tests that cut their power or break them.

`machine` is a fixture for modules that import it; what it is made of stands in `volatile_disks`.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from volatile_disks import disks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from volatile_disks import Disks

# How each is made, on how large a disk, with sectors of which size. XFS does not replay its log on
# a block whose first sector is newer than the others: with smaller sectors a cut in
# its recovery can leave what it refuses to mount.
FILE_SYSTEMS = {
    "xfs": (["mkfs.xfs", "-q", "-K"], 320 << 20, 4096),
    "ext4": (["mkfs.ext4", "-q", "-E", "nodiscard"], 256 << 20, 512),
}
IS_LONG = bool(os.environ.get("DWK_LONG"))


def why_not(kind: str) -> str | None:
    """Why such disks cannot be made here, if so."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "disks are made by root of Linux only"
    if not Path("/dev/fuse").exists() or not Path("/dev/loop-control").exists():
        return "this system has no FUSE or no loop devices"
    make = FILE_SYSTEMS[kind][0][0]
    if shutil.which(make) is None or shutil.which("losetup") is None:
        return f"there is no {make} or no losetup"
    known = Path("/proc/filesystems").read_text().split()
    return None if kind in known else f"this system has no {kind}"


@pytest.fixture(params=FILE_SYSTEMS)
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disks]:
    """Three disks, or as many as the module's `DISKS` says."""
    if reason := why_not(request.param):
        pytest.skip(reason)
    count = getattr(request.module, "DISKS", 3)
    with disks(tmp_path, count, *FILE_SYSTEMS[request.param]) as made:
        yield made


def pairs(*geometries: str) -> pytest.MarkDecorator:
    """Run a test for each file system with one of the geometries, in the long form with each."""
    product, some = (
        itertools.product(FILE_SYSTEMS, geometries),
        zip(FILE_SYSTEMS, geometries, strict=False),
    )
    return pytest.mark.parametrize(
        ("machine", "geometry"), list(product if IS_LONG else some), indirect=["machine"]
    )


def power_up(machine: Disks, without: int | None = None) -> None:
    """Begin anew: all disks well and mounted, but for one."""
    everything = list(range(machine.count))
    for number in everything:
        machine.unmount(number)
    machine.restore(everything)
    for number in everything:
        if number != without:
            machine.mount(number)


def drawn() -> tuple[int, random.Random]:
    """Return a seed, printed to replay the data, though not the moment, and chance from it."""
    seed = int(os.environ.get("DWK_SEED") or random.SystemRandom().randrange(1 << 30))
    print(f"seed {seed}")  # noqa: T201
    return seed, random.Random(seed)
