"""What the demo stores: real files, with their digests."""

from __future__ import annotations

import os
import stat
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dwkernel import hashing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_PIECE_BYTES = 4 << 20
# A batch of small files is hashed side by side.
_BATCH_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class File:
    """One file: where it is, what it is called in the store, and what it holds."""

    path: Path
    name: str
    bytes: int
    digest: bytes


def default_trees() -> list[Path]:
    """Return the running Python's standard library and site-packages."""
    paths = [
        Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")
    ]
    trees: list[Path] = []
    for path in paths:
        real = path.resolve()
        if real.is_dir() and not any(real == tree or tree in real.parents for tree in trees):
            trees.append(real)
    return trees


def collect(trees: Iterable[Path], limit_bytes: int | None) -> list[File]:
    """Read every regular file of `trees` once and take its digest, until `limit_bytes` are reached."""
    files: list[File] = []
    batch: list[tuple[Path, str, bytes]] = []
    total = waiting = 0
    for path, name, size in _walk(trees):
        if limit_bytes is not None and total + size > limit_bytes:
            continue
        total += size
        if size > _BATCH_BYTES:
            files.append(File(path, name, size, digest_of(path)))
            continue
        content = path.read_bytes()
        batch.append((path, name, content))
        waiting += len(content)
        if waiting > _BATCH_BYTES:
            files += _hashed(batch)
            batch, waiting = [], 0
    return files + _hashed(batch)


def digest_of(path: Path) -> bytes:
    """Return the BLAKE3 of a file; a large one is the BLAKE3 of its pieces' BLAKE3s."""
    with path.open("rb") as file:
        return digest_stream(iter(lambda: file.read(_PIECE_BYTES), b""))


def digest_stream(pieces: Iterable[bytes]) -> bytes:
    """Return the digest that `File.digest` holds for a content that comes in pieces of 4 MiB."""
    digests = [hashing.blake3(piece) for piece in pieces]
    if not digests:
        return hashing.blake3(b"")
    return digests[0] if len(digests) == 1 else hashing.blake3(b"".join(digests))


def _hashed(batch: list[tuple[Path, str, bytes]]) -> list[File]:
    small = [content for _, _, content in batch if len(content) <= _PIECE_BYTES]
    digests = iter(hashing.blake3_many(small)) if small else iter(())
    files = []
    for path, name, content in batch:
        if len(content) <= _PIECE_BYTES:
            digest = next(digests)
        else:
            views = range(0, len(content), _PIECE_BYTES)
            digest = digest_stream(content[start : start + _PIECE_BYTES] for start in views)
        files.append(File(path, name, len(content), digest))
    return files


def _walk(trees: Iterable[Path]) -> Iterator[tuple[Path, str, int]]:
    for number, tree in enumerate(trees):
        label = f"{number}-{tree.name}" if number else tree.name
        for directory, names, leaves in os.walk(tree):
            names.sort()
            for leaf in sorted(leaves):
                path = Path(directory, leaf)
                try:
                    known = path.lstat()
                    relative = f"{label}/{path.relative_to(tree).as_posix()}"
                    relative.encode()
                except (OSError, UnicodeEncodeError):
                    continue
                if stat.S_ISREG(known.st_mode) and os.access(path, os.R_OK):
                    yield path, relative, known.st_size
