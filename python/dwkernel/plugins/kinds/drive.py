"""The kind `drive`: where bytes rest, in Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import Buffer

__all__ = ["Drive", "DriveLog", "DriveSource"]


class Drive(Protocol):
    """One failure unit: write-once blobs, two superblock slots, a lock.

    It is called from several threads at a time, and may block. Nothing that is handed out refers to
    the drive: names are text, contents are bytes, a lock is a token. So a reload can put a drive of
    a new version in the place of the old one between any two calls.

    Names have 1 to 200 of `a-z 0-9 . - _` and at most one `/` (a folder). A blob is seen whole or
    not at all. What a call changed is durable after a later `sync` only, but for superblocks and
    what a log says of itself.

    It raises `dwkernel.errors.new(code, …)` with `blob.exists`, `blob.not_found`, `drive.full`,
    `drive.read_only`, `drive.io` or `store.locked`; anything else counts as `drive.io`. After one
    failed sync it is not trusted any more: nothing is tried again.
    """

    def describe(self) -> Mapping[str, str]:
        """Return what it is: `kind`, `location`, and perhaps `failure_domain`, `read_only`."""

    def put(self, name: str, parts: Sequence[Buffer]) -> None:
        """Write a blob, the concatenation of `parts`; `blob.exists` leaves the old one alone."""

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset` on: fewer only at the blob's end."""

    def list(self, folder: str | None, after: str | None, limit: int) -> Sequence[tuple[str, int]]:
        """Return names and lengths of a folder (None: those in none), sorted, after a name."""

    def delete(self, name: str) -> None:
        """Remove a blob."""

    def stat(self, name: str) -> int:
        """Return a blob's length in bytes."""

    def capacity(self) -> tuple[int, int]:
        """Return how many bytes it has, and how many are free."""

    def sync(self, tag: str) -> None:
        """Make what was put and deleted durable, names too; `tag` names the reason, for metrics."""

    def read_superblock(self, slot: int) -> bytes | None:
        """Return what slot 0 or 1 holds; None if it was never written."""

    def write_superblock(self, slot: int, content: Buffer) -> None:
        """Write a slot, 256 KiB at most; durable on return, and never harms the other slot."""

    def lock(self, holder: Mapping[str, str], *, shared: bool) -> str:
        """Take it for this process at once, or raise `store.locked`; return a token.

        `holder` has `pid`, `host`, `since_unix_ns` and `program`. The token stays good over a
        reload: what is locked belongs to the state that a drive's plugin exports, or to where it
        keeps its bytes. The lock ends with the process.
        """

    def unlock(self, token: str) -> None:
        """Let it go."""

    def holder(self) -> Mapping[str, str] | None:
        """Return who has it, as far as that can be told without taking it."""

    def log(self) -> DriveLog | None:
        """Return its logs, if it can preallocate, write at an offset and sync; None if not.

        What it returns is asked for anew before each call, and not kept.
        """


class DriveLog(Protocol):
    """Preallocated files for the journal, written in place and synced one by one.

    Offsets and lengths of writes are multiples of 4,096. What was synced before stays.
    """

    def create_log(self, name: str, length: int) -> None:
        """Make a log of zeroes; durable on return."""

    def write_log(self, name: str, offset: int, parts: Sequence[Buffer]) -> None:
        """Overwrite at `offset`, within its length."""

    def sync_log(self, name: str, tag: str) -> None:
        """Make every write that returned before durable."""

    def read_log(self, name: str, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes from `offset` on."""

    def list_logs(self) -> Sequence[tuple[str, int]]:
        """Return all logs with their lengths."""

    def delete_log(self, name: str) -> None:
        """Remove a log; durable on return."""


class DriveSource(Protocol):
    """What a plugin of the kind `drive` is: it opens drives; capabilities are schemes of URLs."""

    def open(self, location: str, make: bool) -> Drive:
        """Open the drive at a URL. Called once for each drive, and again after a reload.

        With `make` it may be a new one; without, one that is not there is `drive.missing`.

        It must not take the lock, nor write. May take seconds; raises `drive.url`, `drive.io`.
        """
