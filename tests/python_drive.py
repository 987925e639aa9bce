"""A drive in Python, as a plugin writes one: everything in dictionaries."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from dwkernel import errors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import Buffer


class DictDrive:
    """Blobs, superblocks and logs of one drive."""

    def __init__(self, location: str, *, logs: bool = True) -> None:
        self.location = location
        self.blobs: dict[str, bytes] = {}
        self.slots: dict[int, bytes] = {}
        self.logs: dict[str, bytearray] = {}
        self.held: dict[str, str] | None = None
        self._tokens: dict[str, bool] = {}
        self.calls: list[str] = []
        # Raised by the next call of that name.
        self.fault: tuple[str, BaseException] | None = None
        self._has_logs = logs
        self._lock = threading.Lock()

    def _note(self, what: str) -> None:
        self.calls.append(what)
        if self.fault is not None and self.fault[0] == what:
            raise self.fault[1]

    def describe(self) -> Mapping[str, str]:
        return {"kind": "dict", "failure_domain": self.location}

    def put(self, name: str, parts: Sequence[Buffer]) -> None:
        self._note("put")
        with self._lock:
            if name in self.blobs:
                raise errors.new("blob.exists", name)
            self.blobs[name] = b"".join(parts)

    def read(self, name: str, offset: int, length: int) -> bytes:
        self._note("read")
        return self._blob(name)[offset : offset + length]

    def list(self, folder: str | None, after: str | None, limit: int) -> Sequence[tuple[str, int]]:
        self._note("list")
        with self._lock:
            found = sorted(
                (name, len(content))
                for name, content in self.blobs.items()
                if name.rpartition("/")[0] == (folder or "") and (after is None or name > after)
            )
        return found[:limit]

    def delete(self, name: str) -> None:
        self._note("delete")
        self._blob(name)
        del self.blobs[name]

    def stat(self, name: str) -> int:
        self._note("stat")
        return len(self._blob(name))

    def capacity(self) -> tuple[int, int]:
        self._note("capacity")
        used = sum(map(len, self.blobs.values())) + sum(map(len, self.logs.values()))
        return (1 << 30, (1 << 30) - used)

    def sync(self, tag: str) -> None:
        assert tag
        self._note("sync")

    def read_superblock(self, slot: int) -> bytes | None:
        self._note("read_superblock")
        return self.slots.get(slot)

    def write_superblock(self, slot: int, content: Buffer) -> None:
        self._note("write_superblock")
        self.slots[slot] = bytes(content)

    def lock(self, holder: Mapping[str, str], *, shared: bool) -> str:
        self._note("lock")
        with self._lock:
            if self.held is not None and not (shared and all(self._tokens.values())):
                raise errors.new("store.locked", "it is held", pid=self.held["pid"])
            self.held = dict(holder)
            token = f"token-{len(self.calls)}"
            self._tokens[token] = shared
        return token

    def unlock(self, token: str) -> None:
        with self._lock:
            del self._tokens[token]
            if not self._tokens:
                self.held = None

    def holder(self) -> Mapping[str, str] | None:
        return self.held

    def log(self) -> DictDrive | None:
        return self if self._has_logs else None

    def create_log(self, name: str, length: int) -> None:
        self._note("create_log")
        if name in self.logs:
            raise errors.new("blob.exists", name)
        self.logs[name] = bytearray(length)

    def write_log(self, name: str, offset: int, parts: Sequence[Buffer]) -> None:
        self._note("write_log")
        content = b"".join(parts)
        self._within(name, offset, len(content))
        self.logs[name][offset : offset + len(content)] = content

    def sync_log(self, name: str, tag: str) -> None:
        assert tag
        assert name in self.logs
        self._note("sync_log")

    def read_log(self, name: str, offset: int, length: int) -> bytes:
        self._note("read_log")
        self._within(name, offset, length)
        return bytes(self.logs[name][offset : offset + length])

    def list_logs(self) -> Sequence[tuple[str, int]]:
        return [(name, len(content)) for name, content in self.logs.items()]

    def delete_log(self, name: str) -> None:
        self._within(name, 0, 0)
        del self.logs[name]

    def _within(self, name: str, offset: int, length: int) -> None:
        if name not in self.logs:
            raise errors.new("blob.not_found", name)
        if offset + length > len(self.logs[name]):
            raise errors.new("buffer.length", f"{name} ends before {offset + length}")

    def _blob(self, name: str) -> bytes:
        if name not in self.blobs:
            raise errors.new("blob.not_found", name)
        return self.blobs[name]


class DictDrives:
    """Drives by URL, which stay as long as this does."""

    def __init__(self, *, logs: bool = True) -> None:
        self.drives: dict[str, DictDrive] = {}
        self._logs = logs

    def open(self, location: str, make: bool) -> DictDrive:
        if location not in self.drives and not make:
            raise errors.new("drive.missing", f"no drive at {location}")
        return self.drives.setdefault(location, DictDrive(location, logs=self._logs))
