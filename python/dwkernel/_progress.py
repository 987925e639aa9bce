"""How `progress=` is shown: a bar on a terminal, a line now and then in a pipe, or a caller's callable."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING

from dwkernel.reports import Progress
from dwkernel.units import format_duration, format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["showing"]

_LINE_EVERY_S = 2.0


@contextlib.contextmanager
def showing(
    progress: Callable[[Progress], object] | bool | None, work: str, unit: str, total: int | None
) -> Iterator[Callable[[int, int | None], None] | None]:
    """Yield what the native side calls with `(done, total)`, or None if nobody wants to see."""
    if progress is None or progress is False:
        yield None
        return
    if callable(progress):
        tell = progress

        def told(done: int, known: int | None) -> None:
            tell(Progress(work, done, total if known is None else known, unit))

        yield told
        return
    with _bar(work, unit, total) if sys.stderr.isatty() else _lines(work, unit, total) as show:
        yield show


@contextlib.contextmanager
def _bar(work: str, unit: str, total: int | None) -> Iterator[Callable[[int, int | None], None]]:
    from rich.console import Console  # noqa: PLC0415 - only who wants a bar pays for it
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress as Bar,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    amount = (
        [DownloadColumn(), TransferSpeedColumn()] if unit == "bytes" else [MofNCompleteColumn()]
    )
    columns = [TextColumn("{task.description}"), BarColumn(), *amount, TimeRemainingColumn()]
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(work, total=total)

        def show(done: int, known: int | None) -> None:
            bar.update(task, completed=done, total=total if known is None else known)

        yield show


@contextlib.contextmanager
def _lines(work: str, unit: str, total: int | None) -> Iterator[Callable[[int, int | None], None]]:
    start = last = time.monotonic()

    def amount(number: int) -> str:
        return format_size(number) if unit == "bytes" else f"{number} {unit}"

    def show(done: int, known: int | None) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < _LINE_EVERY_S:
            return
        last = now
        of = total if known is None else known
        rest = f" of {amount(of)}" if of else ""
        print(f"{work}: {amount(done)}{rest}, {format_duration(now - start)}", file=sys.stderr)  # noqa: T201

    yield show
