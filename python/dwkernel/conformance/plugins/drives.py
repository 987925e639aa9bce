"""The kind `drive`: blobs, superblocks, the lock. The port is rust/drive/src/port.rs."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel.conformance.plugins.core import Cases, LeftOut, Subject, hold, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["CASES", "opened", "together"]

CASES = Cases("drive")
SUPERBLOCK_BYTES_MAX = 256 * 1024
_THREADS = 8
_HOLDER = {"pid": "4711", "host": "here", "since_unix_ns": "1", "program": "conformance"}


@contextlib.contextmanager
def opened(subject: Subject) -> Iterator[Any]:
    """Open a new drive."""
    with subject.running() as running, running.used() as source:
        yield source.open(subject.location(), True)  # noqa: FBT003 - as the pool calls it


def together(work: Callable[[int], object], count: int = _THREADS) -> None:
    """Do something in many threads at once; raise what the first of them raised."""
    wrong: list[BaseException] = []
    gate = threading.Barrier(count)

    def one(number: int) -> None:
        try:
            gate.wait(10)
            work(number)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is told
            wrong.append(error)

    name = threading.current_thread().name
    threads = [
        threading.Thread(target=one, args=(n,), name=f"{name}:{n}", daemon=True)
        for n in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise wrong[0]


@CASES.claim("Raise drive.missing in open(location, make=False) for a drive that was never made.")
def a_drive_that_was_never_made_is_missing(subject: Subject) -> None:
    """Without `make` no drive is made up where none is."""
    with subject.running() as running, running.used() as source:
        where = subject.location("never")
        refused(lambda: source.open(where, False), "drive.missing", "open(…, make=False)")  # noqa: FBT003 - as the pool calls it


@CASES.claim("Return text by name from describe(), with `kind` at least.")
def it_says_what_it_is(subject: Subject) -> None:
    """`describe` returns text, and its kind is among it."""
    with opened(subject) as drive:
        said = dict(drive.describe())
        is_text = all(isinstance(text, str) for pair in said.items() for text in pair)
        hold(is_text and said.get("kind"), f"it described itself as {said!r}")


@CASES.claim("Make a blob in a way that fails if its name is taken, such as os.link or O_EXCL.")
def a_blob_is_written_once(subject: Subject) -> None:
    """A second put of a name is `blob.exists`, and leaves the first alone."""
    with opened(subject) as drive:
        drive.put("a/once", [b"first"])
        refused(lambda: drive.put("a/once", [b"second"]), "blob.exists", "a second put")
        hold(drive.read("a/once", 0, 10) == b"first", "the second put changed the first blob")


@CASES.claim("Write all parts one behind the other; each is bytes, a bytearray or a memoryview.")
def a_blob_is_all_of_its_parts(subject: Subject) -> None:
    """Parts of any kind of buffer, empty ones too, become one content."""
    parts: list[Any] = [b"one", b"", bytearray(b"two"), memoryview(b"three")[1:]]
    with opened(subject) as drive:
        drive.put("parts", parts)
        hold(drive.read("parts", 0, 100) == b"onetwohree", "the content is not that of the parts")
        drive.put("none", [])
        hold(drive.stat("none") == 0, "a blob of no parts is not empty")
        hold(drive.read("none", 0, 10) == b"", "an empty blob has content")


@CASES.claim("Return bytes[offset:offset + length], as a slice does.")
def reads_end_where_the_blob_does(subject: Subject) -> None:
    """A read returns what is there: all of it inside, less at the end, nothing behind."""
    content = bytes(range(256)) * 40
    size = len(content)
    with opened(subject) as drive:
        drive.put("r", [content])
        for offset, length in [
            (0, size),
            (0, 1),
            (4095, 3),
            (size - 1, 1),
            (size - 5, 100),
            (size, 1),
            (size + 7, 9),
            (3, 0),
        ]:
            found = drive.read("r", offset, length)
            text = f"read of {length} at {offset} of {size} returned {len(found)} bytes"
            hold(isinstance(found, bytes), f"read returned {type(found).__name__}, not bytes")
            hold(found == content[offset : offset + length], text)


class _Breaks:
    """Parts of which the second can't be had, as when memory ends in the middle."""

    def __init__(self) -> None:
        self._parts: Sequence[bytes] = (b"a" * 100_000,)

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[bytes]:
        yield self._parts[0]
        text = "the second part can't be had"
        raise OSError(text)

    def __getitem__(self, number: int) -> bytes:
        if number:
            text = "the second part can't be had"
            raise OSError(text)
        return self._parts[number]


