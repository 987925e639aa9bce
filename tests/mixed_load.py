"""A mixed load in a process of its own, and what may be there after that process has died.

Each line that the load says is `put? key at`, and `put key at` once that is acknowledged; the same
with `delete` and `publish`. A key is one thread's alone: it holds what was acknowledged last, or
begun since. `refused key at`: the store was full, and nothing was done. `ended code at`: a thread
could not go on, for a reason with this code.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import os
import random
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import dwkernel as dw
from dwkernel import errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SIZES = [0, 100, 3000, 60_000, 70_000, 1_500_000]
KEYS = 12
REPAIRING = [["scrub"], ["pack"]]
STREAM = "numbers"


def content(seed: int, at: str) -> bytes:
    """What was put at a moment, `epoch.thread.step`."""
    chance = random.Random(f"{seed}-{at}")
    return chance.randbytes(chance.choice(SIZES))


class Load:
    """Four threads that put and delete, one that publishes, one that works on the pool."""

    def __init__(self, kernel: dw.Kernel, seed: int, epoch: int) -> None:
        """Load `kernel`, as `seed` and the process's number say."""
        self.kernel = kernel
        self.seed = seed
        self.epoch = epoch

    def run(self, works: list[list[str]]) -> None:
        """Go on until an operation fails, or for ever; do `works` on the pool, again and again."""
        with ThreadPoolExecutor(6) as pool:
            parts = [pool.submit(self.change, thread) for thread in range(4)]
            parts.append(pool.submit(self.publish))
            if works:
                parts.append(pool.submit(self.work, works))
            for number, part in enumerate(parts):
                try:
                    part.result()
                except errors.DwError as error:
                    say("ended", error.code, f"{self.epoch}.{number}")

    def change(self, thread: int) -> None:
        chance = random.Random(f"{self.seed}-{self.epoch}-{thread}")
        for step in range(100_000):
            key, at = f"docs/{thread}-{chance.randrange(KEYS)}", f"{self.epoch}.{thread}.{step}"
            if chance.random() < 0.25 and key in self.kernel:
                say("delete?", key, at)
                self.kernel.delete(key)
                say("delete", key, at)
                continue
            say("put?", key, at)
            try:
                self.kernel.put(key, content(self.seed, at), metadata={"at": at})
                say("put", key, at)
            except errors.Full:
                say("refused", key, at)

    def publish(self) -> None:
        stream = self.kernel.bus.stream(STREAM)
        for step in range(100_000):
            at = f"{self.epoch}.p.{step}"
            say("publish?", STREAM, at)
            with contextlib.suppress(errors.Full):
                stream.publish(STREAM, at.encode())
                say("publish", STREAM, at)

    def work(self, works: list[list[str]]) -> None:
        for count in itertools.count():
            verb, *places = works[count % len(works)]
            with contextlib.suppress(errors.Full):
                getattr(self.kernel.pool, verb)(*places)
            say("done", verb, f"{self.epoch}.w.{count}")


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class Book:
    """What a store must hold, by what its processes said."""

    def __init__(self, seed: int) -> None:
        """Begin with an empty store."""
        self.seed = seed
        self.state: dict[str, str | None] = {}
        self.begun: dict[str, str | None] = {}
        self.published: list[str] = []
        self.ended: list[str] = []
        self.refused = 0
        self.done: Counter[str] = Counter()
        self.publishing: set[str] = set()

    def listen(self, lines: Iterable[str]) -> None:
        """Take down what a load says."""
        for line in lines:
            self.note(line)

    def note(self, line: str) -> None:
        verb, key, at = line.split()
        value = at if verb.startswith("put") else None
        if verb == "ended":
            self.ended.append(key)
        elif verb == "done":
            self.done[key] += 1
        elif verb == "refused":
            self.refused += 1
            self.begun.pop(key, None)
        elif verb == "publish?":
            self.publishing.add(at)
        elif verb == "publish":
            self.published.append(at)
        elif verb.endswith("?"):
            self.begun[key] = value
        else:
            self.state[key] = value
            self.begun.pop(key, None)

    @staticmethod
    def begin(kernel: dw.Kernel) -> None:
        """Make what a load needs in a new store."""
        kernel.containers.create("docs")
        kernel.bus.stream(STREAM, subjects=[STREAM], create=True)

    def check(self, kernel: dw.Kernel) -> None:
        """Hold the store against it; what was begun is settled from now on.

        A part of the drives that can only be read decides nothing.
        """
        book = copy.deepcopy(self) if kernel.pool.status().read_only else self
        book.settle(kernel)

    def settle(self, kernel: dw.Kernel) -> None:
        found = {entry.key: kernel.head(entry.key) for entry in kernel.list("docs")}
        for key in self.state.keys() | self.begun.keys() | found.keys():
            there = found[key].metadata["at"] if key in found else None
            allowed = {self.state.get(key)}
            if key in self.begun:
                allowed.add(self.begun[key])
            assert there in allowed, f"{key} holds {there}, not {allowed}"
            self.state[key] = there
            if there is not None:
                assert kernel[key] == content(self.seed, there), key
        self.begun.clear()
        if self.publishing:
            self.check_stream(kernel)

    def check_stream(self, kernel: dw.Kernel) -> None:
        stream = kernel.bus.stream(STREAM)
        there = [message.data.decode() for message in stream.replay()]
        assert len(there) == len(set(there)), "a message is there twice"
        assert set(self.published) <= set(there), "an acknowledged message is gone"
        assert set(there) <= self.publishing, "a message that nobody sent"
        in_order = sorted(there, key=lambda at: [int(at.split(".")[0]), int(at.split(".")[2])])
        assert there == in_order, "messages are out of order"
        self.published = there


class Said:
    """What the process of a load says, line by line; a last one that is cut off is left out."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """Listen to `process`."""
        self.process = process
        assert process.stdout
        self.lines = process.stdout

    def __iter__(self) -> Iterator[str]:
        """Give each whole line."""
        return (line for line in self.lines if line.endswith("\n"))

    def kill(self) -> None:
        """End the process at once."""
        self.process.kill()


@contextlib.contextmanager
def loading(
    seed: int, epoch: int, works: list[list[str]] | None = None, **store: Any
) -> Iterator[Said]:
    """Start a load on the store that `dw.open(**store)` opens. Its process is killed at the end."""
    order = json.dumps({"seed": seed, "epoch": epoch, "works": works or [], "store": store})
    command = [sys.executable, __file__, order]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Said(process)
        finally:
            process.kill()


def main() -> None:
    order = json.loads(sys.argv[1])
    threading.excepthook = lambda _: None
    try:
        kernel = dw.open(**order["store"])
    except errors.DwError as error:
        say("ended", error.code, f"{order['epoch']}.open")
    else:
        Load(kernel, order["seed"], order["epoch"]).run(order.get("works", REPAIRING))
    os._exit(0)


if __name__ == "__main__":
    main()
