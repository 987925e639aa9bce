"""Arguments that several of the commands take."""

from __future__ import annotations

from typing import Annotated

import typer

from dwkernel.cli.arguments import all_utf8, utf8

__all__ = ["FilterOption", "Place", "StreamName", "SubjectsOption"]

Place = Annotated[
    str,
    typer.Argument(
        metavar="STORE",
        help="the store's path, or a broker's URL",
        show_default=False,
        callback=utf8,
    ),
]
StreamName = Annotated[
    str, typer.Argument(metavar="STREAM", help="the stream's name", callback=utf8)
]
SubjectsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--subject",
        "-s",
        metavar="PATTERN",
        help="only such subjects; `*` is one token, a last `>` one and more; may be repeated",
        show_default=False,
        callback=all_utf8,
    ),
]
FilterOption = Annotated[
    str | None,
    typer.Option(
        "--filter",
        metavar="EXPRESSION",
        help="only where it holds, such as \"headers.unit == 'C' and size < 1 KiB\"",
        show_default=False,
        callback=utf8,
    ),
]
