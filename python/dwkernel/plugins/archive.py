"""Installing a plugin from a `.zip` or `.tar` (`.gz`, `.bz2`, `.xz`).

Members are read one by one and written by us: whatever a library thinks of a name or a link does
not matter. They go into a folder beside, which gets its name when everything is right. One installs
at a time into a folder of plugins, and removes what others left there that were cut off.
"""

from __future__ import annotations

import bz2
import contextlib
import fcntl
import gzip
import io
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import unicodedata
import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from dwkernel import errors
from dwkernel.plugins import discovery, tree, vouching

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dwkernel.plugins.discovery import Found

__all__ = ["install"]

_ARCHIVE_BYTES_MAX = 128 << 20
# How much larger content may be than what it was packed into. Deflate reaches 1,032, text 20.
_RATIO_MAX = 200
_RATIO_FREE_BYTES = 1 << 20
# What comes before a member of a tar, and the list of all members of a zip.
_HEADER_BYTES_MAX = 1 << 20
_LIST_BYTES_MAX = 8 << 20
_NAME_BYTES_MAX = 200
_DEPTH_MAX = 20
_PIECE = 1 << 16
_UNIX = 3
_BESIDE = ".incoming-"
_PACKERS: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}


class _Member(NamedTuple):
    name: str
    is_folder: bool
    file: IO[bytes] | None


def install(archive: Path, folder: Path) -> Found:
    """Unpack a plugin into a folder of plugins, as `id-version`, and write its hash down.

    Installing the same once more changes nothing.

    Args:
        archive: at most 128 MiB; unpacked at most 256 MiB in 10,000 files, under one folder.
        folder: is made if it is not there.

    Returns:
        The plugin; nothing of it ran.

    Raises:
        Invalid: `plugin.archive`: absolute names, `..`, links, devices, names that differ only in
            case, more than one folder, a bomb, a broken archive; `plugin.manifest`; `plugin.load`:
            the folder can't be written to, or is full
        Exists: `plugin.exists`: that version is there with other files
        NotFound: `plugin.not_found`: no such archive

    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder), _beside(folder) as beside:
            with _opened(archive) as file:
                _unpack(archive, file, beside)
            roots = sorted(beside.iterdir())
            if len(roots) != 1 or not roots[0].is_dir():
                text = f"it holds {len(roots)} things at its top, and not one folder"
                raise _refused(archive, text)
            return _place(discovery.at(roots[0]), folder)
    except errors.DwError:
        raise  # some are kinds of OSError
    except OSError as error:
        raise _not_written(folder, error) from error


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until nobody else installs there."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        # Some network drives can't lock folders: there it is as without.
        with contextlib.suppress(OSError):
            fcntl.flock(opened, fcntl.LOCK_EX)
            for left in folder.glob(f"{_BESIDE}*"):
                shutil.rmtree(left, ignore_errors=True)
        yield
    finally:
        os.close(opened)


@contextlib.contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix=_BESIDE, dir=folder))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _place(found: Found, folder: Path) -> Found:
    assert found.home is not None  # noqa: S101 - it lies in a folder
    target = folder / f"{found.id}-{found.manifest.version}"
    looked = tree.look(found.home)
    if target.exists():
        if tree.look(target).hash != looked.hash:
            text = f"{found.id} {found.manifest.version} is in {target} with other files"
            raise errors.new("plugin.exists", text, id=found.id, places=target)
    else:
        for inner, _, _ in os.walk(found.home):
            vouching.sync_folder(Path(inner))
        found.home.rename(target)
        vouching.sync_folder(folder)
    placed = discovery.at(target)
    vouching.record(folder, placed, looked.hash)
    return placed


@contextlib.contextmanager
def _opened(archive: Path) -> Iterator[IO[bytes]]:
    try:
        opened = os.open(archive, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        text = f"{archive} can't be read: {error.strerror}"
        raise errors.new("plugin.not_found", text, path=archive) from error
    with open(opened, "rb") as file:  # noqa: PTH123 - a descriptor
        about = os.fstat(opened)
        if not stat.S_ISREG(about.st_mode):
            raise _refused(archive, "it is no plain file")
        if about.st_size > _ARCHIVE_BYTES_MAX:
            raise _refused(archive, f"it has more than {_ARCHIVE_BYTES_MAX >> 20} MiB")
        yield file


def _unpack(archive: Path, file: IO[bytes], target: Path) -> None:
    packed = os.fstat(file.fileno()).st_size
    budget = _Budget(archive, packed)
    try:
        start = file.read(8)
        file.seek(0)
        members = _zip(archive, file) if start[:2] == b"PK" else _tar(file, start, budget)
        for member in members:
            _write(archive, member, target, budget)
    except errors.DwError:
        raise
    except Exception as error:
        # Over damage libraries fall in many ways: IndexError, zlib.error, struct.error and more.
        raise _refused(archive, f"it can't be unpacked: {error}") from error


class _Budget:
    """What may still be unpacked."""

    def __init__(self, archive: Path, packed: int) -> None:
        self.archive = archive
        self.allowed = min(tree.TREE_BYTES_MAX, _RATIO_FREE_BYTES + packed * _RATIO_MAX)
        self.left = self.allowed
        self.files = tree.FILES_MAX
        # What was written, as file systems without cases see it: name, is it a folder, of which.
        self.names: dict[str, tuple[str, bool, int]] = {}

    def take(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise _refused(self.archive, f"unpacked it is larger than {self.allowed:,} bytes")

    def count(self) -> None:
        """Take one more member, whatever it is."""
        self.files -= 1
        if self.files < 0:
            raise _refused(self.archive, f"it holds more than {tree.FILES_MAX:,} files")

    def name(self, name: str, *, is_folder: bool) -> None:
        """Hold a name against those before it: it must be its own on any file system."""
        parts = name.split("/")
        for count in range(1, len(parts) + 1):
            part = "/".join(parts[:count])
            is_inner = count < len(parts) or is_folder
            folded = unicodedata.normalize("NFC", part).casefold()
            known = self.names.setdefault(folded, (part, is_inner, self.files))
            if known[2] != self.files and (known[:2] != (part, is_inner) or not is_inner):
                raise _refused(self.archive, f"{name!r} collides with {known[0]!r}")


def _zip(archive: Path, file: IO[bytes]) -> Iterator[_Member]:
    with zipfile.ZipFile(_InPieces(file, archive)) as packed:
        for info in packed.infolist():
            mode = info.external_attr >> 16
            # Tools of other systems leave the type of a file out.
            kind = stat.S_IFMT(mode) if info.create_system == _UNIX else 0
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refused(archive, f"{info.filename!r} is a link or a device")
            if info.flag_bits & 1:
                raise _refused(archive, f"{info.filename!r} is encrypted")
            if info.is_dir():
                yield _Member(info.filename, is_folder=True, file=None)
            else:
                with packed.open(info) as content:
                    yield _Member(info.filename, is_folder=False, file=content)


def _tar(file: IO[bytes], start: bytes, budget: _Budget) -> Iterator[_Member]:
    packers = [packer for magic, packer in _PACKERS.items() if start.startswith(magic)]
    unpacked: IO[bytes] = packers[0](file) if packers else file
    # Headers are counted, too: they can be a bomb as well as content.
    counted = _Counted(unpacked, budget)
    with tarfile.open(fileobj=counted, mode="r|") as packed:
        counted.header_left = _HEADER_BYTES_MAX
        while (info := packed.next()) is not None:
            counted.header_left = tree.TREE_BYTES_MAX
            if not (info.isreg() or info.isdir()) or info.issparse():
                raise _refused(budget.archive, f"{info.name!r} is a link or a device")
            yield _Member(
                info.name, info.isdir(), None if info.isdir() else packed.extractfile(info)
            )
            counted.header_left = _HEADER_BYTES_MAX


class _InPieces:
    """Reads nothing large at once: so the list of a zip's members, which is, can't be a bomb."""

    def __init__(self, file: IO[bytes], archive: Path) -> None:
        self._file = file
        self._archive = archive
        self._bytes = os.fstat(file.fileno()).st_size
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        """Read; what is too much is refused."""
        if size < 0:
            size = self._bytes - self._file.tell()
        if size > _LIST_BYTES_MAX:
            raise _refused(self._archive, "the list of its members is too large")
        return self._file.read(size)


class _Counted(io.RawIOBase):
    """Reads, and takes what it read from a budget of its own.

    Attributes:
        header_left: how much may be read until a member begins.

    """

    def __init__(self, file: IO[bytes], budget: _Budget) -> None:
        super().__init__()
        self._file = file
        self.header_left = _HEADER_BYTES_MAX
        # Each file has a header and is padded, of 512 bytes.
        self._budget = _Budget(budget.archive, 0)
        self._budget.allowed = self._budget.left = budget.allowed + 2 * 512 * tree.FILES_MAX

    def read(self, size: int = -1) -> bytes:
        """Read, in pieces that fit into memory."""
        if size < 0 or size > tree.TREE_BYTES_MAX:
            raise _refused(self._budget.archive, "one of its headers is too large")
        content = self._file.read(size)
        self._budget.take(len(content))
        self.header_left -= len(content)
        if self.header_left < 0:
            raise _refused(self._budget.archive, "one of its headers is too large")
        return content


def _write(archive: Path, member: _Member, target: Path, budget: _Budget) -> None:
    budget.count()
    name = _checked(archive, member.name)
    if not name:
        return
    budget.name(name, is_folder=member.is_folder)
    place = target / name
    with _writing(target.parent):
        (place if member.file is None else place.parent).mkdir(parents=True, exist_ok=True)
        file = None if member.file is None else place.open("xb")
    if member.file is None or file is None:
        return
    with file:
        while piece := member.file.read(_PIECE):
            budget.take(len(piece))
            with _writing(target.parent):
                file.write(piece)
        with _writing(target.parent):
            file.flush()
            os.fsync(file.fileno())


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Tell what the disk refuses from what an archive is refused for."""
    try:
        yield
    except OSError as error:
        raise _not_written(folder, error) from error


