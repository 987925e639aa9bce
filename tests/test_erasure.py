"""dwkernel.erasure against arithmetic written out here, over every kind of buffer."""

from __future__ import annotations

import itertools
import os
import pickle
import platform
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dwkernel as dw
from dwkernel import erasure, errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Array = npt.NDArray[np.uint8]

LENGTHS = [0, 1, 63, 64, 65, 4095, 65537]


def stripe(code: erasure.Code, length: int, seed: int = 0) -> Array:
    shards = np.zeros((code.k + code.m, length), np.uint8)
    shards[: code.k] = np.random.default_rng(seed).integers(0, 256, (code.k, length), np.uint8)
    code.encode_into(shards)
    return shards


def times_two(x: int) -> int:
    return (x << 1) ^ (0x11D if x & 0x80 else 0)


def linux_pq(data: Array) -> tuple[bytes, bytes]:
    """P and Q by Horner's rule, byte by byte (Anvin, The mathematics of RAID-6)."""
    p = bytearray(data.shape[1])
    q = bytearray(data.shape[1])
    for row in data[::-1].tolist():
        for i, byte in enumerate(row):
            p[i] ^= byte
            q[i] = times_two(q[i]) ^ byte
    return bytes(p), bytes(q)


@pytest.mark.parametrize("length", LENGTHS[:-1])
@pytest.mark.parametrize("name", ["raid6:7", "4+2", "16+2"])
def test_p_and_q_equal_linux_md(name: str, length: int) -> None:
    code = erasure.Code(name)
    shards = stripe(code, length)
    assert tuple(row.tobytes() for row in shards[code.k :]) == linux_pq(shards[: code.k])


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", ["8+4", "raid6:10", "raid5:5", "mirror:3", "10+4", "lrc:12+2+2"])
def test_arrays_lists_and_in_place_give_the_same_parity(name: str, length: int) -> None:
    code = erasure.Code(name)
    shards = stripe(code, length)
    data, parity = shards[: code.k].copy(), shards[code.k :]
    from_array = code.encode(data)
    assert from_array.shape == (code.m, length)
    assert from_array.dtype == np.uint8
    assert (from_array == parity).all()

    as_bytes = code.encode([row.tobytes() for row in data])
    assert [type(row) for row in as_bytes] == [bytes] * code.m
    assert as_bytes == [row.tobytes() for row in parity]
    assert code.encode([bytearray(row) for row in data]) == as_bytes
    assert code.encode(memoryview(data)) == as_bytes  # type: ignore[arg-type]
    from_rows = code.encode(list(data))
    assert all((ours == theirs).all() for ours, theirs in zip(from_rows, parity, strict=True))

    rows: list[Any] = [row.tobytes() for row in data] + [bytearray(length) for _ in parity]
    code.encode_into(rows)
    assert rows[code.k :] == as_bytes
    assert code.verify(rows)
    assert code.verify(shards)


@pytest.mark.parametrize("name", ["4+2", "raid5:4", "mirror:3", "3+3"])
def test_every_tolerable_loss_is_rebuilt_in_place(name: str) -> None:
    code = erasure.Code(name)
    whole = stripe(code, 1000)
    everything = range(code.k + code.m)
    for count in range(code.m + 1):
        for lost in itertools.combinations(everything, count):
            shards = whole.copy()
            shards[list(lost)] = 0xEE
            code.reconstruct(shards, lost=lost)
            assert (shards == whole).all()
            rows: list[Any] = [row.tobytes() for row in whole]
            for index in lost:
                rows[index] = bytearray(b"\xee" * 1000)
            code.reconstruct(rows, lost=set(lost))
            assert [bytes(row) for row in rows] == [row.tobytes() for row in whole]


def test_an_lrc_survives_any_three_and_repairs_one() -> None:
    code = erasure.Code("lrc:12+2+2")
    whole = stripe(code, 333)
    pick = random.Random(1)
    for _ in range(100):
        lost = pick.sample(range(16), pick.choice([1, 2, 3]))
        shards = whole.copy()
        shards[lost] = 0
        code.reconstruct(shards, lost)
        assert (shards == whole).all()


