"""Memory stays bounded, whatever the length of a stream."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

MOST_MIB = 200
ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc says how much it was")
def test_a_long_stream_takes_at_most_200_mib(tmp_path: Path) -> None:
    size = "10" if os.environ.get("DWK_LONG") else "0.5"
    run = [sys.executable, "-m", "benches.memory", size, str(tmp_path)]
    said = subprocess.run(run, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    found = re.findall(r"(\w+): (\d+) MiB", said)
    assert [what for what, _ in found] == ["open", "put", "get"]
    assert all(int(most) <= MOST_MIB for _, most in found), said
