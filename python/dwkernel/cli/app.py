"""The commands."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

import dwkernel as dw
from dwkernel import errors
from dwkernel.cli import cp as copying
from dwkernel.cli import files, output, removing
from dwkernel.cli.arguments import Force, Json, Key, Recursive, Store, all_utf8, utf8
from dwkernel.cli.bus import app as bus_app
from dwkernel.cli.config import app as config_app
from dwkernel.cli.job import app as job_app
from dwkernel.cli.measures import metrics
from dwkernel.cli.output import Deleted, Output
from dwkernel.cli.plugin import app as plugin_app
from dwkernel.cli.times import second
from dwkernel.objects import ObjectInfo, Prefix
from dwkernel.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dwkernel.kernel import Kernel

app = typer.Typer(
    help="A storage kernel: drives in, one store out, that survives the loss of drives.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
drive_app = typer.Typer(help="Work on one drive of a store.", no_args_is_help=True)
app.add_typer(drive_app, name="drive")
app.add_typer(bus_app, name="bus")
app.add_typer(config_app, name="config")
app.add_typer(job_app, name="job")
app.add_typer(plugin_app, name="plugin")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"dwkernel {dw.__version__}")  # noqa: T201
        raise typer.Exit


Drives = Annotated[
    list[str] | None,
    typer.Option(
        "--drive",
        "-d",
        help="where a drive is; once for each",
        show_default=False,
        callback=all_utf8,
    ),
]
Rate = Annotated[
    str | None,
    typer.Option(help="at most so much per second, such as '50 MiB'", show_default=False),
]

# What Ctrl-C leaves behind, in the words of each kind of work.
_STOPPED_PUT = "stopped: the object is stored whole or not at all"
_STOPPED_GET = "stopped: the file is written whole or not at all"
_STOPPED_COPY = "stopped: files that were copied stay copied; no file is there in part"
_STOPPED_SCRUB = "stopped: what was repaired stays repaired; the next `dwkernel scrub` goes on"
_STOPPED_REBUILD = "stopped: what was restored stays restored; the next `dwkernel rebuild` goes on"


def run() -> int:
    """Run the command line and return its exit status; whatever happens is told in one line."""
    output.prepare()
    try:
        status = app(standalone_mode=False)
        # Now, while somebody is here to tell what the other end says to it.
        if sys.stdout is not None:
            sys.stdout.flush()
    except Exception as error:  # noqa: BLE001 - the last catch
        return Output(as_json=output.wants_json(sys.argv[1:])).tell(error)
    return status if isinstance(status, int) else 0


@app.callback()
def _before(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """Take the options that need no command."""
    del version


@contextlib.contextmanager
def opened(
    store: str,
    out: Output,
    *,
    read_only: bool = False,
    force: bool = False,
    drives: list[str] | None = None,
    stopped: str = "stopped",
) -> Iterator[Kernel]:
    """Open a store for one command, with errors told."""
    with (
        out.errors_told(stopped),
        dw.open(
            store,
            drives=drives or None,
            read_only=read_only,
            force=force,
            progress=out.progress(),
        ) as kernel,
    ):
        yield kernel


@app.command()
def create(
    store: Store,
    drives: Drives = None,
    count: Annotated[
        int | None,
        typer.Option("--drives", "-n", help="make so many directories under the path", min=1),
    ] = None,
    geometry: Annotated[
        str | None,
        typer.Option("--geometry", "-g", help="such as 4+2, raid6:8, mirror:2", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a store."""
    out = Output(as_json=as_json)
    if drives and count:
        raise typer.BadParameter("give --drive or --drives, not both")  # noqa: TRY003
    with (
        out.errors_told(),
        dw.open(store, drives=drives or count, geometry=geometry, create=True) as kernel,
    ):
        output.show_status(out, kernel.pool.status(), store)


