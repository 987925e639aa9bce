"""Run every comparison: `python -m benches [PART ...]`.

Writes bench-results/results.json, .md (a table) and .svg (a plot).
"""

from __future__ import annotations

import sys
from pathlib import Path

from benches import (
    brokers,
    bus,
    config,
    confined,
    erasure,
    hashing,
    jobs,
    metrics,
    native,
    plot,
    plugins,
    queue_shared,
    queues,
    sinks,
    store,
    streams,
)
from benches.duel import Report, machine

PARTS = {
    "native": native.rows,
    "erasure": erasure.rows,
    "hashing": hashing.rows,
    "queues": queues.rows,
    "queue_shared": queue_shared.rows,
    "bus": bus.rows,
    "streams": streams.rows,
    "metrics": metrics.rows,
    "confined": confined.rows,
    "sinks": sinks.rows,
    "brokers": brokers.rows,
    "config": config.rows,
    "plugins": plugins.rows,
    "jobs": jobs.rows,
    "store": store.rows,
}
RESULTS = Path("bench-results")


def main() -> None:
    """Run the parts that were named, or all."""
    report = Report()
    for name in sys.argv[1:] or PARTS:
        for row in PARTS[name]():
            report.rows.append(row)
            print(row.what, {peer: round(ratio, 2) for peer, ratio in row.ratios().items()})
    facts = machine()
    lines = "\n".join(f"- {key}: {value}" for key, value in facts.items())
    report.save(RESULTS / "results.json")
    page = f"# Measured\n\n{lines}\n\n![ratios](results.svg)\n\n{report.table()}\n"
    (RESULTS / "results.md").write_text(page, encoding="utf-8")
    title = f"times as fast as the peer · {facts.get('model name', 'unknown processor')}"
    (RESULTS / "results.svg").write_text(plot.drawing(report.rows, title), encoding="utf-8")
    print(f"\n{report.table()}\n\nwritten to {RESULTS}/results.json, .md and .svg")


if __name__ == "__main__":  # what is spawned imports this page, too
    main()
