"""`dwkernel bench`: a store beside plain files, on the same disk, in the same run.

Every measurement of the store has a twin of plain system calls, and both run in turn, so that what
else the machine does hits both. Ratios come first: above 1 the store is faster.
"""

from __future__ import annotations

import contextlib
import os
import platform
import queue
import random
import shutil
import statistics
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import dwkernel as dw
from dwkernel.reports import Report
from dwkernel.units import format_size, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dwkernel.kernel import Kernel
    from dwkernel.units import Size

__all__ = ["Measurement", "Result", "page", "run"]

GEOMETRY = "4+2"
DRIVES = 6
# What is stored for each byte of content.
_FACTOR = 1.5
_ROUNDS = 3
_PIECE_BYTES = 4 << 20
_COPY_BYTES = 1 << 20
_DATA = 4
_SMALL_BYTES = 1024
_WRITERS = 64
# The journal of 4+2 is kept on three drives: so many files does the raw loop write to.
_LOGS = 3
_LOG_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Measurement(Report):
    """The store beside plain files, in one figure each.

    Attributes:
        name: what was measured.
        store: the median of the store.
        plain: the median of plain files.
        unit: `"B/s"` or `"puts/s"`.
        plainly: what the plain twin does.

    """

    name: str
    store: float
    plain: float
    unit: str
    plainly: str

    @property
    def ratio(self) -> float:
        """How many times as fast the store is."""
        return self.store / self.plain if self.plain else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"ratio": round(self.ratio, 3), **Report.to_dict(self)}

    def shown(self, value: float) -> str:
        """Return one of its figures for people."""
        return f"{format_size(int(value))}/s" if self.unit == "B/s" else f"{value:,.0f} {self.unit}"


@dataclass(frozen=True, slots=True)
class Result(Report):
    """What was measured, and on what."""

    machine: dict[str, str]
    measurements: list[Measurement] = field(default_factory=list)

    def __str__(self) -> str:
        """Print a table, ratios first."""
        lines = [" · ".join(f"{name} {value}" for name, value in self.machine.items())]
        lines.append(f"{'ratio':>6}  {'what':<28} {'store':>16} {'plain':>16}  beside")
        lines += [
            f"{one.ratio:>5.2f}x  {one.name:<28} {one.shown(one.store):>16} "
            f"{one.shown(one.plain):>16}  {one.plainly}"
            for one in self.measurements
        ]
        return "\n".join(lines)


def run(
    path: Path,
    *,
    size: Size = "256 MiB",
    seconds: float = 2.0,
    say: Callable[[str], object] = print,
) -> Result:
    """Measure in a new directory under `path`, which is removed at the end.

    Args:
        path: a directory on the file system to measure.
        size: of the large file.
        seconds: for each measurement of small puts.
        say: told what is being measured.

    """
    path.mkdir(parents=True, exist_ok=True)
    result = Result(_machine(path))
    with tempfile.TemporaryDirectory(prefix="dwkernel-bench-", dir=path) as made:
        place = Path(made)
        large = place / "large"
        size_bytes = parse_size(size)
        _write_random(large, size_bytes)
        with dw.open(place / "store", drives=DRIVES, geometry=GEOMETRY, create=True) as kernel:
            kernel.containers.create("bench")
            for measure in (_put, _get, _get_cold, _rebuild):
                say(f"{measure.__name__.strip('_')} of {format_size(size_bytes)}")
                result.measurements.append(measure(kernel, place, large))
            for writers in (1, _WRITERS):
                say(f"{format_size(_SMALL_BYTES)} puts, {writers} at a time")
                result.measurements.append(_small(kernel, place, writers, seconds))
    return result


