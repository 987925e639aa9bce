"""A store that nobody closed: it is said, and it is closed when it is collected."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import tracemalloc
import warnings
from typing import TYPE_CHECKING, Any

import pytest

import dwkernel as dw

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _traced() -> Iterator[None]:
    tracemalloc.start(20)
    yield
    tracemalloc.stop()


def _collected(opened: list[object], count: int = 1) -> warnings.WarningMessage:
    """Let go of what was opened; return what is said of it, or of the last of so many."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        opened.clear()
        gc.collect()
    assert [warning.category for warning in said] == [ResourceWarning] * count
    return said[-1]


def _opened_in(warning: warnings.WarningMessage, name: str) -> bool:
    """Return whether `tracemalloc` knows that it was opened in a function of this file."""
    trace = tracemalloc.get_object_traceback(warning.source)
    lines = [line for frame in trace or () for line in [frame.filename + ":" + str(frame.lineno)]]
    code = globals()[name].__code__
    numbers = {number for _, _, number in code.co_lines() if number is not None}
    return any(f"{__file__}:{number}" in lines for number in numbers)


def _forget(path: Path) -> list[object]:
    return [dw.open(path)]


async def _aforget(path: Path) -> list[object]:
    return [await dw.aio.open(path)]


def test_a_store_that_nobody_closed_is_named_and_closed_when_it_is_collected(path: Path) -> None:
    with dw.open(path, drives=5, create=True) as kernel:
        kernel.containers.create("docs")
    opened = _forget(path)
    forgotten = opened[0]
    assert isinstance(forgotten, dw.Kernel)
    forgotten.put("docs/a", b"a")
    del forgotten
    warning = _collected(opened)
    text = str(warning.message)
    assert "unclosed <dwkernel.Kernel" in text
    assert f" open> on {path}/d1, {path}/d2, {path}/d3 and 2 more" in text
    assert _opened_in(warning, "_forget")
    with dw.open(path) as again:
        assert again["docs/a"] == b"a"


def test_a_store_of_asyncio_is_too(path: Path) -> None:
    dw.open(path, drives=3, create=True).close()
    warning = _collected(asyncio.run(_aforget(path)))
    assert "unclosed <dwkernel.Kernel" in str(warning.message)
    assert _opened_in(warning, "_aforget")
    dw.open(path).close()


def _stream(kernel: dw.Kernel) -> Any:
    return kernel.bus.stream("s")


_GIVEN: dict[str, tuple[Callable[[dw.Kernel], Any], Callable[[Any], object]]] = {
    "reader": (lambda kernel: kernel.get("docs/a"), lambda reader: reader.read(100)),
    "pool": (lambda kernel: kernel.pool, lambda pool: pool.status()),
    "containers": (lambda kernel: kernel.containers, lambda containers: containers.get("docs")),
    "bus": (lambda kernel: kernel.bus, lambda bus: bus.stream("s").status()),
    "stream": (_stream, lambda stream: stream.publish("s.a", b"")),
    "consumer": (lambda kernel: _stream(kernel).consumer("c"), lambda consumer: consumer.status()),
    "listing": (lambda kernel: kernel.list(), lambda listing: listing.keys()),
    "jobs": (lambda kernel: kernel.jobs, lambda jobs: jobs.list()),
}


@pytest.mark.parametrize("what", _GIVEN)
def test_what_a_store_gave_keeps_it_open(path: Path, what: str) -> None:
    with dw.open(path, drives=3, create=True) as kernel:
        kernel.containers.create("docs")
        kernel.put("docs/a", b"a" * 200_000)
        kernel.bus.stream("s", subjects=["s.>"], create=True).consumer("c", create=True)
    take, use = _GIVEN[what]
    opened = [take(dw.open(path))]
    gc.collect()
    use(opened[0])
    # A reader is open, too.
    _collected(opened, 2 if what == "reader" else 1)
    dw.open(path).close()


def test_handlers_and_threads_of_a_store_that_nobody_closed_end_with_it(path: Path) -> None:
    def heard(_: object) -> None:
        """Be there."""

    kernel = dw.open(path, drives=3, create=True)
    kernel.bus.subscribe("a.b", heard)
    kernel.bus.publish("a.b", b"")
    opened: list[object] = [kernel]
    del kernel
    _collected(opened)
    dw.open(path).close()


def test_one_that_was_closed_or_never_opened_says_nothing(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dw.open(path, drives=3, create=True).close()
        with pytest.raises(dw.errors.NotFound):
            dw.open(path / "none")
        gc.collect()


def test_a_forked_child_says_nothing_of_its_parents_store(path: Path) -> None:
    kernel = dw.open(path, drives=3, create=True)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                kernel.__del__()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    kernel.containers.create("docs")
    kernel.close()


_PROGRAM = """
import sys
import dwkernel as dw
kernel = dw.open(sys.argv[1], drives=3, create="if_missing")
"""
_HANDLER = """
kernel.bus.subscribe("a.b", lambda message: None)
kernel.bus.publish("a.b", b"")
"""


@pytest.mark.parametrize(
    ("program", "options", "said"),
    [
        (_PROGRAM, [], ""),
        (_PROGRAM + _HANDLER, [], ""),
        (_PROGRAM, ["-W", "error"], "ResourceWarning: unclosed <dwkernel.Kernel"),
    ],
)
def test_a_program_that_ends_says_no_more_than_of_files(
    path: Path, program: str, options: list[str], said: str
) -> None:
    command = [sys.executable, *options, "-c", program, str(path)]
    done = subprocess.run(command, capture_output=True, timeout=60, check=True, text=True)
    assert said in done.stderr
    assert bool(said) == bool(done.stderr)
    with dw.open(path) as kernel:
        assert kernel.pool.status().redundancy == "full"


def _forget_reader(kernel: dw.Kernel) -> list[object]:
    return [kernel.get("docs/a")]


async def _aforget_reader(path: Path) -> list[object]:
    async with dw.aio.open(path) as kernel:
        return [await kernel.get("docs/a")]


def test_a_reader_that_nobody_closed_is_named_and_closed_when_it_is_collected(path: Path) -> None:
    with dw.open(path, drives=3, create=True) as kernel:
        kernel.containers.create("docs")
        kernel.put("docs/a", b"content")
        opened = _forget_reader(kernel)
        native = opened[0]._native  # type: ignore[attr-defined]
        warning = _collected(opened)
        assert str(warning.message) == "unclosed <dwkernel.Reader docs/a 7 B>"
        assert _opened_in(warning, "_forget_reader")
        with pytest.raises(dw.errors.State, match="closed"):
            native.read(kernel._caller, 1.0, -1)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with kernel.get("docs/a") as reader:
                assert reader.read(3) == b"con"
            del reader
            assert kernel.get("docs/a").read() == b"content", "it has nothing left to forget"
            kernel.put("docs/empty", b"")
            kernel.get("docs/empty")
            gc.collect()
    warning = _collected(asyncio.run(_aforget_reader(path)))
    assert "unclosed <dwkernel.Reader docs/a" in str(warning.message)
    assert _opened_in(warning, "_aforget_reader")
