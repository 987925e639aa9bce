"""What tests expect: that something happens in time, that a call is refused with a code."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dwkernel import errors

if TYPE_CHECKING:
    from collections.abc import Callable

# Long enough for a busy machine; only what never happens takes as long.
PATIENCE_S = 60.0


def until(condition: Callable[[], object]) -> None:
    """Wait until something holds; fail if it does not in time."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.003)


def open_files() -> int:
    """Return how many files, pipes and sockets this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def code_of(call: Callable[[], object]) -> str:
    """Return the code of the error that a call raises; fail if it raises none."""
    with pytest.raises(errors.DwError) as caught:
        call()
    return caught.value.code