@app.command("open")
def open_(
    store: Store,
    drives: Drives = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="change nothing, and remember nothing")
    ] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Open a store where its drives are now, and remember where."""
    out = Output(as_json=as_json)
    with opened(store, out, drives=drives, read_only=read_only, force=force) as kernel:
        output.show_status(out, kernel.pool.status(), store)


@app.command()
def status(store: Store, force: Force = False, as_json: Json = False) -> None:
    """Show drives, capacity, what is degraded and what to do."""
    out = Output(as_json=as_json)
    with opened(store, out, read_only=True, force=force) as kernel:
        found = kernel.pool.status()
        # Looking needs no more than reading; that the store can only be read would be no news.
        output.show_status(out, replace(found, read_only=None), store)


@app.command()
def put(  # noqa: PLR0913, PLR0917 - each option stands alone
    store: Store,
    key: Key,
    source: Annotated[str, typer.Argument(help="a file, or - for standard input")] = "-",
    content_type: Annotated[str, typer.Option(help="such as text/plain")] = "",
    if_absent: Annotated[bool, typer.Option(help="only if there is no such object")] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Store a file, or standard input. A missing container is made."""
    out = Output(as_json=as_json)
    data: BinaryIO | Path = Path(source)
    with out.errors_told():
        if source == files.STANDARD:
            data = files.standard_input()
        else:
            files.check_source(Path(source))
    with (
        opened(store, out, force=force, stopped=_STOPPED_PUT) as kernel,
        copying.container_of(kernel, key, out),
    ):
        info = kernel.put(
            key,
            data,
            content_type=content_type or None,
            if_absent=if_absent,
            progress=out.progress(),
        )
        out.done(info, _line(info, out))


def _line(info: ObjectInfo, out: Output) -> str:
    return f"{out.name(info.key)}  {format_size(info.size)}  {second(info.created)}"


