"""`dwkernel bench`: a store beside plain files, on the same disk, in the same run.

Every measurement of the store has a twin of plain system calls, and both run in turn, so that what
else the machine does hits both. Ratios come first: above 1 the store is faster.
"""

from __future__ import annotations

import contextlib
import os
import platform
import random
import shutil
import statistics
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
_SMALL_BYTES = 1024
_WRITERS = 64
# The journal of 4+2 is kept on three drives: so many files does the raw loop append to.
_LOGS = 3


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
            for measure in (_put, _get, _rebuild):
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


def _rounds(
    store: Callable[[int], object], plain: Callable[[int], object], amount: float
) -> tuple[float, float]:
    """Run both in turn and return the medians of their rates."""
    stores, plains = [], []
    for number in range(_ROUNDS):
        stores.append(amount / _timed(lambda: store(number)))  # noqa: B023 - called at once
        plains.append(amount / _timed(lambda: plain(number)))  # noqa: B023
    return statistics.median(stores), statistics.median(plains)


def _put(kernel: Kernel, place: Path, large: Path) -> Measurement:
    size = large.stat().st_size

    def plain(_: int) -> None:
        # The same total as the store writes, parity included.
        with large.open("rb", buffering=0) as source, (place / "plain").open("wb", 0) as target:
            left = int(size * _FACTOR)
            while left:
                piece = source.read(min(_PIECE_BYTES, left))
                if not piece:
                    source.seek(0)
                left -= target.write(piece)
            os.fsync(target.fileno())

    figures = _rounds(lambda _: kernel.put("bench/large", large), plain, size)
    return Measurement("put", *figures, "B/s", "one file of 1.5 times the size, one fsync")


def _get(kernel: Kernel, place: Path, large: Path) -> Measurement:
    size = large.stat().st_size

    def store(_: int) -> None:
        with kernel.get("bench/large") as reader, (place / "out").open("wb", 0) as target:
            _pump(reader.readinto, target)

    def plain(_: int) -> None:
        with large.open("rb", buffering=0) as source, (place / "out").open("wb", 0) as target:
            _pump(source.readinto, target)

    figures = _rounds(store, plain, size)
    return Measurement("get, warm", *figures, "B/s", "copying the file out")


def _pump(readinto: Callable[[memoryview], int | None], target: Any) -> None:
    buffer = memoryview(bytearray(_PIECE_BYTES))
    while count := readinto(buffer):
        target.write(buffer[:count])


def _rebuild(kernel: Kernel, place: Path, large: Path) -> Measurement:
    """Replace each of three drives in turn; beside it what cannot be saved: read k, write one."""
    del large
    amounts = []

    def store(number: int) -> None:
        old = kernel.pool.status().drives[0]
        amounts.append(old.used_bytes)
        kernel.pool.replace(old.id, place / "store" / f"new-{number}")

    def plain(number: int) -> None:
        amount = amounts[number]
        with (place / "plain").open("rb", 0) as source, (place / "shard").open("wb", 0) as target:
            buffer = memoryview(bytearray(_PIECE_BYTES))
            for _ in range(4):
                source.seek(0)
                left = amount
                while left > 0 and (count := source.readinto(buffer)):
                    left -= count
            left = amount
            while left > 0:
                left -= target.write(buffer[: min(left, _PIECE_BYTES)])
            os.fsync(target.fileno())

    stores, plains = [], []
    for number in range(_ROUNDS):
        took = _timed(lambda: store(number))  # noqa: B023 - called at once
        stores.append(amounts[number] / took)
        plains.append(amounts[number] / _timed(lambda: plain(number)))  # noqa: B023
    figures = statistics.median(stores), statistics.median(plains)
    return Measurement("rebuild of a drive", *figures, "B/s", "reading 4 shards, writing 1")


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

    figures: tuple[list[float], list[float]] = ([], [])
    with contextlib.ExitStack() as stack:
        logs = [stack.enter_context((place / f"log-{n}").open("ab", 0)) for n in range(_LOGS)]
        for _ in range(_ROUNDS):
            for rates, work in zip(figures, (store, lambda stop: _append(logs, stop)), strict=True):
                rates.append(_counted(work, seconds / _ROUNDS))
    medians = statistics.median(figures[0]), statistics.median(figures[1])
    name = "1 KiB puts, 1 writer" if writers == 1 else f"1 KiB puts, {writers} writers"
    return Measurement(name, *medians, "puts/s", f"appending to {_LOGS} files, fdatasync on each")


def _counted(work: Callable[[threading.Event], int], seconds: float) -> float:
    stop = threading.Event()
    timer = threading.Timer(seconds, stop.set)
    timer.start()
    start = time.perf_counter()
    count = work(stop)
    return count / (time.perf_counter() - start)


def _append(logs: list[Any], stop: threading.Event) -> int:
    """Append 4 KiB to every log and sync them side by side, one after the other in time."""
    block = bytes(4096)

    def one(log: Any) -> None:
        log.write(block)
        os.fdatasync(log.fileno())

    count = 0
    with ThreadPoolExecutor(len(logs)) as pool:
        while not stop.is_set():
            list(pool.map(one, logs))
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
