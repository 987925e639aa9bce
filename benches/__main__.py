"""Run every comparison: `python -m benches [PART ...]`; writes bench-results/python.{json,md}."""

from __future__ import annotations

import sys
from pathlib import Path

from benches import erasure, hashing
from benches.duel import Report, machine

PARTS = {"hashing": hashing.rows, "erasure": erasure.rows}
RESULTS = Path("bench-results")


def main() -> None:
    """Run the parts that were named, or all."""
    report = Report()
    for name in sys.argv[1:] or PARTS:
        for row in PARTS[name]():
            report.rows.append(row)
            print(row.what, {peer: round(ratio, 2) for peer, ratio in row.ratios().items()})
    facts = "\n".join(f"- {key}: {value}" for key, value in machine().items())
    report.save(RESULTS / "python.json")
    page = f"# Measured from Python\n\n{facts}\n\n{report.table()}\n"
    (RESULTS / "python.md").write_text(page, encoding="utf-8")
    print(f"\n{report.table()}\n\nwritten to {RESULTS}/python.json and {RESULTS}/python.md")


main()
