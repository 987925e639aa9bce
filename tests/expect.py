"""What tests expect: that something happens in time, that a call is refused with a code."""

from __future__ import annotations

import contextlib
import gc
import random
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dwkernel import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Collect no garbage meanwhile: an interrupt in what collects would be swallowed there."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def interrupted(
    work: Callable[[], object],
    look: Callable[[], object] = lambda: None,
    *,
    tries: int = 4000,
    after_s: tuple[float, float] = (1e-5, 3e-4),
) -> None:
    """Do `work` again and again until Ctrl-C comes, at any point of it; then `look`; often."""
    chance = random.Random(7)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with uncollected():
            for _ in range(tries):
                with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - it may come anywhere in here
                    signal.setitimer(signal.ITIMER_REAL, chance.uniform(*after_s))
                    while True:
                        work()
                look()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def code_of(call: Callable[[], object]) -> str:
    """Return the code of the error that a call raises; fail if it raises none."""
    with pytest.raises(errors.DwError) as caught:
        call()
    return caught.value.code
