"""Durable streams from Python: publishing, replay, consuming.

Limited, one by one, by how long a commit takes on the disk (64 threads share them) and by the
interpreter; in batches by the journal. DWK_BENCH_DIR says on which disk; else it is where temporary
files go.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import dwkernel as dw
from benches.duel import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dwkernel.bus import Stream

DATA = b"x" * 256
BATCH = 100


def rows() -> Iterator[Row]:
    """Measure on a store of three drives that survives the loss of one."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("DWK_BENCH_DIR")) as place:
        path = Path(place) / "store"
        with dw.open(path, drives=3, geometry="2+1", create=True) as kernel:
            stream = kernel.bus.stream("bench", subjects=["a"], create=True)
            yield row("stream: 256 bytes, 1 publisher", 300, singly(stream, 1, 300))
            yield row("stream: 256 bytes, 64 publishers", 19_200, singly(stream, 64, 300))
            for threads in (1, 4, 64):
                count = 1024 // threads
                what = f"stream: in batches of {BATCH}, {threads} publishers"
                yield row(what, BATCH * threads * count, batches(stream, threads, count))
            total = stream.status().messages
            yield row("stream: replay", total, lambda: sum(1 for _ in stream.replay()))
            yield row("consumer: fetch of 100 and ack", 20_000, consume(stream, 20_000))


def row(what: str, amount: int, run: Callable[[], object]) -> Row:
    """Run once: a stream grows, so no second run is like the first."""
    start = time.perf_counter()
    run()
    seconds = time.perf_counter() - start
    return Row(what, amount, {"dwkernel": seconds}, {"dwkernel": seconds}, unit="/s")


def singly(stream: Stream, threads: int, count: int) -> Callable[[], None]:
    def publish() -> None:
        for _ in range(count):
            stream.publish("a", DATA)

    return lambda: together(publish, threads)


def batches(stream: Stream, threads: int, count: int) -> Callable[[], None]:
    messages = [("a", DATA)] * BATCH

    def publish() -> None:
        for _ in range(count):
            stream.publish_many(messages)

    return lambda: together(publish, threads)


def together(work: Callable[[], None], threads: int) -> None:
    running = [threading.Thread(target=work) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()


def consume(stream: Stream, count: int) -> Callable[[], None]:
    consumer = stream.consumer("bench", create=True)

    def take() -> None:
        left = count
        while left > 0:
            for message in consumer.fetch(100, timeout=0):
                message.ack()
                left -= 1

    return take
