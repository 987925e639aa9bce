"""Calls of a plugin in a confined process, beside a pipe of multiprocessing that confines nothing.

Limited by waking another process, twice a call. The pipe has one caller and pickles; the plugin's
line has many, answers out of order, and trusts nothing that comes.
"""

from __future__ import annotations

import multiprocessing
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from benches.duel import Row, duel
from dwkernel.plugins import confined

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

CALLS = 200
PLUGIN = "class Plugin:\n    def __init__(self, config): pass\n    def echo(self, x): return x\n"
SIZES = {"nothing": 0, "1 KiB": 1 << 10, "1 MiB": 1 << 20}


def rows() -> Iterator[Row]:
    """Measure starts, then calls one after the other and eight at once."""
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "plugin.py").write_text(PLUGIN, encoding="utf-8")
        spec = confined.Spec("echo", Path(place), "plugin:Plugin")
        yield pieces(duel("confined: start and kill", 1, {"dwkernel": lambda: begin(spec)}))
        process = confined.start(spec)
        try:
            yield from calls(process)
        finally:
            process.kill()


def begin(spec: confined.Spec) -> None:
    confined.start(spec).kill()


def pieces(row: Row) -> Row:
    row.unit = "/s"
    return row


def calls(process: confined.Process) -> Iterator[Row]:
    ours, theirs = multiprocessing.Pipe()
    peer = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    peer.start()
    for name, size in SIZES.items():
        data, count = bytes(size), CALLS if size < 1 << 20 else 10

        def confined_calls(data: bytes = data, count: int = count) -> None:
            # On a thread as those that ask plugins have; the main one calls aside (40 us more).
            with ThreadPoolExecutor(1) as own:
                own.submit(lambda: [process.call("echo", data) for _ in range(count)]).result()

        def piped(data: bytes = data, count: int = count) -> None:
            for _ in range(count):
                ours.send(data)
                ours.recv()

        contenders: dict[str, Callable[[], object]] = {
            "dwkernel": confined_calls,
            "multiprocessing.Pipe": piped,
        }
        yield pieces(duel(f"confined: calls with {name}, one by one", count, contenders))
        with ThreadPoolExecutor(8) as pool:

            def at_once(data: bytes = data, count: int = count) -> None:
                list(pool.map(lambda _: process.call("echo", data), range(count)))

            row = duel(f"confined: calls with {name}, 8 at once", count, {"dwkernel": at_once})
            yield pieces(row)
    peer.kill()
    peer.join()


def serve(line: Connection) -> None:
    """Echo, in the process of the pipe."""
    while True:
        line.send(line.recv())
