"""Jobs in the store: read, and changed by compare-and-set.

A job lies under `live/` until it has ended, then under `done/`, and goes over in one commit.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from dwkernel import errors
from dwkernel._records import each_record
from dwkernel.jobs.entry import Entry
from dwkernel.jobs.record import JobRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dwkernel._records import Change, Records

__all__ = ["LIVE", "SPACE", "Ledger"]

SPACE = "jobs"
LIVE, DONE = "live/", "done/"
# So often a change is tried anew when somebody else came first.
_TRIES = 8
_BATCH = 256

_log = logging.getLogger("dwkernel.jobs")


class Ledger:
    """Reads and writes jobs."""

    def __init__(self, records: Records) -> None:
        """Take where they lie."""
        self.records = records

    def live(self) -> Iterator[Entry]:
        """Read all jobs that have not ended. One that cannot be read is left alone, and logged."""
        yield from self._each(LIVE)

    def finished(self) -> Iterator[Entry]:
        """Read all jobs that have ended."""
        yield from self._each(DONE)

    def _each(self, prefix: str) -> Iterator[Entry]:
        for key, value, version in each_record(self.records, SPACE, prefix):
            try:
                record = JobRecord.from_bytes(value)
                if record.key != key:
                    raise errors.new("format.damaged", f"it is the row of {record.key}")
                yield Entry(record, version)
            except errors.DwError as error:
                _log.warning("the job %s is left alone: %s", key, error)

    def find(self, job_id: str) -> Entry | None:
        """Read a job that has ended."""
        found = self.records.get_record(SPACE, DONE + job_id)
        return None if found is None else Entry(JobRecord.from_bytes(found[0]), found[1])

    def insert(self, entry: Entry, also: Sequence[Change] = ()) -> int:
        """Write a new job, and what changes with it; the caller holds its lock.

        Returns:
            The version of all of them.

        Raises:
            Conflict: `record.conflict`, if `also` is not at its version any more
            Timeout: `context.deadline`, and others, as commits raise them

        """
        record = entry.record
        change: Change = (record.key, record.to_bytes(), 0)
        try:
            entry.version = self.records.commit_records(SPACE, [change, *also])
        except errors.Conflict:
            raise
        except errors.DwError:
            # It may be there all the same: then it was submitted.
            if not self.is_there(entry):
                raise
        return entry.version

    def is_there(self, entry: Entry) -> bool:
        """Look whether a job that was to be written is there; the caller has its lock."""
        found = self.records.get_record(SPACE, entry.record.key)
        if found is not None:
            entry.version = found[1]
        return found is not None

    def change(
        self, entry: Entry, decide: Callable[[JobRecord], JobRecord | None]
    ) -> JobRecord | None:
        """Change a job to what `decide` makes of it, unless that is None.

        `decide` may be asked again, with what somebody else made of the job meanwhile.

        Returns:
            The job as it was before, or None if nothing was changed.

        Raises:
            NotFound: `job.not_found`: the row is gone
            Unavailable, Full, State, Timeout: as commits raise them

        """
        with entry.lock:
            return self.change_locked(entry, decide)

    def change_locked(
        self, entry: Entry, decide: Callable[[JobRecord], JobRecord | None]
    ) -> JobRecord | None:
        """As `change`, for who holds the lock."""
        for _ in range(_TRIES):
            if entry.is_stale:
                self._refresh(entry)
            before = entry.record
            after = decide(before)
            if after is None:
                return None
            try:
                entry.version = self.records.commit_records(SPACE, self._moves(entry, after))
            except errors.Conflict:
                entry.is_stale = True
                continue
            except BaseException as error:
                entry.is_stale = True
                if not isinstance(error, errors.DwError) or not self._took_place(entry, after):
                    raise
            entry.record = after
            return before
        raise errors.new("record.conflict", f"the job {entry.record.id} changes all the time")

    def _took_place(self, entry: Entry, after: JobRecord) -> bool:
        """Look whether a commit that failed, as it seems, is there all the same."""
        try:
            self._refresh(entry)
        except errors.DwError:
            return False
        return entry.record == after

    @staticmethod
    def _moves(entry: Entry, after: JobRecord) -> list[Change]:
        before = entry.record
        if before.key == after.key:
            return [(after.key, after.to_bytes(), entry.version)]
        return [(before.key, None, entry.version), (after.key, after.to_bytes(), 0)]

    def _refresh(self, entry: Entry) -> None:
        job_id = entry.record.id
        for key in (LIVE + job_id, DONE + job_id):
            found = self.records.get_record(SPACE, key)
            if found is not None:
                entry.record, entry.version = JobRecord.from_bytes(found[0]), found[1]
                entry.is_stale = False
                return
        raise errors.new("job.not_found", f"the job {job_id} is gone", job=job_id)

    def forget(self, job_ids: Sequence[str]) -> None:
        """Remove jobs that have ended, in batches."""
        for first in range(0, len(job_ids), _BATCH):
            batch = job_ids[first : first + _BATCH]
            self.records.commit_records(SPACE, [(DONE + one, None, None) for one in batch])
