"""The schedules of a store: kept as records, each advanced in the commit of the job it submits."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from dwkernel import errors
from dwkernel._records import each_record
from dwkernel.jobs.ledger import SPACE
from dwkernel.jobs.schedule import Schedule, ScheduleRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dwkernel.jobs.core import Core
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

    def load(self) -> None:
        """Read what the store has, once."""
        with self._lock:
            if self._is_loaded:
                return
            for key, value, version in each_record(self._core.ledger.records, SPACE, _PREFIX):
                try:
                    record = ScheduleRecord.from_bytes(value)
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

    def hold_to(self, wanted: Iterable[ScheduleRecord]) -> None:
        """Let the schedules of the configuration be these, and no others of its making."""
        records = {record.name: record for record in wanted}
        for record in records.values():
            self.set(record)
        for old in self.all():
            if old.origin == "config" and old.name not in records:
                self.remove(old.name)

    def next_ms(self) -> int | None:
        """Return when the next one is due."""
        with self._lock:
            times = [one.record.next_ms for one in self._kept.values()]
        return min((time for time in times if time is not None), default=None)

    def look(self) -> bool:
        """Submit what is due; False if something cannot be kept now: look again."""
        self.load()
        is_well = True
        with self._lock:
            for kept in list(self._kept.values()):
                try:
                    self._look_at(kept)
                except errors.State:
                    raise
                except errors.DwError as error:
                    _log.warning("the schedule %s submits nothing now: %s", kept.record.name, error)
                    is_well = False
        return is_well

    def _look_at(self, kept: _Kept) -> None:
        before = kept.record
        after, due_ms = before.due(self._core.clock(), kept.timing)
        if after is before:
            return
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
        """Return all schedules as people see them."""
        return [Schedule.of(record) for record in self.all()]


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
