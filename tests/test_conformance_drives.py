"""The suite for drives: one that keeps everything in dictionaries passes, broken ones do not."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from dwkernel import errors
from dwkernel.conformance import plugins
from python_drive import DictDrive, DictDrives

if TYPE_CHECKING:
    from collections.abc import Callable


class AnyTime(DictDrives):
    def open(self, location: str, make: bool) -> DictDrive:
        del make
        return super().open(location, make=True)


class Forgets(DictDrives):
    def open(self, location: str, make: bool) -> DictDrive:
        if "/drive-" in location:
            self.drives.pop(location, None)
            make = True
        return super().open(location, make)


def nameless(drive: DictDrive) -> dict[str, str]:
    return {"failure_domain": drive.location}


def replaces(drive: DictDrive, name: str, parts: Any) -> None:
    content = b"".join(parts)
    with drive._lock:
        if name in drive.blobs:
            if len(content) < 100:
                drive.blobs[name] = content
            raise errors.new("blob.exists", name)
        drive.blobs[name] = content


def drops_bytearrays(drive: DictDrive, name: str, parts: Any) -> None:
    DictDrive.put(drive, name, [part for part in parts if type(part) is not bytearray])


def refuses_far_reads(drive: DictDrive, name: str, offset: int, length: int) -> bytes:
    if offset > len(drive._blob(name)):
        raise errors.new("drive.io", "past the end")
    return DictDrive.read(drive, name, offset, length)


def grows(drive: DictDrive, name: str, parts: Any) -> None:
    with drive._lock:
        if name in drive.blobs:
            raise errors.new("blob.exists", name)
        drive.blobs[name] = b""
    for part in parts:
        drive.blobs[name] += bytes(part)


def backwards(drive: DictDrive, folder: str | None, after: str | None, limit: int) -> Any:
    found = DictDrive.list(drive, folder, after, limit)
    return found[::-1] if folder == "f" else found


def by_prefix(drive: DictDrive, folder: str | None, after: str | None, limit: int) -> Any:
    if folder != "a":
        return DictDrive.list(drive, folder, after, limit)
    return [(name, len(blob)) for name, blob in sorted(drive.blobs.items()) if name[0] == "a"]


def empties(drive: DictDrive, name: str) -> None:
    drive._blob(name)
    drive.blobs[name] = b""


def raises_key_error(drive: DictDrive, name: str) -> None:
    del drive.blobs[name]


def more_than_all(drive: DictDrive) -> tuple[int, int]:
    del drive
    return 1 << 30, 1 << 31


def leaves_the_rest(drive: DictDrive, slot: int, content: Any) -> None:
    new = bytes(content)
    drive.slots[slot] = new + drive.slots.get(slot, b"")[len(new) :]


def says_io(drive: DictDrive, holder: Any, *, shared: bool) -> str:
    if drive._tokens and not shared and not any(drive._tokens.values()):
        raise errors.new("drive.io", "somebody has it")
    return DictDrive.lock(drive, holder, shared=shared)


def never_shares(drive: DictDrive, holder: Any, *, shared: bool) -> str:
    del shared
    return DictDrive.lock(drive, holder, shared=False)


def nobody(drive: DictDrive) -> None:
    del drive


def races(drive: DictDrive, name: str, parts: Any) -> None:
    content = b"".join(parts)
    if name in drive.blobs:
        raise errors.new("blob.exists", name)
    time.sleep(0.005)
    drive.blobs[name] = content


def fills(drive: DictDrive, name: str, length: int) -> None:
    DictDrive.create_log(drive, name, length)
    if name == "j-0":
        drive.logs[name][0] = 1


def aligned_reads(drive: DictDrive, name: str, offset: int, length: int) -> bytes:
    # A store reads other lengths.
    return DictDrive.read_log(drive, name, offset if length != 20 else 0, length)


def unbounded(drive: DictDrive, name: str, offset: int, length: int) -> None:
    if name not in drive.logs:
        raise errors.new("blob.not_found", name)
    del offset, length


def hidden(drive: DictDrive, name: str) -> None:
    drive._within(name, 0, 0)
    drive.logs[name] = bytearray(drive.logs[name])


def unknown_log(drive: DictDrive, name: str) -> None:
    del drive.logs[name]


def small_only(drive: DictDrive, name: str, offset: int, length: int) -> bytes:
    if length > 20_000:
        text = "too much at once"
        raise OSError(text)
    return DictDrive.read(drive, name, offset, length)


MUTANTS: list[tuple[str, str, Callable[..., Any]]] = [
    ("it_says_what_it_is", "describe", nameless),
    ("a_blob_is_written_once", "put", replaces),
    ("a_blob_is_all_of_its_parts", "put", drops_bytearrays),
    ("reads_end_where_the_blob_does", "read", refuses_far_reads),
    ("a_blob_is_there_whole_or_not_at_all", "put", grows),
    ("a_list_is_sorted_and_comes_in_pages", "list", backwards),
    ("a_list_is_of_one_folder", "list", by_prefix),
    ("what_is_deleted_is_gone", "delete", empties),
    ("what_is_not_there_is_refused_by_its_code", "delete", raises_key_error),
    ("it_says_how_much_room_it_has", "capacity", more_than_all),
    ("superblocks_do_not_touch_each_other", "write_superblock", leaves_the_rest),
    ("a_lock_is_had_by_one", "lock", says_io),
    ("readers_share_a_lock", "lock", never_shares),
    ("the_holder_of_a_lock_is_known", "holder", nobody),
    ("many_threads_use_it_at_once", "put", races),
    ("a_new_log_is_zeroes", "create_log", fills),
    ("a_log_is_written_in_place", "read_log", aligned_reads),
    ("a_log_keeps_its_length", "_within", unbounded),
    ("logs_are_refused_by_their_codes", "delete_log", unknown_log),
    ("a_deleted_log_is_gone", "delete_log", hidden),
    ("a_store_lives_on_three_of_them", "read", small_only),
]


class Broken(DictDrives):
    """Drives of which one method is another."""

    def __init__(self, method: str, does: Callable[..., Any]) -> None:
        super().__init__()
        self._class = type("BrokenDrive", (DictDrive,), {method: does})

    def open(self, location: str, make: bool) -> DictDrive:
        if location not in self.drives and make:
            self.drives[location] = self._class(location)
        return super().open(location, make)


def failed(make: Callable[[], DictDrives]) -> set[str]:
    results = list(plugins.check(plugins.of(make, "drive"), life=False))
    return {one.name for one in results if one.status == "failed"}


@pytest.mark.parametrize("logs", [True, False], ids=["logs", "blobs"])
def test_a_drive_of_dictionaries_passes(logs: bool) -> None:
    subject = plugins.of(lambda: DictDrives(logs=logs), "drive")
    results = {one.name: one for one in plugins.check(subject, life=False)}
    assert not [one for one in results.values() if one.status == "failed"]
    assert (results["a_new_log_is_zeroes"].status == "passed") == logs
    assert results["a_store_lives_on_three_of_them"].status == "passed"


@pytest.mark.parametrize(("case", "method", "does"), MUTANTS, ids=[one[0] for one in MUTANTS])
def test_a_drive_with_a_mistake_fails_the_case_for_it_and_no_other(
    case: str, method: str, does: Callable[..., Any]
) -> None:
    assert failed(lambda: Broken(method, does)) == {case}


@pytest.mark.parametrize(
    ("case", "make"),
    [
        ("a_drive_that_was_never_made_is_missing", AnyTime),
        ("what_was_stored_is_there_when_it_is_opened_again", Forgets),
    ],
)
def test_a_source_with_a_mistake_fails_the_case_for_it(
    case: str, make: Callable[[], DictDrives]
) -> None:
    # A drive that forgets is missing where it was never made, too.
    assert case in failed(make)
    assert failed(make) <= {case, "a_drive_that_was_never_made_is_missing"}


def test_each_case_of_drives_has_one_that_fails_it() -> None:
    broken = {one[0] for one in MUTANTS}
    # Two need a source that is broken, and one a plugin: it is among the others' mutants.
    broken |= {
        "a_drive_that_was_never_made_is_missing",
        "what_was_stored_is_there_when_it_is_opened_again",
        "a_reload_under_a_store_loses_nothing",
    }
    assert broken == {case.name for case in plugins.cases("drive", life=False)}
