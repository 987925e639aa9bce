"""BytesQueue against multiprocessing.Queue, from one process into another.

Limited, one by one, by the interpreter's loop and by the cache lines that the two processors send
each other; multiprocessing.Queue pickles, hands each message to a thread, and writes it to a pipe
under two locks. Where there is one processor for both, the changes between them limit it.
"""

from __future__ import annotations

import multiprocessing
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from benches.duel import Row, duel
from dwkernel._shared_queue import BytesQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MESSAGE_BYTES = 100
COUNT = 20_000
BATCH = 100


def rows() -> Iterator[Row]:
    """Measure messages one by one, in batches, and larger ones."""
    context = multiprocessing.get_context("spawn")
    with Stream(context.Queue(), "one", context) as peer:
        with Stream(BytesQueue(), "one", context) as ours:
            yield row("one by one", MESSAGE_BYTES, ours, peer, 20.0)
        with Stream(BytesQueue(), "many", context) as ours:
            yield row(f"in batches of {BATCH}", MESSAGE_BYTES, ours, peer, 20.0)
        with Stream(BytesQueue(), "one", context) as ours:
            yield row("of 4 KiB one by one", 4096, ours, peer, 0.0)


def row(what: str, message_bytes: int, ours: Stream, peer: Stream, goal: float) -> Row:
    contenders: dict[str, Callable[[], object]] = {
        "dwkernel": partial(ours.run, message_bytes),
        "multiprocessing": partial(peer.run, message_bytes),
    }
    goals = {"multiprocessing": goal} if goal else {}
    what = f"messages between two processes, {message_bytes} bytes, {what}"
    result = duel(what, COUNT, contenders, goals)
    result.unit = "/s"
    return result


class Stream:
    """A producer in a process of its own; each run has it send `COUNT` messages."""

    def __init__(self, queue: Any, how: str, context: Any) -> None:
        """Start the producer."""
        self.queue = queue
        self.how = how
        self.start, there = context.Pipe()
        self.process = context.Process(target=produce, args=(queue, there, how), daemon=True)
        self.process.start()

    def run(self, message_bytes: int) -> None:
        """Have the messages sent, and take them all."""
        queue = self.queue
        self.start.send(message_bytes)
        if self.how == "many":
            left = COUNT
            while left:
                left -= len(queue.get_many(BATCH))
            return
        get = queue.get
        for _ in range(COUNT):
            get()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the producer."""
        self.start.send(None)
        self.process.join()
        self.queue.close()


def produce(queue: Any, start: Any, how: str) -> None:
    """Send messages of the length that comes, until None does."""
    while (message_bytes := start.recv()) is not None:
        message = bytes(message_bytes)
        if how == "many":
            batch = [message] * BATCH
            for _ in range(COUNT // BATCH):
                queue.put_many(batch)
        else:
            put = queue.put
            for _ in range(COUNT):
                put(message)
