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
    """One duel: what was done to how many bytes, and each contender's median."""

    what: str
    bytes_per_call: int
    seconds: dict[str, float]
    seconds_best: dict[str, float]
    target: str = ""

    def rate_gb_s(self, name: str) -> float:
        """Return a contender's rate in GB/s."""
        return self.bytes_per_call / self.seconds[name] / 1e9

    def ratios(self, *, best: bool = False) -> dict[str, float]:
        """Return how many times faster the first contender is than each other one."""
        seconds = self.seconds_best if best else self.seconds
        ours, *others = seconds
        return {other: seconds[other] / seconds[ours] for other in others}


def duel(
    what: str, bytes_per_call: int, contenders: dict[str, Callable[[], object]], target: str = ""
) -> Row:
    """Run all contenders by turns until the time is up; the first one is ours."""
    for run in contenders.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    end = time.perf_counter() + SECONDS_PER_DUEL
    rounds = 0
    while rounds < ROUNDS_MIN or (rounds < ROUNDS_MAX and time.perf_counter() < end):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
        rounds += 1
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    bests = {name: min(seconds) for name, seconds in times.items()}
    return Row(what, bytes_per_call, medians, bests, target)


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
        lines = ["| what | times as fast as: median (best) | target | rates |", "|---|---|---|---|"]
        for row in self.rows:
            best = row.ratios(best=True)
            ratios = ", ".join(
                f"**{ratio:.2f}** ({best[name]:.2f}) {name}" for name, ratio in row.ratios().items()
            )
            rates = ", ".join(f"{name} {row.rate_gb_s(name):.2f} GB/s" for name in row.seconds)
            lines.append(f"| {row.what} | {ratios or 'no peer here'} | {row.target} | {rates} |")
        return "\n".join(lines)

    def save(self, path: Path) -> None:
        """Write machine, rows and ratios as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [
            asdict(row) | {"ratios": row.ratios(), "ratios_best": row.ratios(best=True)}
            for row in self.rows
        ]
        text = json.dumps({"machine": machine(), "rows": rows}, indent=1)
        path.write_text(text + "\n", encoding="utf-8")
