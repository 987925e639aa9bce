"""`metrics`: figures for monitoring."""

from __future__ import annotations

import json
from dataclasses import replace
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
    """Show figures of the pool, drives, streams and consumers.

    A store that a program has open is asked in that program: kernel.metrics().
    """
    out = Output(as_json=as_json)
    if openmetrics and as_json:
        raise typer.BadParameter("give --openmetrics or --json, not both")  # noqa: TRY003
    with (
        out.errors_told(),
        dw.open(store, read_only=True, force=force, progress=out.progress()) as kernel,
    ):
        whole = kernel.metrics(limit=limit)
        # Looking needs no more than reading; that the store can only be read would be no news.
        seen = [family for family in whole.families if family.name != "dwkernel_pool_read_only"]
        snapshot = replace(whole, families=seen)
        if openmetrics:
            print(snapshot.openmetrics(), end="")  # noqa: T201 - for a file or a pipe
            return
        if as_json or out.console.is_terminal:
            out.done(snapshot)
            return
        for family in snapshot.families:
            for sample in family.samples:
                labels = json.dumps(sample.labels, ensure_ascii=False) if sample.labels else ""
                print(f"{sample.name}{labels}\t{sample.value}")  # noqa: T201 - as a table in a pipe
