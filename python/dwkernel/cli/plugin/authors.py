"""`new` and `test` (`conform` here): for those who write plugins."""

from __future__ import annotations

import logging
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dwkernel.cli import output
from dwkernel.cli.arguments import Json, utf8
from dwkernel.cli.output import Output
from dwkernel.cli.plugin.places import Folders, homes

if TYPE_CHECKING:
    from dwkernel.conformance.plugins import Result, Subject

Kind = Annotated[
    str,
    typer.Argument(
        metavar="KIND",
        help="drive, policy, codec, key_source, authoriser, principal_source, sink, "
        "metrics_exporter, index_stage, search_provider, ai_provider, door or job",
        show_default=False,
        callback=utf8,
    ),
]


def new(
    kind: Kind,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="its id: a-z, 0-9 and '-', beginning with a letter",
            show_default=False,
            callback=utf8,
        ),
    ],
    folder: Annotated[
        str | None,
        typer.Option("--dir", help="where; by default NAME, here", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Begin a plugin: a package that works.

    It installs, has a test, and passes the conformance suite of its kind.
    """
    from dwkernel.cli.plugin.making import make  # noqa: PLC0415 - only who begins needs it

    out = Output(as_json=as_json)
    with out.errors_told():
        place = Path(folder if folder is not None else name)
        files = make(kind, name, place)
        text = "\n".join([*map(str, files), f"now: dwkernel plugin test {place}"])
        names = [str(path) for path in files]
        out.done({"id": name, "kind": kind, "folder": str(place), "files": names}, text)


def conform(
    target: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER|ID",
            help="the plugin's folder or project, or the id of an installed one",
            show_default=False,
            callback=utf8,
        ),
    ],
    kind: Annotated[
        str | None,
        typer.Option("--kind", help="of several kinds that it has", show_default=False),
    ] = None,
    only: Annotated[
        str, typer.Option("--only", help="cases with this in their names", show_default=False)
    ] = "",
    limit: Annotated[str, typer.Option(help="so long a case may take")] = "60s",
    folders: Folders = None,
    as_json: Json = False,
) -> None:
    """Test what its kind must do.

    The plugin runs in this process, with all that its manifest asks for.
    """
    from dwkernel.conformance import plugins  # noqa: PLC0415 - only who tests needs it
    from dwkernel.units import parse_duration  # noqa: PLC0415 - as above

    out = Output(as_json=as_json)
    with out.errors_told():
        limit_s = parse_duration(limit)
        # What a plugin's log says of a failure is in the case's own words, too.
        logging.getLogger("dwkernel.plugins").addHandler(logging.NullHandler())
        subject = _subject(target, kind, folders)
        found = [case for case in plugins.cases(subject.kind) if only in case.name]
        results = []
        for case in found:
            result = plugins.result_of(case, subject, limit_s)
            results.append(result)
            if not as_json:
                _tell(out, result)
        counts = Counter(result.status for result in results)
        told: dict[str, Any] = {"id": subject.id, "kind": subject.kind, "counts": counts}
        texts = [f"{counts[name]} {name}" for name in ("passed", "failed", "left out")]
        told["results"] = [result.to_dict() for result in results]
        out.done(told, f"{subject.id} as {subject.kind}: {', '.join(texts)}")
        if counts["failed"] or not results:
            raise typer.Exit(output.FAILED)


def _subject(target: str, kind: str | None, folders: list[str] | None) -> Subject:
    from dwkernel.conformance.plugins import Subject  # noqa: PLC0415 - as above
    from dwkernel.plugins import PluginsSection  # noqa: PLC0415 - as above
    from dwkernel.plugins.catalogue import Catalogue  # noqa: PLC0415 - as above

    place = Path(target)
    if not {"/", os.sep} & set(target) and not place.is_dir():
        section = PluginsSection(folders=homes(folders))
        place = Catalogue(lambda: section).newest(target).home or place
    return Subject(place, kind=kind, folders=homes(folders))


def _tell(out: Output, result: Result) -> None:
    marks = {"passed": "ok      ", "failed": "FAILED  ", "left out": "left out"}
    text = f"{marks[result.status]}  {result.name.replace('_', ' ')}"
    if result.text:
        text += f": {result.text}"
    if result.advice:
        text += f"\n          {result.advice}"
    out.lines(text)
