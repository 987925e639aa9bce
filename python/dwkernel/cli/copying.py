"""`cp -r`: a tree of files into a container, and back; many files at a time.

What a file system knows of a file beyond its bytes travels in the object's metadata (`mtime_ns`,
`mode`). An empty directory is an empty object whose name ends with `/`; other directories are only
what stands before the `/` in names, so their own times and modes stay behind. Links to files are
copied as what they point to. Links to directories are not followed, and what is neither a file nor
a directory is left out. `Copied` says all of that.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
import threading
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from dwkernel import errors
from dwkernel.cli.files import get_file, is_special, make_directory, put_file, target_of
from dwkernel.cli.output import os_text
from dwkernel.objects import ObjectInfo
from dwkernel.reports import Report, counted
from dwkernel.units import format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from dwkernel.kernel import Kernel
    from dwkernel.reports import Progress

# Small files wait for the journal, not for the processor: more threads than cores share its syncs.
THREADS = 16
# So many files are handed out ahead; a tree of any size is walked in bounded memory.
_AHEAD = 512
_TELL_EVERY_S = 0.2
# People see so many names of what was left out; JSON has them all.
_NAMES_SHOWN = 20
_SEPARATOR = "/"


@dataclass(slots=True)
class Copied(Report):
    """What a copy did, and what it did not.

    Attributes:
        files: how many were copied.
        bytes: how many bytes.
        directories: how many empty directories were kept.
        links_followed: links that became the files they point to.
        hard_links_split: files with other names too; each name became a file of its own.
        left_out: what was left out by design, with the reason.
        failed: what could not be copied, with the reason.

    """

    files: int = 0
    bytes: int = 0
    directories: int = 0
    links_followed: int = 0
    hard_links_split: int = 0
    left_out: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Print for people."""
        first = f"{counted(self.files, 'file')}, {format_size(self.bytes)}"
        if self.directories:
            first += f", {counted(self.directories, 'empty directory')}"
        lines = [first]
        if self.links_followed:
            lines.append(
                f"changed: {counted(self.links_followed, 'link')} to files, copied as the files"
            )
        if self.hard_links_split:
            names = counted(self.hard_links_split, "hard link")
            lines.append(f"changed: {names}, each copied as a file of its own")
        lines += _listed("left out", self.left_out) + _listed("not copied", self.failed)
        return "\n".join(lines)


def _listed(what: str, names: dict[str, str]) -> list[str]:
    lines = [f"{what}: {name}: {why}" for name, why in names.items()]
    more = len(lines) - _NAMES_SHOWN
    return lines if more <= 0 else [*lines[:_NAMES_SHOWN], f"{what}: {more} more, see --json"]


_Item = TypeVar("_Item")


class _Stopped(Exception):
    """The copy was stopped; this file is not there."""


class _Meter:
    """What all workers moved so far, and the way to stop them in the middle of a file."""

    def __init__(self) -> None:
        self.bytes = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def stop(self) -> None:
        self._stop.set()

    def add(self, count: int) -> None:
        with self._lock:
            self.bytes += count

    def moved(self, count: int) -> None:
        """Count what went through.

        Raises:
            _Stopped: the copy is to end

        """
        if self._stop.is_set():
            raise _Stopped
        self.add(count)

    def put(self, kernel: Kernel, path: Path, key: str) -> int:
        """Store a file and return its size; count its bytes while they go through."""
        told = 0

        def tell(progress: Progress) -> None:
            nonlocal told
            self.moved(progress.done - told)
            told = progress.done

        size = put_file(kernel, path, key, progress=tell).size
        self.add(size - told)
        return size


class _Total:
    """How many bytes there are to copy, summed up beside the work; None until that is known."""

    def __init__(self, sizes: Iterable[int]) -> None:
        self.bytes: int | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sum, args=(sizes,), name="dwkernel-total")
        self._thread.start()

    def _sum(self, sizes: Iterable[int]) -> None:
        total = 0
        # What cannot be looked at is told of by who copies it.
        with contextlib.suppress(OSError, errors.DwError):
            for size in sizes:
                if self._stop.is_set():
                    return
                total += size
            self.bytes = total

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def _sizes(root: Path) -> Iterator[int]:
    """Yield how long each file under `root` is."""
    for place, _, names in os.walk(root):
        for name in names:
            with contextlib.suppress(OSError):
                known = Path(place, name).stat()
                if stat.S_ISREG(known.st_mode):
                    yield known.st_size


