"""Small rows of the store that change by compare-and-set.

Parts of the kernel keep in them what they need to know of themselves. A *space* is a name for the
rows of one part. A row has a key, a value and a version: the number of the commit that wrote it.
Several rows of a space change in one commit, all or none, if each is at the version that its writer
saw.
"""

from __future__ import annotations

import bisect
import threading
from typing import TYPE_CHECKING, Any, Protocol

from dwkernel import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["Change", "MemoryRecords", "NativeRecords", "Records", "each_record"]

VALUE_BYTES_MAX = 64 << 10
_PAGE = 256

Change = tuple[str, bytes | None, int | None]
"""Key; value, or None to delete; expected version: None for any, 0 for absent."""


class Records(Protocol):
    """Where records lie. Threads may share it."""

    def commit_records(self, space: str, changes: Sequence[Change]) -> int:
        """Change several rows, all or none; durable on return.

        Returns:
            The version of what was written.

        Raises:
            Conflict: `record.conflict` (detail `key`): a row is not at its expected version
            Invalid: `record.key`; a value of more than 64 KiB is refused, too
            Timeout: `context.deadline`; where the outcome is unknown, the changes may be there

        """

    def get_record(self, space: str, key: str) -> tuple[bytes, int] | None:
        """Return a row's value and version, or None."""

    def list_records(self, space: str, after: str, limit: int) -> list[tuple[str, bytes, int]]:
        """Return up to `limit` rows whose keys come after `after`, in the order of UTF-8 bytes."""


def each_record(records: Records, space: str, prefix: str) -> Iterator[tuple[str, bytes, int]]:
    """Iterate over the rows whose keys begin with `prefix`, which is not empty."""
    after = prefix
    while True:
        page = records.list_records(space, after, _PAGE)
        for row in page:
            if not row[0].startswith(prefix):
                return
            yield row
        if len(page) < _PAGE:
            return
        after = page[-1][0]


class NativeRecords:
    """The records of an open store."""

    def __init__(self, store: Any, caller: Any, limit: Callable[[None], float]) -> None:
        """Take a native store, who asks, and how long each call may take."""
        self._store = store
        self._caller = caller
        self._limit = limit

    def commit_records(self, space: str, changes: Sequence[Change]) -> int:
        """As `Records.commit_records`."""
        limit_s = self._limit(None)
        version: int = self._store.commit_records(self._caller, limit_s, space, list(changes))
        return version

    def get_record(self, space: str, key: str) -> tuple[bytes, int] | None:
        """As `Records.get_record`."""
        found: tuple[bytes, int] | None = self._store.get_record(
            self._caller, self._limit(None), space, key
        )
        return found

    def list_records(self, space: str, after: str, limit: int) -> list[tuple[str, bytes, int]]:
        """As `Records.list_records`."""
        found: list[tuple[str, bytes, int]] = self._store.list_records(
            self._caller, self._limit(None), space, after, limit
        )
        return found


class MemoryRecords:
    """Records in memory: the readable twin, for tests and for jobs that need not last."""

    def __init__(self) -> None:
        """Begin empty."""
        self._rows: dict[tuple[str, bytes], tuple[bytes, int]] = {}
        self._keys: list[tuple[str, bytes]] = []
        self._version = 0
        self._lock = threading.Lock()

    def commit_records(self, space: str, changes: Sequence[Change]) -> int:
        """As `Records.commit_records`."""
        with self._lock:
            for key, value, expected in changes:
                if value is not None and len(value) > VALUE_BYTES_MAX:
                    raise errors.new("record.key", f"{len(value)} bytes for {key}", key=key)
                _, version = self._rows.get((space, key.encode()), (b"", 0))
                if expected not in (None, version):
                    text = f"{key} is at version {version}, not {expected}"
                    raise errors.new("record.conflict", text, key=key)
            self._version += 1
            for key, value, _ in changes:
                self._set((space, key.encode()), value)
            return self._version

    def _set(self, place: tuple[str, bytes], value: bytes | None) -> None:
        at = bisect.bisect_left(self._keys, place)
        is_there = place in self._rows
        if value is None:
            if is_there:
                del self._keys[at], self._rows[place]
            return
        if not is_there:
            self._keys.insert(at, place)
        self._rows[place] = (value, self._version)

    def get_record(self, space: str, key: str) -> tuple[bytes, int] | None:
        """As `Records.get_record`."""
        with self._lock:
            return self._rows.get((space, key.encode()))

    def list_records(self, space: str, after: str, limit: int) -> list[tuple[str, bytes, int]]:
        """As `Records.list_records`."""
        with self._lock:
            first = bisect.bisect_right(self._keys, (space, after.encode()))
            places = self._keys[first : first + limit]
            return [(key.decode(), *self._rows[of, key]) for of, key in places if of == space]
