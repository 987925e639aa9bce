"""BoundedQueue against the standard library's queues, between the threads of one process.

Limited by the interpreter: one of these threads runs at a time. With a bound the two sides have to
change places each time the queue is full or empty; SimpleQueue is unbounded and never has to.
"""

from __future__ import annotations

import queue
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from benches.duel import Row, duel
from dwkernel.queue import BoundedQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CAPACITY = 1024
# With more room the two sides change places less often.
ROOMY = 4096
# So many that starting eight threads, and the turns that they begin with, do not count.
COUNT = 1_000_000
BATCH = 64
ROUND_TRIPS = 300

MAKERS: dict[str, Callable[[], Any]] = {
    "dwkernel": partial(BoundedQueue, CAPACITY),
    "SimpleQueue": queue.SimpleQueue,
    "queue.Queue": partial(queue.Queue, CAPACITY),
}
GOALS = {"SimpleQueue": 0.8, "queue.Queue": 10.0}


def rows() -> Iterator[Row]:
    """Measure items singly, in batches, and round trips."""
    yield compare("items through a queue, one thread", alone, GOALS)
    yield compare("items through a queue, 1 producer and 1 consumer", partial(threads, 1), GOALS)
    yield compare("items through a queue, 4 producers and 4 consumers", partial(threads, 4), GOALS)
    yield batches("one thread", alone_in_batches, alone)
    between = "1 producer and 1 consumer"
    yield batches(between, threads_in_batches, partial(threads, 1))
    yield batches(between, threads_in_batches, partial(threads, 1), capacity=ROOMY)
    # A round trip may take 1.5 times as long.
    yield compare("round trips between two threads", round_trips, {"SimpleQueue": 1 / 1.5})


def compare(what: str, run: Callable[[Any], int], goals: dict[str, float]) -> Row:
    contenders: dict[str, Callable[[], object]] = {
        name: partial(on_new, run, make) for name, make in MAKERS.items()
    }
    row = duel(what, ROUND_TRIPS if run is round_trips else COUNT, contenders, goals)
    row.unit = "/s"
    return row


def batches(
    what: str,
    ours: Callable[[Any], int],
    theirs: Callable[[Any], int],
    *,
    capacity: int = CAPACITY,
) -> Row:
    contenders: dict[str, Callable[[], object]] = {
        "dwkernel": partial(on_new, ours, partial(BoundedQueue, capacity)),
        "SimpleQueue": partial(on_new, theirs, MAKERS["SimpleQueue"]),
    }
    what = (
        f"items through a queue of {capacity:,} in batches of {BATCH}, {what}; the peer one by one"
    )
    row = duel(what, COUNT, contenders, {"SimpleQueue": 5.0})
    row.unit = "/s"
    return row


def on_new(run: Callable[[Any], int], make: Callable[[], Any]) -> int:
    return run(make())


def alone(through: Any) -> int:
    put, get = through.put, through.get
    for _ in range(COUNT // 500):
        for item in range(500):
            put(item)
        for _item in range(500):
            get()
    return COUNT


def alone_in_batches(through: Any) -> int:
    items = list(range(BATCH))
    for _ in range(COUNT // BATCH):
        through.put_many(items)
        through.get_many(BATCH)
    return COUNT


def threads(pairs: int, through: Any) -> int:
    def produce() -> None:
        put = through.put
        for item in range(COUNT // pairs):
            put(item)

    def consume() -> None:
        get = through.get
        for _ in range(COUNT // pairs):
            get()

    return in_threads([produce, consume] * pairs)


def threads_in_batches(through: Any) -> int:
    items = list(range(BATCH))

    def produce() -> None:
        for _ in range(COUNT // BATCH):
            through.put_many(items)

    def consume() -> None:
        left = COUNT // BATCH * BATCH
        while left:
            left -= len(through.get_many(BATCH))

    return in_threads([produce, consume])


def in_threads(work: list[Callable[[], None]]) -> int:
    running = [threading.Thread(target=one) for one in work]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return COUNT


def round_trips(there: Any) -> int:
    back = type(there)(CAPACITY) if type(there) is not queue.SimpleQueue else queue.SimpleQueue()

    def echo() -> None:
        for _ in range(ROUND_TRIPS):
            back.put(there.get())

    thread = threading.Thread(target=echo)
    thread.start()
    for number in range(ROUND_TRIPS):
        there.put(number)
        back.get()
    thread.join()
    return ROUND_TRIPS
