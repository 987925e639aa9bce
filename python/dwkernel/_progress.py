"""How `progress=` is shown: a bar on a terminal, lines in a pipe, or a caller's callable."""

from __future__ import annotations

import contextlib
import sys
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING

from dwkernel.reports import Progress, counted
from dwkernel.units import format_duration, format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["looking", "on_terminal", "showing"]

_LINE_EVERY_S = 2.0


# Asked whether work that begins in this context is to go on; ends it by raising.
looking: ContextVar[Callable[[], object] | None] = ContextVar("looking", default=None)


@contextlib.contextmanager
def showing(
    progress: Callable[[Progress], object] | bool | None,
    work: str,
    unit: str,
    total: int | None,
    *,
    after_s: float = 0.0,
) -> Iterator[Callable[[int, int | None], None] | None]:
    """Yield what the native side calls with `(done, total)`, or None if nobody wants to see.

    If it has a method `look`, the native side asks that now and then whether to go on. A bar or
    lines begin `after_s` later: what is done by then shows nothing.
    """
    looks = [look for look in (getattr(progress, "look", None), looking.get()) if look is not None]
    with _shown(progress, work, unit, total, after_s) as show:
        if not looks:
            yield show
            return

        def told(done: int, known: int | None) -> None:
            if show is not None:
                show(done, known)

        def look() -> None:
            for one in looks:
                one()

        told.look = look  # type: ignore[attr-defined]
        yield told


@contextlib.contextmanager
def _shown(
    progress: Callable[[Progress], object] | bool | None,
    work: str,
    unit: str,
    total: int | None,
    after_s: float,
) -> Iterator[Callable[[int, int | None], None] | None]:
    if progress is None or progress is False or (progress is True and sys.stderr is None):
        yield None
        return
    if callable(progress):
        tell = progress

        def told(done: int, known: int | None) -> None:
            tell(Progress(work, done, total if known is None else known, unit))

        yield told
        return
    with _for_people(_Seen(work, unit, total), after_s) as show:
        yield show


@contextlib.contextmanager
def _for_people(seen: _Seen, after_s: float) -> Iterator[Callable[[int, int | None], None]]:
    begun: list[Callable[[int, int | None], None]] = []
    try:
        with contextlib.ExitStack() as stack:

            def begin() -> None:
                shown = _bar(seen) if sys.stderr.isatty() else _lines(seen)
                begun.append(stack.enter_context(shown))

            def show(done: int, known: int | None) -> None:
                seen.update(done, known)
                if not begun and seen.seconds() >= after_s:
                    begin()
                for one in begun:
                    one(done, known)

            if not after_s:
                begin()
            yield show
    except KeyboardInterrupt:
        if not begun:
            raise
        # What is done stays done: say how much it was.
        print(f"{seen.work}: stopped at {seen.amounts()} after {seen.took()}", file=sys.stderr)  # noqa: T201
        raise


class _Seen:
    """How far a piece of work is, in words; one format for bars and lines."""

    def __init__(self, work: str, unit: str, total: int | None) -> None:
        self.work = work
        self.unit = unit
        self.done = 0
        # A device says that it has no bytes.
        self.total = total or None
        self.start = time.monotonic()

    def update(self, done: int, known: int | None) -> None:
        self.done = done
        self.total = known or self.total

    def amounts(self) -> str:
        if not self.total:
            return self._amount(self.done)
        done = format_size(self.done) if self.unit == "bytes" else f"{self.done:,}"
        return f"{done} of {self._amount(self.total)}"

    def seconds(self) -> float:
        return time.monotonic() - self.start

    def rate(self) -> str:
        seconds = self.seconds()
        return f"{self._amount(int(self.done / seconds))}/s" if seconds else ""

    def took(self) -> str:
        return format_duration(self.seconds())

    def _amount(self, number: int) -> str:
        if self.unit == "bytes":
            return format_size(number)
        return counted(number, self.unit.removesuffix("s"))


def on_terminal() -> bool:
    """Return whether what is printed comes out where bars are: above them, then.

    What goes to a file or a pipe goes there.
    """
    return sys.stdout is not None and sys.stdout.isatty()


@contextlib.contextmanager
def _bar(seen: _Seen) -> Iterator[Callable[[int, int | None], None]]:
    # Only who wants a bar pays for it.
    from rich import progress as rich_progress  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415

    columns = [
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.TextColumn("{task.fields[amounts]}  {task.fields[rate]}"),
        rich_progress.TimeRemainingColumn(),
    ]
    console = Console(stderr=True, soft_wrap=True)
    with rich_progress.Progress(
        *columns, console=console, transient=True, redirect_stdout=on_terminal()
    ) as bar:
        task = bar.add_task(seen.work, total=seen.total, amounts=seen.amounts(), rate="")

        def show(done: int, known: int | None) -> None:
            seen.update(done, known)
            bar.update(
                task,
                completed=done,
                total=seen.total,
                amounts=seen.amounts(),
                rate=seen.rate(),
            )

        yield show


@contextlib.contextmanager
def _lines(seen: _Seen) -> Iterator[Callable[[int, int | None], None]]:
    last = seen.start

    def show(done: int, known: int | None) -> None:
        nonlocal last
        seen.update(done, known)
        now = time.monotonic()
        if now - last >= _LINE_EVERY_S:
            last = now
            print(f"{seen.work}: {seen.amounts()}, {seen.took()}", file=sys.stderr)  # noqa: T201

    yield show
