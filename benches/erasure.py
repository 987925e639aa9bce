"""Erasure coding from Python against zfec and pyeclib (with its ISA-L backend where that loads).

Limited by memory once the shards leave the caches: k + m shards of 1 MiB do.
"""

from __future__ import annotations

import os
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from benches.duel import Row, duel
from benches.peers import module
from dwkernel import erasure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GEOMETRIES = ((4, 2), (8, 4), (16, 4))
SIZES = (4 << 10, 64 << 10, 1 << 20)


def rows() -> Iterator[Row]:
    """Measure encode and reconstruct for several geometries and shard sizes."""
    for k, m in GEOMETRIES:
        for size in SIZES:
            yield encode(k, m, size)
        yield reconstruct(k, m, SIZES[-1])


def encode(k: int, m: int, size: int) -> Row:
    """Measure encode of k shards given as bytes and as an array, against peers given bytes."""
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
    if zfec := module("zfec"):
        encoder, blocks, wanted = zfec.Encoder(k, k + m), tuple(shards), tuple(range(k, k + m))
        contenders["zfec"] = lambda: encoder.encode(blocks, wanted)
    for name, driver in pyeclib_drivers(k, m).items():
        contenders[name] = partial(driver.encode, whole)
    target = "≥ 30 zfec, ≥ 2.5 pyeclib" if (k, m, size) == (8, 4, 1 << 20) else ""
    return duel(f"encode {k}+{m}, shards of {size >> 10} KiB", k * size, contenders, target)


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
