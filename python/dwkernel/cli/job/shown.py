"""A job as a line of a table, as a page, and as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from dwkernel.cli.bus.shown import period
from dwkernel.cli.times import second, stamp
from dwkernel.units import format_duration, format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dwkernel.cli.output import Output
    from dwkernel.jobs import Job, JobProgress, Schedule

__all__ = ["amounts", "page", "schedule_table", "table", "took"]

_HEAD = ("id", "kind", "state", "prio", "submitted", "took", "")


def table(out: Output, jobs: Sequence[Job]) -> None:
    """Print jobs, one a line."""
    short = out.console.is_terminal
    rows = []
    for job in jobs:
        submitted = "" if job.submitted_at is None else stamp(job.submitted_at, short=short)
        told = (
            job.id,
            job.kind,
            job.state,
            str(job.priority),
            submitted,
            took(job),
            _news(job, short=short),
        )
        rows.append(told)
    out.table(_HEAD, rows, {3, 5})


def took(job: Job) -> str:
    """Return how long it ran, or has run."""
    seconds = job.seconds()
    if seconds is None or job.state in ("interrupted", "waiting", "scheduled"):
        return ""
    return format_duration(seconds)


def amounts(progress: JobProgress | None) -> str:
    """Return how far a job is.

    >>> amounts({"done": 3, "total": 10, "unit": "steps", "text": "at c", "at": 0})
    '3 of 10 steps, at c'
    """
    if progress is None:
        return ""
    size = format_size if progress["unit"] == "bytes" else "{:,}".format
    done = size(progress["done"])
    if progress["total"] is not None:
        done += f" of {size(progress['total'])}"
    unit = "" if progress["unit"] == "bytes" else progress["unit"]
    told = [f"{done} {unit}".strip(), progress["text"]]
    return ", ".join(text for text in told if text)


def _news(job: Job, *, short: bool) -> str:
    error = job.error
    if job.state == "scheduled" and job.due_at is not None:
        due = f"due {stamp(job.due_at, short=short)}"
        return due if error is None else f"{due}, after: {_first(str(error))}"
    if error is not None and job.state != "done":
        return _first(str(error))
    if job.is_stalled:
        return ", ".join(text for text in (amounts(job.progress), "not heard of for long") if text)
    return "" if job.is_finished else amounts(job.progress)


def _first(text: str) -> str:
    return text.partition("\n")[0]


def page(out: Output, job: Job) -> None:
    """Print all that is known of a job."""
    for name, value in job.to_dict().items():
        if name == "progress":
            shown = amounts(job.progress)
        elif name == "error":
            shown = "" if value is None else str(job.error)
        elif name.endswith("_at"):
            shown = "" if value is None else second(getattr(job, name))
        else:
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        if value not in (None, {}, "") and shown:
            out.lines(f"{name:<14} {out.name(shown)}")


def schedule_table(out: Output, schedules: Sequence[Schedule]) -> None:
    """Print schedules, one a line."""
    short = out.console.is_terminal
    rows = []
    for one in schedules:
        when = f"{one.cron}  {one.zone}" if one.cron else f"every {period(one.every_s or 0)}"
        rows.append(
            (
                one.name,
                one.kind,
                when,
                *(
                    "" if at is None else stamp(at, short=short)
                    for at in (one.next_at, one.last_at)
                ),
                *(str(number) for number in (one.submitted, one.missed, one.skipped)),
                "" if one.problem is None else f"waits: {_first(one.problem)}",
            )
        )
    head = ("schedule", "kind", "when", "next", "last", "submitted", "missed", "skipped", "")
    out.table(head, rows, {5, 6, 7})