def test_more_lost_than_the_code_can_rebuild_is_refused_and_nothing_written() -> None:
    code = erasure.Code("4+2")
    shards = stripe(code, 100)
    before = shards.copy()
    with pytest.raises(errors.Corrupt) as caught:
        code.reconstruct(shards, lost=[0, 1, 5])
    assert caught.value.code == "erasure.too_many_lost"
    assert (shards == before).all()


@given(st.data())
def test_an_update_equals_encoding_again(data: st.DataObject) -> None:
    code = erasure.Code(data.draw(st.sampled_from(["8+4", "4+2", "raid5:3", "lrc:4+2+2", "6+6"])))
    length = data.draw(st.integers(0, 300))
    shards = stripe(code, length)
    row = data.draw(st.integers(0, code.k - 1))
    new = data.draw(st.binary(min_size=length, max_size=length))
    code.update(shards, row=row, new=new)
    assert shards[row].tobytes() == new
    assert (shards[code.k :] == code.encode(shards[: code.k].copy())).all()


@pytest.mark.parametrize("length", [1, 70_000])
def test_verify_sees_a_single_flipped_bit_anywhere(length: int) -> None:
    code = erasure.Code("8+4")
    whole = stripe(code, length)
    pick = random.Random(2)
    for _ in range(30):
        shards = whole.copy()
        shards[pick.randrange(12), pick.randrange(length)] ^= 1 << pick.randrange(8)
        assert not code.verify(shards)


def read_only(length: int) -> Array:
    shards = stripe(erasure.Code("4+2"), length)
    shards.flags.writeable = False
    return shards


@pytest.mark.parametrize(
    ("shards", "code"),
    [
        (np.zeros((5, 8), np.uint8), "buffer.length"),
        (np.zeros((6, 8), np.uint16), "buffer.type"),
        (np.zeros((6, 16), np.uint8)[:, ::2], "buffer.type"),
        (np.zeros((6, 8), np.uint8, order="F"), "buffer.type"),
        ([bytearray(8)] * 5 + [bytearray(9)], "buffer.length"),
        ([bytearray(8)] * 5 + ["text"], "buffer.type"),
        ([bytearray(8)] * 5 + [bytes(8)], "buffer.read_only"),
        ([np.array([None]) for _ in range(6)], "buffer.type"),
        ([np.zeros(1, [("Offset", "u1"), ("b", object)]) for _ in range(6)], "buffer.type"),
        (read_only(8), "buffer.read_only"),
        (7, "buffer.type"),
        ([], "buffer.length"),
    ],
)
def test_wrong_shards_are_refused_with_a_code(shards: Any, code: str) -> None:
    with pytest.raises(errors.Invalid) as caught:
        erasure.Code("4+2").encode_into(shards)
    assert caught.value.code == code


def test_items_of_several_bytes_are_bytes_and_fields_are_no_objects() -> None:
    rows = [np.zeros(2, [("Offset", "<u2")]) for _ in range(6)]
    erasure.Code("4+2").encode_into(rows)


@pytest.mark.parametrize("raised", [KeyboardInterrupt, RuntimeError, TypeError])
def test_what_a_source_of_rows_raises_comes_out(raised: type[BaseException]) -> None:
    def rows() -> Iterator[bytes]:
        yield bytes(8)
        raise raised

    for call in (erasure.Code("4+2").encode, erasure.Code("4+2").verify):
        with pytest.raises(raised):
            call(rows())  # type: ignore[call-overload,arg-type]


