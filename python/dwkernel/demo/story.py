"""What the demo does, step by step, and what it proves."""

from __future__ import annotations

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
from dwkernel.reports import Report
from dwkernel.units import format_duration, format_size, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable

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
    """What the demo did and proved."""

    report: str
    files: int = 0
    bytes: int = 0
    steps: list[Step] = field(default_factory=list)
    proofs: list[Proof] = field(default_factory=list)
    capacity: list[tuple[str, int, int]] = field(default_factory=list)
    machine: dict[str, str] = field(default_factory=dict)

    @property
    def proved(self) -> bool:
        """Whether everything held."""
        return bool(self.proofs) and all(proof.held for proof in self.proofs)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {**Report.to_dict(self), "proved": self.proved}

    def __str__(self) -> str:
        """Print for people."""
        marks = {True: "proved", False: "NOT TRUE"}
        lines = [f"{marks[proof.held]}: {proof.claim} ({proof.text})" for proof in self.proofs]
        return "\n".join([*lines, f"report: {self.report}"])


def run(
    path: Path,
    *,
    sources: list[Path] | None = None,
    limit: str | None = None,
    report: Path = Path("demo-report.html"),
    say: Callable[[str], object] = print,
) -> Story:
    """Tell the whole story at `path`, which is emptied first, and write the page.

    Raises:
        Exists: `store.exists`: there is something at `path` that no demo made

    """
    _make_place(path)
    teller = _Teller(path.resolve(), Story(str(report.resolve())), say)
    teller.tell(sources or trees.default_trees(), parse_size(limit) if limit else None)
    report.write_text(page.render(teller.story, teller.maps), encoding="utf-8")
    return teller.story


def _make_place(path: Path) -> None:
    marker = path / ".dwkernel-demo"
    if path.exists() and any(path.iterdir()) and not marker.exists():
        raise errors.new("store.exists", f"{path} holds something that no demo made", path=path)
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    marker.touch()