@CASES.claim("Write under another name, and give the blob its name when all of it is there.")
def a_blob_is_there_whole_or_not_at_all(subject: Subject) -> None:
    """A put that fails in the middle leaves no blob, and the name is free."""
    with opened(subject) as drive:
        with contextlib.suppress(Exception):
            drive.put("a/torn", _Breaks())
        refused(lambda: drive.stat("a/torn"), "blob.not_found", "stat after a put that failed")
        hold(not list(drive.list("a", None, 10)), "a part of a blob is listed")
        drive.put("a/torn", [b"whole"])
        hold(drive.read("a/torn", 0, 10) == b"whole", "the put after it wrote something else")


@CASES.claim("Sort names, leave out those up to `after`, and return `limit` of them at most.")
def a_list_is_sorted_and_comes_in_pages(subject: Subject) -> None:
    """Pages are in the order of names, each after the last name of the one before."""
    names = [f"f/{number * 7 % 23:02}" for number in range(23)]
    with opened(subject) as drive:
        for name in names:
            drive.put(name, [name.encode() * 2])
        for limit in (1, 5, 23, 100):
            found: list[tuple[str, int]] = []
            after: str | None = None
            while page := [tuple(one) for one in drive.list("f", after, limit)]:
                hold(len(page) <= limit, f"a page of {limit} has {len(page)}")
                found += page
                hold(len(found) <= len(names), "pages repeat names")
                after = page[-1][0]
            text = f"in pages of {limit} it listed {found!r:.200}"
            hold(found == [(name, 8) for name in sorted(names)], text)


@CASES.claim("List only names of that folder; None means names without a `/`.")
def a_list_is_of_one_folder(subject: Subject) -> None:
    """Names of other folders, and those in none, are not in it."""
    with opened(subject) as drive:
        for name in ("a/x", "ab/x", "top", "a-b"):
            drive.put(name, [b"1"])
        for folder, wanted in (("a", ["a/x"]), (None, ["a-b", "top"]), ("none", [])):
            found = [name for name, _ in drive.list(folder, None, 10)]
            hold(found == wanted, f"the folder {folder!r} holds {found}")


@CASES.claim("Remove the blob in delete, and free its name.")
def what_is_deleted_is_gone(subject: Subject) -> None:
    """A deleted blob can't be read nor listed, and its name can be used again."""
    with opened(subject) as drive:
        drive.put("a/x", [b"1"])
        drive.delete("a/x")
        hold(not list(drive.list("a", None, 10)), "it is still listed")
        refused(lambda: drive.read("a/x", 0, 1), "blob.not_found", "read of a deleted blob")
        drive.put("a/x", [b"22"])
        hold(drive.read("a/x", 0, 10) == b"22", "its name can't be used again")


@CASES.claim("Raise errors.new('blob.not_found', …) where there is no blob, in each of the three.")
def what_is_not_there_is_refused_by_its_code(subject: Subject) -> None:
    """Read, stat and delete of a missing blob are `blob.not_found`."""
    with opened(subject) as drive:
        calls: dict[str, Callable[[], object]] = {
            "read": lambda: drive.read("no", 0, 1),
            "stat": lambda: drive.stat("no"),
            "delete": lambda: drive.delete("no"),
        }
        for what, call in calls.items():
            refused(call, "blob.not_found", f"{what} of a missing blob")


@CASES.claim("Return (all bytes, free bytes) as two ints from capacity().")
def it_says_how_much_room_it_has(subject: Subject) -> None:
    """Capacity is two numbers of bytes, and what is free is a part of all."""
    with opened(subject) as drive:
        total, free = drive.capacity()
        is_good = type(total) is int and type(free) is int and 0 <= free <= total and total > 0
        hold(is_good, f"it said {total!r}, {free!r}")
        hold(drive.sync("conformance") is None, "sync returned something: it raises or is done")


