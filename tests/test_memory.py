"""Memory stays bounded, whatever the length of a stream, and what lies in it can be let go."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dwkernel as dw
from dwkernel.kernel import forget_memory_drives
from expect import code_of

MOST_MIB = 200
ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc says how much it was")
def test_a_long_stream_takes_at_most_200_mib_also_with_drives_away(tmp_path: Path) -> None:
    size = "10" if os.environ.get("DWK_LONG") else "0.5"
    run = [sys.executable, "-m", "benches.memory", size, str(tmp_path)]
    said = subprocess.run(run, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    found = re.findall(r"(\w+): (\d+) MiB", said)
    assert [what for what, _ in found] == ["open", "put", "get", "degraded"]
    assert all(int(most) <= MOST_MIB for _, most in found), said


def test_drives_in_memory_last_until_they_are_forgotten() -> None:
    drives = ["memory://kept-1", "memory://kept-2"]
    with dw.open(drives=drives, create=True) as kernel:
        kernel.containers.create("docs")
    with dw.open(drives=drives) as kernel:
        assert [one.name for one in kernel.containers.list()] == ["docs"]
        assert forget_memory_drives() >= 2
        kernel.put("docs/a", b"still in use")
    assert code_of(lambda: dw.open(drives=drives)) == "drive.missing"


OPENED = """
import re, sys
import dwkernel as dw

def most():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024

dw.open(sys.argv[1], drives=3, create=True).close()
before = most()
for _ in range(20):
    dw.open(sys.argv[1]).close()
print(most() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc says how much it was")
def test_openings_leave_no_memory_behind(path: Path) -> None:
    run = [sys.executable, "-c", OPENED, str(path)]
    said = subprocess.run(run, check=True, capture_output=True, text=True).stdout
    # A window of the journal for each of its drives, in each of the allocator's arenas.
    assert int(said) <= 64, said
