"""`new` and `test` (`conform` here): for those who write plugins."""

from __future__ import annotations

import contextlib
import logging
import shlex
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dwkernel.cli import output
from dwkernel.cli.arguments import Json, utf8
from dwkernel.cli.output import Output
from dwkernel.cli.plugin.places import Folders, Target, folder_of, section_of
from dwkernel.cli.plugin.shown import Results

if TYPE_CHECKING:
    from dwkernel.conformance.plugins import Case, Subject

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


Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="its id: a-z, 0-9 and '-', beginning with a letter",
        show_default=False,
        callback=utf8,
    ),
]


def new(
    kind: Kind,
    name: Name,
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
        text = "\n".join([*map(str, files), f"now: dwkernel plugin test {shlex.quote(str(place))}"])
        names = [str(path) for path in files]
        out.done({"id": name, "kind": kind, "folder": str(place), "files": names}, text)


def conform(
    target: Target,
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

    The plugin gets all that its manifest asks for, and what conformance.toml beside it says. It
    runs in this process, or confined if it says so. Exit status 1 if a case fails.
    """
    from dwkernel.conformance import plugins  # noqa: PLC0415 - only who tests needs it
    from dwkernel.units import parse_duration  # noqa: PLC0415 - as above

    out = Output(as_json=as_json)
    with out.errors_told():
        limit_s = parse_duration(limit)
        # What a plugin's log says of a failure is in the case's own words, too.
        logging.getLogger("dwkernel.plugins").addHandler(logging.NullHandler())
        subjects = _subjects(target, kind, folders)
        found = _cases(subjects, only)
        shown = Results(out)
        results = []
        for number, (subject, case) in enumerate(found, 1):
            # What a plugin writes is no part of the results; that it does is a case of its own.
            here = contextlib.redirect_stdout(sys.stderr)
            with shown.waiting(case.name, number, len(found)), here:
                result = plugins.result_of(case, subject, limit_s)
            results.append(result)
            shown.show(result)
        shown.end()
        counts = Counter(result.status for result in results)
        told = {status: counts[status] for status in ("passed", "failed", "left out")}
        tested = ", ".join(subject.kind for subject in subjects)
        text = ", ".join(f"{count} {status}" for status, count in told.items())
        about = {"id": subjects[0].id, "kind": tested, "counts": told}
        done = [result.to_dict() for result in results]
        out.done({**about, "results": done}, f"{subjects[0].id} as {tested}: {text}")
        if counts["failed"]:
            raise typer.Exit(output.FAILED)


def _subjects(target: str, kind: str | None, folders: list[str] | None) -> list[Subject]:
    """Return the plugin as each of its kinds, or as the one that is meant."""
    from dwkernel.conformance.plugins import Subject  # noqa: PLC0415 - as above
    from dwkernel.plugins.catalogue import Catalogue  # noqa: PLC0415 - as above

    section = section_of(None, folders)
    place = folder_of(target)
    if place is None:
        place = Catalogue(lambda: section).newest(target).home or Path(target)
    first = Subject(place, kind=kind, folders=section.folders)
    own = first.found.manifest.kinds if first.found is not None else ()
    others = [] if kind is not None else [one for one in own if one != first.kind]
    return [first, *(Subject(place, kind=one, folders=section.folders) for one in others)]


def _cases(subjects: list[Subject], only: str) -> list[tuple[Subject, Case]]:
    """Return what is run: what all plugins do once, and what each kind does."""
    from dwkernel.conformance import plugins  # noqa: PLC0415 - as above

    everything = [
        (subject, case)
        for number, subject in enumerate(subjects)
        for case in plugins.cases(subject.kind, life=number == 0)
    ]
    wanted = only.replace(" ", "_")  # as they are shown, and as they are written
    found = [pair for pair in everything if wanted in pair[1].name]
    if not found:
        text = f"none of the {len(everything)} cases has {only!r} in its name"
        raise typer.BadParameter(text)
    return found