class _Teller:
    """Does the steps in order; each finds what the ones before left."""

    def __init__(self, path: Path, story: Story, say: Callable[[str], object]) -> None:
        self.path = path
        self.story = story
        self.say = say
        self.maps: list[tuple[str, ShardMap]] = []
        self.files: list[File] = []
        self.drives = {f"d{n}": path / f"d{n}" for n in range(1, DRIVES + 1)}

    def tell(self, sources: list[Path], limit: int | None) -> None:
        self.story.machine = _machine(self.path)
        self._collect(sources, limit)
        self._store()
        self._look("before")
        self._harm()
        self._read_degraded()
        self._rebuild()
        self._look("after")
        self._prove_redundancy()
        self._kill()

    def _step(self, name: str, start: float, *, amount: int = 0, text: str = "") -> None:
        step = Step(name, time.perf_counter() - start, amount, text)
        self.story.steps.append(step)
        rate = f", {format_size(int(step.rate))}/s" if step.rate else ""
        self.say(f"{name}: {format_duration(step.seconds)}{rate}{'  ' + text if text else ''}")

    def _prove(self, claim: str, held: object, text: str) -> None:
        self.story.proofs.append(Proof(claim, bool(held), text))
        self.say(f"  {'proved' if held else 'NOT TRUE'}: {claim} ({text})")

    def _collect(self, sources: list[Path], limit: int | None) -> None:
        start = time.perf_counter()
        room = int(shutil.disk_usage(self.path).free / _ROOM_FACTOR)
        self.files = trees.collect(sources, min(room, limit or room))
        self.story.files = len(self.files)
        self.story.bytes = sum(file.size for file in self.files)
        text = f"{len(self.files)} files, {format_size(self.story.bytes)}"
        self._step(
            "read the originals and take their digests", start, amount=self.story.bytes, text=text
        )

    def _store(self) -> None:
        start = time.perf_counter()
        kernel = dw.open(self.path, drives=DRIVES, geometry=GEOMETRY, create=True)
        with kernel:
            kernel.containers.create(_CONTAINER)
            self._step(f"create a store of {DRIVES} drives at {GEOMETRY}", start)
            start = time.perf_counter()
            with ThreadPoolExecutor(THREADS) as pool:
                list(pool.map(lambda file: self._put(kernel, file), self.files))
            self._step("store every file", start, amount=self.story.bytes)
            start = time.perf_counter()
            wrong = self._compare(kernel)
            self._step("read everything back", start, amount=self.story.bytes)
            self._prove("every file reads back bit for bit", not wrong, self._count(wrong))
            status = kernel.pool.status()
            self.story.capacity = [
                (drive.id, drive.used_bytes, drive.capacity_bytes) for drive in status.drives
            ]

    @staticmethod
    def _put(kernel: Kernel, file: File) -> None:
        kernel.put(f"{_CONTAINER}/{file.name}", file.path)

    def _compare(self, kernel: Kernel) -> list[str]:
        """Read every object and return the names of those that are not what their file was."""

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
            wrong = [name for name in pool.map(differs, self.files) if name]
        listed = {entry.key for entry in kernel.list(_CONTAINER)}
        expected = {f"{_CONTAINER}/{file.name}" for file in self.files}
        return wrong + sorted(listed ^ expected)

    def _count(self, wrong: list[str]) -> str:
        right = len(self.files) - len(wrong)
        return f"{right} of {len(self.files)} files, {format_size(self.story.bytes)}"

    def _look(self, when: str, damaged: frozenset[tuple[str, str]] = frozenset()) -> None:
        self.maps.append((when, shards.look(self.drives, damaged)))

    def _harm(self) -> None:
        start = time.perf_counter()
        shutil.rmtree(self.drives[_LOST])
        stripes, flipped = shards.flip(self.drives[_HARMED], share=_HARMED_SHARE, seed=1)
        text = f"{_LOST} deleted, {flipped} bytes flipped in {len(stripes)} shards of {_HARMED}"
        self._step("delete one drive and damage another", start, text=text)
        self._look("during", frozenset((_HARMED, stripe) for stripe in stripes))

    def _read_degraded(self) -> None:
        start = time.perf_counter()
        with dw.open(self.path) as kernel:
            state = kernel.pool.status()
            wrong = self._compare(kernel)
            self._step("read everything with the damage", start, amount=self.story.bytes)
            self._prove(
                "every file reads bit for bit with one drive gone and another damaged",
                not wrong,
                self._count(wrong),
            )
            self._prove(
                "the loss is noticed and said",
                state.redundancy == "degraded" and state.drive(_LOST).state == "missing",
                f"redundancy {state.redundancy}, {_LOST} {state.drive(_LOST).state}",
            )

    def _rebuild(self) -> None:
        with dw.open(self.path) as kernel:
            start = time.perf_counter()
            lost = self.maps[0][1].bytes[_LOST]
            self.drives[_LOST] = self.path / _SPARE_NAME
            report = kernel.pool.replace(_LOST, self.drives[_LOST])
            self._step(f"rebuild {_LOST} onto a new drive", start, amount=lost, text=str(report))
            start = time.perf_counter()
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
        away = [self.path / name for name in ("d1", "d6")]
        for drive in away:
            drive.rename(drive.with_suffix(".away"))
        start = time.perf_counter()
        try:
            with dw.open(self.path, read_only=True) as kernel:
                wrong = self._compare(kernel)
        finally:
            for drive in away:
                drive.with_suffix(".away").rename(drive)
        self._step("take two other drives away and read everything", start, amount=self.story.bytes)
        self._prove("after the rebuild any two other drives may go", not wrong, self._count(wrong))

    def _kill(self) -> None:
        with dw.open(self.path) as kernel:
            kernel.containers.create("killed")
        seed = random.SystemRandom().randrange(1 << 30)
        start = time.perf_counter()
        acknowledged = _kill_a_writer(self.path, seed)
        with dw.open(self.path) as kernel:
            found = {
                int(entry.name): kernel[entry.key]
                for entry in kernel.list("killed")
                if isinstance(entry, ObjectInfo)
            }
            wrong = [number for number, data in found.items() if data != content(seed, number)]
            missing = acknowledged - found.keys()
        more = len(found.keys() - acknowledged)
        text = f"killed after {len(acknowledged)} acknowledged puts (seed {seed})"
        self._step("kill -9 a writer, open again, compare", start, text=text)
        self._prove(
            "everything acknowledged before kill -9 is there",
            not missing and acknowledged,
            f"{len(acknowledged) - len(missing)} of {len(acknowledged)} puts",
        )
        self._prove(
            "nothing else is there half",
            not wrong,
            f"{more} more were written and not yet acknowledged, each whole",
        )


def _kill_a_writer(store: Path, seed: int) -> set[int]:
    """Start a writer, kill it with -9 after a random number of acknowledgements, return them."""
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
        writer.wait()
    return acknowledged


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
