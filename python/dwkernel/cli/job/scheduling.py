"""`schedule`, `schedules`, `unschedule`."""

from __future__ import annotations

from typing import Annotated, Literal
from zoneinfo import ZoneInfo

import typer

from dwkernel.cli.arguments import Force, Json, Store, utf8
from dwkernel.cli.job import shown
from dwkernel.cli.job.arguments import KindName, Options, jobs_at, options_of
from dwkernel.cli.output import FAILED, Output
from dwkernel.cli.times import second

__all__ = ["schedule", "schedules", "unschedule"]

ScheduleName = Annotated[
    str, typer.Argument(metavar="NAME", help="the schedule's name", callback=utf8)
]


def schedule(  # noqa: PLR0913, PLR0917 - each option stands alone
    store: Store,
    name: ScheduleName,
    kind: KindName,
    cron: Annotated[
        str | None,
        typer.Option(help="minute hour day month weekday: '0 3 * * sun'", show_default=False),
    ] = None,
    every: Annotated[
        str | None, typer.Option(help="an interval instead: 6h", show_default=False)
    ] = None,
    zone: Annotated[str, typer.Option(help="the time zone of --cron: Europe/Berlin")] = "UTC",
    options: Options = None,
    priority: Annotated[int, typer.Option(min=0, max=255, help="of the jobs")] = 0,
    timeout: Annotated[
        str | None, typer.Option(help="how long an attempt may take", show_default=False)
    ] = None,
    max_attempts: Annotated[
        int | None, typer.Option(min=1, help="how often each is tried", show_default=False)
    ] = None,
    catch_up: Annotated[
        bool, typer.Option("--catch-up", help="make up for what was missed, by one job")
    ] = False,
    overlap: Annotated[
        Literal["skip", "queue"], typer.Option(help="while the last one has not ended")
    ] = "skip",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Submit a job again and again; one of that name is replaced.

    Schedules are looked after by programs that run jobs, such as `dwkernel job run --forever`.
    """
    out = Output(as_json=as_json)
    given = options_of(options)
    with jobs_at(store, out, writes=True, force=force) as kernel:
        made = kernel.jobs.schedule(
            name,
            kind,
            cron=cron,
            every=every,
            zone=zone,
            options=given,
            priority=priority,
            timeout=timeout,
            max_attempts=max_attempts,
            catch_up=catch_up,
            overlap=overlap,
            start=False,
        )
        # In the zone of its fields, so that they are seen in it.
        fields_zone = None if made.cron is None else ZoneInfo(made.zone)
        due = "" if made.next_at is None else f", due {second(made.next_at, fields_zone)}"
        out.done(made, f"{made.name}: {made.kind}{due}")


def schedules(store: Store, force: Force = False, as_json: Json = False) -> None:
    """List schedules: when they are due, and how often they were."""
    out = Output(as_json=as_json)
    with jobs_at(store, out, force=force) as kernel:
        found = kernel.jobs.schedules()
        if as_json:
            out.done(found)
        else:
            shown.schedule_table(out, found)


def unschedule(
    store: Store, name: ScheduleName, force: Force = False, as_json: Json = False
) -> None:
    """Remove a schedule; jobs that it submitted stay."""
    out = Output(as_json=as_json)
    with jobs_at(store, out, writes=True, force=force) as kernel:
        if not kernel.jobs.unschedule(name):
            names = ", ".join(one.name for one in kernel.jobs.schedules()) or "none"
            out.done({"unscheduled": None}, f"no schedule {name}, there are: {names}")
            raise typer.Exit(FAILED)
        out.done({"unscheduled": name}, f"{name} is gone")
