"""The schedules of a store: kept as records, each advanced in the commit of the job it submits.

Those of the configuration are what somebody *wants*: they are kept as soon as that can be, and say
until then why not. A schedule whose kind is not there submits nothing; what is due meanwhile is
treated as if the store had been closed.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from dwkernel import errors
from dwkernel._records import each_record
from dwkernel.jobs.kinds import validated
from dwkernel.jobs.ledger import SPACE
from dwkernel.jobs.schedule import Schedule, ScheduleRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dwkernel.jobs.core import Core
    from dwkernel.jobs.kinds import JobKind
    from dwkernel.jobs.record import JobRecord
    from dwkernel.jobs.timing import Timing

__all__ = ["QUEUED_MAX", "Schedules"]

# Of a schedule that queues so many jobs may be unfinished.
QUEUED_MAX = 100
SCHEDULES_MAX = 10_000
_PREFIX = "schedule/"

_log = logging.getLogger("dwkernel.jobs")


class _Kept:
    """A schedule, its version, and when it is due."""

    __slots__ = ("record", "timing", "version")

    def __init__(self, record: ScheduleRecord, version: int) -> None:
        self.record = record
        self.version = version
        self.timing: Timing = record.timing()


class _Wanted:
    """A schedule of the configuration, and what came of it."""

    __slots__ = ("draft", "is_kept", "problem", "refused_by")

    def __init__(self, draft: ScheduleRecord) -> None:
        self.draft = draft
        self.is_kept = False
        self.problem: str | None = None
        # The kind that refused its options: it is not asked again.
        self.refused_by: JobKind | None = None


_NONE = _Kept(ScheduleRecord("", "", {}, every_s=1.0), 0)


class Schedules:
    """Keeps schedules and submits their jobs."""

    def __init__(self, core: Core, job_of: Callable[[ScheduleRecord, int], JobRecord]) -> None:
        """Take the jobs, and what makes the job of a schedule for a due time."""
        self._core = core
        self._job_of = job_of
        self._kept: dict[str, _Kept] = {}
        self._is_loaded = False
        self._lock = threading.RLock()
        # What the configuration wants, and whether others of its making are to go.
        self._wanted: dict[str, _Wanted] = {}
        self._gone: set[str] = set()
        self._sweeps = False
        self._wanting = threading.RLock()
        # Why a schedule submits nothing now, as it was told last.
        self._told: dict[str, str] = {}

    def load(self) -> None:
        """Read what the store has, once."""
        with self._lock:
            if self._is_loaded:
                return
            for key, value, version in each_record(self._core.ledger.records, SPACE, _PREFIX):
                try:
                    record = ScheduleRecord.from_bytes(value)
                    if record.key != key:
                        raise errors.new("format.damaged", f"it is the row of {record.key}")
                    self._kept[record.name] = _Kept(record, version)
                except errors.DwError as error:
                    _log.warning("%s is left alone: %s", key, error)
            self._is_loaded = True

    def all(self) -> list[ScheduleRecord]:
        """Return all schedules, by name."""
        self.load()
        with self._lock:
            return [self._kept[name].record for name in sorted(self._kept)]

    def set(self, record: ScheduleRecord) -> ScheduleRecord:
        """Keep a schedule; one of that name is replaced, and goes on as it was if it is equal."""
        self.load()
        now_ms = self._core.clock()
        with self._lock:
            before = self._kept.get(record.name)
            if before is None and len(self._kept) >= SCHEDULES_MAX:
                raise errors.new("job.schedule", f"there are {SCHEDULES_MAX:,} schedules already")
            if before is not None:
                record = _carried(before.record, record)
                if record == before.record:
                    return record
            if record.next_ms is None:
                first = record.timing().after(now_ms)
                record = replace(record, next_ms=first, set_ms=now_ms)
            expected = 0 if before is None else before.version
            change = (record.key, record.to_bytes(), expected)
            try:
                version = self._core.ledger.records.commit_records(SPACE, [change])
                self._kept[record.name] = _Kept(record, version)
            except errors.DwError:
                # It may be there all the same.
                self._refresh(record.name)
                if self._kept.get(record.name, _NONE).record != record:
                    raise
        with self._core.change:
            self._core.change.notify_all()
        return record

    def remove(self, name: str) -> bool:
        """Remove a schedule; jobs that it submitted stay. False if there is none."""
        self.load()
        with self._lock:
            found = self._kept.get(name)
            if found is None:
                return False
            change = (found.record.key, None, None)
            try:
                self._core.ledger.records.commit_records(SPACE, [change])
            except errors.DwError:
                self._refresh(name)
                if name in self._kept:
                    raise
            self._kept.pop(name, None)
            return True

    def want(self, drafts: Iterable[ScheduleRecord], *, keep: bool) -> None:
        """Let the schedules of the configuration be these, as soon as their kinds are there.

        Others of its making are removed; with `keep` only those that were wanted until now.
        """
        with self._wanting:
            before = set(self._wanted)
            self._wanted = {draft.name: _Wanted(draft) for draft in drafts}
            self._gone = (self._gone | before) - set(self._wanted)
            self._sweeps = not keep
            self.admit()

    def admit(self) -> bool:
        """Keep what is wanted and can be kept now; False if the store does not take it."""
        if not self._wanting.acquire(blocking=False):
            return True  # somebody is at it
        try:
            tried = [self._admit(one) for one in self._wanted.values() if not one.is_kept]
            return all([*tried, self._sweep()])
        finally:
            self._wanting.release()

    def _admit(self, wanted: _Wanted) -> bool:
        draft, kinds = wanted.draft, self._core.kinds
        kind = kinds.get(draft.kind)
        if kind is not None and wanted.refused_by is kind:
            return True
        is_well = True
        try:
            options = validated(kinds.named(draft.kind), draft.options)
            self.set(replace(draft, options=options, anchor_ms=self._core.clock()))
            wanted.problem, wanted.is_kept = None, True
        except (errors.Invalid, errors.NotFound) as error:
            wanted.problem, wanted.refused_by = str(error), kind
        except errors.DwError as error:
            # Full, read-only, or it may be there all the same: the next look says.
            wanted.problem, is_well = str(error), False
        self._tell(draft.name, draft.kind, wanted.problem)
        return is_well

    def _sweep(self) -> bool:
        is_well = True
        for old in self.all():
            is_left = old.origin == "config" and old.name not in self._wanted
            if is_left and (self._sweeps or old.name in self._gone):
                try:
                    self.remove(old.name)
                except errors.DwError as error:
                    _log.debug("the schedule %s cannot be removed now: %s", old.name, error)
                    is_well = False
        if is_well:
            self._gone.clear()
        return is_well

    def _tell(self, name: str, kind: str, problem: str | None) -> None:
        """Say once that a schedule submits nothing, and once that it does again."""
        if self._told.get(name) == problem:
            return
        if problem is None:
            del self._told[name]
            _log.info("the schedule %s goes on", name)
        else:
            self._told[name] = problem
            _log.warning("the schedule %s submits nothing: %s", name, problem)
        what = "ready" if problem is None else "waiting"
        data = {"name": name, "kind": kind, "problem": problem}
        self._core.announce(f"job.schedule.{what}", data)

    def next_ms(self) -> int | None:
        """Return when the next one is due whose kind is there."""
        kinds = self._core.kinds
        with self._lock:
            records = [one.record for one in self._kept.values()]
        times = (one.next_ms for one in records if kinds.get(one.kind) is not None)
        return min((time for time in times if time is not None), default=None)

    def look(self) -> bool:
        """Submit what is due; False if something cannot be kept now: look again."""
        self.load()
        is_well = self.admit()
        with self._lock:
            for kept in list(self._kept.values()):
                try:
                    self._look_at(kept)
                except errors.State:
                    raise
                except Exception as error:  # noqa: BLE001 - what its kind says; others go on
                    _log.warning("the schedule %s submits nothing now: %s", kept.record.name, error)
                    is_well = False
        return is_well

    def _look_at(self, kept: _Kept) -> None:
        before = kept.record
        after, due_ms = before.due(self._core.clock(), kept.timing)
        if after is before:
            return
        if self._core.kinds.get(before.kind) is None:
            self._tell(before.name, before.kind, self._problem(before))
            return
        self._tell(before.name, before.kind, None)
        unfinished = len(self._core.of_schedule.get(before.name, ()))
        if due_ms is not None and unfinished >= (1 if before.overlap == "skip" else QUEUED_MAX):
            after, due_ms = replace(after, skipped=before.skipped + 1), None
        try:
            if due_ms is None:
                change = (after.key, after.to_bytes(), kept.version)
                kept.version = self._core.ledger.records.commit_records(SPACE, [change])
            else:
                after, kept.version = self._submit(after, due_ms, kept.version)
        except errors.DwError:
            self._refresh(before.name)
            raise
        kept.record = after
        kept.timing = after.timing() if after.anchor_ms != before.anchor_ms else kept.timing

    def _submit(
        self, after: ScheduleRecord, due_ms: int, version: int
    ) -> tuple[ScheduleRecord, int]:
        job = self._job_of(after, due_ms)
        after = replace(after, last_job=job.id, submitted=after.submitted + 1)
        _, version = self._core.submit(job, [(after.key, after.to_bytes(), version)])
        return after, version

    def _refresh(self, name: str) -> None:
        """Read a schedule again that may have changed, or may not."""
        found = self._core.ledger.records.get_record(SPACE, _PREFIX + name)
        if found is None:
            self._kept.pop(name, None)
        else:
            self._kept[name] = _Kept(ScheduleRecord.from_bytes(found[0]), found[1])

    def shown(self) -> list[Schedule]:
        """Return all schedules as people see them, with those that wait to be kept."""
        self.admit()
        kept = {record.name: record for record in self.all()}
        with self._wanting:
            waiting = {one.draft.name: one for one in self._wanted.values() if not one.is_kept}
        shown = []
        for name in sorted({*kept, *waiting}):
            record = kept.get(name) or waiting[name].draft
            problem = waiting[name].problem if name in waiting else self._problem(record)
            shown.append(Schedule.of(record, problem))
        return shown

    def _problem(self, record: ScheduleRecord) -> str | None:
        try:
            self._core.kinds.named(record.kind)
        except errors.NotFound as error:
            return str(error)
        return None


_COUNTS = ("next_ms", "set_ms", "last_ms", "last_job", "submitted", "missed", "skipped")


def _carried(before: ScheduleRecord, record: ScheduleRecord) -> ScheduleRecord:
    """Return a new version of a schedule with what the old one counted.

    Where it is due at the same times it goes on, so that saying it again at each start is harmless.
    """
    if record.submitter.principal == before.submitter.principal:
        record = replace(record, submitter=before.submitter)
    counts = {name: getattr(before, name) for name in _COUNTS}
    times = ("cron", "every_s", "zone")
    if all(getattr(before, name) == getattr(record, name) for name in times):
        return replace(record, **counts, anchor_ms=before.anchor_ms)
    return replace(record, **{**counts, "next_ms": None})
