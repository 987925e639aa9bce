"""`cp -r`: a tree of files into a container, and back; many files at a time.

What a file system knows of a file beyond its bytes travels in the object's metadata (`mtime_ns`, `mode`).
Links to files are copied as what they point to; links to directories are not followed; what is
neither a file nor a directory is left out and said so.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
import tempfile
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeVar

from dwkernel import errors
from dwkernel.objects import ObjectInfo
from dwkernel.reports import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from dwkernel.kernel import Kernel

# Small files wait for the journal, not for the processor: more threads than cores share its syncs.
THREADS = 16
# So many files are handed out ahead; a tree of any size is walked in bounded memory.
_AHEAD = 512
_PIECE_BYTES = 4 << 20


@dataclass(slots=True)
class Copied(Report):
    """What a copy did.

    Attributes:
        files: how many were copied.
        bytes: how many bytes.
        failed: what was not copied, with the reason.

    """

    files: int = 0
    bytes: int = 0
    failed: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Print for people."""
        from dwkernel.units import format_size  # noqa: PLC0415 - for people only

        lines = [f"{self.files} files, {format_size(self.bytes)}"]
        lines += [f"not copied: {name}: {why}" for name, why in self.failed.items()]
        return "\n".join(lines)


_Item = TypeVar("_Item")


def files_under(root: Path, copied: Copied) -> Iterator[tuple[Path, str]]:
    """Yield every file under `root` with its name relative to it; the rest goes to `copied.failed`."""

    def failed(error: OSError) -> None:
        copied.failed[str(error.filename)] = error.strerror or str(error)

    for directory, _, names in os.walk(root, onerror=failed):
        for name in sorted(names):
            path = Path(directory, name)
            try:
                if not stat.S_ISREG(path.stat().st_mode):
                    copied.failed[str(path)] = "neither a file nor a directory"
                    continue
                relative = path.relative_to(root).as_posix()
                relative.encode()
            except UnicodeEncodeError:
                copied.failed[os.fsencode(path).decode(errors="replace")] = "its name is not UTF-8"
            except OSError as error:
                copied.failed[str(path)] = error.strerror or str(error)
            else:
                yield path, relative


def put_file(kernel: Kernel, path: Path, key: str) -> ObjectInfo:
    """Store a file with its time and mode."""
    known = path.stat()
    metadata = {"mtime_ns": str(known.st_mtime_ns), "mode": f"{stat.S_IMODE(known.st_mode):o}"}
    return kernel.put(key, path, metadata=metadata)


def copy_in(
    kernel: Kernel,
    root: Path,
    prefix: str,
    *,
    tell: Callable[[int, int | None], None] | None = None,
    threads: int = THREADS,
) -> Copied:
    """Store every file under `root` as `prefix` + its relative name."""
    copied = Copied()
    work = ((path, f"{prefix}{name}") for path, name in files_under(root, copied))

    def one(item: tuple[Path, str]) -> int:
        return put_file(kernel, *item).size

    _run(one, work, copied, (tell, threads), lambda item: str(item[0]))
    return copied


def copy_out(
    kernel: Kernel,
    prefix: str,
    root: Path,
    *,
    tell: Callable[[int, int | None], None] | None = None,
    threads: int = THREADS,
) -> Copied:
    """Write every object whose key begins with `prefix` to a file under `root`."""
    copied = Copied()
    work = (entry for entry in kernel.list(prefix) if isinstance(entry, ObjectInfo))

    def one(info: ObjectInfo) -> int:
        get_file(kernel, info, target_of(info.key[len(prefix) :], root))
        return info.size

    _run(one, work, copied, (tell, threads), lambda info: info.key)
    return copied


def target_of(name: str, root: Path) -> Path:
    """Return where a key's rest goes under `root`; a name that would leave it is refused."""
    parts = PurePosixPath(name).parts
    plain = "/".join(parts) == name and all(part not in {"", ".", ".."} for part in parts)
    if not plain or name.startswith("/"):
        message = f"{name!r} is no name of a file under a directory"
        raise ValueError(message)
    return root.joinpath(*parts)


def get_file(kernel: Kernel, info: ObjectInfo, target: Path) -> None:
    """Write an object to a file, whole or not at all, with the time and mode that it was stored with."""
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=".dwkernel-", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file, kernel.get(info.key) as reader:
            while piece := reader.read(_PIECE_BYTES):
                file.write(piece)
            os.fchmod(file.fileno(), _mode(info))
        if (mtime_ns := info.metadata.get("mtime_ns", "")).isdigit():
            os.utime(temporary, ns=(int(mtime_ns), int(mtime_ns)))
        Path(temporary).replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise


def _mode(info: ObjectInfo) -> int:
    with contextlib.suppress(KeyError, ValueError):
        # Never a set-uid bit, whoever wrote the metadata.
        return int(info.metadata["mode"], 8) & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _run(
    one: Callable[[_Item], int],
    work: Iterable[_Item],
    copied: Copied,
    how: tuple[Callable[[int, int | None], None] | None, int],
    name: Callable[[_Item], str],
) -> None:
    """Do `one` for every item of `work`, several at a time, and count what came of it."""
    tell, threads = how
    todo = iter(work)
    with ThreadPoolExecutor(threads, thread_name_prefix="dwkernel-cp") as pool:
        running: dict[Future[int], _Item] = {}
        try:
            while True:
                for item in itertools.islice(todo, _AHEAD - len(running)):
                    running[pool.submit(one, item)] = item
                if not running:
                    return
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    item = running.pop(future)
                    _count(future, name(item), copied)
                if tell is not None:
                    tell(copied.bytes, None)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _count(future: Future[int], name: str, copied: Copied) -> None:
    try:
        copied.bytes += future.result()
        copied.files += 1
    except (errors.DwError, OSError, ValueError) as error:
        copied.failed[name] = str(error)
