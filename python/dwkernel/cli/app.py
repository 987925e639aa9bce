"""The commands."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

import dwkernel as dw
from dwkernel import errors
from dwkernel._progress import showing
from dwkernel.cli import copying, output
from dwkernel.cli.output import Output
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

Store = Annotated[str, typer.Argument(help="the store's path", show_default=False)]
Key = Annotated[str, typer.Argument(help="container/name", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]
Drives = Annotated[
    Optional[list[str]],  # noqa: UP007, UP045 - typer reads this at run time
    typer.Option("--drive", "-d", help="where a drive is; once for each", show_default=False),
]
Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="everything below")]
Rate = Annotated[
    Optional[str],  # noqa: UP007, UP045
    typer.Option(help="at most so much per second, such as '50 MiB'", show_default=False),
]

# Marks the side of `cp` that is in the store.
_INSIDE = "dw:"
_PIECE_BYTES = 4 << 20


def run() -> None:
    """Run the command line."""
    app()


@contextlib.contextmanager
def opened(
    store: str, out: Output, *, read_only: bool = False, drives: list[str] | None = None
) -> Iterator[Kernel]:
    """Open a store for one command, with errors told."""
    with out.errors_told(), dw.open(store, drives=drives or None, read_only=read_only) as kernel:
        yield kernel


@app.command()
def create(
    store: Store,
    drives: Drives = None,
    count: Annotated[
        Optional[int],  # noqa: UP007, UP045
        typer.Option("--drives", "-n", help="make so many directories under the path", min=1),
    ] = None,
    geometry: Annotated[
        Optional[str],  # noqa: UP007, UP045
        typer.Option("--geometry", "-g", help="such as 4+2, raid6:8, mirror:2", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a store."""
    out = Output(as_json=as_json)
    if drives and count:
        raise typer.BadParameter("give --drive or --drives, not both")  # noqa: EM101, TRY003
    with (
        out.errors_told(),
        dw.open(store, drives=drives or count, geometry=geometry, create=True) as kernel,
    ):
        output.show_status(out, kernel.pool.status())


@app.command("open")
def open_(store: Store, drives: Drives = None, as_json: Json = False) -> None:
    """Open a store where its drives are now, remember where, and show how it is."""
    out = Output(as_json=as_json)
    with opened(store, out, drives=drives) as kernel:
        output.show_status(out, kernel.pool.status())


@app.command()
def status(store: Store, as_json: Json = False) -> None:
    """Show drives, capacity, what is degraded and what to do about it."""
    out = Output(as_json=as_json)
    with opened(store, out, read_only=True) as kernel:
        output.show_status(out, kernel.pool.status())


@app.command()
def put(
    store: Store,
    key: Key,
    source: Annotated[str, typer.Argument(help="a file, or - for standard input")] = "-",
    content_type: Annotated[str, typer.Option(help="such as text/plain")] = "",
    if_absent: Annotated[bool, typer.Option(help="only if there is no such object")] = False,
    as_json: Json = False,
) -> None:
    """Store a file, or standard input. A container that is not there is made."""
    out = Output(as_json=as_json)
    with opened(store, out) as kernel:
        make_container(kernel, key, out)
        data = sys.stdin.buffer if source == "-" else Path(source)
        info = kernel.put(
            key,
            data,
            content_type=content_type or None,
            if_absent=if_absent,
            progress=out.progress(),
        )
        out.done(info)


@app.command()
def get(
    store: Store,
    key: Key,
    target: Annotated[str, typer.Argument(help="a file; by default the key's last part")] = "",
    as_json: Json = False,
) -> None:
    """Read an object into a file, whole or not at all."""
    out = Output(as_json=as_json)
    with opened(store, out, read_only=True) as kernel:
        info = kernel.head(key)
        place = Path(target or key.rstrip("/").rsplit("/", 1)[1])
        place = place / key.rsplit("/", 1)[1] if place.is_dir() else place
        copying.get_file(kernel, info, place)
        out.done(info, f"{place}  {format_size(info.size)}")


@app.command()
def cat(store: Store, keys: Annotated[list[str], typer.Argument(help="container/name")]) -> None:
    """Write objects to standard output."""
    out = Output(as_json=False)
    with opened(store, out, read_only=True) as kernel:
        for key in keys:
            with kernel.get(key) as reader:
                while piece := reader.read(_PIECE_BYTES):
                    sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()


