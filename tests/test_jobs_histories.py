"""Random histories of jobs against what was promised.

One thread drives everything: it submits, takes jobs and runs them, cancels, looks at the clock and
turns it, pauses, takes kinds away, closes, and ends the process in any commit, before it or behind
it. After each step and at the end it compares what the records hold with what it knows:

- a job that was submitted is there until it has ended, and ends;
- one that has ended stays as it is and never runs again;
- no job runs twice at a time, nor more often than its attempts allow;
- it goes on from its last durable checkpoint, or a later one;
- a job that was cancelled before it ended does not end otherwise after the process has;
- each due time of a schedule has one job, and its row says so.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from dwkernel import errors
from dwkernel.config.values import Seconds
from dwkernel.jobs import Jobs, JobsSection
from dwkernel.jobs.core import INTERRUPTIONS_MAX
from dwkernel.jobs.ledger import SPACE
from dwkernel.jobs.record import FINISHED, JobRecord
from dwkernel.jobs.runner import run
from dwkernel.jobs.schedule import GRACE_MS, ScheduleRecord
from jobs_world import HOUR_MS, MINUTE_MS, Clock, Crash, FaultyRecords, Kind

if TYPE_CHECKING:
    from dwkernel.jobs import JobContext

LONG = os.environ.get("DWK_LONG") == "1"
SEEDS = range(3000 if LONG else 400)
STEPS = 80
SECTION = JobsSection(keep_count=100_000, backoff=(Seconds.of("1min"), Seconds.of("1h")))
KINDS = ("a", "b")


@dataclass
class Known:
    """What the test knows of a job, without having asked."""

    kind: str
    max_attempts: int
    fails: int
    length: int
    durable: int = 0
    saved: int = 0
    raised: int = 0
    cancel_wanted: bool = False
    ended: str | None = None


@dataclass
class Plan:
    """A schedule as the slow model has it: every due time, one after the other."""

    kind: str
    step_ms: int
    next_ms: int
    catch_up: bool
    # Cron lines are due at times of the day, intervals after a length of time.
    is_cron: bool
    due: list[int] = field(default_factory=list)

    def look(self, now_ms: int) -> None:
        if not self.is_cron and self.next_ms - now_ms > self.step_ms:
            self.next_ms = now_ms + self.step_ms
        last = None
        while self.next_ms <= now_ms:
            last = self.next_ms
            self.next_ms += self.step_ms
        if last is not None and (self.catch_up or last >= now_ms - GRACE_MS):
            self.due.append(last)


class History:
    """One random history."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.records = FaultyRecords()
        self.clock = Clock()
        self.known: dict[str, Known] = {}
        self.plans: dict[str, Plan] = {}
        self.running: set[str] = set()
        self.crashes = 0
        self.runs = 0
        self.open()

    # --- What happens -----------------------------------------------------------------------------

    def open(self) -> None:
        self.running.clear()
        self.jobs = Jobs(self.records, settings=SECTION, clock=self.clock)
        self.away: set[str] = set()
        self.leave: dict[str, Any] = {}
        for name in KINDS:
            self.leave[name] = self.jobs.register(Kind(name, self.work))
        self.jobs._core.load()
        self.jobs._schedules.load()
        self.compare()
        # Before the clock moves: what was cut off is due now still.
        self.look_at_schedules()

    def step(self) -> None:
        choices = [
            (self.submit, 20),
            (self.run_one, 30),
            (self.cancel, 6),
            (self.turn, 12),
            (self.schedule, 2),
            (self.write, 4),
            (self.pause, 3),
            (self.kind, 3),
            (self.close, 3),
            (self.crash_soon, 6),
            (self.fail_soon, 3),
        ]
        step = self.chance.choices([one for one, _ in choices], [n for _, n in choices])[0]
        try:
            step()
        except Crash:
            self.crashes += 1
            self.records.revive()
            self.open()
        except errors.Timeout:
            # The commit whose outcome nobody was told.
            self.compare()
        else:
            self.compare()

    def submit(self) -> None:
        max_attempts = self.chance.choice([1, 1, 3])
        fails = self.chance.choice([0, 0, 1, 3])
        length = self.chance.randint(0, 5)
        kind = self.chance.choice(KINDS)
        if kind in self.away:
            return
        options = {"fails": fails, "length": length}
        known = Known(kind, max_attempts, fails, length)
        delay = self.chance.choice([None, None, "30min", "5h"])
        before = set(self.known)
        try:
            job = self.jobs.submit(
                kind,
                options,
                priority=self.chance.choice([0, 0, 7]),
                delay=delay,
                max_attempts=max_attempts,
                start=False,
            )
        except (Crash, errors.Timeout):
            # It may be there, and counts from when it is seen.
            for job_id in self.stored():
                if job_id not in before and self.stored()[job_id].schedule is None:
                    self.known[job_id] = known
            raise
        self.known[job.id] = known

    def run_one(self) -> None:
        claimed = self.jobs._core.claim()
        if claimed is None:
            return
        entry, context = claimed
        known = self.known[context.id]
        assert context.id not in self.running
        assert known.ended is None, "it ran again after its end"
        self.running.add(context.id)
        self.runs += 1
        run(self.jobs._core, entry, context)
        self.running.discard(context.id)
        if not entry.record.is_finished:
            # What it saved before it ended early is kept with its end.
            known.durable = known.saved

    def work(self, context: JobContext) -> str:
        known = self.known[context.id]
        at = context.checkpoint or 0
        assert known.durable <= at <= known.saved, "it goes on from another checkpoint"
        for number in range(at + 1, known.length + 1):
            if self.chance.random() < 0.1:
                try:
                    self.interfere(context)
                except errors.Timeout:
                    # What the job itself calls fails, and so it does.
                    known.raised += 1
                    raise
            context.progress(number, known.length)
            known.saved = number
            try:
                is_durable = context.save(number, now=self.chance.random() < 0.5)
            except errors.Timeout:
                is_durable = False
            if is_durable:
                known.durable = number
        context.check()
        if known.raised < known.fails:
            known.raised += 1
            # The record says so as soon as that is durable; a crash before makes it an attempt
            # that goes on.
            raise LookupError
        return "end"

    def interfere(self, context: JobContext) -> None:
        """Do what another thread might while a job runs."""
        what = self.chance.choice(["cancel", "write", "pause", "look"])
        if what == "cancel":
            self.known[context.id].cancel_wanted = True
            self.jobs.cancel(context.id)
        elif what == "write":
            context.write()
        elif what == "pause":
            self.jobs.pause()
        else:
            self.look_at_schedules()

    def cancel(self) -> None:
        live = [job.id for job in self.jobs.list()]
        if live:
            job_id = self.chance.choice(live)
            self.known[job_id].cancel_wanted = True
            assert self.jobs.cancel(job_id)

    def turn(self) -> None:
        """Let time pass, or the clock be put."""
        by = self.chance.choice([1, 10 * 1000, 5 * MINUTE_MS, HOUR_MS, 9 * HOUR_MS, -HOUR_MS])
        self.clock.now_ms += by
        self.look_at_schedules()

    def look_at_schedules(self) -> None:
        # A submission that is cut off is made up for before the clock moves: see `open`.
        now = self.clock.now_ms
        try:
            for _ in range(3):
                self.jobs._schedules.look()
        finally:
            self.take_in_scheduled()
        for name, plan in self.plans.items():
            # While its kind is away time passes as if the store were closed.
            if plan.kind not in self.away:
                plan.look(now)
            assert self.due_of(name) == sorted(plan.due), name

    def schedule(self) -> None:
        name = f"s{len(self.plans)}"
        if len(self.plans) >= 3:
            return
        step_ms = self.chance.choice([MINUTE_MS, HOUR_MS])
        catch_up = self.chance.random() < 0.5
        now_ms, is_cron = self.clock.now_ms, self.chance.random() < 0.5
        first_ms = now_ms + step_ms - (now_ms % step_ms if is_cron else 0)
        kind = self.chance.choice(KINDS) if not self.away else (set(KINDS) - self.away).pop()
        plan = Plan(kind, step_ms, first_ms, catch_up, is_cron)
        line = "* * * * *" if step_ms == MINUTE_MS else "0 * * * *"
        try:
            self.jobs.schedule(
                name,
                kind,
                every=None if is_cron else step_ms / 1000,
                cron=line if is_cron else None,
                catch_up=catch_up,
                overlap="queue",
                start=False,
                options={"fails": 0, "length": 1},
            )
        finally:
            if self.records.get_record(SPACE, f"schedule/{name}") is not None:
                self.plans[name] = plan

    def write(self) -> None:
        self.jobs._keeper.write()

    def pause(self) -> None:
        (self.jobs.resume if self.jobs.is_paused else self.jobs.pause)()

    def kind(self) -> None:
        name = self.chance.choice(KINDS)
        if name in self.away:
            self.away.discard(name)
            self.leave[name] = self.jobs.register(Kind(name, self.work))
        elif not self.away:
            self.away.add(name)
            self.leave[name]()

    def close(self) -> None:
        self.jobs.close()
        self.open()

    def crash_soon(self) -> None:
        behind = self.chance.randint(0, 5)
        self.records.plan = [None] * behind + [self.chance.choice(["before", "after"])]

    def fail_soon(self) -> None:
        self.records.plan = [None] * self.chance.randint(0, 3) + ["unsure"]

    # --- What is promised -------------------------------------------------------------------------

    def stored(self) -> dict[str, JobRecord]:
        found = {}
        for key, value, _ in self.records.list_records(SPACE, "", 1_000_000):
            place, _, name = key.partition("/")
            if place in ("live", "done"):
                assert name not in found, "it is there twice"
                found[name] = JobRecord.from_bytes(value)
                assert (place == "done") == (found[name].state in FINISHED)
        return found

    def take_in_scheduled(self) -> None:
        for job_id, record in self.stored().items():
            if record.schedule is not None and job_id not in self.known:
                self.known[job_id] = Known(record.kind, record.max_attempts, 0, 1)

    def due_of(self, name: str) -> list[int]:
        due = sorted(one.due_ms for one in self.stored().values() if one.schedule == name)
        if self.plans[name].is_cron:
            assert len(due) == len(set(due)), "one due time has two jobs"
        row = self.records.get_record(SPACE, f"schedule/{name}")
        assert row is not None
        assert ScheduleRecord.from_bytes(row[0]).submitted == len(due)
        return due

    def compare(self) -> None:
        stored = self.stored()
        for job_id, known in self.known.items():
            record = stored.get(job_id)
            assert record is not None, "it is lost"
            if known.ended is not None:
                assert record.state == known.ended, "it ended twice"
            elif record.is_finished:
                known.ended = record.state
                self.check_end(known, record)
            assert record.attempts <= record.max_attempts
            job = self.jobs.get(job_id)
            assert job.is_finished == record.is_finished

    def check_end(self, known: Known, record: JobRecord) -> None:
        if record.state == "done":
            assert record.result == "end"
            assert known.raised >= known.fails
        elif record.state == "failed":
            gave_up = known.raised >= record.max_attempts
            assert gave_up or self.crashes >= INTERRUPTIONS_MAX
        else:
            assert known.cancel_wanted, "nobody wanted that"

    def finish(self) -> None:
        """Let everything end that there is."""
        self.records.plan = []
        if self.jobs.is_paused:
            self.jobs.resume()
        for name in list(self.away):
            self.away.discard(name)
            self.jobs.register(Kind(name, self.work))
        for plan in list(self.plans):
            self.jobs.unschedule(plan)
        self.plans.clear()
        for _ in range(100_000):
            if not self.jobs.list():
                break
            if self.jobs.is_paused:
                self.jobs.resume()
            before = self.runs
            self.run_one()
            if self.runs == before:
                self.clock.now_ms += HOUR_MS
        self.compare()
        assert all(known.ended for known in self.known.values()), "some never end"


@pytest.mark.parametrize("block", range(10))
def test_nothing_is_lost_nothing_runs_twice_whatever_happens(block: int) -> None:
    crashes = ended = 0
    for seed in SEEDS[block::10]:
        try:
            history = History(seed)
            for _ in range(STEPS):
                history.step()
            history.finish()
        except BaseException:
            print(f"seed {seed}")  # noqa: T201 - so that it can be run again
            raise
        crashes += history.crashes
        ended += len(history.known)
    assert crashes > 5
    assert ended > 50
