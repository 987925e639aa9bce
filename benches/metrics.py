"""What metrics cost: snapshots, their text, and publishing while somebody scrapes each second.

Limited by the interpreter: it makes a Python object of each figure, and holds the GIL meanwhile.
"""

from __future__ import annotations

import statistics
import threading
import time
from typing import TYPE_CHECKING

import dwkernel as dw
from benches.duel import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STREAMS, CONSUMERS, SUBSCRIPTIONS = 100, 10, 1000
DATA = b"x" * 256
ROUNDS = 7
SECONDS = 2.2


def rows() -> Iterator[Row]:
    """Measure on drives in memory: what metrics ask is in memory everywhere."""
    drives = [f"memory://bench-metrics-{number}" for number in range(3)]
    with dw.open(drives=drives, geometry="2+1", create=True) as kernel:
        kept = list(filled(kernel))
        figures = sum(len(family.samples) for family in kernel.metrics().families)
        what = f"{STREAMS} streams with {CONSUMERS} consumers each, {len(kept)} subscriptions"
        yield row(f"metrics: a snapshot, {figures:,} figures, {what}", kernel.metrics)
        yield row("metrics: its text", kernel.metrics().openmetrics)
        yield beside(kernel)


def filled(kernel: dw.Kernel) -> Iterator[object]:
    for number in range(STREAMS):
        name = f"s{number}"
        stream = kernel.bus.stream(name, subjects=[name], max_messages=5000, create=True)
        stream.publish_many([(name, DATA)] * 100)
        for consumer in range(CONSUMERS):
            stream.consumer(f"c{consumer}", create=True)
    for number in range(SUBSCRIPTIONS):
        yield kernel.bus.subscribe(f"t{number}")


def row(what: str, run: Callable[[], object]) -> Row:
    took = []
    for _ in range(5 * ROUNDS):
        start = time.perf_counter()
        run()
        took.append(time.perf_counter() - start)
    seconds = {"dwkernel": statistics.median(took)}
    return Row(what, 1, seconds, {"dwkernel": min(took)}, unit="/s")


def beside(kernel: dw.Kernel) -> Row:
    """Publish in turns with and without a snapshot each second."""
    pairs = [
        (publishing(kernel, scraped=True), publishing(kernel, scraped=False))
        for _ in range(ROUNDS + 1)
    ]
    # Of two that follow each other: the machine's mood is the same. The first two warm up.
    ratio = statistics.median(scraped / alone for scraped, alone in pairs[1:])
    alone_s = statistics.median(alone for _, alone in pairs[1:])
    seconds = {"dwkernel": alone_s * ratio, "nobody scrapes": alone_s}
    return Row("publishing while a snapshot is taken each second", 1, seconds, seconds, unit="/s")


def publishing(kernel: dw.Kernel, *, scraped: bool) -> float:
    """Return how long a publish took on average."""
    stream, done = kernel.bus.stream("s0"), threading.Event()

    def scrape() -> None:
        while not done.wait(1.0):
            kernel.metrics()

    scraping = threading.Thread(target=scrape)
    if scraped:
        scraping.start()
    count, start = 0, time.monotonic()
    while time.monotonic() - start < SECONDS:
        stream.publish("s0", DATA)
        count += 1
    took = time.monotonic() - start
    done.set()
    if scraped:
        scraping.join()
    return took / count
