"""What runs, while it runs: a bar for each job on a terminal, lines in a pipe."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Self

from dwkernel._progress import on_terminal
from dwkernel.cli.job.shown import amounts

if TYPE_CHECKING:
    from types import TracebackType

    from dwkernel.cli.output import Output
    from dwkernel.jobs import Job

__all__ = ["Bars"]

_LINE_EVERY_S = 2.0


class Bars:
    """Shows how far jobs are."""

    def __init__(self, out: Output) -> None:
        """Show nothing yet; with JSON nothing at all."""
        self._is_shown = out.progress()
        self._out = out
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}
        self._line_s = time.monotonic()

    def __enter__(self) -> Self:
        """Begin."""
        if self._is_shown and sys.stderr is not None and sys.stderr.isatty():
            from rich import progress as rich_progress  # noqa: PLC0415 - only for a bar
            from rich.console import Console  # noqa: PLC0415

            columns = [
                rich_progress.TextColumn("{task.description}"),
                rich_progress.BarColumn(),
                rich_progress.TextColumn("{task.fields[amounts]}"),
                rich_progress.TimeElapsedColumn(),
            ]
            console = Console(stderr=True, soft_wrap=True)
            self._bars = rich_progress.Progress(
                *columns, console=console, transient=True, redirect_stdout=on_terminal()
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave nothing behind."""
        self.hide()

    def hide(self) -> None:
        """Give the terminal to somebody else, until `show`."""
        if self._bars is not None:
            self._bars.stop()

    def show(self, running: list[Job]) -> None:
        """Show those that run now."""
        if self._bars is not None:
            self._move(running)
            if running:
                self._bars.start()
            return
        now = time.monotonic()
        if self._is_shown and now - self._line_s >= _LINE_EVERY_S:
            self._line_s = now
            for job in running:
                self._out.note(f"{job.kind} {job.id}: {amounts(job.progress) or 'running'}")

    def _move(self, running: list[Job]) -> None:
        here = {job.id for job in running}
        for job_id in [one for one in self._tasks if one not in here]:
            self._bars.remove_task(self._tasks.pop(job_id))
        for job in running:
            progress = job.progress
            if job.id not in self._tasks:
                name = f"{self._out.name(job.kind)} {job.id[-6:]}"
                self._tasks[job.id] = self._bars.add_task(name, total=None, amounts="")
            self._bars.update(
                self._tasks[job.id],
                completed=0 if progress is None else progress["done"],
                total=None if progress is None else progress["total"],
                amounts=self._out.name(amounts(progress)),
            )
