"""Arguments that several of the commands take."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dwkernel.cli.arguments import all_utf8, utf8
from dwkernel.cli.bus.places import store_at

if TYPE_CHECKING:
    import contextlib

    from dwkernel.cli.output import Output
    from dwkernel.kernel import Kernel

__all__ = ["Id", "KindFilter", "KindName", "Limit", "Options", "jobs_at", "options_of"]

KindName = Annotated[
    str, typer.Argument(metavar="KIND", help="as `dwkernel job kinds` lists them", callback=utf8)
]
KindFilter = Annotated[
    str | None, typer.Option("--kind", help="only these", show_default=False, callback=utf8)
]
Id = Annotated[str, typer.Argument(metavar="ID", help="the job's id", callback=utf8)]
Limit = Annotated[
    int | None, typer.Option("--limit", "-n", min=1, help="at most so many", show_default=False)
]
Options = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        "-o",
        metavar="NAME=VALUE",
        help="what the kind takes; a value is JSON, or text; may be repeated",
        show_default=False,
        callback=all_utf8,
    ),
]


def options_of(given: list[str] | None) -> dict[str, Any]:
    """Return options as a kind gets them.

    >>> options_of(["rate=50 MiB", "restart=true", "n=5"])
    {'rate': '50 MiB', 'restart': True, 'n': 5}
    """
    options: dict[str, Any] = {}
    for one in given or []:
        name, equals, value = one.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"--option {one!r}: write NAME=VALUE")  # noqa: EM102, TRY003
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options


def jobs_at(
    store: str,
    out: Output,
    *,
    writes: bool = False,
    force: bool = False,
    stopped: str = "stopped",
) -> contextlib.AbstractContextManager[Kernel]:
    """Open the store for one command, with errors told."""
    return store_at(store, out, inside="kernel.jobs", writes=writes, force=force, stopped=stopped)
