"""What a process uses, and whether that is too much. Figures come from /proc, once a tick."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dwkernel.plugins.confined.line import Call
    from dwkernel.plugins.confined.spec import Limits

__all__ = ["Usage", "Watch", "usage"]

# Elsewhere than on Linux nothing is started, and nothing measured.
if sys.platform == "linux":
    _PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
    _TICKS_PER_S = os.sysconf("SC_CLK_TCK")
else:
    _PAGE_BYTES = _TICKS_PER_S = 1
# Fields of /proc/PID/stat behind the name in brackets, which may hold anything; see proc(5).
_GROUP, _UTIME, _STIME, _THREADS, _RSS = 2, 11, 12, 17, 21
# Between calls a plugin may use a quarter of a processor in the long run.
_IDLE_SHARE = 0.25


class Usage(NamedTuple):
    """What a process uses, and those that it started."""

    cpu_s: float
    rss_bytes: int
    tasks: int


def usage(pid: int, *, group: bool) -> Usage:
    """Return what a process uses; with `group` all of its process group.

    A process that has just ended uses nothing.
    """
    pids = _members(pid) if group else [pid]
    found = [one for one in map(_of, pids) if one is not None]
    return Usage(
        sum(one.cpu_s for one in found),
        sum(one.rss_bytes for one in found),
        sum(one.tasks for one in found),
    )


def _fields(pid: int) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def _of(pid: int) -> Usage | None:
    fields = _fields(pid)
    if not fields:
        return None
    ticks = int(fields[_UTIME]) + int(fields[_STIME])
    return Usage(ticks / _TICKS_PER_S, int(fields[_RSS]) * _PAGE_BYTES, int(fields[_THREADS]))


def _members(group: int) -> list[int]:
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - names, fast
    return [pid for pid in pids if (fields := _fields(pid)) and int(fields[_GROUP]) == group]


class Watch:
    """Says when it is enough. No clock and no files: it is told what is the case."""

    def __init__(self, limits: Limits) -> None:
        """Begin with a process that has used nothing."""
        self._limits = limits
        self._cpu_s = 0.0
        self._idle_s = 0.0
        self._at: float | None = None

    def judge(self, now: float, used: Usage, calls: Iterable[Call]) -> tuple[str, Call | None]:
        """Return why the process must end, and the call that is to blame; "" if it may go on.

        Processor time since the last look is shared between the calls under way.
        """
        spent, self._cpu_s = used.cpu_s - self._cpu_s, used.cpu_s
        passed, self._at = now - (now if self._at is None else self._at), now
        open_calls = list(calls)
        for call in open_calls:
            call.cpu_s += max(0.0, spent) / len(open_calls)
            if call.cpu_s > self._limits.cpu_s:
                return f"{call.method}() used more than {self._limits.cpu_s} s of processors", call
            if now > call.end:
                return f"{call.method}() did not end within {self._limits.wall_s} s", call
        if not open_calls:
            self._idle_s = max(0.0, self._idle_s + spent - passed * _IDLE_SHARE)
            if self._idle_s > self._limits.cpu_s:
                text = f"it used more than {self._limits.cpu_s} s of processors without a call"
                return text, None
        if used.rss_bytes > self._limits.memory_bytes:
            return f"it used more than {self._limits.memory_bytes} bytes of memory", None
        if used.tasks > self._limits.processes:
            return f"it has more than {self._limits.processes} threads and processes", None
        return "", None
