"""A durable stream beside NATS JetStream on the same disk: publishing and consuming.

Limited, ours, by how long a commit takes on the disk (64 publishers share them) and, from Python,
by the interpreter; theirs by writing and, where it syncs, by the disk.

What is lost when the machine loses power is not the same, so it stands beside each contender:

- `dwkernel`: nothing; each publish is synced on drives before it is confirmed.
- `JetStream`: up to two minutes; the nats-server that Debian 12 has (2.9.10) syncs every two
  minutes, as strace shows, and has no setting for it. Its messages survive a kill of the process.
- `… on tmpfs`: everything, and nothing is waited for: there both have the same to lose, since what
  a sync does on a disk it does not do in memory. The store has one drive there, as the server has
  one directory; elsewhere it has three and survives the loss of one.
- `JetStream, sync always`: nothing; with a newer nats-server that DWK_NATS_SERVER names.

The server is measured with a compiled client (benches/natsbench, built if Go is there), so that not
the clients are compared; ours from Python, and from Rust if DWK_BENCH_RUST=1 (it builds a
benchmark), by threads and by tasks: the publishers of a Go client are goroutines. Contenders run by
turns, medians are compared. DWK_BENCH_DIR says on which disk.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import dwkernel as dw
from benches.duel import Row
from dwkernel import brokers
from dwkernel.conformance import servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dwkernel.bus import ports

DATA = b"x" * 256
PUBLISHERS = 64
CONSUMERS = 4
BATCH = 100
ROUNDS = int(os.environ.get("DWK_BENCH_ROUNDS", "5"))
SECONDS = 3
# So many messages the rows count by.
AMOUNT = 10_000
GOAL = 3.0
SAME_LOSS = {"JetStream on tmpfs", "JetStream, sync always"}
TMPFS = Path("/dev/shm")  # noqa: S108 - what is measured there is meant to be lost


def rows() -> Iterator[Row]:
    """Measure publishing with 64 publishers, and consuming."""
    if servers.find("nats") is None:
        print(f"brokers: skipped, {servers.missing('nats')}")
        return
    disk = os.environ.get("DWK_BENCH_DIR") or tempfile.gettempdir()
    with contextlib.ExitStack() as stack:
        client = _client(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        places = {"": disk} | ({" on tmpfs": str(TMPFS)} if TMPFS.is_dir() else {})
        publishing: dict[str, Callable[[], float]] = {}
        consuming: dict[str, Callable[[], float]] = {}
        for where, parent in places.items():
            stream = stack.enter_context(_stream(parent, 1 if where else 3))
            publishing[f"dwkernel{where}"] = _publisher(stream)
            consuming[f"dwkernel{where}"] = _consumer(stream)
        publishing |= _rust(places)
        for where, parent in places.items():
            server = stack.enter_context(servers.LocalServer("nats", parent=parent))
            _contend(stack, server, f"JetStream{where}", client, publishing, consuming)
        newer = os.environ.get("DWK_NATS_SERVER")
        if newer:
            settings = {
                "jetstream": f'{{ store_dir: "{disk}/dwk-nats-always", sync_interval: always }}'
            }
            stack.callback(shutil.rmtree, f"{disk}/dwk-nats-always", ignore_errors=True)
            server = stack.enter_context(
                servers.LocalServer("nats", settings, parent=disk, program=newer)
            )
            _contend(stack, server, "JetStream, sync always", client, publishing, consuming)
        yield from _duels("publish, 256 bytes, 64 publishers", publishing)
        yield from _duels(f"consume, fetch of {BATCH} and ack, {CONSUMERS} threads", consuming)


def _contend(
    stack: contextlib.ExitStack,
    server: servers.LocalServer,
    name: str,
    client: Path | None,
    publishing: dict[str, Callable[[], float]],
    consuming: dict[str, Callable[[], float]],
) -> None:
    if client is not None:
        publishing[name] = _compiled(client, server.url, "publish", PUBLISHERS)
        consuming[name] = _compiled(client, server.url, "consume", CONSUMERS)
    if name == "JetStream":
        bus = stack.enter_context(brokers.connect(server.url))
        stream = bus.stream("adapter", subjects=["a"], create=True)
        publishing["JetStream by brokers.connect"] = _publisher(stream)
        consuming["JetStream by brokers.connect"] = _consumer(stream)


def _duels(what: str, contenders: dict[str, Callable[[], float]]) -> Iterator[Row]:
    """Run all by turns; a row for each of ours beside theirs, on disk and on tmpfs."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, run in contenders.items():
            rates[name].append(run())
            print(f"  {what}: {name} {rates[name][-1]:,.0f}/s")
    peers = [name for name in rates if name.startswith("JetStream")]
    for ours in rates:
        if not ours.startswith("dwkernel"):
            continue
        on_tmpfs = ours.endswith("tmpfs")
        same = [name for name in peers if name.endswith("tmpfs") == on_tmpfs]
        loss = ", the same to lose" if on_tmpfs else ""
        yield _row(f"brokers: {what}{loss}", rates, [ours, *same])


