"""Erasure coding from Python against libisal2 (through cffi), zfec and pyeclib, where they load.

Limited by memory once the shards leave the caches: k + m shards of 1 MiB do; cold, by memory alone.
"""

from __future__ import annotations

import itertools
import os
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from benches import isal
from benches.duel import Row, duel
from benches.peers import module
from dwkernel import erasure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GEOMETRIES = ((4, 2), (8, 4), (16, 4))
SIZES = (4 << 10, 64 << 10, 1 << 20)
COLD_BYTES = 384 << 20


def rows() -> Iterator[Row]:
    """Measure encode and reconstruct for several geometries and shard sizes."""
    for k, m in GEOMETRIES:
        for size in SIZES:
            yield encode(k, m, size)
        yield encode(k, m, SIZES[-1], looped=True)
        yield cold(k, m, SIZES[-1])
        for size in SIZES:
            yield reconstruct(k, m, size)


def encode(k: int, m: int, size: int, *, looped: bool = False) -> Row:
    """Measure encode of k shards given as bytes and as an array, against peers given bytes.

    One call between the others' has its results in memory that they gave back to the system, so
    that each page of it is made anew; `looped` it lies where the last ones were.
    """
    code = erasure.Code(f"{k}+{m}")
    shards = [os.urandom(size) for _ in range(k)]
    data = np.frombuffer(b"".join(shards), dtype=np.uint8).reshape(k, size).copy()
    whole = data.tobytes()
    into = np.concatenate([data, np.zeros((m, size), np.uint8)])
    contenders: dict[str, Callable[[], object]] = {
        "dwkernel": lambda: code.encode(shards),
        "dwkernel on an array": lambda: code.encode(data),
        "dwkernel in place": lambda: code.encode_into(into),
    }
    if peer := isal.encoder(into.copy(), k):
        contenders["libisal2"] = peer
    if zfec := module("zfec"):
        encoder, blocks, wanted = zfec.Encoder(k, k + m), tuple(shards), tuple(range(k, k + m))
        contenders["zfec"] = lambda: encoder.encode(blocks, wanted)
    for name, driver in pyeclib_drivers(k, m).items():
        contenders[name] = partial(driver.encode, whole)
    goals = {}
    if (k, m, size) == (8, 4, 1 << 20):
        wanted_ratios = {"zfec": 30.0, "pyeclib isa_l_rs_vand": 2.5}
        goals = {peer: goal for peer, goal in wanted_ratios.items() if peer in contenders}
    name = f"encode {k}+{m}, shards of {size >> 10} KiB{', in a loop' if looped else ''}"
    return duel(name, k * size, contenders, goals, looped=looped)


def cold(k: int, m: int, size: int) -> Row:
    """Measure encode in place on stripes that no cache holds any more."""
    code = erasure.Code(f"{k}+{m}")
    stripes = np.ones((COLD_BYTES // ((k + m) * size), k + m, size), np.uint8)
    turns = itertools.count()
    contenders: dict[str, Callable[[], object]] = {
        "dwkernel in place": lambda: code.encode_into(stripes[next(turns) % len(stripes)])
    }
    peers = [peer for peer in (isal.encoder(stripe, k) for stripe in stripes) if peer]

    def libisal() -> object:
        return peers[next(turns) % len(stripes)]()

    if peers:
        contenders["libisal2"] = libisal
    return duel(f"encode {k}+{m}, {size >> 10} KiB, cold", k * size, contenders)


def reconstruct(k: int, m: int, size: int) -> Row:
    """Measure the rebuild of m lost data shards."""
    code = erasure.Code(f"{k}+{m}")
    shards = [os.urandom(size) for _ in range(k)]
    parity = code.encode(shards)
    lost = list(range(m))
    ours: list[Any] = [bytearray(size) for _ in lost] + shards[m:] + parity
    contenders: dict[str, Callable[[], object]] = {
        "dwkernel": lambda: code.reconstruct(ours, lost=lost)
    }
    everything = np.frombuffer(b"".join(shards + parity), np.uint8).reshape(k + m, size).copy()
    if peer := isal.decoder(everything, k):
        contenders["libisal2"] = peer
    if zfec := module("zfec"):
        decoder, encoder = zfec.Decoder(k, k + m), zfec.Encoder(k, k + m)
        all_shards = encoder.encode(tuple(shards))
        # zfec wants a surviving primary block at its own place.
        numbers = (*range(k, k + m), *range(m, k))
        left = tuple(all_shards[number] for number in numbers)
        contenders["zfec"] = lambda: decoder.decode(left, numbers)
    return duel(f"reconstruct {m} of {k}+{m}, {size >> 10} KiB", k * size, contenders)


def pyeclib_drivers(k: int, m: int) -> dict[str, Any]:
    """Return pyeclib's drivers that load here, by a name for the table."""
    interface = module("pyeclib.ec_iface")
    drivers = {}
    for kind in ("isa_l_rs_vand", "liberasurecode_rs_vand") if interface else ():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                drivers[f"pyeclib {kind}"] = interface.ECDriver(k=k, m=m, ec_type=kind)
            except Exception as error:  # noqa: BLE001 - whatever its backend lacks
                print(f"without pyeclib's {kind}: {error}")
    return drivers
