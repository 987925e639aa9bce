"""`submit`, `cancel`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dwkernel._progress import showing
from dwkernel.cli.arguments import Force, Json, Store
from dwkernel.cli.bus.subjects import moment_of
from dwkernel.cli.job.arguments import Id, KindName, Options, jobs_at, options_of
from dwkernel.cli.job.shown import took
from dwkernel.cli.output import FAILED, Output
from dwkernel.reports import plain

if TYPE_CHECKING:
    from dwkernel.jobs import Job

__all__ = ["cancel", "submit"]

_STOPPED = "stopped: the job goes on where it was with the next `dwkernel job run`"


def submit(  # noqa: PLR0913, PLR0917 - each option stands alone
    store: Store,
    kind: KindName,
    options: Options = None,
    priority: Annotated[int, typer.Option(min=0, max=255, help="higher goes first")] = 0,
    delay: Annotated[
        str | None, typer.Option(help="not before so long from now: 2h", show_default=False)
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(help="not before a moment: 2026-11-26T10:00Z", show_default=False),
    ] = None,
    unique: Annotated[
        str | None,
        typer.Option(help="not if one of this name has not ended yet", show_default=False),
    ] = None,
    timeout: Annotated[
        str | None, typer.Option(help="how long an attempt may take", show_default=False)
    ] = None,
    max_attempts: Annotated[
        int | None, typer.Option(min=1, help="how often it is tried", show_default=False)
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="run it now, with what goes first, until it has ended")
    ] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Submit a job. Prints its id, or with --wait what came out: exit 1 if it failed."""
    out = Output(as_json=as_json)
    given = options_of(options)
    with jobs_at(store, out, writes=True, force=force, stopped=_STOPPED) as kernel:
        job = kernel.jobs.submit(
            kind,
            given,
            priority=priority,
            delay=delay,
            at=None if at is None else moment_of(at),
            unique=unique,
            timeout=timeout,
            max_attempts=max_attempts,
            start=wait,
        )
        if not wait:
            out.done(job.to_dict(), job.id)
            return
        if kernel.jobs.is_paused:
            out.note("jobs are paused: `dwkernel job resume` lets them run again")
            raise typer.Exit(FAILED)
        _watch(out, job)
        _ended(out, job)


def _watch(out: Output, job: Job) -> None:
    unit = "steps"
    with showing(out.progress(), job.kind, unit, None) as tell:
        for progress in job.watch():
            if tell is not None:
                tell(progress["done"], progress["total"])


def _ended(out: Output, job: Job) -> None:
    if out.as_json:
        out.done(job.to_dict())
    else:
        result: Any = plain(job.result)
        told = "" if result is None else f": {_line(result)}"
        end = f" in {took(job)}" if took(job) else ""
        out.lines(f"{job.kind} {job.id} {job.state}{end}{told}")
    if job.state != "done":
        if job.error is not None:
            out.note(f"error: {job.error}")
        raise typer.Exit(FAILED)


def _line(result: Any) -> str:
    if not isinstance(result, dict):
        return str(result)
    # Numbers that are nought, and notes that say nothing, are no news.
    return ", ".join(f"{name} {value}" for name, value in result.items() if value)


def cancel(store: Store, job_id: Id, force: Force = False, as_json: Json = False) -> None:
    """Cancel a job: exit 1 if it has ended already."""
    out = Output(as_json=as_json)
    with jobs_at(store, out, writes=True, force=force) as kernel:
        job = kernel.jobs.get(job_id)
        had_ended = job.is_finished
        job.cancel()
        out.done(job.to_dict(), f"{job.kind} {job.id} {job.state}")
        if had_ended:
            raise typer.Exit(FAILED)
