"""BLAKE3 against the `blake3` package.

Limited by the vector units: one input below 16 KiB cannot fill them, batches can; above, both run
the same kernels and the ratio is 1 within noise.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

from benches.duel import Row, duel
from benches.peers import module
from dwkernel import hashing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BATCH_BYTES = 4 << 20


def rows() -> Iterator[Row]:
    """Measure one by one from 64 KiB on, batches below."""
    peer = module("blake3")
    for size in (64 << 10, 1 << 20, 16 << 20):
        data = os.urandom(size)
        contenders: dict[str, Callable[[], object]] = {"dwkernel": partial(hashing.blake3, data)}
        if peer:
            contenders["blake3"] = partial(digest_of, peer, data)
        yield duel(f"BLAKE3 of {size >> 10} KiB", size, contenders, {"blake3": 0.97})
    for size in (1 << 10, 4 << 10, 16 << 10):
        yield batched(size, 1)
        yield batched(size, None)
    data = os.urandom(1 << 20)
    yield duel("CRC-64/NVME of 1 MiB", 1 << 20, {"dwkernel": lambda: hashing.crc64nvme(data)})


def digest_of(peer: Any, data: bytes) -> Any:
    """Return the peer's hash."""
    return peer.blake3(data).digest()


def batched(size: int, threads: int | None) -> Row:
    """Measure a batch against the peer's one by one."""
    peer = module("blake3")
    batch = [os.urandom(size) for _ in range(BATCH_BYTES // size)]
    contenders: dict[str, Callable[[], object]] = {
        "dwkernel": lambda: hashing.blake3_many(batch, threads=threads)
    }
    if peer:
        contenders["blake3"] = lambda: [peer.blake3(one).digest() for one in batch]
    how = "one thread" if threads == 1 else "idle processors"
    goals = {"blake3": 3.0} if size == 4 << 10 else {}
    return duel(f"BLAKE3 of {size >> 10} KiB, batched, {how}", BATCH_BYTES, contenders, goals)
