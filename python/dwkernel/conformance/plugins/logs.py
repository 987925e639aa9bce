"""The kind `drive`: logs, if it has some."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from dwkernel.conformance.plugins.core import Broken, Cases, Subject, hold, refused
from dwkernel.conformance.plugins.drives import no_logs, opened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["CASES"]

CASES = Cases("drive")
_BLOCK = 4096


@contextlib.contextmanager
def _logs(subject: Subject) -> Iterator[Any]:
    with opened(subject) as drive:
        if drive.log() is None:
            raise no_logs()
        yield drive.log()


@CASES.claim("Fill a new log with zeroes, of exactly the length that was asked for.")
def a_new_log_is_zeroes(subject: Subject) -> None:
    """A log begins as zeroes, and is listed with its length."""
    with _logs(subject) as log:
        log.create_log("j-0", 4 * _BLOCK)
        hold(log.read_log("j-0", 0, 4 * _BLOCK) == bytes(4 * _BLOCK), "it is not all zeroes")
        found = [tuple(one) for one in log.list_logs()]
        hold(found == [("j-0", 4 * _BLOCK)], f"the logs are {found}")


@CASES.claim("Overwrite in place at the offset, and leave everything else as it is.")
def a_log_is_written_in_place(subject: Subject) -> None:
    """Aligned writes change their blocks and no others; reads need no alignment."""
    with _logs(subject) as log:
        log.create_log("j", 4 * _BLOCK)
        log.write_log("j", _BLOCK, [b"a" * _BLOCK, bytearray(b"b" * _BLOCK)])
        log.write_log("j", _BLOCK, [memoryview(b"c" * _BLOCK)])
        log.sync_log("j", "conformance")
        wanted = bytes(_BLOCK) + b"c" * _BLOCK + b"b" * _BLOCK + bytes(_BLOCK)
        hold(log.read_log("j", 0, 4 * _BLOCK) == wanted, "it holds something else")
        hold(log.read_log("j", 4090, 20) == wanted[4090:4110], "an odd read returned other bytes")


@CASES.claim("Refuse writes and reads that go past the end: a log never grows.")
def a_log_keeps_its_length(subject: Subject) -> None:
    """A write or read past the end raises, and the length stays."""
    with _logs(subject) as log:
        log.create_log("j", 2 * _BLOCK)
        calls: dict[str, Callable[[], object]] = {
            "write": lambda: log.write_log("j", _BLOCK, [bytes(2 * _BLOCK)]),
            "read": lambda: log.read_log("j", _BLOCK, 2 * _BLOCK),
        }
        for what, call in calls.items():
            try:
                call()
            except Exception:  # noqa: BLE001, S112 - whatever says no
                continue
            raise Broken(f"a {what} past the end was taken")  # noqa: EM102, TRY003 - told
        found = [tuple(one) for one in log.list_logs()]
        hold(found == [("j", 2 * _BLOCK)], f"the logs are {found}")


@CASES.claim("Raise blob.exists for a name that is taken, and blob.not_found for one that is not.")
def logs_are_refused_by_their_codes(subject: Subject) -> None:
    """Names that are taken, and names that are not there, have codes of their own."""
    with _logs(subject) as log:
        log.create_log("j", _BLOCK)
        log.write_log("j", 0, [b"x" * _BLOCK])
        refused(lambda: log.create_log("j", _BLOCK), "blob.exists", "a second create_log")
        hold(log.read_log("j", 0, 1) == b"x", "the second create_log emptied the log")
        for what, call in (
            ("read_log", lambda: log.read_log("no", 0, 1)),
            ("write_log", lambda: log.write_log("no", 0, [bytes(_BLOCK)])),
            ("delete_log", lambda: log.delete_log("no")),
        ):
            refused(call, "blob.not_found", f"{what} of a missing log")


@CASES.claim("Remove the log in delete_log, and keep logs apart from blobs.")
def a_deleted_log_is_gone(subject: Subject) -> None:
    """A deleted log is not listed, and its name is free; others stay."""
    with _logs(subject) as log:
        log.create_log("j", _BLOCK)
        log.create_log("k", _BLOCK)
        log.delete_log("j")
        names = [name for name, _ in log.list_logs()]
        hold(names == ["k"], f"the logs are {names}")
        log.create_log("j", _BLOCK)
        hold(log.read_log("j", 0, _BLOCK) == bytes(_BLOCK), "the new log is not all zeroes")
