"""`put`, `get` and `cp`, either way: which file becomes which object."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dwkernel import errors
from dwkernel._progress import showing
from dwkernel.cli import copying, files
from dwkernel.cli.copying import Copied

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dwkernel.cli.output import Output
    from dwkernel.kernel import Kernel
    from dwkernel.objects import ObjectInfo

INSIDE = "dw:"
"""Marks the side of `cp` that is in the store."""


@contextlib.contextmanager
def container_of(kernel: Kernel, key: str, out: Output) -> Iterator[None]:
    """Make the container of `key` if it is not there, unless what needs it comes to nothing.

    Raises:
        Invalid: `object.key`, `container.name`: nothing was made

    """
    name, made = key.split("/", 1)[0], False
    try:
        # The kernel itself says whether this is a key.
        kernel.head(key)
    except errors.NotFound as error:
        if error.code == "container.not_found":
            with contextlib.suppress(errors.Exists):
                kernel.containers.create(name)
                made = True
    try:
        yield
    except BaseException:
        if made:
            with contextlib.suppress(errors.DwError):
                # Refused if somebody else has put something there meanwhile.
                kernel.containers.delete(name)
        raise
    if made:
        out.note(f"made container {name}")


def copy_in(kernel: Kernel, source: Path, inside: str, *, recursive: bool, out: Output) -> Copied:
    """Store a file, or with `recursive` a tree."""
    if source.is_dir():
        if not recursive:
            raise typer.BadParameter(f"{source} is a directory: use -r")  # noqa: EM102, TRY003
        prefix = inside if inside.endswith("/") else f"{inside}/"
        with (
            container_of(kernel, f"{prefix}name", out),
            showing(out.progress(), "cp", "bytes", None) as tell,
        ):
            return copying.copy_in(kernel, source, prefix, tell=tell)
    files.check_source(source)
    key = inside if "/" in inside.rstrip("/") else f"{inside.rstrip('/')}/"
    key = f"{key}{source.name}" if key.endswith("/") else key
    with container_of(kernel, key, out):
        info = files.put_file(kernel, source, key, progress=out.progress())
    return Copied(files=1, bytes=info.size)


def copy_out(kernel: Kernel, inside: str, target: str, *, recursive: bool, out: Output) -> Copied:
    """Write an object to a file, or with `recursive` what begins with a prefix to a directory."""
    if recursive and target != files.STANDARD:
        prefix = inside if inside.endswith("/") else f"{inside}/"
        if any(True for _ in kernel.list(prefix, limit=1)):
            with showing(out.progress(), "cp", "bytes", None) as tell:
                return copying.copy_out(kernel, prefix, Path(target), tell=tell)
        if prefix.count("/") == 1:
            # A container, and an empty one.
            Path(target).mkdir(parents=True, exist_ok=True)
            return Copied()
    try:
        info = kernel.head(inside)
    except errors.DwError:
        if recursive or not any(True for _ in kernel.list(inside.rstrip("/") + "/", limit=1)):
            raise
        text = f"{inside} is no object, but begins names of some: use -r"
        raise typer.BadParameter(text) from None
    copy_one_out(kernel, info, target, out)
    return Copied(files=1, bytes=info.size)


def copy_one_out(kernel: Kernel, info: ObjectInfo, target: str, out: Output) -> Path | None:
    """Write an object to a file, into a directory, or to standard output; return where it went."""
    if target == files.STANDARD:
        if out.as_json:
            text = "standard output takes the content, so there is no room for --json"
            raise typer.BadParameter(text)
        file = files.standard_output()
        files.copy_to(kernel, info, file, lambda _: None)
        file.flush()
        return None
    place = Path(target or ".")
    if place.is_dir():
        try:
            place = files.target_of(files.name_of(info.key), place)
        except ValueError as error:
            raise typer.BadParameter(f"{error}: say which file it becomes") from None  # noqa: EM102, TRY003
    with showing(out.progress(), "get", "bytes", info.size) as tell:
        done = 0

        def moved(count: int) -> None:
            nonlocal done
            done += count
            if tell is not None:
                tell(done, None)

        files.get_file(kernel, info, place, moved)
    return place