def _row(what: str, rates: dict[str, list[float]], names: list[str]) -> Row:
    seconds = {name: AMOUNT / statistics.median(rates[name]) for name in names}
    best = {name: AMOUNT / max(rates[name]) for name in names}
    # Goals where both have the same to lose, and publish.
    goals = {name: GOAL for name in names if "publish" in what and name in SAME_LOSS}
    return Row(what, AMOUNT, seconds, best, unit="/s", goals=goals)


@contextlib.contextmanager
def _stream(parent: str, drives: int) -> Iterator[ports.Stream]:
    with tempfile.TemporaryDirectory(dir=parent) as place:
        path = Path(place) / "store"
        with dw.open(path, drives=drives, create=True) as kernel:
            yield kernel.bus.stream("bench", subjects=["a"], create=True)


def _publisher(stream: ports.Stream) -> Callable[[], float]:
    return lambda: _together(lambda: int(bool(stream.publish("a", DATA))), PUBLISHERS)


def _consumer(stream: ports.Stream) -> Callable[[], float]:
    """Read from the first message on; there are some from publishing, and as many again in each."""

    def run() -> float:
        consumer = stream.consumer(f"c{time.monotonic_ns()}", max_ack_pending=10_000, create=True)

        def take() -> int:
            messages = consumer.fetch(BATCH, timeout=0.1)
            for message in messages:
                message.ack()
            return len(messages)

        rate = _together(take, CONSUMERS)
        stream.delete_consumer(consumer.name)
        return rate

    return run


def _together(step: Callable[[], int], threads: int) -> float:
    """Run `step` on threads until the time is up or nothing is left; returns its rate."""
    counts: list[int] = []
    ends: list[float] = []
    begin = time.perf_counter()

    def work() -> None:
        count, last = 0, begin
        while time.perf_counter() - begin < SECONDS:
            done = step()
            if not done:
                break
            count, last = count + done, time.perf_counter()
        counts.append(count)
        # Not how long it then waited for more.
        ends.append(last)

    running = [threading.Thread(target=work) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return sum(counts) / (max(ends) - begin)


def _client(place: Path) -> Path | None:
    """Build the compiled client; None, with a line that says why, if that does not work."""
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        print("brokers: without a compiled client of NATS, Go is not installed")
        return None
    client = place / "natsbench"
    source = Path(__file__).parent / "natsbench"
    command = [go, "build", "-o", str(client), "."]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"brokers: without a compiled client of NATS: {done.stderr.strip()[-300:]}")
        return None
    return client


def _compiled(client: Path, url: str, what: str, workers: int) -> Callable[[], float]:
    arguments = [what, str(workers), str(SECONDS), str(len(DATA))]

    def run() -> float:
        command = [str(client), url, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
        return float(done.stdout)

    return run


def _rust(places: dict[str, str]) -> dict[str, Callable[[], float]]:
    """Return ours from Rust, by the benchmark of its crate; none unless that is asked for."""
    if os.environ.get("DWK_BENCH_RUST") != "1":
        return {}
    root = Path(__file__).parents[1]
    command = ["cargo", "bench", "--quiet", "-p", "dwk-stream", "--bench", "publish", "--"]

    def run(parent: str, drives: str, kind: str) -> float:
        done = subprocess.run(
            [*command, parent, drives, str(PUBLISHERS)],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
        return float(re.findall(rf"{PUBLISHERS} publishers{kind}: ([0-9]+)/s", done.stdout)[0])

    return {
        f"dwkernel from Rust{how}{where}": partial(run, parent, "1" if where else "3", kind)
        for where, parent in places.items()
        for how, kind in (("", ""), (" as tasks", " as tasks"))
    }
