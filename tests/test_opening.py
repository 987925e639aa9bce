"""Opening and creating: what fits, and what is refused with which code."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import dwkernel as dw
from dwkernel import errors

if TYPE_CHECKING:
    from collections.abc import Iterator


def make(path: Path | None, **options: Any) -> None:
    with dw.open(path, create=True, **options) as kernel:
        kernel.containers.create("docs")
        kernel.put("docs/a", b"stored")


def code_of(path: Path | None = None, **options: Any) -> str:
    with pytest.raises(errors.DwError) as caught:
        dw.open(path, **options).close()
    error = caught.value
    assert error.code in str(error)
    assert len(error.correlation_id or "") == 32
    return error.code


def test_a_store_in_memory_is_found_by_its_path_as_long_as_the_process_lives(path: Path) -> None:
    drives = [f"memory://by-path-{number}" for number in range(3)]
    make(path, drives=drives)
    with dw.open(path) as kernel:
        assert kernel["docs/a"] == b"stored"
        assert [drive.path for drive in kernel.pool.status().drives] == drives


def test_a_store_is_found_where_it_was(path: Path) -> None:
    make(path, drives=6, geometry="4+2")
    with dw.open(path) as kernel:
        assert kernel["docs/a"] == b"stored"
        assert kernel.pool.status().geometry == "4+2"


def test_a_store_may_be_moved(path: Path, tmp_path: Path) -> None:
    make(path, drives=3)
    path.rename(tmp_path / "elsewhere")
    with dw.open(tmp_path / "elsewhere") as kernel:
        assert kernel["docs/a"] == b"stored"


def test_a_copy_of_a_store_never_looks_for_the_originals_drives(path: Path, tmp_path: Path) -> None:
    make(path, drives=3)
    copy = tmp_path / "copy"
    shutil.copytree(path, copy)
    (copy / "d2").rename(copy / "d2.away")
    with dw.open(copy) as kernel:
        kernel.put("docs/b", b"only in the copy")
    (copy / "d2.away").rename(copy / "d2")
    with dw.open(copy) as kernel:
        assert [drive.path for drive in kernel.pool.status().drives] == [
            str(copy / f"d{n}") for n in (1, 2, 3)
        ]
        assert kernel["docs/b"] == b"only in the copy"
    with dw.open(path) as kernel:
        assert "docs/b" not in kernel


def test_a_relative_path_stays_one_place_wherever_the_process_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("rel")
    make(path, drives=3)
    (path / "d2").rename("away")
    for number in range(2):
        with dw.open(path) as kernel:
            kernel.put(f"docs/{number}", b"without it")
    Path("away").rename(path / "d2")
    with dw.open("./rel") as kernel:
        kernel.pool.rebuild()
        status = kernel.pool.status()
        assert status.redundancy == "full", status
        assert status.drive("d2").path == str(tmp_path / "rel" / "d2")
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        kernel.pool.replace("d2", tmp_path / "new")
    assert not list((tmp_path / "elsewhere").iterdir())
    with dw.open(tmp_path / "rel") as kernel:
        assert kernel.pool.status().drive("d2").path == str(tmp_path / "new")


@pytest.mark.parametrize("create", [False, True, "if_missing"])
@pytest.mark.parametrize(
    "place", ["", "a\0b", "file", "file/below", "x\udcff", b"x\xff", "memory://x", 5]
)
def test_what_can_be_no_path_of_a_store_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Any, create: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    assert code_of(place, create=create, drives=3) == "store.option"
    assert [at.name for at in tmp_path.iterdir()] == ["file"]


def test_drives_may_be_listed_and_moved(path: Path, tmp_path: Path) -> None:
    old = [tmp_path / f"old-{n}" for n in range(3)]
    make(path, drives=old)
    new = [tmp_path / f"new-{n}" for n in range(3)]
    for here, there in zip(old, new, strict=True):
        here.rename(there)
    assert code_of(path) in {"drive.missing", "drives.too_many_lost", "store.not_found"}
    with dw.open(path, drives=new) as kernel:
        assert kernel["docs/a"] == b"stored"
    with dw.open(path) as kernel:
        assert [drive.path for drive in kernel.pool.status().drives] == [str(at) for at in new]
    with dw.open(tmp_path / "fresh", drives=new) as kernel:
        assert kernel["docs/a"] == b"stored"
    with dw.open(drives=new) as kernel:
        assert kernel["docs/a"] == b"stored"


@pytest.mark.parametrize("text", [None, "", "{", '{"version": 0}'])
def test_pointers_are_made_again_from_the_drives(path: Path, text: str | None) -> None:
    make(path, drives=3)
    pointers = path / "store.json"
    if text is None:
        pointers.unlink()
    else:
        pointers.write_text(text)
    with dw.open(path) as kernel:
        assert kernel["docs/a"] == b"stored"
    assert len(json.loads(pointers.read_text())["drives"]) == 3


def test_urls_name_drives(tmp_path: Path) -> None:
    drives = [f"file://{tmp_path}/d%20{n}" for n in range(3)]
    make(None, drives=drives)
    assert (tmp_path / "d 0").is_dir()
    with dw.open(drives=drives) as kernel:
        assert kernel["docs/a"] == b"stored"
    memory = [f"memory://urls-{n}" for n in range(3)]
    make(None, drives=memory)
    with dw.open(drives=memory) as kernel:
        assert kernel["docs/a"] == b"stored"


@pytest.mark.parametrize(
    ("drives", "geometry"),
    [(1, "jbod:1"), (2, "mirror:2"), (3, "2+1"), (4, "2+2"), (6, "4+2"), (12, "8+2")],
)
def test_a_geometry_that_suits_the_drives_is_the_default(
    path: Path, drives: int, geometry: str
) -> None:
    make(path, drives=drives)
    with dw.open(path) as kernel:
        status = kernel.pool.status()
        assert dw.erasure.Geometry(status.geometry) == dw.erasure.Geometry(geometry)
        assert len(status.drives) == drives


def test_create_says_what_to_do_with_what_is_there(path: Path) -> None:
    assert code_of(path) == "store.not_found"
    assert not path.exists()
    with dw.open(path, drives=3, create="if_missing") as kernel:
        kernel.containers.create("docs")
    assert code_of(path, create=True) == "store.exists"
    assert code_of(path, create=True, drives=3) == "store.exists"
    with dw.open(path, drives=3, create="if_missing") as kernel:
        assert "docs" in kernel.containers
    drives = [path / f"d{n}" for n in (1, 2, 3)]
    with pytest.raises(errors.Exists, match=r"there is a store at .*d1.*d2.*d3") as caught:
        dw.open(path.with_name("other"), drives=drives, create=True)
    assert caught.value.code == "store.exists"


def test_drives_that_are_away_are_no_reason_to_make_a_new_store(path: Path, tmp_path: Path) -> None:
    drives = [tmp_path / f"mount-{n}" for n in range(3)]
    make(path, drives=drives)
    for drive in drives:
        drive.rename(drive.with_suffix(".away"))
    with pytest.raises(errors.DwError):
        dw.open(path, drives=drives, create="if_missing")
    for drive in drives:
        assert not drive.exists()
        drive.with_suffix(".away").rename(drive)
    with dw.open(path) as kernel:
        assert kernel["docs/a"] == b"stored"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"geometry": "4+x"}, "geometry.invalid"),
        ({"geometry": ""}, "geometry.invalid"),
        ({"geometry": "0+2"}, "geometry.invalid"),
        ({"drives": 5, "geometry": "4+2"}, "drives.too_few"),
        ({"drives": 0}, "store.option"),
        ({"drives": -1}, "store.option"),
        ({"drives": 10**6}, "store.option"),
        ({"drives": []}, "store.option"),
        ({"drives": True}, "store.option"),
        ({"drives": "d1"}, "store.option"),
        ({"drives": ["s3://bucket/x", "a", "b"]}, "drive.url"),
        ({"drives": ["memory://", "memory://b"]}, "drive.url"),
        ({"drives": ["memory://twin", "memory://twin"]}, "drive.duplicate"),
        ({"create": "maybe"}, "store.option"),
        ({"drives": 3, "labels": {"d4": {"rack": "a"}}}, "store.option"),
        ({"drives": 3, "labels": {"d1": "a"}}, "store.option"),
        ({"drives": 3, "labels": {"d1": {"replaced": "7"}}}, "store.option"),
        ({"drives": 3, "labels": {"d1": {"rack": 1}}}, "store.option"),
        ({"read_only": True}, "store.option"),
    ],
)
def test_what_makes_no_store_is_refused_before_anything_is_made(
    path: Path, options: dict[str, Any], code: str
) -> None:
    assert code_of(path, **{"create": True, **options}) == code
    assert not path.exists()


def test_nothing_names_no_store() -> None:
    assert code_of() == "store.option"
    assert code_of(create=True) == "store.option"


def test_a_drive_twice_is_refused_under_any_spelling(path: Path, tmp_path: Path) -> None:
    drive = tmp_path / "a"
    drive.mkdir()
    (tmp_path / "link").symlink_to(drive)
    for other in [drive, f"{tmp_path}/./a", f"file://{drive}", tmp_path / "link"]:
        drives = [drive, other, tmp_path / "c"]
        assert code_of(path, drives=drives, create=True) == "drive.duplicate"


def test_a_drive_of_another_pool_is_refused(path: Path, tmp_path: Path) -> None:
    make(path, drives=3)
    make(tmp_path / "other", drives=3)
    mixed = [path / "d1", path / "d2", tmp_path / "other" / "d3"]
    code = code_of(drives=mixed)
    assert code == "drive.foreign"
    with dw.open(path) as kernel:
        assert kernel["docs/a"] == b"stored"


def test_drives_of_another_pool_do_not_take_a_path_over(path: Path, tmp_path: Path) -> None:
    make(path, drives=3)
    with dw.open(tmp_path / "other", drives=3, create=True):
        pass
    others = [tmp_path / "other" / f"d{n}" for n in (1, 2, 3)]
    for create in (False, "if_missing"):
        assert code_of(path, drives=others, create=create) == "drive.foreign"
    with dw.open(path) as kernel:
        assert kernel["docs/a"] == b"stored"


def test_an_empty_directory_in_a_drives_place_is_missing_and_not_adopted(path: Path) -> None:
    make(path, drives=3)
    shutil.rmtree(path / "d2")
    (path / "d2").mkdir()
    with dw.open(path) as kernel:
        assert kernel["docs/a"] == b"stored"
        status = kernel.pool.status()
        assert status.drive("d2").state == "missing"
        assert status.redundancy == "degraded"
        assert any("d2" in text for text in status.advice)
    assert not any((path / "d2").glob("superblock*"))


def test_a_directory_with_other_things_in_it_is_no_new_drive(path: Path, tmp_path: Path) -> None:
    drives = [tmp_path / f"drive-{n}" for n in range(3)]
    make(path, drives=drives)
    shutil.rmtree(path)
    assert code_of(path, drives=[drives[0], tmp_path / "x", tmp_path / "y"], create=True) in {
        "store.exists",
        "drive.not_empty",
    }


def test_a_loss_that_the_geometry_tolerates_needs_no_flag_and_one_more_is_refused(
    path: Path,
) -> None:
    make(path, drives=6, geometry="4+2")
    for name in ("d1", "d4"):
        (path / name).rename(path / f"{name}.away")
    with dw.open(path) as kernel:
        assert kernel["docs/a"] == b"stored"
        assert kernel.pool.status().redundancy == "degraded"
        kernel.put("docs/b", bytes(500_000))
    (path / "d5").rename(path / "d5.away")
    with pytest.raises(errors.Unavailable) as caught:
        dw.open(path)
    assert caught.value.code == "drives.too_many_lost"
    for name in ("d1", "d4", "d5"):
        (path / f"{name}.away").rename(path / name)
    with dw.open(path) as kernel:
        assert kernel["docs/a"] == b"stored"
        assert kernel["docs/b"] == bytes(500_000)


def test_a_newer_format_is_refused(path: Path) -> None:
    make(path, drives=3)
    pointers = path / "store.json"
    pointers.write_text(json.dumps({**json.loads(pointers.read_text()), "version": 9}))
    assert code_of(path) == "format.newer"


def test_read_only_changes_nothing_and_shares(path: Path) -> None:
    make(path, drives=3)

    def state() -> dict[str, bytes]:
        files = [at for at in path.rglob("*") if at.is_file() and at.name != "lock"]
        return {str(at): at.read_bytes() for at in files}

    before = state()
    with (
        dw.open(path, read_only=True) as kernel,
        dw.open(path, read_only=True) as other,
    ):
        assert kernel["docs/a"] == other["docs/a"] == b"stored"
        for change in (
            lambda: kernel.put("docs/b", b"x"),
            lambda: kernel.put("docs/c", bytes(500_000)),
            lambda: kernel.delete("docs/a"),
            lambda: kernel.containers.create("x"),
        ):
            with pytest.raises(errors.State) as caught:
                change()
            assert caught.value.code == "pool.read_only"
        with pytest.raises(errors.DwError) as held:
            dw.open(path)
        assert held.value.code == "store.locked"
        if sys.platform == "linux":
            assert held.value.details["pid"] == str(os.getpid())
            assert "which reads it" in str(held.value)
    assert state() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_directory_is_no_drive(path: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        assert code_of(path, drives=3, create=True) == "drive.read_only"
    finally:
        tmp_path.chmod(0o700)


def swap_in_another_pool(path: Path, name: str) -> None:
    """Put a drive of another pool where one of ours was, and leave ours beside it."""
    dw.open(path / "other", drives=3, create=True).close()
    (path / name).rename(path / f"{name}.away")
    (path / "other" / "d2").rename(path / name)


def test_a_foreign_drive_in_ones_place_is_shown_and_stops_nobody(
    path: Path, tmp_path: Path
) -> None:
    make(path, drives=6, geometry="4+2")
    swap_in_another_pool(path, "d2")
    before = sorted((path / "d2").rglob("*"))
    with dw.open(path) as kernel:
        assert kernel["docs/a"] == b"stored"
        kernel.put("docs/b", bytes(300_000))
        status = kernel.pool.status()
        assert status.drive("d2").state == "foreign"
        assert status.redundancy == "degraded"
        assert any("d2" in text and "another pool" in text for text in status.advice)
    assert sorted((path / "d2").rglob("*")) == before
    named = [path / f"d{n}" for n in range(1, 7)]
    assert code_of(path, drives=named) == "drive.foreign"
    with dw.open(path) as kernel:
        kernel.pool.replace("d2", tmp_path / "new")
        assert kernel.pool.status().redundancy == "full", kernel.pool.status()


def test_a_foreign_drive_that_is_open_elsewhere_is_left_alone(path: Path) -> None:
    make(path, drives=6, geometry="4+2")
    swap_in_another_pool(path, "d2")
    (path / "d2").rename(path / "other" / "d2")
    (path / "d2").symlink_to(path / "other" / "d2")
    with dw.open(path / "other"), dw.open(path) as kernel:
        assert kernel.pool.status().drive("d2").state == "foreign"


def test_only_foreign_drives_are_refused(path: Path, tmp_path: Path) -> None:
    make(path, drives=3)
    make(tmp_path / "other", drives=3)
    for name in ("d1", "d2", "d3"):
        (path / name).rename(path / f"{name}.away")
        (tmp_path / "other" / name).rename(path / name)
    assert code_of(path) == "drive.foreign"


def halves_that_went_on(path: Path) -> None:
    """Make a mirror whose halves both went on without the other one."""
    make(path, drives=2)
    for away, here in (("d1", "2"), ("d2", "1")):
        (path / away).rename(path / "away")
        with dw.open(path, force=True) as kernel:
            kernel.put("docs/b", here.encode())
        (path / "away").rename(path / away)


def test_halves_that_both_went_on_are_not_merged_and_status_says_so(path: Path) -> None:
    halves_that_went_on(path)
    with dw.open(path) as kernel:
        assert kernel["docs/b"] in {b"1", b"2"}
        status = kernel.pool.status()
        assert {drive.state for drive in status.drives} == {"ok", "foreign"}
        text, weak = status.advice
        assert "went on" in text
        assert "drive replace" in text
        assert "bring" not in text
        assert "run `rebuild`" in weak, "what one half wrote alone is on one drive"


WRITE_AND_DIE = """
import os, sys, dwkernel as dw
kernel = dw.open(sys.argv[1])
kernel.put("docs/large", bytes(3_000_000))
os._exit(0)
"""


def lone_half(path: Path) -> None:
    """Leave one half of a mirror that was not closed."""
    make(path, drives=2)
    subprocess.run([sys.executable, "-c", WRITE_AND_DIE, str(path)], check=True)
    (path / "d2").rename(path / "d2.away")


def test_a_lone_half_is_read_only_and_is_not_told_to_do_what_it_refuses(path: Path) -> None:
    lone_half(path)
    with dw.open(path) as kernel:
        assert kernel["docs/a"] == b"stored"
        with pytest.raises(errors.State) as caught:
            kernel.put("docs/b", b"x")
        assert caught.value.code == "pool.read_only"
        status = kernel.pool.status()
        assert "other may have gone on" in (status.read_only or "")
        (text,) = status.advice
        assert "replace" not in text
        assert "force" in text


def test_a_forced_opening_writes_and_says_so_in_status(path: Path) -> None:
    lone_half(path)
    with dw.open(path, force=True) as kernel:
        kernel.put("docs/b", b"x")
        assert any("forced" in text for text in kernel.pool.status().warnings)


def test_beyond_the_tolerance_force_opens_what_is_left_and_says_so(path: Path) -> None:
    # Never closed: the map is in the journal, of which the first drive has a copy.
    code = WRITE_AND_DIE.replace("])", "], drives=3, create=True)")
    code = code.replace("kernel.put(", 'kernel.containers.create("docs")\nkernel.put(', 1)
    code = code.replace("os._exit", 'kernel.put("docs/a", b"stored")\nos._exit')
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    for name in ("d2", "d3"):
        (path / name).rename(path / f"{name}.away")
    assert code_of(path) == "drives.too_many_lost"
    with dw.open(path, force=True, read_only=True) as kernel:
        assert kernel["docs/a"] == b"stored"
        status = kernel.pool.status()
        assert any("forced" in text for text in status.warnings)
        assert status.redundancy == "lost"
        assert "bring d2" in status.advice[0]
        assert "before anything else" in status.advice[0]
        assert not any("drive replace" in text for text in status.advice)


def test_a_store_whose_places_are_all_empty_is_not_one_to_be_made(path: Path) -> None:
    make(path, drives=3)
    for name in ("d1", "d2", "d3"):
        (path / name).rename(path / f"{name}.away")
        (path / name).mkdir()
    for create in (False, "if_missing"):
        assert code_of(path, create=create) == "drives.too_many_lost"
    assert not any((path / "d1").iterdir())


@pytest.mark.parametrize("timeout", [0, 1e-9])
def test_a_deadline_holds_for_opening_too(path: Path, timeout: float) -> None:
    assert code_of(path, drives=3, create=True, timeout=timeout) == "context.deadline"
    assert not path.exists()
    make(path, drives=3)
    assert code_of(path, timeout=timeout) == "context.deadline"
    dw.open(path).close()


@contextlib.contextmanager
def read_only_mounts(*places: Path) -> Iterator[None]:
    """Bind each place onto itself, read-only; skips where that is not allowed."""
    mounted = []
    try:
        for at in places:
            for options in (["--bind", str(at)], ["-o", "remount,bind,ro"]):
                command = ["mount", *options, str(at)]
                done = subprocess.run(command, capture_output=True, check=False)
                if done.returncode:
                    pytest.skip("nothing can be mounted here")
                if at not in mounted:
                    mounted.append(at)
        yield
    finally:
        for at in mounted:
            # A drive's threads may hold it a moment longer than its kernel.
            subprocess.run(["umount", "--lazy", at], check=True)


def test_drives_that_can_only_be_read_are_called_so(path: Path) -> None:
    make(path, drives=3)
    drives = [path / f"d{n}" for n in (1, 2, 3)]
    with read_only_mounts(*drives):
        assert code_of(path) == "drive.read_only"
        with dw.open(path, read_only=True) as kernel:
            assert kernel["docs/a"] == b"stored"
    with read_only_mounts(drives[2]):
        with dw.open(path) as kernel:
            kernel.put("docs/b", b"without it")
            (text,) = kernel.pool.status().advice
            assert text.startswith("d3 is missing")
            assert "read-only" in text
        with dw.open(path, read_only=True) as kernel:
            (text,) = kernel.pool.status().advice
            assert text.startswith("d3 is not up to date")
            assert "read-only" in text
    with dw.open(path) as kernel:
        assert kernel.pool.status().redundancy == "full"


def test_a_create_that_fails_leaves_nothing_behind(path: Path, tmp_path: Path) -> None:
    (path / "d2").mkdir(parents=True)
    (path / "d2" / "photo.jpg").write_text("mine")
    drives = [tmp_path / "a", tmp_path / "b", tmp_path / "none" / "c"]
    (tmp_path / "b").mkdir()

    def state() -> list[str]:
        return sorted(str(at.relative_to(tmp_path)) for at in tmp_path.rglob("*"))

    before = state()
    assert code_of(path, create=True, drives=3) == "drive.not_empty"
    assert state() == before
    # Found out only while they are made: the last one's parent is not there.
    assert code_of(drives=drives, create=True) == "drive.missing"
    assert code_of(tmp_path / "x" / "y", drives=drives, create=True) == "drive.missing"
    # Found out only after all were made.
    other = {"drives": 6, "geometry": "mirror:2x(2+1)"}
    assert code_of(tmp_path / "x" / "y", create=True, **other) == "geometry.not_storable"
    assert state() == before
    make(tmp_path / "x", drives=drives[:2])


def test_drives_inside_one_another_are_refused(path: Path, tmp_path: Path) -> None:
    for drives in (["x", "x/a", "y"], ["y", "x/a/b", "x/a"], ["x-1", "x", "x/1"]):
        places = [tmp_path / drive for drive in drives]
        assert code_of(path, drives=places, create=True) == "drive.duplicate"
    assert not list(tmp_path.iterdir())
    make(path, drives=3)
    inside = [path / "d1" / "sub", tmp_path / "y", tmp_path / "z"]
    assert code_of(drives=inside, create=True) == "drive.not_empty"
    with dw.open(path) as kernel, pytest.raises(errors.Exists) as caught:
        kernel.pool.replace("d1", path / "d2" / "sub")
    assert caught.value.code == "drive.not_empty"
    assert not (path / "d2" / "sub").exists()
    # Beside one another is well, also where one name begins like another.
    make(None, drives=[tmp_path / name for name in ("p", "p-1", "p1")])


def test_labels_are_kept_and_drives_of_one_failure_domain_do_not_share_a_stripe(
    path: Path,
) -> None:
    racks = {f"d{n}": {"failure_domain": "ab"[n > 3], "row": str(n)} for n in range(1, 7)}
    with dw.open(path, drives=6, geometry="mirror:2", labels=racks, create=True) as kernel:
        kernel.containers.create("docs")
        for number in range(20):
            kernel.put(f"docs/{number}", bytes([number]) * 400_000)
    with dw.open(path) as kernel:
        labels = {drive.id: drive.labels for drive in kernel.pool.status().drives}
        assert labels == racks
    for name in ("d1", "d2", "d3"):
        (path / name).rename(path / f"{name}.away")
    # A whole rack is more than any one drive, and each stripe has a copy in the other one.
    with dw.open(path, force=True) as kernel:
        assert all(kernel[f"docs/{number}"] == bytes([number]) * 400_000 for number in range(20))
