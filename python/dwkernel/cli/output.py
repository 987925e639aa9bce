"""How commands say what they did: for people on a terminal, plain in a pipe, JSON on demand."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table

from dwkernel import errors
from dwkernel.reports import plain
from dwkernel.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dwkernel.reports import PoolStatus

FAILED = 1
WRONG_USE = 2

_STATE_STYLE = {"ok": "green", "full": "green", "suspect": "yellow", "stale": "yellow"}


class Output:
    """Where a command's results go."""

    def __init__(self, *, as_json: bool) -> None:
        """Choose JSON, or lines for people."""
        self.as_json = as_json
        self.console = Console(highlight=False, soft_wrap=True)
        self.notes = Console(stderr=True, highlight=False, soft_wrap=True)

    def done(self, result: object, text: str | None = None) -> None:
        """Say what came out."""
        if self.as_json:
            print(json.dumps(plain(result), ensure_ascii=False, indent=2))  # noqa: T201 - that is its work
        else:
            self.console.print(str(result) if text is None else text, markup=False)

    def note(self, text: str) -> None:
        """Say something beside the result."""
        if not self.as_json:
            self.notes.print(text, markup=False)

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]], right: set[int]) -> None:
        """Print a table: columns on a terminal, tabs in a pipe."""
        if not self.console.is_terminal:
            for row in rows:
                print("\t".join(row))  # noqa: T201
            return
        table = Table(box=None, pad_edge=False, header_style="dim")
        for index, name in enumerate(head):
            table.add_column(name, justify="right" if index in right else "left", overflow="fold")
        for row in rows:
            table.add_row(*(_plain_cell(cell) for cell in row))
        self.console.print(table)

    def progress(self) -> bool:
        """Whether long work shows how far it is."""
        return not self.as_json

    @contextlib.contextmanager
    def errors_told(self) -> Iterator[None]:
        """Turn an error into a line and an exit status."""
        try:
            yield
        except errors.DwError as error:
            self._tell(error.code, str(error), _error(error))
            wrong = isinstance(error, errors.Invalid) and error.code != "source.failed"
            raise typer.Exit(WRONG_USE if wrong else FAILED) from None
        except BrokenPipeError:
            # Who read our output has gone; nothing more may be written, not even at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(FAILED) from None
        except OSError as error:
            self._tell(
                "os", str(error), {"code": "os", "message": str(error), "errno": error.errno}
            )
            raise typer.Exit(FAILED) from None

    def _tell(self, code: str, text: str, whole: dict[str, Any]) -> None:
        if self.as_json:
            print(json.dumps({"error": whole}, ensure_ascii=False, indent=2))  # noqa: T201
        elif code == "store.locked":
            self.notes.print(f"error: {locked_by(whole.get('details', {}))}{text}", markup=False)
        else:
            self.notes.print(f"error: {text}", markup=False)


def _plain_cell(cell: str) -> str:
    style = _STATE_STYLE.get(cell)
    escaped = cell.replace("[", "\\[")
    if cell in {"missing", "failed", "lost", "foreign"}:
        style = "red"
    return f"[{style}]{escaped}[/{style}]" if style else escaped


def _error(error: errors.DwError) -> dict[str, Any]:
    return {
        "code": error.code,
        "message": str(error),
        "retryable": error.retryable,
        "details": error.details,
        "correlation_id": error.correlation_id,
    }


def locked_by(details: dict[str, str]) -> str:
    """Return a sentence that says who holds a store and since when; empty if nobody knows."""
    pid = details.get("pid")
    if pid is None:
        return ""
    since = details.get("since", "")
    with contextlib.suppress(ValueError):
        since = f"{datetime.fromtimestamp(int(since) / 1e9, UTC).astimezone():%Y-%m-%d %H:%M:%S}"
    host, program = details.get("host", ""), details.get("program", "")
    what = f" ({program})" if program else ""
    where = f" on {host}" if host else ""
    when = f" since {since}" if since else ""
    return f"process {pid}{what}{where} has the store open{when}. "


def show_status(output: Output, status: PoolStatus) -> None:
    """Print how the pool is."""
    if output.as_json:
        output.done(status)
        return
    used, usable = format_size(status.used_bytes), format_size(status.usable_bytes)
    output.console.print(f"pool {status.id}", markup=False)
    output.console.print(
        f"{status.geometry}, redundancy {_plain_cell(status.redundancy)}, "
        f"{used} of {usable} used, {status.objects} objects, {status.stripes} stripes"
    )
    rows = [
        (
            drive.id,
            drive.state,
            format_size(drive.used_bytes),
            format_size(drive.capacity_bytes),
            "journal" if drive.journal else "",
            drive.path,
        )
        for drive in status.drives
    ]
    output.table(("drive", "state", "used", "capacity", "", "path"), rows, right={2, 3})
    for text in status.advice:
        output.console.print(f"! {text}", markup=False, style="bold")
    for text in status.warnings:
        output.console.print(f"  {text}", markup=False, style="dim")
