"""`dwkernel config …`: what counts and why, whether a file is right, and changes to files."""

from __future__ import annotations

import contextlib
import difflib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dwkernel import errors
from dwkernel.cli import output
from dwkernel.cli.arguments import Json, all_utf8, utf8
from dwkernel.cli.output import Output

if TYPE_CHECKING:
    from pathlib import Path

    from dwkernel.config.checking import Checked
    from dwkernel.config.resolving import Layers

# pydantic is loaded by the commands: `dwkernel --help` does without.

__all__ = ["app"]

app = typer.Typer(
    help="Configuration: show, check, compare and change files.",
    epilog="A directory, such as a store's, stands for the dwkernel.toml in it. Variables "
    "DWKERNEL__SECTION__FIELD win over files. All fields: dwkernel config schema.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Files = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[FILE]...", help="TOML; later ones win", show_default=False, callback=all_utf8
    ),
]
File = Annotated[str, typer.Argument(help="TOML", show_default=False, callback=utf8)]


@app.command()
def show(
    paths: Files = None,
    origin: Annotated[
        bool, typer.Option("--origin", help="say of each value where it comes from")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what counts: defaults, mode, files, environment."""
    from dwkernel.config import files, registry, resolving, showing  # noqa: PLC0415 - as above
    from dwkernel.config.changes import plain  # noqa: PLC0415

    out = Output(as_json=as_json)
    with out.errors_told():
        shape = registry.shape()
        layers = resolving.read(shape, files.places(paths or []))
        config, origins = resolving.resolve(shape, layers)
        rows = showing.rows(shape, config, origins)
        if as_json:
            out.done([row._asdict() for row in rows] if origin else plain(config))
            return
        head = ("setting", "value", *(("from", "a change counts") if origin else ()))
        out.table(
            head,
            [
                (row.path, showing.shown(row.value))
                + ((row.origin, "at once" if row.live else "after a restart") if origin else ())
                for row in rows
            ],
            right=set(),
        )


@app.command()
def check(
    paths: Annotated[
        list[str],
        typer.Argument(help="TOML; later ones win", show_default=False, callback=all_utf8),
    ],
    as_json: Json = False,
) -> None:
    """Say what is wrong with files, all at once. Exit status 1 if anything is.

    Files are looked at together, as a program reads them; the environment is left out. Options of
    plugins are held against the manifests of those that are found; no code of theirs runs.
    """
    from dwkernel.config.files import places  # noqa: PLC0415 - as above

    out = Output(as_json=as_json)
    with out.errors_told():
        found, unchecked = _problems(places(paths))
        if as_json:
            told = {"ok": not found, "errors": [one._asdict() for one in found]}
            others = [{"path": one.path, "where": one.where, "text": one.text} for one in unchecked]
            out.done(told | {"unchecked": others})
        for one in found:
            if not as_json:
                out.lines(out.name(str(one)))
        for one in unchecked:
            out.note(out.name(f"{one.where}: not checked: {one.text}"))
        if found:
            raise typer.Exit(output.FAILED)
        out.note(f"{', '.join(paths)}: nothing is wrong")


def _problems(paths: list[Path]) -> Checked:
    from dwkernel.config import checking, registry, resolving  # noqa: PLC0415 - as above
    from dwkernel.config.problems import Problem  # noqa: PLC0415

    shape = registry.shape()
    found: list[Problem] = []
    for path in paths:
        try:
            resolving.read(shape, [path], {})
        except errors.Invalid as error:
            # The message has the place, what is wrong, and behind it the advice.
            where = ":".join(error.details[name] for name in ("path", "line", "column"))
            text = str(error).removeprefix(f"{where}: ")
            found.append(Problem(error.code, "", where, text))
    if found:
        return checking.Checked(found, [])
    return checking.everything(shape, resolving.read(shape, paths, {}))


@app.command()
def diff(
    one: File,
    other: File,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="exit status 1 if they differ")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show in which settings two files differ, defaults and modes included."""
    from dwkernel.config import changes, files, registry, resolving  # noqa: PLC0415 - as above
    from dwkernel.config.showing import shown  # noqa: PLC0415

    out = Output(as_json=as_json)
    with out.errors_told():
        shape = registry.shape()
        configs = [
            resolving.resolve(shape, resolving.read(shape, files.places(path), {})).config
            for path in (one, other)
        ]
        found = changes.differences(shape, *configs)
        if as_json:
            out.done(found)
        elif found:
            rows = [(change.path, shown(change.old), shown(change.new)) for change in found]
            out.table(("setting", one, other), rows, right=set())
        else:
            out.note("they say the same")
        if found and exit_code:
            raise typer.Exit(output.FAILED)


@app.command()
def schema(as_json: Json = False) -> None:
    """Print the JSON Schema of files, for editors."""
    from dwkernel.config.showing import json_schema  # noqa: PLC0415 - as above

    del as_json  # it is JSON anyway
    Output(as_json=True).done(json_schema())


@app.command()
def modes(as_json: Json = False) -> None:
    """Show what each operating mode sets, and why."""
    from dwkernel.config.modes import MODES  # noqa: PLC0415 - as above
    from dwkernel.config.registry import shape  # noqa: PLC0415
    from dwkernel.config.showing import shown  # noqa: PLC0415

    out = Output(as_json=as_json)
    known = shape()
    if as_json:
        out.done(
            {
                mode: {"for": about, "sets": [one._asdict() for one in known.defaults_of(mode)]}
                for mode, (about, _) in MODES.items()
            }
        )
        return
    rows: list[tuple[str, str, str, str]] = []
    for mode, (about, _) in MODES.items():
        rows.append((mode, "", "", about))
        sets = known.defaults_of(mode)
        rows.extend(("", one.path, shown(one.value), one.why) for one in sets)
    out.table(("mode", "setting", "value", ""), rows, right=set())


@app.command("set")
def set_(
    path: Annotated[
        str,
        typer.Argument(
            metavar="SECTION.FIELD",
            help="such as limits.rate; keys with dots in quotes",
            callback=utf8,
        ),
    ],
    value: Annotated[str, typer.Argument(help="a literal of TOML, or text", callback=utf8)],
    file: Annotated[
        str, typer.Option("--file", "-f", help="TOML; made if it is missing", callback=utf8)
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="show what would change, and change nothing")
    ] = False,
    as_json: Json = False,
) -> None:
    """Set one value in a file; everything else stays as it is, comments too.

    The file is replaced in one step, and only by one that is valid.
    """
    from dwkernel.config import editing, files  # noqa: PLC0415 - as above
    from dwkernel.config.layers import route_of  # noqa: PLC0415

    out = Output(as_json=as_json)
    with out.errors_told():
        place = files.places(file)[0]
        route = route_of(path)
        given = _value(route, value)
        before, after = editing.replaced(place, route, given)
        _refuse_wrong(place, before, after)
        if not dry_run and after != before:
            editing.write(place, before, after)
        told = {"file": str(place), "path": path, "changed": after != before, "dry_run": dry_run}
        if dry_run:
            out.done(told | {"diff": _diff(before, after, file)}, _diff(before, after, file))
        else:
            out.done(told, f"{out.name(str(place))}: {path} = {editing.literal(given)}")


def _value(route: tuple[str, ...], text: str) -> Any:
    from dwkernel.config.environment import value_of  # noqa: PLC0415 - as above
    from dwkernel.config.looking import field_at, is_text  # noqa: PLC0415
    from dwkernel.config.manager import no_such  # noqa: PLC0415
    from dwkernel.config.registry import shape  # noqa: PLC0415

    field = field_at(shape(), route)
    if field is None:
        raise no_such(shape(), route)
    return value_of(text, is_text=is_text(field))


def _refuse_wrong(place: Path, before: str, after: str) -> None:
    """Raise unless a file with the text `after` would be valid, or as it was with `before`."""
    from dwkernel.config import checking, registry, resolving  # noqa: PLC0415 - as above

    shape, old = registry.shape(), None
    with contextlib.suppress(errors.Invalid):
        old = resolving.resolve(shape, _layers(place, before)).config
    layers = _layers(place, after)
    checking.refuse(shape, layers, resolving.resolve(shape, layers).config, old)


def _layers(place: Path, text: str) -> Layers:
    from dwkernel.config import files, resolving  # noqa: PLC0415 - as above

    return resolving.Layers((files.layer_from(text, str(place)),))


def _diff(before: str, after: str, name: str) -> str:
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), name, f"{name} (new)", lineterm=""
    )
    return "\n".join(lines)