class _Walk:
    """The files under a directory, with what is left out noted in `copied`."""

    def __init__(self, root: Path, copied: Copied) -> None:
        self._root = root
        self._copied = copied

    def __iter__(self) -> Iterator[tuple[Path, str]]:
        """Yield each file, and each empty directory with a `/` at the end of its name."""
        for place, directories, names in os.walk(self._root, onerror=self._failed):
            directories.sort()
            kept = [name for name in directories if not self._is_link(Path(place, name))]
            if not kept and not names:
                yield from self._empty(Path(place))
            for name in sorted(names):
                path = Path(place, name)
                if self._is_file(path):
                    yield from self._named(path, "")

    def _empty(self, directory: Path) -> Iterator[tuple[Path, str]]:
        if directory == self._root:
            self._copied.left_out[shown(directory)] = "it is empty"
        else:
            yield from self._named(directory, _SEPARATOR)

    def _failed(self, error: OSError) -> None:
        self._copied.failed[shown(error.filename)] = error.strerror or str(error)

    def _is_link(self, directory: Path) -> bool:
        if directory.is_symlink():
            text = f"a link to the directory {shown(directory.readlink())}"
            self._copied.left_out[shown(directory)] = text
            return True
        return False

    def _is_file(self, path: Path) -> bool:
        try:
            itself, known = path.lstat(), path.stat()
        except OSError as error:
            why = "a link to nothing" if path.is_symlink() else error.strerror or str(error)
            self._copied.failed[shown(path)] = why
            return False
        if not stat.S_ISREG(known.st_mode):
            self._copied.failed[shown(path)] = "neither a file nor a directory"
            return False
        self._copied.links_followed += stat.S_ISLNK(itself.st_mode)
        self._copied.hard_links_split += itself.st_nlink > 1
        return True

    def _named(self, path: Path, end: str) -> Iterator[tuple[Path, str]]:
        relative = path.relative_to(self._root).as_posix() + end
        try:
            relative.encode()
        except UnicodeEncodeError:
            self._copied.failed[shown(path)] = "its name is not UTF-8"
        else:
            yield path, relative


def shown(path: str | os.PathLike[str]) -> str:
    """Return a path as text that can be written anywhere."""
    return os.fsencode(path).decode(errors="replace")


def copy_in(
    kernel: Kernel,
    root: Path,
    prefix: str,
    *,
    tell: Callable[[int, int | None], None] | None = None,
    threads: int = THREADS,
) -> Copied:
    """Store every file under `root` as `prefix` + its relative name."""
    copied, meter = Copied(), _Meter()

    def one(item: tuple[Path, str]) -> int | None:
        path, name = item
        key = f"{prefix}{name}"
        if name.endswith(_SEPARATOR):
            known = path.stat()
            metadata = {"mtime_ns": str(known.st_mtime_ns), "mode": f"{known.st_mode & 0o7777:o}"}
            kernel.put(key, b"", metadata=metadata)
            return None
        return meter.put(kernel, path, key)

    work = _Work(copied, meter, tell, threads, _sizes(root))
    work.do(one, _Walk(root, copied), lambda item: shown(item[0]))
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
    copied, meter = Copied(), _Meter()

    def infos() -> Iterator[ObjectInfo]:
        return (entry for entry in kernel.list(prefix) if isinstance(entry, ObjectInfo))

    def one(info: ObjectInfo) -> int | None:
        name = info.key[len(prefix) :]
        if name.endswith(_SEPARATOR) and not info.size:
            make_directory(info, target_of(name.removesuffix(_SEPARATOR), root))
            return None
        target = target_of(name, root)
        if is_special(target):
            # A pipe that nobody reads would hold the whole copy.
            message = f"{target} is neither a file nor a directory"
            raise ValueError(message)
        get_file(kernel, info, target, meter.moved)
        return info.size

    work = _Work(copied, meter, tell, threads, (info.size for info in infos()))
    work.do(one, infos(), lambda info: info.key)
    return copied


@dataclass(frozen=True, slots=True)
class _Work:
    """Many items, several at a time."""

    copied: Copied
    meter: _Meter
    tell: Callable[[int, int | None], None] | None
    threads: int
    sizes: Iterable[int]

    def do(
        self,
        one: Callable[[_Item], int | None],
        work: Iterable[_Item],
        name: Callable[[_Item], str],
    ) -> None:
        """Do `one` for every item of `work` and count what came of it.

        `one` returns the bytes of a file, or None for a directory. What stops this one, Ctrl-C too,
        stops the workers at their next piece.
        """
        todo = iter(work)
        # Nobody looks at a total that nobody is told.
        with (
            _Total(self.sizes if self.tell is not None else ()) as total,
            ThreadPoolExecutor(self.threads, thread_name_prefix="dwkernel-cp") as pool,
        ):
            running: dict[Future[int | None], _Item] = {}
            try:
                while True:
                    for item in itertools.islice(todo, _AHEAD - len(running)):
                        running[pool.submit(one, item)] = item
                    if not running:
                        return
                    finished, _ = wait(running, _TELL_EVERY_S, return_when=FIRST_COMPLETED)
                    for future in finished:
                        self._count(future, name(running.pop(future)))
                    if self.tell is not None:
                        self.tell(self.meter.bytes, total.bytes)
            except BaseException:
                self.meter.stop()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _count(self, future: Future[int | None], name: str) -> None:
        try:
            size = future.result()
        except (errors.DwError, ValueError) as error:
            self.copied.failed[name] = str(error)
        except OSError as error:
            self.copied.failed[name] = os_text(error)
        else:
            self.copied.directories += size is None
            self.copied.files += size is not None
            self.copied.bytes += size or 0
