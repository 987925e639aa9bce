"""Our own primitives under pytest-benchmark, to be compared from commit to commit.

`pytest benches --benchmark-autosave`, later `--benchmark-compare`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

from dwkernel import erasure, hashing

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

SIZES = [4 << 10, 64 << 10, 1 << 20]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("geometry", ["raid5:9", "raid6:10", "8+4", "16+4", "lrc:12+2+2"])
def test_encode_in_place(benchmark: BenchmarkFixture, geometry: str, size: int) -> None:
    code = erasure.Code(geometry)
    shards = np.ones((code.k + code.m, size), np.uint8)
    benchmark.group = f"encode {geometry}"
    benchmark(code.encode_into, shards)


@pytest.mark.parametrize("size", SIZES)
def test_reconstruct_all_that_may_be_lost(benchmark: BenchmarkFixture, size: int) -> None:
    code = erasure.Code("8+4")
    shards = np.ones((12, size), np.uint8)
    benchmark.group = "reconstruct 8+4"
    benchmark(code.reconstruct, shards, [0, 1, 2, 3])


@pytest.mark.parametrize("size", SIZES)
def test_blake3(benchmark: BenchmarkFixture, size: int) -> None:
    benchmark.group = "blake3"
    benchmark(hashing.blake3, os.urandom(size))


def test_blake3_many(benchmark: BenchmarkFixture) -> None:
    benchmark.group = "blake3 of many"
    benchmark(hashing.blake3_many, [os.urandom(4 << 10) for _ in range(1024)])


@pytest.mark.parametrize("size", SIZES)
def test_crc64nvme(benchmark: BenchmarkFixture, size: int) -> None:
    benchmark.group = "crc64nvme"
    benchmark(hashing.crc64nvme, os.urandom(size))
