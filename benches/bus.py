"""The bus in memory with Python handlers: how many messages, and how late at half of that.

Limited by the interpreter: publisher and handler take turns. Latency is from the stamp of `publish`
to the handler; the publisher sends bursts of a millisecond and sleeps in between, as servers do.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from benches.duel import Row, duel
from dwkernel.bus import Bus, Message

if TYPE_CHECKING:
    from collections.abc import Iterator

COUNT = 20_000
DATA = b"x" * 100
BURST_S = 0.001
PACED_S = 3.0


def rows() -> Iterator[Row]:
    """Measure throughput, then latency at half load."""
    row = duel(
        f"bus: {len(DATA)} bytes to a Python handler, one by one", COUNT, {"dwkernel": singly}
    )
    row.unit = "/s"
    yield row
    half = COUNT / row.seconds["dwkernel"] / 2
    row = duel("bus: the same in batches of 64", COUNT, {"dwkernel": in_batches})
    row.unit = "/s"
    yield row
    late = latencies(half)
    for name, share in (("median", 0.5), ("99th percentile", 0.99), ("99.9th", 0.999)):
        seconds = late[int(len(late) * share)] / 1e9
        what = f"bus: lateness at {half:,.0f}/s, {name}: {seconds * 1e6:.0f} us"
        yield Row(what, 1, {"dwkernel": seconds}, {"dwkernel": seconds}, unit="/s")


class Counter:
    """A handler that says when it has had everything."""

    def __init__(self) -> None:
        """Begin at zero."""
        self.count = 0
        self.done = threading.Event()

    def __call__(self, _: Message) -> None:
        """Count one."""
        self.count += 1
        if self.count == COUNT:
            self.done.set()


def singly() -> None:
    with Bus() as bus:
        counter = Counter()
        bus.subscribe("sensors.*.temp", counter)
        for _ in range(COUNT):
            bus.publish("sensors.a.temp", DATA)
        assert counter.done.wait(30)


def in_batches() -> None:
    with Bus() as bus:
        counter = Counter()
        bus.subscribe("sensors.*.temp", counter)
        batch = [("sensors.a.temp", DATA)] * 64
        for _ in range(COUNT // 64):
            bus.publish_many(batch)
        bus.publish_many(batch[: COUNT % 64])
        assert counter.done.wait(30)


def latencies(rate: float) -> list[int]:
    """Return how late each message came, in nanoseconds, sorted."""
    late: list[int] = []
    with Bus() as bus:
        bus.subscribe("a", lambda message: late.append(time.time_ns() - message.published_ns))
        per_burst = max(1, int(rate * BURST_S))
        due = time.perf_counter()
        end = due + PACED_S
        while due < end:
            for _ in range(per_burst):
                bus.publish("a", DATA)
            due += BURST_S
            time.sleep(max(0.0, due - time.perf_counter()))
    return sorted(late)