def test_rows_that_are_written_share_no_memory_with_others() -> None:
    code = erasure.Code("4+2")
    one, memory = bytearray(8), memoryview(bytearray(80))
    shards = stripe(code, 8)
    shifted = [memory[3 * i : 3 * i + 8] for i in range(6)]
    calls: list[Callable[[], None]] = [
        lambda: code.encode_into([one] * 6),
        lambda: code.encode_into(shifted),
        lambda: code.encode_into([bytes(8)] * 4 + [one, one]),
        lambda: code.reconstruct([bytes(8)] * 4 + [one, one], lost=[4, 5]),
        lambda: code.reconstruct([one, one, bytes(8), bytes(8), bytes(8), bytes(8)], lost=[0]),
        lambda: code.update(shards, 1, shards[1]),
        lambda: code.update(shards, 1, shards[5]),
    ]
    for call in calls:
        with pytest.raises(errors.Invalid) as caught:
            call()
        assert caught.value.code == "buffer.overlap"
    # What is only read may be one buffer, and rows may touch.
    code.encode_into([one] * 4 + [bytearray(8), bytearray(8)])
    code.reconstruct([one, bytearray(8)] + [one] * 4, lost=[1])
    code.encode_into([memory[8 * i : 8 * i + 8] for i in reversed(range(6))])
    code.encode_into([bytearray()] * 6)


@pytest.mark.parametrize("lost", [[6], [-1], ["x"], [2**70], 3, None])
def test_wrong_indexes_are_refused(lost: Any) -> None:
    code = erasure.Code("4+2")
    with pytest.raises(errors.Invalid) as caught:
        code.reconstruct(stripe(code, 8), lost)
    assert caught.value.code == "buffer.length"


@pytest.mark.parametrize(
    ("row", "new"), [(0, bytes(7)), (4, bytes(8)), (-1, bytes(8)), (2**70, bytes(8)), ("x", b"")]
)
def test_a_new_row_of_another_length_or_place_is_refused(row: Any, new: bytes) -> None:
    code = erasure.Code("4+2")
    with pytest.raises(errors.Invalid) as caught:
        code.update(stripe(code, 8), row, new)
    assert caught.value.code == "buffer.length"


@pytest.mark.parametrize("given", [None, 5, True, b"4+2", "\ud800"])
def test_only_text_is_a_geometry(given: Any) -> None:
    for make in (erasure.Geometry, erasure.Code):
        with pytest.raises(errors.Invalid) as caught:
            make(given)
        assert caught.value.code == "geometry.invalid"


@pytest.mark.parametrize("text", ["", "4+", "0+2", "raid6:2", "mirror:1", "300+4", "nonsense:3"])
def test_an_impossible_geometry_is_refused_with_what_to_write(text: str) -> None:
    for make in (erasure.Geometry, erasure.Code):
        with pytest.raises(errors.Invalid) as caught:
            make(text)
        assert caught.value.code == "geometry.invalid"
        assert "k+m" in str(caught.value)


def test_geometries_say_what_they_need_and_survive() -> None:
    geometry = erasure.Geometry("raid50:2x(4+1)")
    assert geometry.drives == 10
    assert geometry.data_fraction == pytest.approx(0.8)
    assert geometry.tolerates({0, 5})
    assert not geometry.tolerates([0, 1])
    assert erasure.Geometry("raid6:8").drives == 8
    assert erasure.Geometry("4+2").storable
    assert erasure.Geometry("4+2").tolerance == 2
    assert erasure.Geometry("lrc:12+2+2").tolerance == 3


def test_every_level_name_is_listed_once_and_known_by_the_parser() -> None:
    levels = erasure.levels()
    assert len(levels) == len(set(levels)) > 10
    for name in levels:
        with pytest.raises(errors.Invalid) as caught:
            erasure.Geometry(f"{name}:nonsense")
        assert "no level" not in str(caught.value).lower()


@pytest.mark.parametrize("text", ["4+2", "raid50:2x(4+1)", "lrc:12+2+2", "mirror:3", "raid6:8"])
def test_geometries_and_codes_survive_text_and_pickle(text: str) -> None:
    geometry = erasure.Geometry(text)
    assert erasure.Geometry(str(geometry)) == geometry
    copy = pickle.loads(pickle.dumps(geometry))  # noqa: S301 - made here
    assert copy == geometry
    assert hash(copy) == hash(geometry)
    code = pickle.loads(pickle.dumps(erasure.Code(geometry)))  # noqa: S301 - made here
    assert (code.k, code.m) == (erasure.Code(text).k, erasure.Code(text).m)


