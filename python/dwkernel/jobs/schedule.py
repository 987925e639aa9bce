"""One schedule as it is kept, and what becomes of it when time passes. No clock, no I/O."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from dwkernel import errors
from dwkernel.jobs.record import Submitter, check_types, versioned
from dwkernel.jobs.timing import timing_of
from dwkernel.reports import Report

if TYPE_CHECKING:
    from dwkernel.jobs.timing import Timing

__all__ = ["GRACE_MS", "Overlap", "Schedule", "ScheduleRecord"]

VERSION: Final = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
# What is due and this much late is on time still: longer, and it was missed.
GRACE_MS = 60_000
# A clock that is put back by less waits for a due time that has been; by more, it was wrong before.
BACK_MAX_MS = 24 * 3_600_000

Overlap = Literal["skip", "queue"]


@dataclass(frozen=True, slots=True)
class ScheduleRecord:
    """What is kept of a schedule; times are milliseconds since 1970."""

    name: str
    kind: str
    options: dict[str, Any]
    cron: str | None = None
    every_s: float | None = None
    zone: str = "UTC"
    priority: int = 0
    timeout_s: float | None = None
    max_attempts: int | None = None
    backoff_s: tuple[float, ...] | None = None
    catch_up: bool = False
    overlap: Overlap = "skip"
    # Who made it: "call", or "config" for those of the configuration, which it removes again.
    origin: str = "call"
    submitter: Submitter = field(default_factory=Submitter)
    anchor_ms: int = 0
    next_ms: int | None = None
    # When `next_ms` was reckoned.
    set_ms: int = 0
    last_ms: int | None = None
    last_job: str | None = None
    submitted: int = 0
    missed: int = 0
    skipped: int = 0

    @property
    def key(self) -> str:
        """The key of its row."""
        return f"schedule/{self.name}"

    def timing(self) -> Timing:
        """Return when it is due."""
        zone = self.zone if self.cron else "UTC"
        return timing_of(self.cron, self.every_s, zone, self.anchor_ms)

    def to_bytes(self) -> bytes:
        """Return the value of its row."""
        told = {"v": VERSION, **asdict(self)}
        return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> ScheduleRecord:
        """Return the record of a row's value.

        Raises:
            Unsupported: `format.newer`
            Corrupt: `format.damaged`

        """
        told = versioned(data, VERSION)
        try:
            known = {part.name: told[part.name] for part in fields(cls) if part.name in told}
            whose = known.get("submitter", {})
            known["submitter"] = Submitter(**{**whose, "roles": tuple(whose.get("roles", ()))})
            if known.get("backoff_s") is not None:
                known["backoff_s"] = tuple(known["backoff_s"])
            record = cls(**known)
            check_types(record, record.submitter)
        except (TypeError, AttributeError, KeyError, ValueError) as error:
            raise errors.new("format.damaged", f"no record of a schedule: {error}") from error
        return record

    def due(self, now_ms: int, timing: Timing) -> tuple[ScheduleRecord, int | None]:
        """Return it as it is after a look at the clock, and what is due now, if anything.

        At most one time is due: the last that has passed. It counts if it is no more than a minute
        ago, or if the schedule catches up; every other one was missed. A due time that has been
        does not come again, also if the clock is put back.
        """
        if self.next_ms is None or self.next_ms > now_ms:
            return self._put_back(now_ms, timing), None
        last = timing.until(now_ms)
        if last is None or last < self.next_ms:
            last = self.next_ms
        advanced = replace(self, next_ms=timing.after(now_ms), set_ms=now_ms)
        if last >= now_ms - GRACE_MS or self.catch_up:
            return replace(advanced, last_ms=last), last
        return replace(advanced, missed=self.missed + 1), None

    def _put_back(self, now_ms: int, timing: Timing) -> ScheduleRecord:
        """Return it with a next time that fits a clock that was put back.

        An interval begins anew as soon as it would wait for longer than it is.
        """
        if self.every_s is not None:
            step_ms = round(self.every_s * 1000)
            if self.next_ms is None or self.next_ms - now_ms <= step_ms:
                return self
            return replace(self, anchor_ms=now_ms, next_ms=now_ms + step_ms, set_ms=now_ms)
        if now_ms >= self.set_ms - BACK_MAX_MS:
            return self
        return replace(self, next_ms=timing.after(now_ms), set_ms=now_ms)


@dataclass(frozen=True, slots=True)
class Schedule(Report):
    """What a schedule is and how it stands.

    Attributes:
        name: its name.
        kind: of the jobs that it submits.
        options: theirs.
        cron: five fields, or None.
        every_s: the interval in seconds, or None.
        zone: the time zone of `cron`.
        priority: of the jobs.
        catch_up: whether one job makes up for what was missed.
        overlap: `"skip"` or `"queue"`: what happens while the last job is not finished.
        origin: `"call"` or `"config"`.
        next_at: when it is due next, or None.
        last_at: the due time of its last job, or None.
        last_job: the id of its last job, or None.
        submitted: how many jobs it submitted.
        missed: how often due times passed with nobody there.
        skipped: how often the last job was not finished.
        problem: why it submits nothing now, such as a kind that is not there; None if it does.

    """

    name: str
    kind: str
    options: dict[str, Any]
    cron: str | None
    every_s: float | None
    zone: str
    priority: int
    catch_up: bool
    overlap: str
    origin: str
    next_at: datetime | None
    last_at: datetime | None
    last_job: str | None
    submitted: int
    missed: int
    skipped: int
    problem: str | None = None

    @classmethod
    def of(cls, record: ScheduleRecord, problem: str | None = None) -> Schedule:
        """Show a record."""
        shown = {
            part.name: getattr(record, part.name)
            for part in fields(cls)
            if part.name != "problem" and not part.name.endswith("_at")
        }
        next_at, last_at = moment(record.next_ms), moment(record.last_ms)
        return cls(next_at=next_at, last_at=last_at, problem=problem, **shown)


def moment(ms: int | None) -> datetime | None:
    """Return a time as people have it."""
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC)


def checked_name(name: str) -> str:
    """Return the name of a schedule.

    Raises:
        Invalid: `job.schedule`

    """
    given: object = name
    if not isinstance(given, str) or not _NAME.fullmatch(given):
        text = f"{name!r} names no schedule: 1 to 128 letters, digits, '.', '-' and '_'"
        raise errors.new("job.schedule", text)
    return given
