"""Jobs: from submitting to running, how many a second, progress, and what a long history costs.

Limited by commits, three for each job (submitted, begun, ended), and by the interpreter. On drives
in memory it is what jobs themselves cost; on a disk it is three syncs.
"""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dwkernel as dw
from benches.duel import Row
from dwkernel.jobs import JobsSection
from dwkernel.kernel import forget_memory_drives

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from dwkernel.jobs import JobContext

LATENCIES = 500
COUNT = 2000
THREADS = 16
UPDATES = 500_000
HISTORY = 10_000
DRIVES = [f"memory://jobs-{number}" for number in range(3)]


class Kind:
    """A kind that does what it was given."""

    def __init__(self, name: str, run: Callable[[JobContext], Any]) -> None:
        """Take what it does."""
        self.name = name
        self.run = run

    def validate(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Take any options."""
        return options


def rows() -> Iterator[Row]:
    """Measure in memory, and on the disk of temporary files."""
    with dw.open(drives=DRIVES, geometry="2+1", create=True) as kernel:
        yield from at_work(kernel, "in memory")
        yield progress(kernel)
    with (
        tempfile.TemporaryDirectory() as folder,
        dw.open(Path(folder) / "store", drives=3, create=True) as kernel,
    ):
        yield from at_work(kernel, "on disk")
    forget_memory_drives()
    yield from with_history()
    forget_memory_drives()


def at_work(kernel: dw.Kernel, where: str) -> Iterator[Row]:
    kernel.jobs.register(Kind("empty", lambda _: None))
    yield latency(kernel, where)
    yield submits(kernel, where, 1)
    yield submits(kernel, where, THREADS)
    yield work_off(kernel, where)


def latency(kernel: dw.Kernel, where: str) -> Row:
    """From the call of submit until the job's first line runs, one at a time on idle workers."""
    begun: list[float] = []
    kernel.jobs.register(Kind("stamp", lambda _: begun.append(time.perf_counter())))
    kernel.jobs.submit("stamp").wait("1min")
    begun.clear()
    taken, durable = [], []
    for _ in range(LATENCIES):
        start = time.perf_counter()
        job = kernel.jobs.submit("stamp")
        durable.append(time.perf_counter() - start)
        job.wait("1min")
        taken.append(begun.pop() - start)
    taken.sort()
    durable.sort()
    middle, late, own = taken[LATENCIES // 2], taken[LATENCIES * 99 // 100], durable[LATENCIES // 2]
    text = f"jobs {where}: from submit to the job's first line {middle * 1e3:.2f} ms, 99th"
    text += f" percentile {late * 1e3:.2f} ms (submit itself {own * 1e3:.2f} ms)"
    return Row(text, 1, {"dwkernel": middle}, {"dwkernel": taken[0]}, unit="/s")


def submits(kernel: dw.Kernel, where: str, threads: int) -> Row:
    """Write jobs down, and take them back."""
    kernel.jobs.pause()

    def submit() -> None:
        for _ in range(COUNT // threads):
            kernel.jobs.submit("empty", start=False)

    workers = [threading.Thread(target=submit) for _ in range(threads)]
    start = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    taken = time.perf_counter() - start
    for job in kernel.jobs.list():
        job.cancel()
    kernel.jobs.resume()
    return rate(f"{where}: submits from {threads} threads", COUNT, taken)


def work_off(kernel: dw.Kernel, where: str) -> Row:
    """Run what waits, of a kind that does nothing."""
    kernel.jobs.pause()
    waiting = [kernel.jobs.submit("empty", start=False) for _ in range(COUNT)]
    start = time.perf_counter()
    kernel.jobs.resume()
    for job in waiting:
        job.wait("5min")
    taken = time.perf_counter() - start
    return rate(f"{where}: jobs that do nothing, two workers", COUNT, taken)


def progress(kernel: dw.Kernel) -> Row:
    """Tell progress all the time."""
    took: list[float] = []

    def tell(context: JobContext) -> None:
        start = time.perf_counter()
        for number in range(UPDATES):
            context.progress(number, UPDATES)
            context.check()
        took.append(time.perf_counter() - start)

    kernel.jobs.register(Kind("tell", tell))
    kernel.jobs.submit("tell").wait("5min")
    return rate("progress told and stop looked at, one job", UPDATES, took[0])


def with_history() -> Iterator[Row]:
    """Open a store that remembers many jobs, as a program does that submits one."""
    section = JobsSection(keep_count=2 * HISTORY, workers=4)
    config = {"jobs": {"keep_count": 2 * HISTORY}}
    with dw.open(drives=DRIVES, geometry="2+1", create=True):
        pass
    yield first_job(config, 0)
    with dw.open(drives=DRIVES) as kernel:
        kernel.jobs.register(Kind("empty", lambda _: None))
        kernel.jobs.apply(section)
        waiting = [kernel.jobs.submit("empty") for _ in range(HISTORY)]
        for job in waiting:
            job.wait("5min")
    yield first_job(config, HISTORY)
    with dw.open(drives=DRIVES, config=config) as kernel:
        start = time.perf_counter()
        assert len(kernel.jobs.history(50)) == 50
        first = time.perf_counter() - start
        start = time.perf_counter()
        kernel.jobs.history(50)
        again = time.perf_counter() - start
    text = f"jobs: the last 50 of {HISTORY:,} finished ones {first * 1e3:.0f} ms"
    text += f", again {again * 1e3:.1f} ms"
    yield Row(text, 1, {"dwkernel": first}, {"dwkernel": again}, unit="/s")


def first_job(config: dict[str, Any], history: int) -> Row:
    taken = []
    for _ in range(5):
        start = time.perf_counter()
        with dw.open(drives=DRIVES, config=config) as kernel:
            kernel.jobs.register(Kind("empty", lambda _: None))
            kernel.jobs.submit("empty").wait("1min")
            taken.append(time.perf_counter() - start)
    taken.sort()
    text = f"jobs: opening a store that remembers {history:,} jobs, until a first one has run"
    text += f"; {taken[2] * 1e3:.0f} ms"
    return Row(text, 1, {"dwkernel": taken[2]}, {"dwkernel": taken[0]}, unit="/s")


def rate(what: str, count: int, taken: float) -> Row:
    text = f"jobs {what}; {count / taken:,.0f}/s"
    return Row(text, count, {"dwkernel": taken}, {"dwkernel": taken}, unit="/s")