def test_a_store_on_a_tree_of_trees_opens_again(tmp_path: Path) -> None:
    geometry = "mirror:2x(raid0:2x(raid0:2))"
    with dw.open(tmp_path / "store", drives=8, geometry=geometry, create=True):
        pass
    with dw.open(tmp_path / "store") as kernel:
        assert erasure.Geometry(kernel.pool.status().geometry) == erasure.Geometry(geometry)


def test_threads_share_a_code() -> None:
    code = erasure.Code("8+4")
    whole = stripe(code, 50_000)

    def lose_and_rebuild(seed: int) -> bool:
        lost = random.Random(seed).sample(range(12), 4)
        shards = whole.copy()
        shards[lost] = 0
        code.reconstruct(shards, lost)
        return bool((shards == whole).all())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lose_and_rebuild, range(100)))


def test_a_buffer_that_changes_meanwhile_does_no_harm() -> None:
    code = erasure.Code("4+2")
    shards = stripe(code, 1 << 20)
    stop = threading.Event()

    def scribble() -> None:
        while not stop.is_set():
            shards[:4] += 1

    thread = threading.Thread(target=scribble)
    thread.start()
    try:
        for _ in range(20):
            code.encode_into(shards)
            code.verify(shards)
            code.reconstruct(shards, lost=[1, 4])
    finally:
        stop.set()
        thread.join()
    code.encode_into(shards)
    assert code.verify(shards)


@pytest.mark.parametrize("kind", ["array", "bytes"])
def test_other_threads_run_while_a_long_stripe_is_encoded(kind: str) -> None:
    code = erasure.Code("8+4")
    data: Any = np.ones((8, 24 << 20), np.uint8)
    if kind == "bytes":
        data = [row.tobytes() for row in data]
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
        code.encode(data)
        during = ticks - start
    finally:
        done.set()
        sys.setswitchinterval(before)
        thread.join()
    assert during > 10


ENCODES_AGAIN_AND_AGAIN = """
import resource
from dwkernel import erasure
code, data = erasure.Code("8+4"), [bytes(1 << 20)] * 8
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    code.encode(data)
before = faults()
for _ in range(20):
    code.encode(data)
print((faults() - before) / 20)
"""


def test_new_bytes_are_put_where_the_last_ones_were() -> None:
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("only glibc's allocator is told")
    plain = {name: value for name, value in os.environ.items() if "MALLOC" not in name}
    command = [sys.executable, "-c", ENCODES_AGAIN_AND_AGAIN]
    done = subprocess.run(command, capture_output=True, check=True, env=plain, text=True)
    # Each time there are 4 MiB, which is 1,024 pages (or two large ones).
    assert float(done.stdout) < 1


HAS_NO_ROOM = """
import resource
from dwkernel import erasure
code, data = erasure.Code("8+4"), [bytes(1 << 20)] * 8
code.encode([b"x"] * 8)
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (2 << 20), resource.RLIM_INFINITY))
try:
    code.encode(data)
except MemoryError:
    print("told")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_who_has_no_room_for_results_is_told() -> None:
    command = [sys.executable, "-c", HAS_NO_ROOM]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    assert (done.returncode, done.stdout) == (0, "told\n"), done.stderr


@pytest.mark.parametrize("wrong", [None, 5, 4.2, b"4+2"])
def test_what_is_no_geometry_is_not_taken_for_the_name_of_one(wrong: Any) -> None:
    with pytest.raises(errors.Invalid) as caught:
        erasure.Code(wrong)
    assert caught.value.code == "geometry.invalid"
    assert erasure.Code(erasure.Geometry("4+2")).m == 2