def _write_random(path: Path, size: int) -> None:
    chance = random.Random(1)  # noqa: S311 - test data
    block = chance.randbytes(_PIECE_BYTES)
    with path.open("wb", buffering=0) as file:
        for start in range(0, size, _PIECE_BYTES):
            # No two pieces are equal, and none costs a new draw.
            turn = (start // _PIECE_BYTES * 4099) % _PIECE_BYTES
            piece = block[turn:] + block[:turn]
            file.write(piece[: min(_PIECE_BYTES, size - start)])
        os.fsync(file.fileno())


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@dataclass(frozen=True, slots=True)
class _Work:
    """What is measured, and what is done before it."""

    run: Callable[[], object]
    before: Callable[[], object] = lambda: None


def _rounds(store: _Work, plain: _Work, amount: float) -> tuple[float, float]:
    """Run both in turn and return the medians of their rates."""
    rates: tuple[list[float], list[float]] = ([], [])
    for _ in range(_ROUNDS):
        for figures, work in zip(rates, (store, plain), strict=True):
            work.before()
            figures.append(amount / _timed(work.run))
    return statistics.median(rates[0]), statistics.median(rates[1])


def _put(kernel: Kernel, place: Path, large: Path) -> Measurement:
    size = large.stat().st_size
    target = place / "plain"

    def plain() -> None:
        # The same total as the store writes, parity included.
        with large.open("rb", buffering=0) as source, target.open("wb", 0) as file:
            left = int(size * _FACTOR)
            while left:
                piece = source.read(min(_PIECE_BYTES, left))
                if not piece:
                    source.seek(0)
                left -= file.write(piece)
            os.fsync(file.fileno())

    store = _Work(lambda: kernel.put("bench/large", large))
    figures = _rounds(store, _Work(plain, lambda: target.unlink(missing_ok=True)), size)
    return Measurement("put", *figures, "B/s", "one file of 1.5 times the size, one fsync")


def _get(kernel: Kernel, place: Path, large: Path) -> Measurement:
    store, plain = _copies(kernel, place, large)
    store()
    plain()
    forget = (place / "out").unlink
    figures = _rounds(_Work(store, forget), _Work(plain, forget), large.stat().st_size)
    return Measurement("get, warm", *figures, "B/s", "copying the file out")


def _get_cold(kernel: Kernel, place: Path, large: Path) -> Measurement:
    def forget() -> None:
        (place / "out").unlink(missing_ok=True)
        _evict(place)

    store, plain = (_Work(copy, forget) for copy in _copies(kernel, place, large))
    return Measurement(
        "get, cold", *_rounds(store, plain, large.stat().st_size), "B/s", "copying the file out"
    )


def _copies(kernel: Kernel, place: Path, large: Path) -> tuple[Callable[[], None], ...]:
    """Return the two ways to copy the large file out: from the store, and as a plain file."""

    # Each in the way that is fastest for it.
    def store() -> None:
        with kernel.get("bench/large") as reader, (place / "out").open("wb", 0) as target:
            shutil.copyfileobj(reader, target, _COPY_BYTES)

    def plain() -> None:
        buffer = memoryview(bytearray(_COPY_BYTES))
        with large.open("rb", buffering=0) as source, (place / "out").open("wb", 0) as target:
            while count := source.readinto(buffer):
                target.write(buffer[:count])

    return store, plain


def _evict(place: Path) -> None:
    """Take what lies there out of the page cache, where the system has a call for that."""
    if not hasattr(os, "posix_fadvise"):
        return
    for file in place.rglob("*"):
        if file.is_file() and file.stat().st_size:
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _rebuild(kernel: Kernel, place: Path, large: Path) -> Measurement:
    """Replace a drive; beside it what cannot be saved: read k drives, write one, all at once."""
    del large
    rates: tuple[list[float], list[float]] = ([], [])
    for number in range(_ROUNDS):
        old = kernel.pool.status().drives[0]
        amount = old.used_bytes
        shards = [place / f"plain-{shard}" for shard in range(_DATA)]
        for shard in shards:
            _write_random(shard, amount)
        _evict(place)
        new = place / "store" / f"new-{number}"
        rates[0].append(amount / _timed(lambda: kernel.pool.replace(old.id, new)))  # noqa: B023
        _evict(place)
        rates[1].append(amount / _timed(lambda: _ideal(shards, place / "shard", amount)))  # noqa: B023
    figures = statistics.median(rates[0]), statistics.median(rates[1])
    beside = f"reading {_DATA} shards and writing 1 at the same time"
    return Measurement("rebuild of a drive", *figures, "B/s", beside)


def _ideal(shards: list[Path], target: Path, amount: int) -> None:
    def read(shard: Path) -> None:
        buffer = memoryview(bytearray(1 << 20))
        with shard.open("rb", 0) as source:
            while source.readinto(buffer):
                pass

    def write() -> None:
        block = memoryview(random.Random(3).randbytes(1 << 20))  # noqa: S311 - test data
        with target.open("wb", 0) as file:
            left = amount
            while left > 0:
                left -= file.write(block[: min(left, len(block))])
            os.fsync(file.fileno())

    with ThreadPoolExecutor(len(shards) + 1) as pool:
        jobs = [pool.submit(read, shard) for shard in shards] + [pool.submit(write)]
        for job in jobs:
            job.result()


def _small(kernel: Kernel, place: Path, writers: int, seconds: float) -> Measurement:
    data = random.Random(2).randbytes(_SMALL_BYTES)  # noqa: S311 - test data

    def store(stop: threading.Event) -> int:
        def work(writer: int) -> int:
            count = 0
            while not stop.is_set():
                kernel.put(f"bench/small-{writer}-{count}", data)
                count += 1
            return count

        with ThreadPoolExecutor(writers) as pool:
            return sum(pool.map(work, range(writers)))

    rates: tuple[list[float], list[float]] = ([], [])
    with _Logs(place) as logs:
        for _ in range(_ROUNDS):
            for figures, work in zip(rates, (store, logs.run), strict=True):
                figures.append(_counted(work, seconds / _ROUNDS))
    medians = statistics.median(rates[0]), statistics.median(rates[1])
    name = "1 KiB puts, 1 writer" if writers == 1 else f"1 KiB puts, {writers} writers"
    beside = f"4 KiB onto {_LOGS} zeroed files side by side, fdatasync on each, one after the other"
    return Measurement(name, *medians, "puts/s", beside)


def _counted(work: Callable[[threading.Event], int], seconds: float) -> float:
    stop = threading.Event()
    timer = threading.Timer(seconds, stop.set)
    timer.start()
    start = time.perf_counter()
    count = work(stop)
    return count / (time.perf_counter() - start)


class _Logs:
    """Zeroed files, each with a thread that writes to it and syncs it when it is told to."""

    def __init__(self, place: Path) -> None:
        self._told = [queue.SimpleQueue[int | None]() for _ in range(_LOGS)]
        self._done = queue.SimpleQueue[None]()
        self._threads = [
            threading.Thread(target=self._serve, args=(place / f"log-{n}", told))
            for n, told in enumerate(self._told)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for told in self._told:
            told.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self, path: Path, told: queue.SimpleQueue[int | None]) -> None:
        block = bytes(4096)
        with path.open("wb", 0) as file:
            file.write(bytes(_LOG_BYTES))
            os.fsync(file.fileno())
            sync = getattr(os, "fdatasync", os.fsync)
            while (number := told.get()) is not None:
                file.seek(number * len(block) % _LOG_BYTES)
                file.write(block)
                sync(file.fileno())
                self._done.put(None)

    def run(self, stop: threading.Event) -> int:
        """Write to all of them, wait for all of them, and so on; return how often."""
        count = 0
        while not stop.is_set():
            for told in self._told:
                told.put(count)
            for _ in self._told:
                self._done.get()
            count += 1
        return count


def _machine(path: Path) -> dict[str, str]:
    return {
        "dwkernel": dw.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": f"{processor()}, {os.cpu_count()} threads",
        "geometry": f"{GEOMETRY} on {DRIVES} directories of one file system",
        "free": format_size(shutil.disk_usage(path).free),
        "when": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
    }


def processor() -> str:
    """Return the processor's name, or the machine's kind where it has none."""

    def lines() -> Iterator[str]:
        with contextlib.suppress(OSError):
            info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
            yield from (line for line in info.splitlines() if line.startswith("model name"))

    return next((line.split(":", 1)[1].strip() for line in lines()), platform.machine())


def page(result: Result) -> str:
    """Return an HTML page with the plot."""
    from dwkernel.demo import page as pages  # noqa: PLC0415 - only for who wants a page
    from dwkernel.demo import svg  # noqa: PLC0415

    bars = [
        svg.Bar(one.name, one.ratio, f"{one.ratio:.2f} x", "good" if one.ratio >= 1 else "data")
        for one in result.measurements
    ]
    rows = "".join(
        f'<tr><td>{one.name}<small>beside {one.plainly}</small></td><td class="n">'
        f'{one.ratio:.2f} x</td><td class="n">{one.shown(one.store)}</td>'
        f'<td class="n">{one.shown(one.plain)}</td></tr>'
        for one in result.measurements
    )
    table = (
        '<table><thead><tr><th>what</th><th class="n">ratio</th><th class="n">store</th>'
        f'<th class="n">plain files</th></tr></thead><tbody>{rows}</tbody></table>'
    )
    machine = " · ".join(f"{name} {value}" for name, value in result.machine.items())
    body = (
        "<h1>A store beside plain files</h1>"
        '<p class="lead">Both run in turn on the same disk. Above 1 the store is faster, with two '
        "of six drives to lose and every byte verified.</p>"
        + pages.section("Ratios", "", svg.bars(bars, "ratios", label_width=230))
        + pages.section("Figures", "", table)
        + f"<footer>{machine}</footer>"
    )
    return pages.document("dwkernel bench", body)
