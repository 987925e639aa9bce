"""Up to t lost or damaged drives every read is right; beyond, right or refused; never wrong."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import dwkernel as dw
from dwkernel import errors

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES = [0, 10, 3000, 60_000, 65_537, 400_000, 2_000_000, 9_000_000]


def content(number: int) -> bytes:
    return random.Random(number).randbytes(SIZES[number % len(SIZES)])


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed store of five drives at 3+2 with objects small and large."""
    path = tmp_path_factory.mktemp("damage") / "store"
    with dw.open(path, drives=5, geometry="3+2", create=True) as kernel:
        kernel.containers.create("docs")
        for number in range(24):
            kernel.put(f"docs/{number}", content(number))
    return path


@pytest.fixture
def store(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "store"))


def files_of(drive: Path) -> list[Path]:
    return sorted(at for at in drive.rglob("*") if at.is_file() and at.stat().st_size)


def flip(file: Path, chance: random.Random) -> None:
    data = bytearray(file.read_bytes())
    for _ in range(20):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    file.write_bytes(data)


def truncate(file: Path, chance: random.Random) -> None:
    with file.open("r+b") as opened:
        opened.truncate(chance.randrange(file.stat().st_size))


def zero(file: Path, _: random.Random) -> None:
    file.write_bytes(bytes(file.stat().st_size))


def remove(file: Path, _: random.Random) -> None:
    file.unlink()


def swap(file: Path, chance: random.Random) -> None:
    drive = next(at for at in file.parents if at.name.startswith("d"))
    other = chance.choice([at for at in files_of(drive) if at.name != "superblock.b"])
    one, two = file.read_bytes(), other.read_bytes()
    file.write_bytes(two)
    other.write_bytes(one)


def check_everything(kernel: dw.Kernel) -> None:
    assert kernel.list("docs").keys() == sorted(f"docs/{n}" for n in range(24))
    for number in range(24):
        assert kernel[f"docs/{number}"] == content(number), number


@pytest.mark.parametrize("harm", [flip, truncate, zero, remove, swap])
@pytest.mark.parametrize("drives", [("d1", "d2"), ("d2", "d5"), ("d3", "d4")])
def test_every_file_of_two_drives_may_be_harmed(
    store: Path, harm: Callable[[Path, random.Random], None], drives: tuple[str, str]
) -> None:
    chance = random.Random(7)
    for name in drives:
        for file in files_of(store / name):
            if file.exists() and file.stat().st_size:
                harm(file, chance)
    with dw.open(store) as kernel:
        check_everything(kernel)


