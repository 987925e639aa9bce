"""Disks with a write cache that forgets, for real file systems.

A process of its own answers the system's requests for the files `0`, `1`, … of a FUSE file system.
Loop devices on them are disks: what was written stays in a cache until the disk is told to flush.
When the power of disks is cut, each sector in their caches is kept or lost by chance, all at one
moment, and every request fails until the power is back. Disks also fail reads or writes by chance,
damage what lies on them, and come back as they were earlier. Linux, as root.

The bytes of the requests are those of the kernel's `include/uapi/linux/fuse.h`, version 7.31.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import mmap
import os
import random
import select
import stat
import struct
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SECTOR = 512
ROOT = 1
LARGEST_WRITE = 1 << 20
HEADER = struct.Struct("<IIQQIIII")
ANSWER = struct.Struct("<IiQ")
ATTRIBUTES = struct.Struct("<6Q10I")
BIG_WRITES, MANY_PAGES = 1 << 5, 1 << 22
PAST_THE_PAGE_CACHE = 1
FIEMAP = 0xC020660B

LOOKUP, FORGET, GETATTR, SETATTR, OPEN, READ, WRITE = 1, 2, 3, 4, 14, 15, 16
RELEASE, FSYNC, FLUSH, INIT, OPENDIR, RELEASEDIR, ACCESS = 18, 20, 25, 26, 27, 29, 34
INTERRUPT, DESTROY, BATCH_FORGET = 36, 38, 42
UNANSWERED = {FORGET, BATCH_FORGET, INTERRUPT}
USES = {READ, WRITE, FSYNC}
BLOCK = 4096
NOTHING_TO_DO = {RELEASE, FLUSH, RELEASEDIR, ACCESS, DESTROY}


class Disk:
    """What is on a disk, and what is in its cache only."""

    def __init__(self, size: int, sector: int) -> None:
        """Make an empty one; a sector of a write is kept as a whole or not at all."""
        self.size = size
        self.sector = sector
        self.seen = mmap.mmap(-1, size)
        self.kept = mmap.mmap(-1, size)
        self.cached: list[tuple[int, bytes]] = []
        self.is_on = True
        self.hangs = False
        self.failing = {READ: 0.0, WRITE: 0.0, FSYNC: 0.0}
        self.chance = random.Random()
        self.earlier: bytes | None = None

    def write(self, at: int, data: bytes) -> None:
        self.seen[at : at + len(data)] = data
        self.cached.append((at, data))

    def flush(self) -> None:
        for at, data in self.cached:
            self.kept[at : at + len(data)] = data
        self.cached.clear()

    def cut(self, chance: random.Random, share: float) -> tuple[int, int]:
        """Lose the cache but for a share of its sectors; return how many were kept and lost."""
        self.is_on = False
        kept = lost = 0
        for at, data in self.cached:
            start = end = 0
            while start < len(data):
                end = min(self.sector - (at + start) % self.sector + start, len(data))
                if chance.random() < share:
                    self.kept[at + start : at + end] = data[start:end]
                    kept += 1
                else:
                    lost += 1
                start = end
        # What is seen is what was kept, from now on.
        for at, data in self.cached:
            self.seen[at : at + len(data)] = self.kept[at : at + len(data)]
        self.cached.clear()
        return kept, lost

    def fail(self, operations: list[int], share: float, seed: int) -> None:
        """Fail a share of the operations from now on."""
        self.failing.update(dict.fromkeys(operations, share))
        self.chance = random.Random(seed)

    def damage(self, at: int, chance: random.Random) -> None:
        """Have a block hold something else: no request says so."""
        self.flush()
        end = at + BLOCK
        before = self.kept[at:end]
        elsewhere = chance.randrange(self.size // BLOCK) * BLOCK
        flipped = bytearray(before)
        flipped[chance.randrange(BLOCK)] ^= 1 << chance.randrange(8)
        torn = before[:SECTOR] + chance.randbytes(BLOCK - SECTOR)
        other = self.kept[elsewhere : elsewhere + BLOCK]
        after = chance.choice([bytes(BLOCK), chance.randbytes(BLOCK), flipped, torn, other])
        self.kept[at:end] = self.seen[at:end] = bytes(after)

    def remember(self) -> None:
        """Keep a copy of what survives a power cut now."""
        self.earlier = self.kept[:]

    def recall(self) -> None:
        """Be as it was when it was told to remember."""
        assert self.earlier is not None
        self.cached.clear()
        self.kept[:] = self.seen[:] = self.earlier


class Server:
    """Answers the system."""

    def __init__(self, place: str, disks: list[Disk]) -> None:
        """Mount the disks' files."""
        self.disks = disks
        self.waiting: list[bytes] = []
        self.device = os.open("/dev/fuse", os.O_RDWR)
        library = ctypes.CDLL(None, use_errno=True)
        options = f"fd={self.device},rootmode=40000,user_id=0,group_id=0".encode()
        if library.mount(b"disks", os.fsencode(place), b"fuse", 0, options) != 0:
            raise OSError(ctypes.get_errno(), "a FUSE file system cannot be mounted")

    def answer(self) -> bool:
        """Answer one request; false at the end."""
        try:
            request = os.read(self.device, LARGEST_WRITE + (1 << 16))
        except OSError as error:
            return error.errno in (errno.EINTR, errno.ENOENT)
        self.reply(request)
        return True

    def reply(self, request: bytes) -> None:
        """Reply to a request, unless its disk hangs."""
        _, operation, unique, node, *_ = HEADER.unpack_from(request)
        if operation in UNANSWERED:
            return
        if operation in USES and self.disks[node - ROOT - 1].hangs:
            self.waiting.append(request)
            return
        try:
            failure, body = 0, self.act(operation, node, request[HEADER.size :])
        except OSError as error:
            failure, body = -(error.errno or errno.EIO), b""
        head = ANSWER.pack(ANSWER.size + len(body), failure, unique)
        with contextlib.suppress(FileNotFoundError):  # who asked has gone
            os.write(self.device, head + body)

    def obey(self, verb: str, numbers: list[int], *more: Any) -> Any:
        """Do what a test wants."""
        disks = [self.disks[number] for number in numbers]
        if verb == "cut":
            share, seed = more
            chance = random.Random(seed)
            return [disk.cut(chance, share) for disk in disks]
        if verb in ("fail", "remember", "recall"):
            for disk in disks:
                getattr(disk, verb)(*more)
            return None
        if verb == "damage":
            places, seed = more
            chance = random.Random(seed)
            for at in places:
                disks[0].damage(at, chance)
            return None
        for disk in disks:
            disk.is_on, disk.hangs = True, verb == "hang"
            if not disk.hangs:
                disk.fail([READ, WRITE, FSYNC], 0, 0)
        waiting, self.waiting = self.waiting, []
        for request in waiting:
            self.reply(request)
        return None

    def act(self, operation: int, node: int, body: bytes) -> bytes:
        if operation == INIT:
            _, _, ahead, _ = struct.unpack_from("<4I", body)
            asked, pages = BIG_WRITES | MANY_PAGES, LARGEST_WRITE // 4096
            limits = (16, 12, LARGEST_WRITE, 1, pages, 0)
            return struct.pack("<4I2H2I2H", 7, 31, ahead, asked, *limits).ljust(64, b"\0")
        if operation == LOOKUP:
            name = body.rstrip(b"\0")
            if not name.isdigit() or int(name) >= len(self.disks):
                raise FileNotFoundError(errno.ENOENT, "no such disk")
            found = ROOT + 1 + int(name)
            return struct.pack("<4Q2I", found, 0, 60, 60, 0, 0) + self.attributes(found)
        if operation in (GETATTR, SETATTR):
            return struct.pack("<Q2I", 60, 0, 0) + self.attributes(node)
        if operation in (OPEN, OPENDIR):
            return struct.pack("<Q2I", 0, PAST_THE_PAGE_CACHE, 0)
        if operation in USES:
            return self.use(operation, self.disks[node - ROOT - 1], body)
        if operation not in NOTHING_TO_DO:
            raise OSError(errno.ENOSYS, "not needed")
        return b""

    def use(self, operation: int, disk: Disk, body: bytes) -> bytes:
        """Read, write or flush a disk."""
        if not disk.is_on:
            raise OSError(errno.EIO, "the disk has no power")
        if disk.chance.random() < disk.failing[operation]:
            raise OSError(errno.EIO, "the disk fails")
        if operation == FSYNC:
            disk.flush()
            return b""
        _, at, size = struct.unpack_from("<2QI", body)
        if operation == READ:
            return disk.seen[at : at + size]
        disk.write(at, body[40 : 40 + size])
        return struct.pack("<2I", size, 0)

    def attributes(self, node: int) -> bytes:
        mode, size = stat.S_IFDIR | 0o700, 0
        if node != ROOT:
            mode, size = stat.S_IFREG | 0o600, self.disks[node - ROOT - 1].size
        return ATTRIBUTES.pack(node, size, size // 512, *[0] * 6, mode, 1, 0, 0, 0, 4096, 0)


def serve(place: str, count: int, size: int, sector: int) -> None:
    """Serve disks until standard input ends; each of its lines says what happens to some."""
    disks = [Disk(size, sector) for _ in range(count)]
    server = Server(place, disks)
    print(json.dumps("ready"), flush=True)  # noqa: T201 - what the test waits for
    while True:
        ready, _, _ = select.select([server.device, 0], [], [])
        if server.device in ready and not server.answer():
            return
        if 0 in ready:
            line = sys.stdin.readline()
            if not line:
                return
            said = server.obey(*json.loads(line))
            print(json.dumps(said), flush=True)  # noqa: T201 - the answer


@dataclass
class Disks:
    """Disks with file systems, for a test."""

    place: Path
    count: int
    make: list[str]
    size: int
    sector: int
    loops: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Start the process and make the file systems."""
        self.files = self.place / "files"
        self.files.mkdir()
        sizes = [str(self.count), str(self.size), str(self.sector)]
        command = [sys.executable, __file__, str(self.files), *sizes]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert isinstance(self.answer(), str)

    def answer(self) -> Any:
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())

    def ask(self, verb: str, numbers: list[int], *more: Any) -> Any:
        pipe: IO[str] | None = self.process.stdin
        assert pipe
        print(json.dumps([verb, numbers, *more]), file=pipe, flush=True)
        return self.answer()

    def at(self, number: int) -> Path:
        """Where a disk's file system is mounted."""
        return self.place / f"disk{number}"

    def format(self) -> None:
        """Make a file system on each disk."""
        for number in range(self.count):
            device = self.attach(number)
            run(*self.make, device)

    def attach(self, number: int) -> str:
        device = run("losetup", "--show", "-f", str(self.files / str(number))).strip()
        self.loops[number] = device
        return device

    def mount(self, number: int) -> None:
        device = self.loops.get(number) or self.attach(number)
        self.at(number).mkdir(exist_ok=True)
        run("mount", device, str(self.at(number)))

    def unmount(self, number: int) -> None:
        """Let a file system go, also one that has failed."""
        if f" {self.at(number)} " in Path("/proc/self/mounts").read_text():
            run("umount", str(self.at(number)))
        if device := self.loops.pop(number, None):
            run("losetup", "-d", device)
            wait_for_detached(device)

    def cut(self, numbers: list[int], share: float, seed: int) -> list[list[int]]:
        """Cut the power of disks at one moment; returns how many sectors each kept and lost."""
        said: list[list[int]] = self.ask("cut", numbers, share, seed)
        return said

    def hang(self, numbers: list[int]) -> None:
        """Have disks answer nothing more until they are restored."""
        self.ask("hang", numbers)

    def fail(self, numbers: list[int], operations: list[int], share: float, seed: int) -> None:
        """Have disks fail a share of their `READ`, `WRITE` or `FSYNC`, until they are restored."""
        self.ask("fail", numbers, operations, share, seed)

    def damage(self, number: int, files: Iterable[Path], share: float, seed: int) -> int:
        """Change a share of the blocks of files, below the file system; returns how many.

        What the page cache holds of them is as it was.
        """
        chance = random.Random(seed)
        blocks: list[int] = []
        for file in files:
            with contextlib.suppress(FileNotFoundError):  # it has gone meanwhile
                blocks += blocks_of(file)
        chosen = [at for at in blocks if chance.random() < share]
        self.ask("damage", [number], chosen, seed)
        return len(chosen)

    def remember(self, number: int) -> None:
        """Keep a copy of a disk."""
        self.ask("remember", [number])

    def recall(self, number: int) -> None:
        """Have a disk, that is not mounted, be as it was."""
        self.ask("recall", [number])

    def restore(self, numbers: list[int]) -> None:
        """Give disks their power back; those that hang answer, those that failed are well."""
        self.ask("restore", numbers)

    def close(self) -> None:
        """Leave nothing behind, whatever happened."""
        self.restore(list(range(self.count)))
        for number in range(self.count):
            subprocess.run(["umount", "-l", str(self.at(number))], check=False, capture_output=True)
        for device in self.loops.values():
            subprocess.run(["losetup", "-d", device], check=False, capture_output=True)
        with self.process:
            assert self.process.stdin
            self.process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
            self.process.kill()
        subprocess.run(["umount", "-l", str(self.files)], check=False, capture_output=True)


def run(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


def blocks_of(file: Path) -> Iterator[int]:
    """Where the blocks of a file lie on its disk."""
    count = 256
    asked = bytearray(struct.pack("<2Q4I", 0, (1 << 64) - 1, 1, 0, count, 0) + bytes(56 * count))
    with file.open("rb") as opened:
        fcntl.ioctl(opened, FIEMAP, asked)
    for number in range(struct.unpack_from("<I", asked, 20)[0]):
        _, at, length = struct.unpack_from("<3Q", asked, 32 + 56 * number)
        yield from range(at, at + length, BLOCK)


def wait_for_detached(device: str) -> None:
    backing = Path("/sys/block", Path(device).name, "loop/backing_file")
    for _ in range(200):
        if not backing.exists():
            return
        time.sleep(0.02)
    pytest.fail(f"{device} is still in use")


@contextlib.contextmanager
def disks(
    place: Path, count: int, make: list[str], size: int, sector: int = SECTOR
) -> Iterator[Disks]:
    """Disks with file systems made by the command `make`."""
    made = Disks(place, count, make, size, sector)
    try:
        made.format()
        for number in range(count):
            made.mount(number)
        yield made
    finally:
        made.close()


if __name__ == "__main__":
    count, size, *more = map(int, sys.argv[2:])
    serve(sys.argv[1], count, size, more[0] if more else SECTOR)
