"""`list`, `show`, `history`, `kinds`: what there is."""

from __future__ import annotations

from typing import Annotated

import typer

from dwkernel.cli.arguments import Force, Json, Store
from dwkernel.cli.job import shown
from dwkernel.cli.job.arguments import Id, KindFilter, Limit, jobs_at
from dwkernel.cli.output import Output

__all__ = ["history", "kinds", "list_", "show"]

_State = Annotated[
    str | None,
    typer.Option("--state", help="only these, such as waiting or failed", show_default=False),
]


def list_(
    store: Store,
    state: _State = None,
    kind: KindFilter = None,
    limit: Limit = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """List jobs that have not ended, in the order of submission."""
    out = Output(as_json=as_json)
    with jobs_at(store, out, force=force) as kernel:
        found = kernel.jobs.list(state=state, kind=kind, limit=limit)
        if as_json:
            out.done([job.to_dict() for job in found])
            return
        shown.table(out, found)
        if kernel.jobs.is_paused:
            out.note("jobs are paused: `dwkernel job resume` lets them run again")


def show(store: Store, job_id: Id, force: Force = False, as_json: Json = False) -> None:
    """Show all that is known of a job."""
    out = Output(as_json=as_json)
    with jobs_at(store, out, force=force) as kernel:
        job = kernel.jobs.get(job_id)
        if as_json:
            out.done(job.to_dict())
        else:
            shown.page(out, job)


def history(
    store: Store,
    state: _State = None,
    kind: KindFilter = None,
    limit: Limit = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """List jobs that have ended, the last one first."""
    out = Output(as_json=as_json)
    with jobs_at(store, out, force=force) as kernel:
        found = kernel.jobs.history(limit, kind, state=state)
        if as_json:
            out.done([job.to_dict() for job in found])
        else:
            shown.table(out, found)


def kinds(store: Store, force: Force = False, as_json: Json = False) -> None:
    """List what can be done as a job."""
    out = Output(as_json=as_json)
    with jobs_at(store, out, force=force) as kernel:
        found = kernel.jobs.kinds()
        out.done(found, "\n".join(found))
