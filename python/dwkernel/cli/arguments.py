"""Arguments and options that several commands take."""

from __future__ import annotations

import os
from typing import Annotated

import typer

__all__ = ["Force", "Json", "Key", "Recursive", "Store", "all_utf8", "utf8"]


def utf8(text: str | None) -> str | None:
    """Refuse an argument that no store can take: bytes of the shell that are not UTF-8."""
    try:
        (text or "").encode()
    except UnicodeEncodeError:
        name = os.fsencode(text or "").decode(errors="backslashreplace")
        raise typer.BadParameter(f"{name} is not UTF-8") from None  # noqa: EM102, TRY003
    return text


def all_utf8(texts: list[str] | None) -> list[str] | None:
    """Refuse arguments as `utf8` does."""
    for text in texts or []:
        utf8(text)
    return texts


Store = Annotated[str, typer.Argument(help="the store's path", show_default=False, callback=utf8)]
Key = Annotated[str, typer.Argument(help="container/name", show_default=False, callback=utf8)]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]
Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="everything below")]
Force = Annotated[
    bool, typer.Option("--force", help="open what lies beyond the geometry's tolerance")
]