@CASES.claim("Keep each slot in a place of its own; None is what was never written.")
def superblocks_do_not_touch_each_other(subject: Subject) -> None:
    """Two slots, empty at first, overwritten whole, up to 256 KiB each."""
    with opened(subject) as drive:
        hold(drive.read_superblock(0) is None, "slot 0 of a new drive is not None")
        drive.write_superblock(0, b"zero")
        hold(drive.read_superblock(1) is None, "writing slot 0 wrote slot 1")
        large = b"1" * SUPERBLOCK_BYTES_MAX
        drive.write_superblock(1, memoryview(large))
        hold(drive.read_superblock(0) == b"zero", "writing slot 1 changed slot 0")
        hold(drive.read_superblock(1) == large, "slot 1 does not hold what was written")
        drive.write_superblock(1, b"short")
        hold(drive.read_superblock(1) == b"short", "a shorter superblock left old bytes")


@CASES.claim("Raise store.locked at once while somebody has the drive; unlock(token) frees it.")
def a_lock_is_had_by_one(subject: Subject) -> None:
    """An exclusive lock keeps everybody else out until it is let go."""
    with opened(subject) as drive:
        token = drive.lock(_HOLDER, shared=False)
        hold(isinstance(token, str), f"lock returned {type(token).__name__}, and not a token")
        _is_locked(drive, shared=False)
        drive.unlock(token)
        drive.unlock(drive.lock(_HOLDER, shared=False))


@CASES.claim("Let shared locks be had together, and neither kind while the other kind is held.")
def readers_share_a_lock(subject: Subject) -> None:
    """Shared locks go together; an exclusive one waits for the last of them."""
    with opened(subject) as drive:
        one = drive.lock(_HOLDER, shared=True)
        other = drive.lock(_HOLDER, shared=True)
        drive.unlock(one)
        _is_locked(drive, shared=False)
        drive.unlock(other)
        alone = drive.lock(_HOLDER, shared=False)
        _is_locked(drive, shared=True)
        drive.unlock(alone)


def _is_locked(drive: Any, *, shared: bool) -> None:
    what = f"a {'shared' if shared else 'second exclusive'} lock"
    refused(lambda: drive.lock(_HOLDER, shared=shared), "store.locked", what)


@CASES.claim("Keep what lock was given, return it from holder(), and None after unlock.")
def the_holder_of_a_lock_is_known(subject: Subject) -> None:
    """`holder` says who has it, and nobody when nobody has."""
    with opened(subject) as drive:
        hold(drive.holder() is None, "a new drive has a holder")
        token = drive.lock(_HOLDER, shared=False)
        found = drive.holder()
        hold(found and dict(found).get("pid") == "4711", f"the holder is {found!r}")
        drive.unlock(token)
        hold(drive.holder() is None, "somebody holds it after unlock")


@CASES.claim("Keep blobs where open(location) finds them again, whoever opens it.")
def what_was_stored_is_there_when_it_is_opened_again(subject: Subject) -> None:
    """A drive that is opened a second time holds what was put and synced."""
    with subject.running() as running, running.used() as source:
        where = subject.location()
        drive = source.open(where, True)  # noqa: FBT003 - as the pool calls it
        drive.put("a/x", [b"1"])
        drive.write_superblock(0, b"zero")
        drive.sync("conformance")
        again = source.open(where, False)  # noqa: FBT003 - as above
        hold(again.read("a/x", 0, 10) == b"1", "the blob is not there")
        hold(again.read_superblock(0) == b"zero", "the superblock is not there")
        other = source.open(subject.location(), True)  # noqa: FBT003 - as above
        hold(not list(other.list("a", None, 10)), "another drive holds its blobs, too")


@CASES.claim("Guard what threads share: of puts of one name one wins, and none is lost.")
def many_threads_use_it_at_once(subject: Subject) -> None:
    """Eight threads put, read, list and delete; of eight puts of one name one succeeds."""
    with opened(subject) as drive:
        won: list[int] = []

        def work(number: int) -> None:
            with contextlib.suppress(errors.Exists):
                drive.put("race/one", [str(number).encode() * 1000])
                won.append(number)
            for turn in range(20):
                name = f"t{number}/{turn:02}"
                drive.put(name, [name.encode()] * 50)
                hold(drive.stat(name) == 50 * len(name), f"{name} has another length")
                hold(len(list(drive.list(f"t{number}", None, 100))) == turn + 1, "a blob is lost")

        together(work)
        hold(len(won) == 1, f"{len(won)} puts of one name succeeded")
        content = str(won[0]).encode() * 1000
        hold(drive.read("race/one", 0, 2000) == content, "it holds what another one put")


def no_logs() -> LeftOut:
    """Return that a drive has no logs."""
    return LeftOut("it has no logs: its log() returns None")
