"""`kernel.jobs`: work that outlives the process."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

from dwkernel import errors
from dwkernel.jobs.archive import Archive
from dwkernel.jobs.context import CURRENT
from dwkernel.jobs.core import Core, wall_ms
from dwkernel.jobs.job import Job
from dwkernel.jobs.kinds import validated
from dwkernel.jobs.options import (
    attempts_of,
    backoff_s,
    due_ms,
    every_s,
    policy,
    priority_of,
    unique_name,
)
from dwkernel.jobs.record import FINISHED, JobRecord, State, Submitter
from dwkernel.jobs.runner import Crew
from dwkernel.jobs.schedule import Overlap, Schedule, ScheduleRecord, checked_name
from dwkernel.jobs.schedules import Schedules
from dwkernel.jobs.settings import JobsSection
from dwkernel.jobs.timekeeper import Timekeeper
from dwkernel.jobs.timing import timing_of
from dwkernel.units import parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from dwkernel._records import Records
    from dwkernel.jobs.kinds import JobKind
    from dwkernel.jobs.settings import ScheduleSection
    from dwkernel.units import Duration

__all__ = ["Jobs"]

# So many are named when they do not end.
_NAMED_MAX = 20
_TIDY_S = 0.5
_STATES = (*get_args(State), "scheduled")


class Jobs:
    """The jobs of a store: `kernel.jobs`.

    What is submitted is kept in the store until it is done, also when the process ends. Nothing
    runs before `start()` or the first `submit`; from then on worker threads run what waits, and a
    timekeeper submits what schedules want, until the kernel is closed.
    """

    def __init__(
        self,
        records: Records,
        *,
        settings: JobsSection | None = None,
        kernel_of: Callable[[Submitter], Any] = lambda _: None,
        submitter: Callable[[], Submitter] = Submitter,
        announce: Callable[[str, dict[str, Any]], object] = lambda *_: None,
        clock: Callable[[], int] = wall_ms,
    ) -> None:
        """Take records; programs use `kernel.jobs`.

        Args:
            records: where jobs are kept.
            settings: how they are run.
            kernel_of: the store as a submitter has it.
            submitter: who submits now.
            announce: told of `job.submitted`, `job.started`, `job.stalled`, `job.finished`,
                `job.failed` and `job.cancelled`, and of `job.schedule.waiting` and `.ready`, with
                plain data.
            clock: milliseconds since 1970.

        """
        settings = settings or JobsSection()
        self._core = Core(records, settings, kernel_of=kernel_of, announce=announce, clock=clock)
        self._submitter = submitter
        self._archive = Archive(self._core)
        self._core.on_finished = self._archive.add
        self._schedules = Schedules(self._core, self._scheduled_job)
        self._crew = Crew(self._core)
        self._keeper = Timekeeper(self._core, self._schedules, self._archive, self._crew)
        self._pid = os.getpid()

    # --- Submitting -------------------------------------------------------------------------------

    def submit(  # noqa: PLR0913 - each option stands alone
        self,
        kind: str,
        options: Mapping[str, Any] | None = None,
        *,
        priority: int = 0,
        at: datetime | None = None,
        delay: Duration | None = None,
        unique: str | None = None,
        timeout: Duration | None = None,
        max_attempts: int | None = None,
        backoff: Iterable[Duration] | None = None,
        start: bool = True,
    ) -> Job:
        """Submit a job; it is durable on return.

        Args:
            kind: one of `kinds()`.
            options: what the kind takes, plain data up to 12 KiB.
            priority: 0 to 255. Higher goes first, and among equals who came first; every eighth
                turn is for the one that has waited longest, so that nobody starves.
            at: when it may begin, with a time zone.
            delay: the same as a length of time from now, up to ten years.
            unique: a name of up to 200 characters. While a job of this name has not ended, that
                one is returned and nothing is submitted.
            timeout: how long an attempt may take; its kind's by default, or as long as it likes.
            max_attempts: how often it is tried, 1 to 1,000; its kind's by default, or that of the
                settings. Going on after a crash is no new attempt.
            backoff: up to 16 waits between attempts, spread by a fifth; the last one repeats.
            start: False only writes it down: who runs jobs does it, here or in another opening.

        Raises:
            NotFound: `job.kind`
            Invalid: `job.option`, `unit.invalid`
            Full: `queue.full`: `waiting_max` jobs are unfinished; `pool.full`
            State: `store.closed`, `store.forked`, `pool.read_only`
            Timeout: `context.deadline`: where the outcome is unknown, the job may be there

        """
        self._check()
        core = self._core
        core.load()
        now_ms = core.clock()
        found = core.kinds.named(kind)
        given = {"timeout": timeout, "max_attempts": max_attempts, "backoff": backoff}
        record = JobRecord(
            id=core.ids.new(now_ms),
            kind=kind,
            options=validated(found, options),
            priority=priority_of(priority),
            submitted_ms=now_ms,
            due_ms=due_ms(now_ms, at, delay),
            unique=unique_name(unique),
            **self._context(),
            **policy(found, given, core.settings),
        )
        entry, _ = core.submit(record)
        if start:
            self.start()
        return Job(core, entry)

    def _context(self) -> dict[str, Any]:
        """Return whose a new job is: what runs in this thread is its parent, and lends its own."""
        running = CURRENT.get()
        if running is not None and self._core.running.get(running.id) is running:
            return {"submitter": running.submitter, "parent": running.id}
        return {"submitter": self._submitter()}

    # --- Looking ----------------------------------------------------------------------------------

    def get(self, job_id: str) -> Job:
        """Return a job by its id.

        Raises:
            NotFound: `job.not_found`

        """
        self._core.load()
        entry = self._core.live.get(job_id)
        if entry is None:
            try:
                entry = self._core.ledger.find(str(job_id))
            except (errors.Invalid, UnicodeEncodeError):
                entry = None
        if entry is None:
            raise errors.new("job.not_found", f"no job {job_id!r}", job=job_id)
        return Job(self._core, entry)

    def history(
        self, limit: int | None = None, kind: str | None = None, *, state: str | None = None
    ) -> list[Job]:
        """Return jobs that have ended, the last one first.

        Args:
            limit: at most so many; `history_page` of the settings by default.
            kind: only these.
            state: only these: `"done"`, `"failed"` or `"cancelled"`.

        """
        self._core.check_process()
        limit = self._core.settings.history_page if limit is None else limit
        found: list[Job] = []
        if limit > 0:
            for entry in self._archive.newest(kind, state):
                found.append(Job(self._core, entry))
                if len(found) >= limit:
                    break
        return found

    def cancel(self, job_id: str) -> bool:
        """Cancel a job; see `Job.cancel`.

        Raises:
            NotFound: `job.not_found`
            State: `store.closed`, `pool.read_only`
            Timeout: `context.deadline`

        """
        return self.get(job_id).cancel()

    # --- Schedules --------------------------------------------------------------------------------

    def schedule(  # noqa: PLR0913 - each option stands alone
        self,
        name: str,
        kind: str,
        *,
        cron: str | None = None,
        every: Duration | None = None,
        zone: str = "UTC",
        options: Mapping[str, Any] | None = None,
        priority: int = 0,
        timeout: Duration | None = None,
        max_attempts: int | None = None,
        backoff: Iterable[Duration] | None = None,
        catch_up: bool = False,
        overlap: Overlap = "skip",
        start: bool = True,
    ) -> Schedule:
        """Submit a job again and again; kept in the store.

        Each due time submits one job, in one commit with the schedule's own row: exactly once, also
        over a crash. Saying the same schedule again changes nothing, so a program may do it at each
        start.

        Args:
            name: 1 to 128 letters, digits, `.`, `-` and `_`; one of that name is replaced.
            kind: one of `kinds()`.
            cron: minute, hour, day of month, month, day of week, such as `"0 3 * * sun"`;
                `dwkernel.jobs.timing` says what happens where clocks change.
            every: an interval from a second to a year instead, counted from now.
            zone: the time zone of `cron`, such as `"Europe/Berlin"`.
            options: for each job, as `submit` takes them; and so the next four.
            priority: of the jobs.
            timeout: of an attempt.
            max_attempts: how often each is tried.
            backoff: the waits between attempts.
            catch_up: what was missed while nobody had the store open, or stood paused, is made up
                for by one job, not more. Otherwise a time that is over for more than a minute
                submits nothing.
            overlap: while the last job has not ended, `"skip"` submits none; `"queue"` does, up to
                100 that have not ended.
            start: as for `submit`.

        Raises:
            Invalid: `job.schedule`, `job.option`
            NotFound: `job.kind`
            State: `store.closed`, `pool.read_only`

        """
        self._check()
        draft = self._draft(
            name,
            kind,
            cron=cron,
            every=every,
            zone=zone,
            options=options,
            priority=priority,
            timeout=timeout,
            max_attempts=max_attempts,
            backoff=backoff,
            catch_up=catch_up,
            overlap=overlap,
            origin="call",
        )
        checked = replace(draft, options=validated(self._core.kinds.named(kind), options))
        self._core.load()
        kept = self._schedules.set(checked)
        if start:
            self.start()
        return Schedule.of(kept)

    def _draft(self, name: str, kind: str, **given: Any) -> ScheduleRecord:
        """Return a schedule whose kind has not seen its options yet."""
        every, timeout, attempts = given["every"], given["timeout"], given["max_attempts"]
        steps = given["backoff"]
        if given["overlap"] not in get_args(Overlap):
            text = f'overlap={given["overlap"]!r} is neither "skip" nor "queue"'
            raise errors.new("job.schedule", text)
        record = ScheduleRecord(
            name=checked_name(name),
            kind=kind,
            options=dict(given["options"] or {}),
            cron=given["cron"],
            zone=given["zone"],
            priority=priority_of(given["priority"]),
            timeout_s=None if timeout is None else parse_duration(timeout),
            max_attempts=None if attempts is None else attempts_of(attempts),
            backoff_s=None if steps is None else backoff_s(steps),
            catch_up=bool(given["catch_up"]),
            overlap=given["overlap"],
            origin=given["origin"],
            submitter=self._submitter(),
            anchor_ms=self._core.clock(),
            every_s=every_s(every),
        )
        timing_of(record.cron, record.every_s, record.zone, 0)
        return record

    def _scheduled_job(self, schedule: ScheduleRecord, when_ms: int) -> JobRecord:
        now_ms = self._core.clock()
        kind = self._core.kinds.get(schedule.kind)
        given = {
            "timeout": schedule.timeout_s,
            "max_attempts": schedule.max_attempts,
            "backoff": schedule.backoff_s,
        }
        return JobRecord(
            id=self._core.ids.new(now_ms),
            kind=schedule.kind,
            options=schedule.options,
            priority=schedule.priority,
            submitted_ms=now_ms,
            due_ms=when_ms,
            schedule=schedule.name,
            submitter=schedule.submitter,
            **policy(kind, given, self._core.settings),
        )

    def schedules(self) -> list[Schedule]:
        """Return all schedules, by name."""
        self._core.check_process()
        return self._schedules.shown()

    def unschedule(self, name: str) -> bool:
        """Remove a schedule; jobs that it submitted stay. False if there is none.

        Raises:
            State: `store.closed`, `pool.read_only`

        """
        self._check()
        return self._schedules.remove(name)

    # --- Kinds ------------------------------------------------------------------------------------

    def kinds(self) -> list[str]:
        """Return the names of the kinds that can be done here, sorted."""
        return self._core.kinds.names()

    def register(self, kind: JobKind, *, replace: bool = False) -> Callable[[], None]:
        """Add a kind. Jobs of it that wait begin to run, if jobs run.

        Args:
            kind: see `JobKind`.
            replace: take the place of one of that name; what runs goes on with the old one.

        Returns:
            What takes it away again: its running jobs are told to end at their next checkpoint and
            wait, as all others of it, until there is such a kind again. A kind that took its place
            meanwhile stays, and goes on with them.

        Raises:
            Invalid: `job.option`

        """
        self._core.kinds.add(kind, replace=replace)
        self._core.kind_came(kind.name)

        def unregister() -> None:
            self._core.kinds.remove(kind)
            self._core.stop_running("kind", kind)

        return unregister

    # --- Running ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to run what waits and what schedules want, in threads; again does nothing.

        For programs that run long: jobs and schedules of an earlier run of the program go on only
        when somebody asks for them, by this or by submitting.

        Raises:
            State: `store.closed`, `store.forked`

        """
        self._check()
        core = self._core
        core.load()
        self._schedules.load()
        with core.change:
            if core.phase == "idle":
                core.phase = "running"
                self._keeper.thread.start()
        self._crew.fill()

    def pause(self) -> None:
        """Run nothing until `resume`, also after a restart; what runs ends at its next checkpoint.

        Raises:
            State: `store.closed`, `pool.read_only`

        """
        self._check()
        self._core.load()
        self._core.pause(paused=True)

    def resume(self) -> None:
        """Run jobs again.

        Raises:
            State: `store.closed`, `pool.read_only`

        """
        self._check()
        self._core.load()
        self._core.pause(paused=False)

    @property
    def is_paused(self) -> bool:
        """Whether nothing runs until `resume`."""
        self._core.load()
        return self._core.is_paused

    @property
    def settings(self) -> JobsSection:
        """How jobs are run."""
        return self._core.settings

    def apply(self, settings: JobsSection) -> None:
        """Take new settings, at once; a job keeps the policy that it was submitted with.

        The schedules of the settings are kept in the store; those that an earlier call brought and
        this one does not are removed. One whose kind is not there waits until it comes, and one
        that the store does not take now is tried again: `Schedule.problem` says so.

        Raises:
            Invalid: `job.schedule`, `job.option`: nothing is changed

        """
        self._examine(settings)
        self._take(settings)

    def _examine(self, settings: JobsSection) -> None:
        """Refuse schedules that cannot be, as far as their kinds are there."""
        for draft in self._drafts(settings):
            kind = self._core.kinds.get(draft.kind)
            if kind is not None:
                validated(kind, draft.options)

    def _take(self, settings: JobsSection, *, keep: bool = False) -> None:
        """Do as `apply`, but what is wrong with one schedule is its `problem` and no more.

        With `keep` schedules of a configuration stay that this one does not have: for who was given
        none.
        """
        drafts = self._drafts(settings)
        self._core.load()
        self._schedules.want(drafts, keep=keep)
        with self._core.change:
            self._core.settings = settings
            self._core.wake()
        self._crew.fill()

    def _drafts(self, settings: JobsSection) -> tuple[ScheduleRecord, ...]:
        self._check()
        return tuple(
            self._draft(name, **_given(section), origin="config")
            for name, section in settings.schedules.items()
        )

    def close(self, timeout: Duration | None = None) -> None:
        """Run nothing more; what runs ends at its next checkpoint and goes on at the next opening.

        In a forked child it does nothing.

        Args:
            timeout: how long to wait for them; by default `stop_timeout` of the settings.

        Raises:
            Timeout: `context.deadline` (detail `jobs`): these do not end, and are left alone

        """
        if self._pid != os.getpid():
            return
        core = self._core
        limit_s = parse_duration(core.settings.stop_timeout if timeout is None else timeout)
        end_s = time.monotonic() + limit_s
        with core.change:
            has_run = core.phase in ("running", "closing")
            core.phase = "closing"
            core.wake()
        if not has_run:
            core.phase = "closed"
            return
        core.stop_running("close")
        me = threading.current_thread()
        for thread in (*self._crew.alive(), self._keeper.thread):
            if thread is not me:
                thread.join(max(0.0, end_s - time.monotonic()))
        self._end(me)

    def _end(self, me: threading.Thread) -> None:
        core = self._core
        with core.change:
            core.phase = "closed"
            late = [core.live[job_id] for job_id in core.running if job_id in core.live]
            names = [f"{one.kind} {one.id}" for one in core.running.values()]
        if me.name.startswith("dwk-job"):
            return  # a job itself closes the store: it ends after this call
        for entry in late:
            # What it did until now need not be done again.
            with contextlib.suppress(errors.DwError):
                core.write(entry, _TIDY_S)
        if names:
            more = f" and {len(names) - _NAMED_MAX} more" if len(names) > _NAMED_MAX else ""
            told = ", ".join(names[:_NAMED_MAX]) + more
            text = f"jobs do not end and are left alone: {told}"
            raise errors.new("context.deadline", text, jobs=told)

    def _check(self) -> None:
        self._core.check_process()
        if self._core.phase in ("closing", "closed"):
            raise errors.new("store.closed", "the store's jobs are closed")

    # The last of all: behind it `list` is no type any more.

    def list(
        self, *, state: str | None = None, kind: str | None = None, limit: int | None = None
    ) -> list[Job]:
        """Return jobs that have not ended, in the order of submission.

        Args:
            state: only these; `"done"`, `"failed"` or `"cancelled"` list those of the history.
            kind: only these.
            limit: at most so many.

        Raises:
            Invalid: `job.option`

        """
        if state is not None and state not in _STATES:
            raise errors.new("job.option", f"state={state!r} is none of {', '.join(_STATES)}")
        if state in FINISHED:
            return self.history(limit, kind, state=state)
        core = self._core
        core.load()
        with core.change:
            entries = [core.live[job_id] for job_id in sorted(core.live)]
        found: list[Job] = []
        for entry in entries:
            if limit is not None and len(found) >= limit:
                break
            record = entry.record
            if record.is_finished:
                continue  # it ended in this moment
            if kind in (None, record.kind) and state in (None, core.state_of(record)):
                found.append(Job(core, entry))
        return found


def _given(section: ScheduleSection) -> dict[str, Any]:
    return {name: getattr(section, name) for name in type(section).model_fields}
