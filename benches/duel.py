"""Interleaved measurement: every contender runs in every round, so noise hits all of them alike.

What is quoted is the ratio of medians, beside it that of the fastest rounds: on a busy machine the
medians say who was interrupted, the fastest rounds what the code can do. Above 1, ours is faster.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS_MIN = 7
ROUNDS_MAX = 400
SECONDS_PER_DUEL = 1.5


@dataclass
class Row:
    """One duel: what was done to how much, and how long each contender's median took.

    Attributes:
        what: what was done.
        amount: how much of it in one call, in bytes or pieces.
        seconds: by contender; ours is the first.
        seconds_best: the fastest rounds.
        unit: of the rates: `"GB/s"`, or `"/s"` for pieces.
        goals: by peer, the least ratio that is wanted.

    """

    what: str
    amount: float
    seconds: dict[str, float]
    seconds_best: dict[str, float] = field(default_factory=dict)
    unit: str = "GB/s"
    goals: dict[str, float] = field(default_factory=dict)

    def rate(self, name: str) -> str:
        """Return a contender's rate for people."""
        rate = self.amount / self.seconds[name]
        return f"{rate / 1e9:.2f} GB/s" if self.unit == "GB/s" else f"{rate:,.0f}/s"

    def ratios(self, *, best: bool = False) -> dict[str, float]:
        """Return how many times faster the first contender is than each other one."""
        seconds = self.seconds_best if best else self.seconds
        ours, *others = seconds
        return {other: seconds[other] / seconds[ours] for other in others}


def duel(
    what: str,
    amount: int,
    contenders: dict[str, Callable[[], object]],
    goals: dict[str, float] | None = None,
    *,
    looped: bool = False,
) -> Row:
    """Run all contenders by turns until the time is up; the first one is ours.

    `looped`: each runs twice in a turn and the second time counts, as in a loop of its own: what
    the others did to the process's memory is behind it.
    """
    for run in contenders.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    end = time.perf_counter() + SECONDS_PER_DUEL
    rounds = 0
    while rounds < ROUNDS_MIN or (rounds < ROUNDS_MAX and time.perf_counter() < end):
        for name, run in contenders.items():
            if looped:
                run()
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
        rounds += 1
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    bests = {name: min(seconds) for name, seconds in times.items()}
    return Row(what, amount, medians, bests, goals=goals or {})


def machine() -> dict[str, str]:
    """Describe this machine as far as it matters for the figures."""
    facts = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "processors": str(len(os.sched_getaffinity(0))),
        "load": " ".join(f"{load:.1f}" for load in os.getloadavg()),
    }
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        facts |= {
            key.strip(): value.strip()
            for key, _, value in (line.partition(":") for line in lines)
            if key.strip() in {"model name", "cpu MHz", "cache size"}
        }
        flags = next((line for line in lines if line.startswith("flags")), "")
        known = ("avx2", "gfni", "avx512f", "vpclmulqdq")
        facts["vectors"] = " ".join(flag for flag in known if flag in flags.split())
    return facts


@dataclass
class Report:
    """The rows of one run, as a table for people and JSON for programs."""

    rows: list[Row] = field(default_factory=list)

    def table(self) -> str:
        """Return a Markdown table, ratios first."""
        lines = ["| what | times as fast as: median (best) | goal | rates |", "|---|---|---|---|"]
        for row in self.rows:
            best = row.ratios(best=True) if row.seconds_best else {}
            ratios = ", ".join(
                f"**{ratio:.2f}**{f' ({best[name]:.2f})' if best else ''} {name}"
                for name, ratio in row.ratios().items()
            )
            goals = ", ".join(f"≥ {goal:g} {name}" for name, goal in row.goals.items())
            rates = ", ".join(f"{name} {row.rate(name)}" for name in row.seconds)
            lines.append(f"| {row.what} | {ratios or 'no peer here'} | {goals} | {rates} |")
        return "\n".join(lines)

    def save(self, path: Path) -> None:
        """Write machine, rows and ratios as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [asdict(row) | {"ratios": row.ratios()} for row in self.rows]
        text = json.dumps({"machine": machine(), "rows": rows}, indent=1)
        path.write_text(text + "\n", encoding="utf-8")