@app.command()
def get(
    store: Store,
    key: Key,
    target: Annotated[
        str,
        typer.Argument(help="a file, a directory, or - for standard output; by default here"),
    ] = "",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Read an object into a file, whole or not at all."""
    out = Output(as_json=as_json)
    with opened(store, out, read_only=True, force=force, stopped=_STOPPED_GET) as kernel:
        info = kernel.head(key)
        place = copying.copy_one_out(kernel, info, target, out)
        if place is not None:
            out.done(info, f"{out.name(str(place))}  {format_size(info.size)}")


@app.command()
def cat(
    store: Store,
    keys: Annotated[
        list[str], typer.Argument(help="container/name", show_default=False, callback=all_utf8)
    ],
    force: Force = False,
) -> None:
    """Write objects to standard output: content, so no --json."""
    out = Output(as_json=False)
    with opened(store, out, read_only=True, force=force) as kernel:
        file = files.standard_output()
        for key in keys:
            files.copy_to(kernel, kernel.head(key), file, lambda _: None)
        file.flush()


@app.command()
def stat(store: Store, key: Key, force: Force = False, as_json: Json = False) -> None:
    """Show what is known of an object."""
    out = Output(as_json=as_json)
    with opened(store, out, read_only=True, force=force) as kernel:
        info = kernel.head(key)
        if as_json:
            out.done(info)
            return
        for name, value in info.to_dict().items():
            shown = f"{value:016x}" if name == "checksum" else value
            if value not in (None, {}):
                out.lines(f"{name:<13} {out.name(str(shown))}")


@app.command()
def ls(
    store: Store,
    prefix: Annotated[
        str, typer.Argument(help="container/ and what names begin with", callback=utf8)
    ] = "",
    recursive: Recursive = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """List containers, or what a container holds."""
    out = Output(as_json=as_json)
    with opened(store, out, read_only=True, force=force) as kernel:
        if not prefix and not recursive:
            containers = kernel.containers.list()
            if as_json:
                out.done(containers)
                return
            rows = [(f"{found.name}/", second(found.created)) for found in containers]
            out.table(("container", "created"), rows, right=set())
            return
        listing = kernel.list(prefix, delimiter=None if recursive else "/")
        if as_json:
            out.done(list(listing))
            return
        out.table(("key", "size", "created"), map(_row, listing), right={1})


def _row(entry: ObjectInfo | Prefix) -> tuple[str, str, str]:
    if isinstance(entry, Prefix):
        return entry.key, "", ""
    return entry.key, format_size(entry.size), second(entry.created)


@app.command()
def rm(
    store: Store,
    keys: Annotated[
        list[str],
        typer.Argument(
            help="container/name, or with -r a container", show_default=False, callback=all_utf8
        ),
    ],
    recursive: Recursive = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Delete objects; with -r all below them, too.

    With -r a container that is named alone goes with all in it. What cannot be deleted stops
    nothing else.
    """
    out = Output(as_json=as_json)
    gone = Deleted()
    with opened(store, out, force=force, stopped="stopped: what was deleted is gone") as kernel:
        for key in keys:
            try:
                (removing.delete_tree if recursive else removing.delete)(kernel, key, gone)
            except (errors.NotFound, errors.Invalid, errors.Conflict) as error:
                if len(keys) == 1:
                    raise
                gone.failed[key] = str(error)
        out.done(gone)
        if gone.failed:
            raise typer.Exit(output.FAILED)


@app.command()
def cp(
    store: Store,
    source: Annotated[
        str, typer.Argument(help=f"a path, or {copying.INSIDE}container/name", show_default=False)
    ],
    target: Annotated[
        str, typer.Argument(help=f"a path, or {copying.INSIDE}container/name", show_default=False)
    ],
    recursive: Recursive = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Copy files into the store or out: one side begins with `dw:`.

    With -r a tree. Times and modes of files are kept, and empty directories. Links to files are
    copied as the files; links to directories and special files are left out, and named at the end.
    """
    out = Output(as_json=as_json)
    inwards = target.startswith(copying.INSIDE)
    if inwards == source.startswith(copying.INSIDE):
        raise typer.BadParameter(f"one of the two must begin with {copying.INSIDE}")  # noqa: EM102, TRY003
    inside = utf8((target if inwards else source).removeprefix(copying.INSIDE)) or ""
    stopped = _STOPPED_COPY if recursive else _STOPPED_PUT if inwards else _STOPPED_GET
    with opened(store, out, read_only=not inwards, force=force, stopped=stopped) as kernel:
        copied = (
            copying.copy_in(kernel, Path(source), inside, recursive=recursive, out=out)
            if inwards
            else copying.copy_out(kernel, inside, target, recursive=recursive, out=out)
        )
        if target != files.STANDARD:
            out.done(copied)
        if copied.failed:
            raise typer.Exit(output.FAILED)


@app.command()
def scrub(
    store: Store,
    restart: Annotated[
        bool, typer.Option("--restart", help="begin anew, also where one was stopped")
    ] = False,
    rate: Rate = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Read and verify everything, and repair what is wrong. Goes on where one was stopped."""
    out = Output(as_json=as_json)
    with opened(store, out, force=force, stopped=_STOPPED_SCRUB) as kernel:
        out.done(kernel.pool.scrub(restart=restart, rate=rate, progress=out.progress()))


@app.command()
def rebuild(
    store: Store,
    drive: Annotated[str, typer.Argument(help="only this drive, as status shows it")] = "",
    rate: Rate = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Restore what is missing."""
    out = Output(as_json=as_json)
    with opened(store, out, force=force, stopped=_STOPPED_REBUILD) as kernel:
        out.done(kernel.pool.rebuild(drive or None, rate=rate, progress=out.progress()))


@drive_app.command("replace")
def drive_replace(
    store: Store,
    old: Annotated[str, typer.Argument(help="as status shows it; it may be gone")],
    new: Annotated[str, typer.Argument(help="an empty or new directory, or a URL", callback=utf8)],
    rate: Rate = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Put a new drive in an old one's place and rebuild onto it."""
    out = Output(as_json=as_json)
    with opened(store, out, force=force, stopped=_STOPPED_REBUILD) as kernel:
        known = kernel.pool.status().warnings
        report = kernel.pool.replace(old, new, rate=rate, progress=out.progress())
        out.done(report)
        for text in kernel.pool.status().warnings:
            if text not in known:
                out.note(text)
        if not report.unrestored_shards:
            out.note(f"all that was on {old} is on {new} now: the old drive is not needed any more")


app.command()(metrics)


@app.command()
def bench(
    path: Annotated[
        str,
        typer.Argument(help="where to measure; something there is made and removed", callback=utf8),
    ] = ".",
    size: Annotated[str, typer.Option(help="of the large file")] = "256 MiB",
    seconds: Annotated[float, typer.Option(help="for each small-put measurement")] = 2.0,
    report: Annotated[str, typer.Option(help="write an HTML page with plots here")] = "",
    as_json: Json = False,
) -> None:
    """Measure a store beside plain files, in one run."""
    from dwkernel import bench as benching  # noqa: PLC0415 - only who measures needs it

    out = Output(as_json=as_json)
    with out.errors_told():
        result = benching.run(Path(path), size=size, seconds=seconds, say=out.note)
        if report:
            Path(report).write_text(benching.page(result), encoding="utf-8")
            out.note(f"report: {Path(report).resolve()}")
        out.done(result)


@app.command()
def demo(
    path: Annotated[
        str, typer.Option(help="where the demo's store is made", callback=utf8)
    ] = "demo-store",
    source: Annotated[
        list[str] | None,
        typer.Option(help="a tree to store instead of Python's own library", show_default=False),
    ] = None,
    limit: Annotated[str, typer.Option(help="store at most so much; all by default")] = "",
    report: Annotated[str, typer.Option(help="the page that is written")] = "demo-report.html",
    keep: Annotated[bool, typer.Option(help="keep the store afterwards")] = False,
    as_json: Json = False,
) -> None:
    """Store real files, lose drives, and prove that nothing is lost.

    Drives are rebuilt, a writer is killed, and a page is written that shows all of it.
    """
    from dwkernel import demo as showing_off  # noqa: PLC0415 - only who wants it needs it

    out = Output(as_json=as_json)
    with out.errors_told(f"stopped: what was made lies in {path}, and the next demo begins anew"):
        story = showing_off.run(
            Path(path),
            sources=[Path(tree) for tree in source or []],
            limit=limit or None,
            report=Path(report),
            say=out.note,
        )
        if not keep:
            shutil.rmtree(path, ignore_errors=True)
        out.done(story)
        if not story.proved:
            raise typer.Exit(output.FAILED)


@app.command()
def doctor(
    path: Annotated[
        str, typer.Argument(help="a store, or where one may be made", callback=utf8)
    ] = ".",
    as_json: Json = False,
) -> None:
    """Look at this machine and, if there is one, at the store."""
    from dwkernel.cli.examine import examine  # noqa: PLC0415 - only who asks needs it

    out = Output(as_json=as_json)
    with out.errors_told():
        findings = examine(Path(path))
        if as_json:
            out.done(findings)
        else:
            marks = {"ok": "ok  ", "note": "note", "bad": "BAD "}
            for finding in findings:
                out.lines(f"{marks[finding.mark]}  {out.name(finding.text)}")
        if any(finding.mark == "bad" for finding in findings):
            raise typer.Exit(output.FAILED)


@app.command()
def version(as_json: Json = False) -> None:
    """Show the version."""
    out = Output(as_json=as_json)
    about = {"dwkernel": dw.__version__, "python": sys.version.split()[0], "platform": sys.platform}
    out.done(about, f"dwkernel {dw.__version__}, Python {about['python']}, {os.uname().machine}")
