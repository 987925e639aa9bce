"""Memory while very many messages wait in a stream: `python -m benches.backlog [MILLIONS [DIR]]`.

Publishes them in batches of 1,000 from four threads, consumes some, closes, opens again and replays
all.
The peak of the process's memory is what counts: it must not grow with the backlog.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from pathlib import Path

import dwkernel as dw

BATCH = 1000
THREADS = 4
CONSUMED = 50_000


def main() -> None:
    """Fill, consume, open again, replay."""
    count = int(sys.argv[1]) * 1_000_000 if len(sys.argv) > 1 else 10_000_000
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as place:
        path = Path(place) / "store"
        with dw.open(path, drives=3, geometry="2+1", create=True) as kernel:
            fill(kernel, count)
        start = time.perf_counter()
        with dw.open(path) as kernel:
            print(f"opened in {time.perf_counter() - start:.2f} s")
            start = time.perf_counter()
            replayed = sum(1 for _ in kernel.bus.stream("s").replay())
            print(f"replayed {replayed:,}: {replayed / (time.perf_counter() - start):,.0f}/s")
        print(f"peak memory {peak_mib()} MiB")


def fill(kernel: dw.Kernel, count: int) -> None:
    stream = kernel.bus.stream("s", subjects=["s.*"], create=True)
    consumer = stream.consumer("c", create=True)
    messages = [("s.a", b"x" * 256)] * BATCH

    def publish() -> None:
        for _ in range(count // THREADS // BATCH):
            stream.publish_many(messages)

    start = time.perf_counter()
    threads = [threading.Thread(target=publish) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    status = stream.status()
    rate = status.messages / (time.perf_counter() - start)
    rows = status.frames + status.blocks
    print(f"published {status.messages:,} in {rows} rows: {rate:,.0f}/s, peak {peak_mib()} MiB")
    start, left = time.perf_counter(), CONSUMED
    while left > 0:
        for message in consumer.fetch(100, timeout=0):
            message.ack()
            left -= 1
    print(f"consumed {CONSUMED:,}: {CONSUMED / (time.perf_counter() - start):,.0f}/s")


def peak_mib() -> int:
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return int(text.split("VmHWM:")[1].split()[0]) >> 10


if __name__ == "__main__":
    main()
