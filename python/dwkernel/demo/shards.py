"""The drives seen from outside: which shard of which stripe lies where, and how to do them harm."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# `blobs/s/ab/cd/<stripe>.<index>`: docs/format/drive.md and shard.md
_SHARD = re.compile(r"([0-9a-f]{32})\.([0-9a-f]{2})")


@dataclass(frozen=True, slots=True)
class ShardMap:
    """Where shards lie at one moment.

    Attributes:
        drives: what the rows are called.
        stripes: every stripe's name, in order.
        cells: for (drive, stripe) the shard's index.
        damaged: cells whose file was harmed since it was written.
        bytes: for each drive what its shards take.

    """

    drives: list[str]
    stripes: list[str]
    cells: dict[tuple[str, str], int]
    damaged: frozenset[tuple[str, str]] = frozenset()
    bytes: dict[str, int] = field(default_factory=dict)


def shards_on(drive: Path) -> dict[str, tuple[int, Path]]:
    """Return for each stripe the shard on a drive; nothing if the drive is gone."""
    found = {}
    for path in (drive / "blobs" / "s").rglob("*.*"):
        match = _SHARD.fullmatch(path.name)
        if match:
            found[match[1]] = (int(match[2], 16), path)
    return found


def look(drives: dict[str, Path], damaged: frozenset[tuple[str, str]] = frozenset()) -> ShardMap:
    """Look at every drive's files."""
    cells: dict[tuple[str, str], int] = {}
    taken: dict[str, int] = {}
    for name, path in drives.items():
        shards = shards_on(path)
        cells |= {(name, stripe): index for stripe, (index, _) in shards.items()}
        taken[name] = sum(at.stat().st_size for _, at in shards.values())
    stripes = sorted({stripe for _, stripe in cells})
    return ShardMap(list(drives), stripes, cells, damaged & cells.keys(), taken)


def flip(drive: Path, *, share: float, seed: int) -> tuple[list[str], int]:
    """Flip bytes in a share of a drive's shards; return the stripes and how many bytes."""
    chance = random.Random(seed)  # noqa: S311 - which bytes are harmed need not be secret
    shards = sorted(shards_on(drive).items())
    wanted = max(1, round(len(shards) * share)) if shards else 0
    harmed, flipped = [], 0
    for stripe, (_, path) in chance.sample(shards, min(wanted, len(shards))):
        with path.open("r+b") as file:
            size = file.seek(0, 2)
            for _ in range(8):
                at = chance.randrange(size)
                file.seek(at)
                byte = file.read(1)[0]
                file.seek(at)
                file.write(bytes([byte ^ (1 << chance.randrange(8))]))
                flipped += 1
        harmed.append(stripe)
    return harmed, flipped


def taken(drive: Path) -> tuple[int, int]:
    """Return the bytes of a drive's shards, and of everything else on it: journal and bookkeeping.

    The journal's files are counted whole, also what is laid out in advance in them.
    """
    shards = sum(path.stat().st_size for _, path in shards_on(drive).values())
    everything = sum(path.stat().st_size for path in drive.rglob("*") if path.is_file())
    return shards, everything - shards
