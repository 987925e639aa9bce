"""One file into the store, and one object out of it to wherever it is wanted."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import tempfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

import typer

from dwkernel import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dwkernel.kernel import Kernel
    from dwkernel.objects import ObjectInfo
    from dwkernel.reports import Progress

STANDARD = "-"
"""Means standard input, or standard output."""
PIECE_BYTES = 4 << 20
# It can only be read by setting it, which is no work for threads.
_UMASK = os.umask(0o022)
os.umask(_UMASK)


def standard_input() -> BinaryIO:
    """Return standard input, in bytes."""
    if sys.stdin is None:
        raise typer.BadParameter("standard input is closed")  # noqa: TRY003
    return sys.stdin.buffer


def standard_output() -> BinaryIO:
    """Return standard output, in bytes."""
    if sys.stdout is None:
        raise typer.BadParameter("standard output is closed")  # noqa: TRY003
    return sys.stdout.buffer


def check_source(path: Path) -> None:
    """Look whether a file can be read, before anything is made for it.

    Raises:
        Invalid: `source.failed`

    """
    try:
        with path.open("rb") if not is_special(path) else contextlib.nullcontext():
            return
    except OSError as error:
        text = f"cannot read {path}: {error.strerror}"
        raise errors.new("source.failed", text, path=path) from error


def put_file(
    kernel: Kernel,
    path: Path,
    key: str,
    *,
    progress: Callable[[Progress], object] | bool | None = None,
) -> ObjectInfo:
    """Store a file with its time and mode."""
    known = path.stat()
    metadata = {"mtime_ns": str(known.st_mtime_ns), "mode": f"{stat.S_IMODE(known.st_mode):o}"}
    return kernel.put(key, path, metadata=metadata, progress=progress)


def name_of(key: str) -> str:
    """Return the last part of a key: what its file is called."""
    return key.rstrip("/").rsplit("/", 1)[-1]


def target_of(name: str, root: Path) -> Path:
    """Return where an object called `name` goes under `root`; never anywhere else."""
    parts = PurePosixPath(name).parts
    plain = "/".join(parts) == name and all(part not in {"", ".", ".."} for part in parts)
    if not plain or name.startswith("/"):
        message = f"{name!r} is no name of a file under a directory"
        raise ValueError(message)
    return root.joinpath(*parts)


def get_file(
    kernel: Kernel, info: ObjectInfo, target: Path, moved: Callable[[int], object]
) -> None:
    """Write an object to where `target` leads, with its time and mode.

    A regular file is there whole or not at all. A device or a pipe is written into, and a link is
    followed: neither is replaced.
    """
    with _about(target):
        real = Path(os.path.realpath(target))
        if is_special(real):
            with real.open("wb", buffering=0) as file:
                copy_to(kernel, info, file, moved)
            return
        if real.is_dir():
            raise IsADirectoryError(errno.EISDIR, "Is a directory", str(target))
        try:
            real.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
        _replace(kernel, info, real, moved)


def copy_to(
    kernel: Kernel, info: ObjectInfo, file: BinaryIO, moved: Callable[[int], object]
) -> None:
    """Write an object's content to an open file."""
    with kernel.get(info.key) as reader:
        while piece := reader.read(PIECE_BYTES):
            left = memoryview(piece)
            while left:
                # A pipe takes what it has room for.
                left = left[file.write(left) :]
            moved(len(piece))


def _replace(
    kernel: Kernel, info: ObjectInfo, target: Path, moved: Callable[[int], object]
) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=".dwkernel-", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            copy_to(kernel, info, file, moved)
            os.fchmod(file.fileno(), _mode(info))
        _set_time(info, Path(temporary))
        Path(temporary).replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise


def make_directory(info: ObjectInfo, target: Path) -> None:
    """Make the directory that an empty object with a `/` at the end of its name stands for."""
    there = target.is_dir()
    target.mkdir(parents=True, exist_ok=True)
    if not there and "mode" in info.metadata:
        # Its owner gets in: something else may have been put below since.
        target.chmod(_mode(info) | stat.S_IRWXU)
        _set_time(info, target)


def _set_time(info: ObjectInfo, path: Path) -> None:
    # Anybody may have written the metadata: a time that is none costs the time, not the file.
    with contextlib.suppress(KeyError, ValueError, OverflowError):
        mtime_ns = int(info.metadata["mtime_ns"])
        os.utime(path, ns=(mtime_ns, mtime_ns))


@contextlib.contextmanager
def _about(target: Path) -> Iterator[None]:
    """Let the system's errors name what the user named, not a file that is gone again."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if isinstance(error, errors.DwError):
            raise
        raise OSError(error.errno, error.strerror or str(error), str(target)) from error


def is_special(path: Path) -> bool:
    """Return whether there is something that is neither a file nor a directory."""
    with contextlib.suppress(OSError):
        kind = path.stat().st_mode
        return not stat.S_ISREG(kind) and not stat.S_ISDIR(kind)
    return False


def _mode(info: ObjectInfo) -> int:
    with contextlib.suppress(KeyError, ValueError):
        # Never a set-uid bit, whoever wrote the metadata.
        return int(info.metadata["mode"], 8) & 0o777
    return 0o666 & ~_UMASK
