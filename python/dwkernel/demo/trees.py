"""What the demo stores: real files, with their digests."""

from __future__ import annotations

import os
import stat
import sysconfig
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dwkernel import hashing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_PIECE_BYTES = 4 << 20
# A batch of small files is hashed side by side.
_BATCH_BYTES = 8 << 20
_UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class File:
    """One file: where it is, what it is called in the store, and what it holds."""

    path: Path
    name: str
    size: int
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


@dataclass(slots=True)
class Collected:
    """What was found in the trees.

    Attributes:
        files: what there is to store.
        left_out: how many were left out, by the reason.

    """

    files: list[File] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def collect(trees: Iterable[Path], limit_bytes: int | None) -> Collected:
    """Read every regular file of `trees` and take its digest, up to `limit_bytes` of them all."""
    found = Collected()
    batch: list[tuple[Path, str, bytes]] = []
    total = waiting = 0
    for path, name, size in _walk(trees, found.left_out):
        if limit_bytes is not None and total + size > limit_bytes:
            found.left_out["beyond the limit or the room"] += 1
            continue
        try:
            if size > _BATCH_BYTES:
                found.files.append(File(path, name, size, digest_of(path)))
                total += size
                continue
            content = path.read_bytes()
        except OSError:
            found.left_out[_UNREADABLE] += 1
            continue
        total += len(content)
        batch.append((path, name, content))
        waiting += len(content)
        if waiting > _BATCH_BYTES:
            found.files += _hashed(batch)
            batch, waiting = [], 0
    found.files += _hashed(batch)
    return found


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


def _walk(trees: Iterable[Path], left_out: Counter[str]) -> Iterator[tuple[Path, str, int]]:
    def failed(_: OSError) -> None:
        left_out["in a directory that cannot be read"] += 1

    for number, tree in enumerate(trees):
        label = f"{number}-{tree.name}" if number else tree.name
        for directory, names, leaves in os.walk(tree, onerror=failed):
            names.sort()
            for leaf in sorted(leaves):
                path = Path(directory, leaf)
                try:
                    known = path.lstat()
                    relative = f"{label}/{path.relative_to(tree).as_posix()}"
                    relative.encode()
                except OSError:
                    left_out[_UNREADABLE] += 1
                except UnicodeEncodeError:
                    left_out["with a name that is not UTF-8"] += 1
                else:
                    if stat.S_ISREG(known.st_mode):
                        yield path, relative, known.st_size
                    else:
                        left_out["neither file nor directory, or a link"] += 1
