"""Configuration: how long a change takes to count, with 1,000 subscribers.

Limited by the interpreter: reading the layers anew, comparing what each subscriber hears of, and
1,000 or 2,000 calls. The time is from the end of the debounce, when a reload begins, until
everybody has been told.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benches.duel import Row
from dwkernel.config import Configuration

if TYPE_CHECKING:
    from collections.abc import Iterator

SUBSCRIBERS = 1000
RELOADS = 30


def rows() -> Iterator[Row]:
    """Measure reloads of a file."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "a.toml"
        yield reloads("nobody subscribes", path, 0, asks=False)
        yield reloads("1,000 subscribers", path, SUBSCRIBERS, asks=False)
        yield reloads("1,000 subscribers that are asked first", path, SUBSCRIBERS, asks=True)
        yield seen(path)


def reloads(what: str, path: Path, count: int, *, asks: bool) -> Row:
    """Reload a file whose rate is another one each time."""
    path.write_text("[limits]\nrate = 1\n")
    with Configuration(path, environment={}, watch=False) as made:
        told = [0]

        def hear(_old: Any, _new: Any) -> None:
            told[0] += 1

        for number in range(count):
            where = ("limits.rate", "limits", "")[number % 3]
            made.on_change(where, hear, (lambda _old, _new: None) if asks else None)
        taken = []
        for number in range(RELOADS):
            path.write_text(f"[limits]\nrate = {number + 2}\n")
            begin = time.perf_counter()
            made.reload()
            taken.append(time.perf_counter() - begin)
        assert told[0] == count * RELOADS
    return row(f"a reload, {what}", taken)


def seen(path: Path) -> Row:
    """Write a watched file and wait until it counts: the debounce of 100 ms is in it."""
    path.write_text("[limits]\nrate = 1\n")
    taken = []
    with Configuration(path, environment={}) as made:
        for number in range(RELOADS):
            path.write_text(f"[limits]\nrate = {number + 2}\n")
            begin = time.perf_counter()
            while made.current.limits.rate != number + 2:
                time.sleep(0.0005)
            taken.append(time.perf_counter() - begin)
    return row("from a file's change to its effect, with 100 ms of quiet", taken)


def row(what: str, taken: list[float]) -> Row:
    taken.sort()
    middle, slowest = taken[len(taken) // 2], taken[-1]
    text = f"configuration: {what}; {middle * 1000:.1f} ms, the slowest {slowest * 1000:.1f} ms"
    return Row(text, 1, {"dwkernel": middle}, {"dwkernel": taken[0]}, unit="/s")
