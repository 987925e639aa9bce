"""What is left when a store was closed: nothing that is open."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import pytest

import dwkernel as dw
from dwkernel import errors


def open_below(path: Path) -> set[str]:
    """What this process has open below a path."""
    files = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the listing's own is gone
            files.add(str(descriptor.readlink()))
    return {file for file in files if file.startswith(str(path))}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="open files are seen in /proc")
def test_what_was_closed_can_be_unmounted(path: Path) -> None:
    """Also where somebody still has a reader or a stream, and where opening failed."""
    for number in range(20):
        with dw.open(path, drives=3, create="if_missing") as kernel:
            if number == 0:
                kernel.containers.create("docs")
                stream = kernel.bus.stream("s", subjects=["s"], create=True)
            kernel.put(f"docs/{number}", bytes(200_000))
            kernel.pool.scrub()
            reader = kernel.get(f"docs/{number}")
            reader.read(10)
            assert open_below(path)
        assert not open_below(path)
        if number < 19:
            reader.close()
    with pytest.raises(errors.State):
        stream.publish("s", b"")
    with pytest.raises(errors.State):
        reader.read()
    reader.close()
    (path / "d1").rename(path / "away1")
    (path / "d2").rename(path / "away2")
    for _ in range(20):
        with pytest.raises(errors.DwError):
            dw.open(path)
        assert not open_below(path)