@pytest.mark.parametrize("harm", [flip, truncate, zero, remove, swap])
def test_scattered_harm_on_two_drives_is_read_through_and_scrubbed_away(
    store: Path, harm: Callable[[Path, random.Random], None]
) -> None:
    chance = random.Random(3)
    for name in ("d1", "d4"):
        # With both copies of its superblock gone a drive is nobody's, and for `replace` to mend.
        files = [file for file in files_of(store / name) if file.name != "superblock.b"]
        for file in chance.sample(files, max(1, len(files) // 3)):
            if file.exists():
                harm(file, chance)
    with dw.open(store) as kernel:
        check_everything(kernel)
        kernel.pool.scrub()
        kernel.pool.rebuild()
        check_everything(kernel)
        assert kernel.pool.status().redundancy == "full", kernel.pool.status()
    for name in ("d2", "d5"):
        shutil.rmtree(store / name)
    with dw.open(store) as kernel:
        check_everything(kernel)


def stranger(place: Path, kind: str) -> None:
    place.unlink()
    if kind == "directory":
        place.mkdir()
        (place / "theirs").write_text("content")
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to("/dev/zero")


@pytest.mark.parametrize("kind", ["directory", "pipe", "link"])
def test_what_lies_where_a_shard_should_makes_way_and_costs_no_drive(
    store: Path, kind: str
) -> None:
    shards = [file for name in ("d1", "d2") for file in files_of(store / name / "blobs" / "s")]
    for shard in shards:
        stranger(shard, kind)
    with dw.open(store) as kernel:
        check_everything(kernel)
        kernel.pool.scrub()
        status = kernel.pool.status()
        assert [drive.state for drive in status.drives] == ["ok"] * 5
        assert status.redundancy == "full", status
        # What is dropped with strangers where its shards should be costs no drive either.
        kernel.put("docs/24", content(7))
        kernel.delete("docs/24")
    assert all(shard.is_file() for shard in shards)
    asides = [shard.with_name(shard.name + "+0") for shard in shards]
    assert all(aside.is_symlink() or aside.exists() for aside in asides)
    for name in ("d3", "d5"):
        shutil.rmtree(store / name)
    with dw.open(store) as kernel:
        check_everything(kernel)


def test_beyond_the_tolerance_a_read_is_right_or_refused(store: Path) -> None:
    chance = random.Random(11)
    for name in ("d1", "d2", "d3"):
        for file in files_of(store / name / "blobs"):
            # Without its checkpoint, which is short, the store would be refused as a whole.
            if file.stat().st_size > 100_000:
                flip(file, chance)
    refused: list[str] = []
    try:
        kernel = dw.open(store)
    except errors.Corrupt as error:
        # What the map is read from is beyond it too.
        refused.append(error.code)
    else:
        with kernel:
            for number in range(24):
                try:
                    assert kernel[f"docs/{number}"] == content(number)
                except errors.Corrupt as error:
                    refused.append(error.code)
    assert set(refused) == {"data.corrupt"}


def test_a_lost_drive_is_replaced_and_redundancy_is_full_again(store: Path, tmp_path: Path) -> None:
    shutil.rmtree(store / "d3")
    with dw.open(store) as kernel:
        assert kernel.pool.status().redundancy == "degraded"
        kernel.put("docs/degraded", bytes(700_000))
        report = kernel.pool.replace("d3", tmp_path / "new")
        assert report.seconds >= 0
        status = kernel.pool.status()
        assert status.redundancy == "full", status
        assert status.drive("d3").path == str(tmp_path / "new")
    for name in ("d1", "d5"):
        shutil.rmtree(store / name)
    with dw.open(store) as kernel:
        assert kernel["docs/degraded"] == bytes(700_000)
        kernel.delete("docs/degraded")
        check_everything(kernel)


def test_a_drive_that_was_away_is_brought_up_to_date(store: Path) -> None:
    (store / "d2").rename(store / "d2.away")
    with dw.open(store) as kernel:
        for number in range(100, 110):
            kernel.put(f"docs/{number}", content(number))
        kernel.delete("docs/3")
    (store / "d2.away").rename(store / "d2")
    with dw.open(store) as kernel:
        kernel.pool.rebuild()
        assert kernel.pool.status().redundancy == "full", kernel.pool.status()
    for name in ("d1", "d3"):
        shutil.rmtree(store / name)
    with dw.open(store) as kernel:
        assert "docs/3" not in kernel
        assert all(kernel[f"docs/{n}"] == content(n) for n in range(100, 110))


def test_replace_refuses_what_cannot_be_a_new_drive(store: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    dw.open(tmp_path / "other", drives=3, create=True).close()
    with dw.open(store) as kernel:
        cases: list[tuple[str, str | Path, str]] = [
            ("d9", tmp_path / "x", "drive.unknown"),
            ("d1", store / "d2", "drive.duplicate"),
            ("d1", tmp_path / "other" / "d1", "drive.not_empty"),
            ("d1", "s3://bucket", "drive.url"),
        ]
        for old, new, code in cases:
            with pytest.raises(errors.DwError) as caught:
                kernel.pool.replace(old, new)
            assert caught.value.code == code
        assert not (tmp_path / "x").exists()
        check_everything(kernel)


def test_foreign_files_among_the_shards_are_left_alone(store: Path) -> None:
    foreign = [
        store / "d1" / "blobs" / "README",
        store / "d2" / "notes.txt",
        store / "d3" / "blobs" / "s" / "zz",
    ]
    for file in foreign:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("mine")
    with dw.open(store) as kernel:
        check_everything(kernel)
        kernel.pool.scrub()
        check_everything(kernel)
    assert all(file.read_text() == "mine" for file in foreign)


def test_a_scrub_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with dw.open(path, drives=3, create=True) as kernel:
        kernel.containers.create("docs")
        # Small stripes, more of them than a page holds.
        for number in range(300):
            kernel.put(f"docs/{number}", random.Random(number).randbytes(70_000))
        everything = kernel.pool.scrub().stripes

        def stop(progress: dw.Progress) -> None:
            if progress.done > everything * 2 // 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            kernel.pool.scrub(progress=stop, rate="30 MiB")
    with dw.open(path) as kernel:
        rest = kernel.pool.scrub().stripes
        assert 0 < rest < everything, (rest, everything)
        assert kernel.pool.scrub().stripes >= everything, "a whole one follows one that ended"
        assert kernel.pool.scrub(restart=True).stripes >= everything
        assert kernel.list("docs").keys() == sorted(f"docs/{n}" for n in range(300))


def test_a_scrub_that_goes_on_after_an_opening_leaves_no_drive_suspected_that_is_well(
    tmp_path: Path,
) -> None:
    path = tmp_path / "store"
    with dw.open(path, drives=3, create=True) as kernel:
        kernel.containers.create("docs")
        for number in range(300):
            kernel.put(f"docs/{number}", random.Random(number).randbytes(70_000))
        everything = kernel.pool.scrub().stripes

        def stop(progress: dw.Progress) -> None:
            if progress.done > everything * 2 // 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            kernel.pool.scrub(progress=stop, rate="30 MiB")
    # In the last stripes, which are still to be looked at.
    shards = files_of(path / "d1" / "blobs" / "s")
    for shard in shards[len(shards) * 3 // 4 :]:
        flip(shard, random.Random(1))
    with dw.open(path) as kernel:
        for number in range(300):
            assert kernel[f"docs/{number}"] == random.Random(number).randbytes(70_000)
        assert [drive.state for drive in kernel.pool.status().drives] == ["suspect", "ok", "ok"]
        report = kernel.pool.scrub()
        # The rest, and then all.
        assert report.stripes >= everything
        assert report.restored_shards > 0
        status = kernel.pool.status()
        assert ([drive.state for drive in status.drives], status.advice) == (["ok"] * 3, [])
        assert kernel.pool.scrub().restored_shards == 0