def _checked(archive: Path, given: str) -> str:
    """Return a name that leads nowhere but below; empty for the top itself."""
    name = given.removesuffix("/")
    while name.startswith("./"):
        name = name[2:]
    if name in ("", "."):
        return ""
    parts = name.split("/")
    text = ""
    if name.startswith("/") or ":" in name:
        text = "is an absolute name"
    elif ".." in parts:
        text = "leads out of the folder"
    elif "" in parts or "." in parts or "\\" in name or not name.isprintable():
        text = "is no plain name"
    elif any(part.endswith((" ", ".")) or part.startswith(" ") for part in parts):
        text = "begins or ends with what some file systems drop"
    elif len(parts) > _DEPTH_MAX or len(name.encode(errors="replace")) > _NAME_BYTES_MAX:
        text = "is too long or too deep"
    elif vouching.LOCK_NAME in parts:
        text = "is the kernel's own"
    if text:
        raise _refused(archive, f"{given[:_NAME_BYTES_MAX]!r} {text}")
    return name


def _not_written(folder: Path, error: OSError) -> errors.DwError:
    text = f"nothing can be installed into {folder}: {error.strerror or error}"
    return errors.new("plugin.load", text, path=folder)


def _refused(archive: Path, text: str) -> errors.DwError:
    return errors.new("plugin.archive", f"{archive.name} is refused: {text}", path=archive)
