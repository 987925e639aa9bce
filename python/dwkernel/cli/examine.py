"""`doctor`: what this machine and a store are like, and what about it is bad."""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import dwkernel as dw
from dwkernel import errors
from dwkernel.cli.output import locked_by
from dwkernel.reports import Report
from dwkernel.units import format_size

_SYNCS = 20
_SLOW_SYNC_MS = 30
_FILES_MIN = 1024
_LOW_SPACE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Finding(Report):
    """One thing that was looked at.

    Attributes:
        mark: `"ok"`, `"note"` or `"bad"`.
        text: a sentence.

    """

    mark: str
    text: str


def examine(path: Path) -> list[Finding]:
    """Look at the machine, the file system at `path` and the store there, if there is one."""
    return [*_machine(), *_place(path), *_store(path)]


def _machine() -> list[Finding]:
    found = [Finding("ok", f"dwkernel {dw.__version__}, Python {sys.version.split()[0]}")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found.append(Finding("ok", f"{os.uname().sysname} on {os.uname().machine}, {cores} processors"))
    with contextlib.suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        fast = [flag for flag in ("gfni", "avx512bw", "avx2") if f" {flag}" in flags]
        text = (
            f"erasure coding can use {', '.join(fast)}"
            if fast
            else "no vector extensions: coding is slow"
        )
        found.append(Finding("ok" if fast else "note", text))
    with contextlib.suppress(ImportError):
        import resource  # noqa: PLC0415 - not on every platform

        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        text = f"{files} files may be open at a time"
        found.append(Finding("ok" if files >= _FILES_MIN else "note", text))
    return found


def _place(path: Path) -> list[Finding]:
    where = next(place for place in (path, *path.absolute().parents) if place.is_dir())
    free = shutil.disk_usage(where).free
    found = [
        Finding("ok" if free > _LOW_SPACE_BYTES else "note", f"{format_size(free)} free at {where}")
    ]
    try:
        sync_ms = _sync_ms(where)
    except OSError as error:
        return [*found, Finding("note", f"cannot write at {where}: {error.strerror}")]
    mark = "ok" if sync_ms < _SLOW_SYNC_MS else "note"
    found.append(Finding(mark, f"a write of 4 KiB is durable after {sync_ms:.2f} ms (median)"))
    return found


def _sync_ms(where: Path) -> float:
    with tempfile.TemporaryFile(dir=where, buffering=0) as file:
        times = []
        for _ in range(_SYNCS):
            start = time.perf_counter()
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times)


def _store(path: Path) -> list[Finding]:
    try:
        with dw.open(path, read_only=True) as kernel:
            status = kernel.pool.status()
    except errors.NotFound:
        return [Finding("ok", f"no store at {path}")]
    except errors.DwError as error:
        held = locked_by(error.details) if error.code == "store.locked" else ""
        return [Finding("note" if held else "bad", held.strip() or str(error))]
    bad = status.redundancy != "full"
    text = f"the store at {path}: {status.geometry}, redundancy {status.redundancy}"
    found = [Finding("bad" if bad else "ok", text)]
    found += [Finding("bad", text) for text in status.advice]
    return found + [Finding("note", text) for text in status.warnings]