@app.command()
def stat(store: Store, key: Key, as_json: Json = False) -> None:
    """Show what is known of an object."""
    out = Output(as_json=as_json)
    with opened(store, out, read_only=True) as kernel:
        info = kernel.head(key)
        if as_json:
            out.done(info)
            return
        for name, value in info.to_dict().items():
            shown = f"{value:016x}" if name == "checksum" else value
            out.console.print(f"{name:<13} {shown}", markup=False)


@app.command()
def ls(
    store: Store,
    prefix: Annotated[str, typer.Argument(help="container/ and what names begin with")] = "",
    recursive: Recursive = False,
    as_json: Json = False,
) -> None:
    """List containers, or what a container holds."""
    out = Output(as_json=as_json)
    with opened(store, out, read_only=True) as kernel:
        if not prefix and not recursive:
            containers = kernel.containers.list()
            if as_json:
                out.done(containers)
                return
            rows = [
                (f"{found.name}/", f"{found.created:%Y-%m-%d %H:%M:%S}") for found in containers
            ]
            out.table(("container", "created"), rows, right=set())
            return
        listing = kernel.list(prefix, delimiter=None if recursive else "/")
        if as_json:
            out.done(list(listing))
            return
        out.table(("key", "size", "created"), [_row(entry) for entry in listing], right={1})


def _row(entry: ObjectInfo | Prefix) -> tuple[str, str, str]:
    if isinstance(entry, Prefix):
        return entry.key, "", ""
    return entry.key, format_size(entry.size), f"{entry.created:%Y-%m-%d %H:%M:%S}"


@app.command()
def rm(
    store: Store,
    keys: Annotated[list[str], typer.Argument(help="container/name, or with -r a prefix")],
    recursive: Recursive = False,
    as_json: Json = False,
) -> None:
    """Delete objects; with -r everything whose key begins so, and a container that is named alone."""
    out = Output(as_json=as_json)
    with opened(store, out) as kernel:
        gone: list[str] = []
        for key in keys:
            if not recursive:
                kernel.delete(key)
                gone.append(key)
                continue
            for entry in kernel.list(key):
                kernel.delete(entry.key)
                gone.append(entry.key)
            if "/" not in key.rstrip("/"):
                kernel.containers.delete(key.rstrip("/"))
        out.done({"deleted": gone}, f"{len(gone)} objects deleted")


@app.command()
def cp(
    store: Store,
    source: Annotated[str, typer.Argument(help=f"a path, or {_INSIDE}container/name")],
    target: Annotated[str, typer.Argument(help=f"a path, or {_INSIDE}container/name")],
    recursive: Recursive = False,
    as_json: Json = False,
) -> None:
    """Copy files into the store or out of it: one side begins with `dw:`."""
    out = Output(as_json=as_json)
    inwards = target.startswith(_INSIDE)
    if inwards == source.startswith(_INSIDE):
        raise typer.BadParameter(f"one of the two must begin with {_INSIDE}")  # noqa: EM102, TRY003
    with opened(store, out, read_only=not inwards) as kernel:
        inside = (target if inwards else source).removeprefix(_INSIDE)
        outside = Path(source if inwards else target)
        copied = (
            _cp_in(kernel, outside, inside, recursive=recursive, out=out)
            if inwards
            else _cp_out(kernel, inside, outside, recursive=recursive, out=out)
        )
        out.done(copied)
        if copied.failed:
            raise typer.Exit(output.FAILED)


def _cp_in(
    kernel: Kernel, source: Path, inside: str, *, recursive: bool, out: Output
) -> copying.Copied:
    make_container(kernel, inside, out)
    if source.is_dir():
        if not recursive:
            raise typer.BadParameter(f"{source} is a directory: use -r")  # noqa: EM102, TRY003
        prefix = inside if inside.endswith("/") else f"{inside}/"
        with showing(out.progress(), "cp", "bytes", None) as tell:
            return copying.copy_in(kernel, source, prefix, tell=tell)
    key = f"{inside}{source.name}" if inside.endswith("/") else inside
    key = f"{key}/{source.name}" if "/" not in key else key
    info = copying.put_file(kernel, source, key)
    return copying.Copied(files=1, bytes=info.size)


