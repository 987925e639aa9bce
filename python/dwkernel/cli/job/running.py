"""`run`, `pause`, `resume`: who does jobs."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from typing import TYPE_CHECKING, Annotated

import typer

from dwkernel.cli.arguments import Force, Json, Store
from dwkernel.cli.job.arguments import jobs_at
from dwkernel.cli.job.bars import Bars
from dwkernel.cli.job.shown import took
from dwkernel.cli.output import FAILED, Output
from dwkernel.reports import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dwkernel.jobs import Job, Jobs

__all__ = ["pause", "resume", "run"]

_LOOK_S = 0.1
_STOPPED = "stopped: what ran goes on where it was with the next `dwkernel job run`"


def run(
    store: Store,
    forever: Annotated[
        bool, typer.Option("--forever", help="stay, for schedules and for what comes later")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="so many at a time", show_default=False)
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Run what waits, until nothing is left: exit 1 if something failed.

    Retries are waited for; what is to begin later otherwise is left. With --json each job that has
    ended is a line.
    """
    out = Output(as_json=as_json)
    opened = jobs_at(store, out, writes=True, force=force, stopped=_STOPPED)
    with _ended_in_order(), opened as kernel:
        jobs = kernel.jobs
        if workers is not None:
            jobs.apply(jobs.settings.model_copy(update={"workers": workers}))
        if jobs.is_paused:
            out.note("jobs are paused: `dwkernel job resume` lets them run again")
            if not forever:
                return
        failed = _work_off(jobs, out, forever=forever)
        left = jobs.list()
        if left and not as_json:
            out.note(f"{counted(len(left), 'job')} left: due later, or nobody here does such a job")
        if failed:
            raise typer.Exit(FAILED)


@contextlib.contextmanager
def _ended_in_order() -> Iterator[None]:
    """Let SIGTERM, which who ends services sends, put jobs down as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _work_off(jobs: Jobs, out: Output, *, forever: bool) -> int:
    """Run jobs until none is left that can run; return how many failed."""
    known = {job.id: job for job in jobs.list()}
    failed = 0
    jobs.start()
    with Bars(out) as bars:
        while True:
            now = {job.id: job for job in jobs.list()}
            known |= now
            ended = [known.pop(job_id) for job_id in list(known) if job_id not in now]
            if ended:
                bars.hide()
            for job in ended:
                failed += job.state == "failed"
                _tell(out, job)
            bars.show([job for job in now.values() if job.state == "running"])
            if not forever and not any(_is_to_run(jobs, job) for job in now.values()):
                return failed
            time.sleep(_LOOK_S)


def _is_to_run(jobs: Jobs, job: Job) -> bool:
    if job.kind not in jobs.kinds():
        return False
    return job.state != "scheduled" or job.attempts > 0


def _tell(out: Output, job: Job) -> None:
    if out.as_json:
        out.json_line(job.to_dict())
        return
    end = f" in {took(job)}" if took(job) else ""
    why = "" if job.error is None or job.state == "done" else f": {job.error}"
    out.lines(f"{job.kind} {job.id} {job.state}{end}{why}")


def pause(store: Store, force: Force = False, as_json: Json = False) -> None:
    """Let no job run until `resume`, whoever has the store open."""
    _steer(store, force=force, as_json=as_json, paused=True)


def resume(store: Store, force: Force = False, as_json: Json = False) -> None:
    """Let jobs run again."""
    _steer(store, force=force, as_json=as_json, paused=False)


def _steer(store: str, *, force: bool, as_json: bool, paused: bool) -> None:
    out = Output(as_json=as_json)
    with jobs_at(store, out, writes=True, force=force) as kernel:
        if paused:
            kernel.jobs.pause()
        else:
            kernel.jobs.resume()
        out.done({"paused": paused}, "jobs are paused" if paused else "jobs run again")
