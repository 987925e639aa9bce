"""The erasure kernels beside libisal in one process, without Python in between: `cargo bench`.

Limited as rust/erasure/benches/peers.rs says. The goals are for libisal2 2.30 as Debian has it.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benches.duel import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

_MEMORY = "memory read"


def rows() -> Iterator[Row]:
    """Run the Rust bench, on one processor where that can be chosen, and take its figures."""
    cargo = shutil.which("cargo")
    if cargo is None:
        print("without the native kernels: there is no cargo")
        return
    pinned = ["taskset", "-c", "1"] if shutil.which("taskset") else []
    with tempfile.TemporaryDirectory() as place:
        result = Path(place) / "peers.json"
        bench = ["bench", "--quiet", "-p", "dwk-erasure", "--bench", "peers", "--"]
        command = [*pinned, cargo, *bench, "--json", str(result)]
        subprocess.run(command, check=True, stdout=sys.stderr)
        for row in json.loads(result.read_text(encoding="utf-8"))["rows"]:
            rates, name = row["gigabytes_per_s"], row["name"]
            wanted = {peer: goal(name, peer) for peer in rates if peer != "ours"}
            yield Row(
                f"native: {name}",
                1e9,
                {who: 1 / rate for who, rate in rates.items()},
                goals={peer: least for peer, least in wanted.items() if least is not None},
            )


def goal(name: str, peer: str) -> float | None:
    """Return the least ratio that is wanted of a case to a peer."""
    code = re.split(r" (?:\d+ [KM]iB|reconstruct)", name, maxsplit=1)[0]
    kind = "P+Q" if code.startswith("P+Q") else "xor" if code.startswith("xor") else code
    if "reconstruct" in name:
        goals = {"libisal, set up": 4.0} if name.endswith(" lost, 4 KiB") else {}
    elif "cold" in name:
        goals = {} if kind in {"P+Q", "xor"} else {_MEMORY: {"8+4": 0.8}.get(kind, 0.7)}
    elif "1 MiB" in name:
        goals = {"libisal": {"xor": 0.97, "P+Q": 1.0, "8+4": 2.0}.get(kind, 0.0)}
    else:
        goals = {"libisal": {"xor": 0.97, "P+Q": 1.3, "8+4": 2.4}.get(kind, 2.0)}
    return goals.get(peer) or None
