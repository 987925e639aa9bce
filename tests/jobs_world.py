"""What tests of jobs share: kinds, a clock that is set by hand, records that fail."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel._records import MemoryRecords
from dwkernel.jobs import Jobs, JobsSection
from expect import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dwkernel._records import Change
    from dwkernel.jobs import JobContext

# 2026-11-26T00:00:00Z
BEGIN_MS = 1_795_651_200_000
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS


class Clock:
    """Milliseconds since 1970, as the test says."""

    def __init__(self, now_ms: int = BEGIN_MS) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms


class Kind:
    """A kind that does what it was given."""

    def __init__(self, name: str, run: Callable[[JobContext], Any], **wishes: Any) -> None:
        self.name = name
        self._run = run
        vars(self).update(wishes)

    def validate(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        return options

    def run(self, context: JobContext) -> Any:
        return self._run(context)


def count(context: JobContext) -> int:
    done = context.checkpoint or 0
    while done < context.options["to"]:
        done += 1
        context.progress(done, context.options["to"], f"at {done}", unit="steps")
        context.save(done)
    return int(done)


COUNT = Kind("count", count)


def hang(event: threading.Event) -> Kind:
    return Kind("hang", lambda _: event.wait(PATIENCE_S))


class Gate:
    """A kind whose jobs wait until they are let go, or are to stop."""

    name = "gate"

    def __init__(self) -> None:
        self.inside: list[str] = []
        self.most = 0
        self.opened = threading.Event()
        self._lock = threading.Lock()

    def validate(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        return options

    def run(self, context: JobContext) -> str:
        with self._lock:
            self.inside.append(context.id)
            self.most = max(self.most, len(self.inside))
        try:
            while not self.opened.wait(0.002):
                context.check()
        finally:
            with self._lock:
                self.inside.remove(context.id)
        return "through"


def jobs_on(records: Any, *kinds: Any, **options: Any) -> Jobs:
    """Open jobs as a process does that finds these records."""
    settings = options.pop("settings", None) or JobsSection(**options.pop("section", {}))
    jobs = Jobs(records, settings=settings, **options)
    for kind in kinds:
        jobs.register(kind)
    return jobs


class Crash(BaseException):
    """The process ends here."""


class FaultyRecords(MemoryRecords):
    """Records of a process that can end in any commit, before it or behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.commits = 0
        # What happens at the next commits: "before" or "after" end the process; "fail" and "unsure"
        # raise an error, without the change and with it.
        self.plan: list[str | None] = []
        # How long each commit takes, and whether nothing can be read.
        self.slow_s = 0.0
        self.is_blind = False
        self._is_dead = False

    def get_record(self, space: str, key: str) -> tuple[bytes, int] | None:
        if self.is_blind:
            raise errors.new("drives.too_many_lost", "no drive answers")
        return super().get_record(space, key)

    def revive(self) -> None:
        self._is_dead = False
        self.plan = []

    def commit_records(self, space: str, changes: Sequence[Change]) -> int:
        if self._is_dead:
            raise Crash
        self.commits += 1
        time.sleep(self.slow_s)
        what = self.plan.pop(0) if self.plan else None
        if what == "before":
            self._is_dead = True
            raise Crash
        if what == "fail":
            raise errors.new("pool.full", "no room")
        version = super().commit_records(space, changes)
        if what == "after":
            self._is_dead = True
            raise Crash
        if what == "unsure":
            raise errors.new("context.deadline", "too late", outcome="unknown")
        return version
