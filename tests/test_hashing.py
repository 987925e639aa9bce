"""dwkernel.hashing against published vectors, the slow way, and the blake3 package."""

from __future__ import annotations

import mmap
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwkernel import errors, hashing

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = b"whats the Elvish word for friend"
COUNTING = bytes(i % 251 for i in range(102400))


@pytest.mark.parametrize(
    ("length", "plain", "keyed"),
    [
        (0, "af1349b9f5f9a1a6a0404dea36dcc949", "92b2b75604ed3c761f9d6f62392c8a92"),
        (1, "2d3adedff11b61f14c886e35afa03673", "6d7878dfff2f485635d39013278ae14f"),
        (1024, "42214739f095a406f3fc83deb889744a", "75c46f6f3d9eb4f55ecaaee480db732e"),
    ],
)
def test_blake3_equals_the_published_vectors(length: int, plain: str, keyed: str) -> None:
    data = COUNTING[:length]
    assert hashing.blake3(data).hex()[:32] == plain
    assert hashing.blake3(data, key=KEY).hex()[:32] == keyed
    assert hashing.blake3_many([data, data], KEY)[1].hex()[:32] == keyed


def test_blake3_equals_the_blake3_package() -> None:
    peer = pytest.importorskip("blake3", reason="the blake3 package is not installed")
    for length in [*range(0, 3000, 37), 4096, 16384, 16385, 65536, 102400]:
        data = COUNTING[:length]
        assert hashing.blake3(data) == peer.blake3(data).digest()
        assert hashing.blake3(data, KEY) == peer.blake3(data, key=KEY).digest()


@given(st.lists(st.binary(max_size=20000), max_size=40), st.booleans(), st.data())
def test_a_batch_equals_one_by_one(inputs: list[bytes], keyed: bool, data: st.DataObject) -> None:
    kinds = st.sampled_from([bytes, bytearray, memoryview])
    mixed = [data.draw(kinds)(one) for one in inputs]
    key = KEY if keyed else None
    assert hashing.blake3_many(mixed, key) == [hashing.blake3(one, key) for one in inputs]


@pytest.mark.parametrize("threads", [1, 2, 5, None])
def test_a_batch_on_several_threads_keeps_its_order(threads: int | None) -> None:
    inputs = [COUNTING[i % 90 :][: 4096 + i] for i in range(1500)]
    mixed = [bytearray(one) if i % 3 else one for i, one in enumerate(inputs)]
    hashes = [hashing.blake3(one) for one in inputs]
    assert hashing.blake3_many(inputs, threads=threads) == hashes
    assert hashing.blake3_many(mixed, threads=threads) == hashes


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux counts it")
def test_a_batch_is_hashed_where_no_thread_can_be_started() -> None:
    code = """
import pathlib, resource
from dwkernel import hashing
inputs = [bytes([i % 256]) * 4096 for i in range(2048)]
hashes = [hashing.blake3(one) for one in inputs]
pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
# A thread's stack has no room any more, results have.
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (3 << 19), -1))
assert hashing.blake3_many(inputs, threads=8) == hashes
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("length", [0, 1, 1000, 65535, 65536, 65537, 400000])
def test_every_kind_of_buffer_hashes_alike(length: int) -> None:
    data = (COUNTING * 4)[:length]
    array = np.frombuffer(data, dtype=np.uint8).copy()
    buffers: list[Any] = [bytearray(data), memoryview(data), array, array.data]
    if length % 4 == 0:
        buffers += [array.view("<u4"), array.reshape(4, -1)]
    if length:
        with mmap.mmap(-1, length) as mapped:
            mapped[:] = data
            assert hashing.blake3(mapped) == hashing.blake3(data)
    for buffer in buffers:
        assert hashing.blake3(buffer) == hashing.blake3(data)
        assert hashing.crc64nvme(buffer) == hashing.crc64nvme(data)
    assert hashing.blake3_many(buffers) == [hashing.blake3(data)] * len(buffers)


def test_crc64nvme_equals_the_published_values() -> None:
    assert hashing.crc64nvme(b"123456789") == 0xAE8B14860A799888
    assert hashing.crc64nvme(bytes(4096)) == 0x6482D367EB22B64E
    assert hashing.crc64nvme(b"\xff" * 4096) == 0xC0DDBA7302ECA3AC
    assert hashing.crc64nvme(b"") == 0


@given(st.binary(max_size=3000), st.binary(max_size=3000))
def test_crcs_join_to_the_crc_of_the_whole(a: bytes, b: bytes) -> None:
    joined = hashing.crc64_join(hashing.crc64nvme(a), hashing.crc64nvme(b), len(b))
    assert joined == hashing.crc64nvme(a + b)


@pytest.mark.parametrize(
    "wrong", ["text", 7, None, np.zeros((4, 4), np.uint8)[:, 1], [1, 2], np.array([None])]
)
def test_what_is_no_contiguous_buffer_is_refused(wrong: object) -> None:
    for call in (hashing.blake3, hashing.crc64nvme, lambda one: hashing.blake3_many([one])):
        with pytest.raises(errors.Invalid) as caught:
            call(wrong)  # type: ignore[arg-type]
        assert caught.value.code == "buffer.type"


@pytest.mark.parametrize("key", [b"", b"31 bytes".ljust(31), b"33 bytes".ljust(33)])
def test_a_key_of_another_length_is_refused(key: bytes) -> None:
    for call in (lambda: hashing.blake3(b"", key), lambda: hashing.blake3_many([], key)):
        with pytest.raises(errors.Invalid) as caught:
            call()
        assert caught.value.code == "hash.key"


def test_an_exported_bytearray_is_released_again() -> None:
    data = bytearray(100_000)
    hashing.blake3(data)
    hashing.blake3_many([data])
    data.extend(b"resizing needs no export left")


@pytest.mark.parametrize("make", [bytes, bytearray])
@pytest.mark.parametrize("call", [hashing.blake3, hashing.crc64nvme])
def test_other_threads_run_while_a_long_buffer_is_hashed(
    make: Callable[[int], bytes | bytearray], call: Callable[[bytes | bytearray], object]
) -> None:
    data = make(256 << 20)
    ticks, done = 0, threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not done.is_set():
            ticks += 1
            time.sleep(0)

    before = sys.getswitchinterval()
    thread = threading.Thread(target=tick)
    thread.start()
    try:
        sys.setswitchinterval(100)  # so that only a release lets the other thread run
        start = ticks
        call(data)
        during = ticks - start
    finally:
        done.set()
        sys.setswitchinterval(before)
        thread.join()
    assert during > 10
