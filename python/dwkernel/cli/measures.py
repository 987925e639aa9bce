"""`metrics`: figures for monitoring."""

from __future__ import annotations

from typing import Annotated

import typer

import dwkernel as dw
from dwkernel.cli.arguments import Force, Json, Store
from dwkernel.cli.output import Output

__all__ = ["metrics"]


def metrics(
    store: Store,
    openmetrics: Annotated[
        bool, typer.Option("--openmetrics", help="print the text that Prometheus reads")
    ] = False,
    limit: Annotated[
        int,
        typer.Option(min=1, help="streams and consumers with figures of their own; others joined"),
    ] = 1000,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Show figures for monitoring: the pool, drives, streams and consumers.

    A store that a program has open is asked in that program: kernel.metrics().
    """
    out = Output(as_json=as_json)
    if openmetrics and as_json:
        raise typer.BadParameter("give --openmetrics or --json, not both")  # noqa: TRY003
    with out.errors_told(), dw.open(store, read_only=True, force=force) as kernel:
        snapshot = kernel.metrics(limit=limit)
        if openmetrics:
            print(snapshot.openmetrics(), end="")  # noqa: T201 - for a file or a pipe
            return
        out.done(snapshot)
