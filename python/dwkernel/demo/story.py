"""What the demo does, step by step, and what it proves."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dwkernel as dw
from dwkernel import errors
from dwkernel.bench import processor
from dwkernel.cli.copying import THREADS
from dwkernel.demo import page, shards, trees
from dwkernel.demo.writer import content
from dwkernel.objects import ObjectInfo
from dwkernel.reports import Report, counted
from dwkernel.units import format_duration, format_size, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dwkernel.demo.shards import ShardMap
    from dwkernel.demo.trees import File
    from dwkernel.kernel import Kernel

GEOMETRY = "4+2"
DRIVES = 6
_CONTAINER = "library"
_LOST = "d2"
_HARMED = "d5"
_HARMED_SHARE = 0.4
_SPARE_NAME = "d2-new"
# Drives take 1.5 times the content, then one is rebuilt beside; some room must stay.
_ROOM_FACTOR = 2.2
_KILL_AFTER_ACKS = (60, 400)
_KILL_TIMEOUT_S = 120
_PIECE_BYTES = 4 << 20
# Each of the fifteen pairs of drives is tried with so much content, or all if there is less.
_PAIR_BYTES = 24 << 20
_MARKER = ".dwkernel-demo"


@dataclass(frozen=True, slots=True)
class Step(Report):
    """One thing that was done.

    Attributes:
        name: what.
        seconds: how long it took.
        bytes: content that went through, if any.
        text: what came of it.

    """

    name: str
    seconds: float
    bytes: int = 0
    text: str = ""

    @property
    def rate(self) -> float | None:
        """Bytes per second, if content went through."""
        return self.bytes / self.seconds if self.bytes and self.seconds else None


@dataclass(frozen=True, slots=True)
class Proof(Report):
    """One claim, and whether it held.

    Attributes:
        claim: what should be.
        held: whether it was.
        text: the figures.

    """

    claim: str
    held: bool
    text: str


@dataclass(slots=True)
class Story(Report):
    """What the demo did and proved.

    Attributes:
        report: where the page is.
        files: how many were stored.
        bytes: how many bytes they hold.
        steps: what was done, in order.
        proofs: what was claimed, and whether it held.
        capacity: for each drive the bytes of its shards, and of all else on it.
        left_out: how many files were not stored, by the reason.
        machine: on what.

    """

    report: str
    files: int = 0
    bytes: int = 0
    steps: list[Step] = field(default_factory=list)
    proofs: list[Proof] = field(default_factory=list)
    capacity: list[tuple[str, int, int]] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    machine: dict[str, str] = field(default_factory=dict)

    @property
    def proved(self) -> bool:
        """Whether everything held."""
        return bool(self.proofs) and all(proof.held for proof in self.proofs)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {**Report.to_dict(self), "proved": self.proved}

    def __str__(self) -> str:
        """Print for people: the sum of it; each claim was told when it was proved."""
        held = sum(proof.held for proof in self.proofs)
        lines = [f"NOT TRUE: {one.claim} ({one.text})" for one in self.proofs if not one.held]
        first = f"{held} of {counted(len(self.proofs), 'claim')} proved"
        return "\n".join([first, *lines, f"report: {self.report}"])


def run(
    path: Path,
    *,
    sources: list[Path] | None = None,
    limit: str | None = None,
    report: Path = Path("demo-report.html"),
    say: Callable[[str], object] = print,
) -> Story:
    """Tell the whole story at `path`, which is emptied first, and write the page.

    Nothing is made before everything that was asked for is known to be possible.

    Raises:
        Exists: `store.exists`: there is something at `path` that no demo made
        Invalid: `unit.invalid`; `source.failed`: there are no files to store
        OSError: the report cannot be written where it is wanted

    """
    limit_bytes = parse_size(limit) if limit else None
    _check_place(path)
    _check_report(report)
    teller = _Teller(path.resolve(), Story(str(report.resolve())), say)
    teller.collect(sources or trees.default_trees(), limit_bytes)
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    (path / _MARKER).touch()
    teller.tell()
    report.write_text(page.render(teller.story, teller.maps), encoding="utf-8")
    return teller.story


def _check_place(path: Path) -> None:
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        if (path / _MARKER).exists():
            return
        raise errors.new("store.exists", f"{path} holds something that no demo made", path=path)


def _check_report(report: Path) -> None:
    if report.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(report))
    if not report.resolve().parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(report.parent))
    if not os.access(report if report.exists() else report.resolve().parent, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(report))


class _Teller:
    """Does the steps in order; each finds what the ones before left."""

    def __init__(self, path: Path, story: Story, say: Callable[[str], object]) -> None:
        self.path = path
        self.story = story
        self.say = say
        self.maps: list[tuple[str, ShardMap]] = []
        self.files: list[File] = []
        self.harmed = 0
        self.drives = {f"d{n}": path / f"d{n}" for n in range(1, DRIVES + 1)}

    def tell(self) -> None:
        """Do everything after the originals were read."""
        self.story.machine = _machine(self.path)
        self._store()
        self._look("before")
        self.story.capacity = [(name, *shards.taken(at)) for name, at in self.drives.items()]
        self._harm()
        self._read_degraded()
        self._rebuild()
        self._look("after")
        self._prove_redundancy()
        self._prove_pairs()
        self._kill()

    def _begin(self, text: str) -> float:
        """Say what takes a while, and look at the clock."""
        self.say(f"{text} …")
        return time.perf_counter()

    def _step(self, name: str, start: float, *, amount: int = 0, text: str = "") -> None:
        step = Step(name, time.perf_counter() - start, amount, text)
        self.story.steps.append(step)
        rate = f", {format_size(int(step.rate))}/s" if step.rate else ""
        self.say(f"{name}: {format_duration(step.seconds)}{rate}{'  ' + text if text else ''}")

    def _prove(self, claim: str, held: object, text: str) -> None:
        self.story.proofs.append(Proof(claim, bool(held), text))
        self.say(f"  {'proved' if held else 'NOT TRUE'}: {claim} ({text})")

    def collect(self, sources: list[Path], limit: int | None) -> None:
        """Read the originals, before anything is made.

        Raises:
            Invalid: `source.failed`: a source is not there, or there are no files

        """
        start = self._begin("reading the originals")
        for source in sources:
            if not source.is_dir():
                raise errors.new("source.failed", f"{source} is no directory", path=source)
        there = next(at for at in (self.path, *self.path.parents) if at.is_dir())
        room = int(shutil.disk_usage(there).free / _ROOM_FACTOR)
        found = trees.collect(sources, room if limit is None else min(room, limit))
        self.files = found.files
        self.story.files = len(self.files)
        self.story.bytes = sum(file.size for file in self.files)
        self.story.left_out = dict(found.left_out)
        left = [f"{number:,} {why}" for why, number in found.left_out.items()]
        if not self.story.bytes:
            text = f"no file with content to store ({', '.join(left) or 'nothing there'})"
            raise errors.new("source.failed", text)
        text = f"{counted(len(self.files), 'file')}, {format_size(self.story.bytes)}"
        text += f"; left out: {', '.join(left)}" if left else ""
        self._step(
            "read the originals and take their digests", start, amount=self.story.bytes, text=text
        )

    def _store(self) -> None:
        start = time.perf_counter()
        kernel = dw.open(self.path, drives=DRIVES, geometry=GEOMETRY, create=True)
        with kernel:
            kernel.containers.create(_CONTAINER)
            self._step(f"create a store of {DRIVES} drives at {GEOMETRY}", start)
            start = self._begin("storing every file")
            with ThreadPoolExecutor(THREADS) as pool:
                list(pool.map(lambda file: self._put(kernel, file), self.files))
            self._step("store every file", start, amount=self.story.bytes)
            start = self._begin("reading everything back")
            wrong = self._compare(kernel)
            self._step("read everything back", start, amount=self.story.bytes)
            self._prove("every file reads back bit for bit", not wrong, self._count(wrong))

    @staticmethod
    def _put(kernel: Kernel, file: File) -> None:
        kernel.put(f"{_CONTAINER}/{file.name}", file.path)

    def _compare(self, kernel: Kernel) -> list[str]:
        """Read every object and return the names of those that are not what their file was."""
        listed = {entry.key for entry in kernel.list(_CONTAINER)}
        expected = {f"{_CONTAINER}/{file.name}" for file in self.files}
        return self._differing(kernel, self.files) + sorted(listed ^ expected)

    def _differing(self, kernel: Kernel, files: list[File]) -> list[str]:

        def differs(file: File) -> str | None:
            try:
                with kernel.get(f"{_CONTAINER}/{file.name}") as reader:
                    pieces = iter(lambda: reader.read(_PIECE_BYTES), b"")
                    same = trees.digest_stream(pieces) == file.digest
            except errors.DwError as error:
                self.say(f"  {file.name}: {error}")
                return file.name
            return None if same else file.name

        with ThreadPoolExecutor(THREADS) as pool:
            return [name for name in pool.map(differs, files) if name]

    def _count(self, wrong: list[str]) -> str:
        right = len(self.files) - len(wrong)
        return f"{right} of {len(self.files)} files, {format_size(self.story.bytes)}"

    def _whole(self, drive: str) -> bool:
        """Whether a drive has any shard in the last look at the drives."""
        return any(name == drive for name, _ in self.maps[-1][1].cells)

    def _look(self, when: str, damaged: frozenset[tuple[str, str]] = frozenset()) -> None:
        self.maps.append((when, shards.look(self.drives, damaged)))

    def _harm(self) -> None:
        start = time.perf_counter()
        shutil.rmtree(self.drives[_LOST])
        stripes, flipped = shards.flip(self.drives[_HARMED], share=_HARMED_SHARE, seed=1)
        self.harmed = len(stripes)
        harmed = counted(self.harmed, "shard")
        text = f"{_LOST} deleted, {flipped} bytes flipped in {harmed} of {_HARMED}"
        self._step("delete one drive and damage another", start, text=text)
        self._look("during", frozenset((_HARMED, stripe) for stripe in stripes))

    def _read_degraded(self) -> None:
        start = self._begin("reading everything with the damage")
        with dw.open(self.path) as kernel:
            state = kernel.pool.status()
            wrong = self._compare(kernel)
            self._step("read everything with the damage", start, amount=self.story.bytes)
            self._prove(
                "every file reads bit for bit with one drive gone and another damaged",
                not wrong and self.harmed and not self._whole(_LOST),
                f"{self._count(wrong)}; {counted(self.harmed, 'shard')} damaged",
            )
            self._prove(
                "the loss is noticed and said",
                state.redundancy == "degraded" and state.drive(_LOST).state == "missing",
                f"redundancy {state.redundancy}, {_LOST} {state.drive(_LOST).state}",
            )

    def _rebuild(self) -> None:
        with dw.open(self.path) as kernel:
            start = self._begin(f"rebuilding {_LOST}")
            lost = self.maps[0][1].bytes[_LOST]
            self.drives[_LOST] = self.path / _SPARE_NAME
            report = kernel.pool.replace(_LOST, self.drives[_LOST])
            self._step(f"rebuild {_LOST} onto a new drive", start, amount=lost, text=str(report))
            start = self._begin("scrubbing")
            report_scrub = kernel.pool.scrub()
            stored = sum(self.maps[0][1].bytes.values())
            self._step(
                "scrub: verify and repair every shard", start, amount=stored, text=str(report_scrub)
            )

    def _prove_redundancy(self) -> None:
        with dw.open(self.path) as kernel:
            status = kernel.pool.status()
            text = f"redundancy {status.redundancy}; {'; '.join(status.advice) or 'nothing to do'}"
            self._prove("redundancy is full again", status.redundancy == "full", text)

    def _prove_pairs(self) -> None:
        """Take two drives away: one pair for a reading of everything, then every pair there is."""
        names = list(self.drives)
        first, last = names[0], names[-1]
        start = self._begin(f"taking {first} and {last} away and reading everything")
        with self._without(first, last), dw.open(self.path, read_only=True) as kernel:
            wrong = self._compare(kernel)
        self._step(
            f"take {first} and {last} away and read everything", start, amount=self.story.bytes
        )
        text = f"every file reads bit for bit with two other drives away, {first} and {last}"
        self._prove(text, not wrong, self._count(wrong))
        chance, counts, amount = random.Random(2), [], 0  # noqa: S311 - which files, not a secret
        pairs = list(itertools.combinations(names, 2))
        start = self._begin(f"taking each of the {len(pairs)} pairs of drives away")
        wrong = []
        for pair in pairs:
            files = _some(self.files, chance)
            with self._without(*pair), dw.open(self.path, read_only=True) as kernel:
                wrong += [f"{name} without {pair}" for name in self._differing(kernel, files)]
            counts.append(len(files))
            amount += sum(file.size for file in files)
        self._step("take each pair of drives away and read files", start, amount=amount)
        read = (
            f"all {len(self.files)} files"
            if min(counts) == len(self.files)
            else f"{min(counts)} files or more, chosen at random,"
        )
        self._prove(
            f"with any two of the {len(names)} drives away, files read bit for bit",
            not wrong and amount,
            f"{len(pairs)} pairs, {read} with each, {len(wrong)} wrong",
        )

    @contextlib.contextmanager
    def _without(self, *names: str) -> Iterator[None]:
        """Take drives away and bring them back."""
        paths = [self.drives[name] for name in names]
        for drive in paths:
            drive.rename(drive.with_suffix(".away"))
        try:
            yield
        finally:
            for drive in paths:
                drive.with_suffix(".away").rename(drive)

    def _kill(self) -> None:
        with dw.open(self.path) as kernel:
            kernel.containers.create("killed")
        seed = random.SystemRandom().randrange(1 << 30)
        start = self._begin("writing, and killing the writer")
        acknowledged, status = _kill_a_writer(self.path, seed)
        with dw.open(self.path) as kernel:
            found = {
                int(entry.name): kernel[entry.key]
                for entry in kernel.list("killed")
                if isinstance(entry, ObjectInfo)
            }
            wrong = [number for number, data in found.items() if data != content(seed, number)]
            missing = acknowledged - found.keys()
        more = len(found.keys() - acknowledged)
        killed = status == -signal.SIGKILL
        how = "killed" if killed else f"ended by itself with {status}"
        text = f"{how} after {len(acknowledged)} acknowledged puts (seed {seed})"
        self._step("kill -9 a writer, open again, compare", start, text=text)
        self._prove(
            "everything acknowledged before kill -9 is there",
            not missing and acknowledged and killed,
            f"{len(acknowledged) - len(missing)} of {len(acknowledged)} puts",
        )
        self._prove(
            "nothing else is there half",
            not wrong and killed,
            f"{more} more were written and not yet acknowledged, each whole",
        )


def _some(files: list[File], chance: random.Random) -> list[File]:
    """Choose files, of a size that every pair of drives can be tried with."""
    chosen: list[File] = []
    total = 0
    for file in chance.sample(files, len(files)):
        if not chosen or total + file.size <= _PAIR_BYTES:
            chosen.append(file)
            total += file.size
    return chosen


def _kill_a_writer(store: Path, seed: int) -> tuple[set[int], int]:
    """Start a writer, kill it with -9 after a random number of acknowledgements.

    Return what was acknowledged, and how the writer ended.
    """
    program = "from dwkernel.demo.writer import main; main()"
    command = [sys.executable, "-c", program, str(store), str(seed)]
    wanted = random.Random(seed).randrange(*_KILL_AFTER_ACKS)  # noqa: S311 - when, not what
    acknowledged: set[int] = set()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:  # noqa: S603 - our own module
        deadline = time.monotonic() + _KILL_TIMEOUT_S
        for line in writer.stdout or ():
            acknowledged.add(int(line))
            if len(acknowledged) == wanted or time.monotonic() > deadline:
                os.kill(writer.pid, signal.SIGKILL)
        return acknowledged, writer.wait()


def _machine(path: Path) -> dict[str, str]:
    usage = shutil.disk_usage(path)
    return {
        "dwkernel": dw.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": f"{processor()}, {os.cpu_count()} threads",
        "disk": f"{format_size(usage.free)} of {format_size(usage.total)} free",
        "when": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
    }