def _cp_out(
    kernel: Kernel, inside: str, target: Path, *, recursive: bool, out: Output
) -> copying.Copied:
    if recursive:
        prefix = inside if inside.endswith("/") else f"{inside}/"
        with showing(out.progress(), "cp", "bytes", None) as tell:
            return copying.copy_out(kernel, prefix, target, tell=tell)
    info = kernel.head(inside)
    place = copying.target_of(info.key.rsplit("/", 1)[1], target) if target.is_dir() else target
    copying.get_file(kernel, info, place)
    return copying.Copied(files=1, bytes=info.size)


def make_container(kernel: Kernel, key: str, out: Output) -> None:
    """Make the container of `key` if it is not there, and say so."""
    name = key.split("/", 1)[0]
    if name not in kernel.containers:
        with contextlib.suppress(errors.Exists):
            kernel.containers.create(name)
            out.note(f"made container {name}")


@app.command()
def scrub(store: Store, rate: Rate = None, as_json: Json = False) -> None:
    """Read and verify everything, and repair what is wrong."""
    out = Output(as_json=as_json)
    with opened(store, out) as kernel:
        out.done(kernel.pool.scrub(rate=rate, progress=out.progress()))


@app.command()
def rebuild(
    store: Store,
    drive: Annotated[str, typer.Argument(help="only this drive, as status shows it")] = "",
    rate: Rate = None,
    as_json: Json = False,
) -> None:
    """Restore what is missing."""
    out = Output(as_json=as_json)
    with opened(store, out) as kernel:
        out.done(kernel.pool.rebuild(drive or None, rate=rate, progress=out.progress()))


@drive_app.command("replace")
def drive_replace(
    store: Store,
    old: Annotated[str, typer.Argument(help="as status shows it; it may be gone")],
    new: Annotated[str, typer.Argument(help="an empty or new directory, or a URL")],
    rate: Rate = None,
    as_json: Json = False,
) -> None:
    """Put a new drive in an old one's place and rebuild onto it."""
    out = Output(as_json=as_json)
    with opened(store, out) as kernel:
        out.done(kernel.pool.replace(old, new, rate=rate, progress=out.progress()))


@app.command()
def bench(
    path: Annotated[
        str, typer.Argument(help="where to measure; something there is made and removed")
    ] = ".",
    size: Annotated[str, typer.Option(help="of the large file")] = "256 MiB",
    seconds: Annotated[float, typer.Option(help="for each small-put measurement")] = 2.0,
    report: Annotated[str, typer.Option(help="write an HTML page with plots here")] = "",
    as_json: Json = False,
) -> None:
    """Measure puts, gets, rebuilds and small puts against plain files, in one run."""
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
    path: Annotated[str, typer.Option(help="where the demo's store is made")] = "demo-store",
    source: Annotated[
        Optional[list[str]],  # noqa: UP007, UP045
        typer.Option(help="a tree to store instead of Python's own library", show_default=False),
    ] = None,
    limit: Annotated[str, typer.Option(help="store at most so much; all by default")] = "",
    report: Annotated[str, typer.Option(help="the page that is written")] = "demo-report.html",
    keep: Annotated[bool, typer.Option(help="keep the store afterwards")] = False,
    as_json: Json = False,
) -> None:
    """Store real files, lose drives, prove that nothing is lost, rebuild, and write a report."""
    from dwkernel import demo as showing_off  # noqa: PLC0415 - only who wants it needs it

    out = Output(as_json=as_json)
    with out.errors_told():
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
    path: Annotated[str, typer.Argument(help="a store, or where one may be made")] = ".",
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
                out.console.print(f"{marks[finding.mark]}  {finding.text}", markup=False)
        if any(finding.mark == "bad" for finding in findings):
            raise typer.Exit(output.FAILED)


@app.command()
def version(as_json: Json = False) -> None:
    """Show the version."""
    out = Output(as_json=as_json)
    about = {"dwkernel": dw.__version__, "python": sys.version.split()[0], "platform": sys.platform}
    out.done(about, f"dwkernel {dw.__version__}, Python {about['python']}, {os.uname().machine}")
