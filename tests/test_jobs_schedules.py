"""Schedules: each due time submits one job, also over crashes and clocks that are wrong."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwkernel import errors
from dwkernel._records import MemoryRecords
from dwkernel.config.values import Seconds
from dwkernel.jobs import Jobs, JobsSection, ScheduleSection, Submitter
from dwkernel.jobs.ledger import SPACE
from dwkernel.jobs.schedule import BACK_MAX_MS, GRACE_MS, ScheduleRecord
from dwkernel.jobs.schedules import QUEUED_MAX
from dwkernel.jobs.timing import Cron, Every
from expect import PATIENCE_S, code_of, until
from jobs_world import (
    BEGIN_MS,
    DAY_MS,
    HOUR_MS,
    MINUTE_MS,
    Clock,
    Crash,
    FaultyRecords,
    Gate,
    Kind,
    jobs_on,
)

NOTHING = Kind("nothing", lambda _: None)


def ms(text: str, zone: str = "UTC") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def shown(due_ms: int | None) -> str:
    assert due_ms is not None
    return f"{datetime.fromtimestamp(due_ms / 1000, UTC):%m-%d %H:%M}"


def times(timing: Any, after_ms: int, count: int) -> list[int]:
    found: list[int] = []
    for _ in range(count):
        after_ms = timing.after(after_ms)
        found.append(after_ms)
    return found


# --- When -----------------------------------------------------------------------------------------


def test_a_line_of_one_time_a_day_runs_right_after_a_gap_and_once_in_a_repeated_hour() -> None:
    line = Cron("30 2 * * *", "Europe/Berlin")
    spring = times(line, ms("2026-03-28T12:00", "Europe/Berlin"), 2)
    # 02:30 does not exist on the 29th: it runs at 03:00, which is 01:00 in UTC.
    assert [shown(due) for due in spring] == ["03-29 01:00", "03-30 00:30"]
    autumn = times(line, ms("2026-10-24T12:00", "Europe/Berlin"), 2)
    # 02:30 occurs twice on the 25th: it runs at the first.
    assert [shown(due) for due in autumn] == ["10-25 00:30", "10-26 01:30"]
    # Looking between the two, and behind, finds the next day.
    for moment in ("2026-10-25T00:30", "2026-10-25T01:00", "2026-10-25T01:29", "2026-10-25T01:30"):
        assert shown(line.after(ms(moment))) == "10-26 01:30", moment
        assert shown(line.until(ms(moment))) == "10-25 00:30", moment


def test_a_line_with_a_star_follows_the_time_that_passes() -> None:
    line = Cron("*/30 * * * *", "Europe/Berlin")
    spring = times(line, ms("2026-03-29T00:10"), 4)
    assert [shown(due)[6:] for due in spring] == ["00:30", "01:00", "01:30", "02:00"]
    autumn = times(line, ms("2026-10-24T23:40"), 6)
    assert [shown(due)[6:] for due in autumn] == [
        *("00:00", "00:30", "01:00", "01:30", "02:00", "02:30"),
    ]


def test_a_change_by_half_an_hour_passes_over_nothing() -> None:
    # At 02:00 on Lord Howe it is 01:30 again: 02:15 comes an hour later than otherwise.
    line = Cron("15 */2 * * *", "Australia/Lord_Howe")
    found = times(line, ms("2026-04-04T13:00"), 3)
    assert [shown(due) for due in found] == ["04-04 13:15", "04-04 15:45", "04-04 17:45"]


LINES = ["30 2 * * *", "*/20 * * * *", "0 2,3 * * *", "15 */2 * * *", "0 3 * * sun", "0 0 L * *"]


@settings(max_examples=500, deadline=None)
@given(
    line=st.sampled_from(LINES),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
    begin=st.sampled_from(["2026-03-29", "2026-10-25", "2026-04-04", "2026-11-01", "2026-03-08"]),
    minutes=st.integers(0, 24 * 60),
)
def test_the_next_and_the_last_due_time_agree(
    line: str, zone: str, begin: str, minutes: int
) -> None:
    cron = Cron(line, zone)
    moment = ms(begin) + minutes * MINUTE_MS + 1
    due = cron.after(moment)
    last = cron.until(moment)
    assert due is not None
    assert last is not None
    assert last <= moment < due
    # Nothing lies between them, nothing of either is due at another time of looking.
    assert cron.after(last) == due
    assert cron.until(due) == due
    assert cron.until(due - 1) == last


@settings(max_examples=200, deadline=None)
@given(every=st.integers(1, 10_000), offset=st.integers(0, 10**8))
def test_intervals_count_from_their_anchor(every: int, offset: int) -> None:
    timing = Every(every, BEGIN_MS)
    moment = BEGIN_MS + offset
    due, last = timing.after(moment), timing.until(moment)
    assert moment < due <= moment + every * 1000
    assert (due - BEGIN_MS) % (every * 1000) == 0
    assert last == (due - every * 1000 if due - every * 1000 > BEGIN_MS else None)


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"cron": "0 3 * * sun", "every": "6h"},
        {"cron": "0 3 * *"},
        {"cron": "0 0 3 * * sun"},
        {"cron": "61 3 * * *"},
        {"cron": "0 0 31 2 *"},
        {"cron": "0 3 * * sun", "zone": "Europe/Atlantis"},
        {"cron": "0 3 * * sun", "zone": "../../etc/passwd"},
        {"cron": ""},
        {"every": "0.5s"},
        {"every": "2 years"},
        {"every": "400d"},
        {"every": "6h", "name": "a b"},
        {"every": "6h", "overlap": "both"},
        {"every": "6h", "zone": "Europe/Berlin"},
    ],
)
def test_a_wrong_schedule_is_refused(wrong: dict[str, Any]) -> None:
    jobs = jobs_on(MemoryRecords(), NOTHING)
    given = {"name": "s", "kind": "nothing", "start": False, **wrong}
    assert code_of(lambda: jobs.schedule(**given)) == "job.schedule"
    assert jobs.schedules() == []


def test_what_is_kept_of_a_schedule_comes_back_as_it_was() -> None:
    jobs = jobs_on(MemoryRecords(), NOTHING)
    jobs.schedule("s", "nothing", cron="0 3 * * *", options={"a": [1]}, start=False)
    (record,) = jobs._schedules.all()
    assert ScheduleRecord.from_bytes(record.to_bytes()) == record
    newer = record.to_bytes().replace(b'"v":1', b'"v":9')
    assert code_of(lambda: ScheduleRecord.from_bytes(newer)) == "format.newer"


@pytest.mark.parametrize(
    "damage",
    [
        {"next_ms": "soon"},
        {"every_s": "x"},
        {"submitted": None},
        {"zone": "Europe/Atlantis"},
        {"name": "of another"},
        {"last_ms": 10**18},
    ],
    ids=str,
)
def test_a_row_that_holds_something_else_is_left_alone_and_others_go_on(
    damage: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    records = MemoryRecords()
    jobs = jobs_on(records, NOTHING)
    for name in ("bad", "good"):
        jobs.schedule(name, "nothing", every="1s", start=False)
    (bad, _) = jobs._schedules.all()
    row = json.dumps({**json.loads(bad.to_bytes()), "cron": "* * * * *", "every_s": None, **damage})
    records.commit_records(SPACE, [(bad.key, row.encode(), None)])
    after = jobs_on(records, NOTHING)
    assert [one.name for one in after.schedules()] == ["good"]
    assert "schedule/bad is left alone" in caplog.text
    after.start()
    until(lambda: after.schedules()[0].submitted)
    after.close()


# --- What is submitted ----------------------------------------------------------------------------


class World:
    """Jobs that are looked after by hand."""

    def __init__(self, records: Any = None) -> None:
        self.records = records or MemoryRecords()
        self.clock = Clock()
        self.jobs: Jobs
        self.open()

    def open(self) -> None:
        """Begin anew, as the next process does."""
        self.jobs = jobs_on(self.records, NOTHING, clock=self.clock)
        self.jobs._core.load()

    def add(self, name: str = "s", **options: Any) -> None:
        self.jobs.schedule(name, "nothing", start=False, **options)

    def look(self, ms_on: int = 0) -> None:
        self.clock.now_ms += ms_on
        self.jobs._schedules.look()

    def work(self) -> None:
        """Let all end that waits."""
        for job in self.jobs.list():
            job.cancel()

    @property
    def due(self) -> list[int]:
        """When jobs of schedules were due, ended ones too."""
        all_jobs = [*self.jobs.list(), *self.jobs.history(1000)]
        return sorted(job._record.due_ms for job in all_jobs if job.schedule)


@pytest.fixture
def world() -> World:
    return World()


def test_each_due_time_submits_one_job(world: World) -> None:
    world.add(every="10min")
    for _ in range(60):
        world.look(MINUTE_MS)
        world.look()
        world.work()
    assert world.due == [BEGIN_MS + n * 10 * MINUTE_MS for n in range(1, 7)]
    (schedule,) = world.jobs.schedules()
    assert (schedule.submitted, schedule.missed, schedule.skipped) == (6, 0, 0)
    assert schedule.last_at == datetime.fromtimestamp(BEGIN_MS / 1000, UTC) + timedelta(hours=1)


def test_jobs_of_a_schedule_wait_between_attempts_as_it_says(world: World) -> None:
    world.add(every="10min", backoff=["1s", "1min"])
    world.look(10 * MINUTE_MS)
    (job,) = world.jobs.list()
    assert job._record.backoff_s == (1.0, 60.0)
    wrong: Any
    for wrong in ("1s", [], ["1s"] * 17):
        with pytest.raises(errors.Invalid, match=r"job\.option"):
            world.add(every="1h", backoff=wrong)


def test_saying_a_schedule_again_changes_nothing_and_another_time_does(world: World) -> None:
    world.add(every="10min")
    world.clock.now_ms += 7 * MINUTE_MS
    world.add(every="10min", priority=3)
    assert world.jobs.schedules()[0].priority == 3
    world.look(3 * MINUTE_MS)
    assert world.due == [BEGIN_MS + 10 * MINUTE_MS]
    world.add(every="20min")
    world.work()
    world.look(20 * MINUTE_MS)
    assert world.due[1:] == [BEGIN_MS + 30 * MINUTE_MS]
    assert world.jobs.unschedule("s")
    assert not world.jobs.unschedule("s")
    world.look(DAY_MS)
    assert len(world.due) == 2


@pytest.mark.parametrize(("catch_up", "count"), [(False, 0), (True, 1)])
def test_what_was_missed_is_made_up_for_by_one_job_if_that_is_wanted(
    world: World, catch_up: bool, count: int
) -> None:
    world.add(cron="0 * * * *", catch_up=catch_up)
    world.clock.now_ms += 5 * HOUR_MS + 30 * MINUTE_MS
    world.open()
    world.look()
    world.look()
    assert world.due == [BEGIN_MS + 5 * HOUR_MS][:count]
    assert world.jobs.schedules()[0].missed == 1 - count
    world.work()
    world.look(30 * MINUTE_MS)
    assert world.due[count:] == [BEGIN_MS + 6 * HOUR_MS]


def test_a_minute_late_is_on_time(world: World) -> None:
    world.add(cron="0 * * * *")
    world.look(HOUR_MS + GRACE_MS)
    assert world.due == [BEGIN_MS + HOUR_MS]
    world.work()
    world.look(HOUR_MS + 1)
    assert len(world.due) == 1


def test_while_the_last_one_is_not_finished_none_or_all_are_submitted(world: World) -> None:
    world.add("skips", every="1h")
    world.add("queues", every="1h", overlap="queue")
    for _ in range(QUEUED_MAX + 5):
        world.look(HOUR_MS)
    by_name = {one.name: one for one in world.jobs.schedules()}
    assert (by_name["skips"].submitted, by_name["skips"].skipped) == (1, QUEUED_MAX + 4)
    assert (by_name["queues"].submitted, by_name["queues"].skipped) == (QUEUED_MAX, 5)
    world.work()
    world.look(HOUR_MS)
    assert {one.name: one.submitted for one in world.jobs.schedules()} == {
        "skips": 2,
        "queues": QUEUED_MAX + 1,
    }


def test_overlap_is_known_after_a_restart(world: World) -> None:
    world.add(every="1h")
    world.look(HOUR_MS)
    world.open()
    world.look(HOUR_MS)
    assert (len(world.due), world.jobs.schedules()[0].skipped) == (1, 1)


def test_a_due_time_that_has_been_does_not_come_again_when_the_clock_is_put_back(
    world: World,
) -> None:
    world.add(cron="0 * * * *")
    world.look(3 * HOUR_MS)
    world.work()
    first = list(world.due)
    world.look(-2 * HOUR_MS)
    for _ in range(120):
        world.look(MINUTE_MS)
    assert world.due == first == [BEGIN_MS + 3 * HOUR_MS]
    for _ in range(60):
        world.look(MINUTE_MS)
    assert world.due == [BEGIN_MS + 3 * HOUR_MS, BEGIN_MS + 4 * HOUR_MS]


def test_a_clock_that_was_years_ahead_does_not_stop_a_schedule_for_years(world: World) -> None:
    world.add("cron", cron="0 * * * *")
    world.add("every", every="1h")
    world.look(3650 * DAY_MS)
    world.work()
    count = len(world.due)
    world.look(-3650 * DAY_MS)
    for _ in range(121):
        world.look(MINUTE_MS)
        world.work()
    assert len(world.due) - count == 2 + 2
    assert BACK_MAX_MS == DAY_MS


def test_an_interval_begins_anew_when_the_clock_is_put_back(world: World) -> None:
    world.add(every="10min")
    world.look(10 * MINUTE_MS)
    world.work()
    world.look(-5 * HOUR_MS)
    for _ in range(10):
        world.look(MINUTE_MS)
    assert len(world.due) == 2
    assert len(set(world.due)) == 2


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_in_the_commit_submits_neither_none_nor_two(when: str) -> None:
    records = FaultyRecords()
    world = World(records)
    world.add(every="1h")
    records.plan = [when]
    with pytest.raises(Crash):
        world.look(HOUR_MS)
    records.revive()
    world.open()
    assert len(world.due) == (when == "after")
    world.look()
    world.look()
    assert world.due == [BEGIN_MS + HOUR_MS]


@pytest.mark.parametrize("what", ["fail", "unsure"])
def test_a_commit_that_fails_is_tried_again_and_one_that_did_not_is_not(what: str) -> None:
    records = FaultyRecords()
    world = World(records)
    world.add(every="1h")
    records.plan = [what]
    world.look(HOUR_MS)
    world.look()
    world.look()
    assert world.due == [BEGIN_MS + HOUR_MS]
    assert world.jobs.schedules()[0].submitted == 1
    world.work()
    world.look(HOUR_MS)
    assert len(world.due) == 2


# --- As it runs -----------------------------------------------------------------------------------


def test_a_schedule_runs_by_itself_and_closes_at_once() -> None:
    ran = threading.Event()
    jobs = jobs_on(MemoryRecords(), Kind("run", lambda _: ran.set()))
    jobs.schedule("s", "run", every="1s")
    assert ran.wait(PATIENCE_S)
    began = time.monotonic()
    jobs.close()
    assert time.monotonic() - began < 2


def test_a_paused_store_submits_nothing(gate: Gate) -> None:
    clock = Clock()
    jobs = jobs_on(MemoryRecords(), gate, clock=clock)
    jobs.schedule("s", "gate", every="1h", start=False)
    jobs.pause()
    clock.now_ms += HOUR_MS
    jobs._keeper.look()
    assert jobs.list() == []
    jobs.resume()
    jobs._keeper.look()
    assert len(jobs.list()) == 1


def test_schedules_of_the_configuration_come_and_go_with_it() -> None:
    records = MemoryRecords()
    jobs = jobs_on(records, NOTHING)
    jobs.schedule("mine", "nothing", every="1h", start=False)
    one, two = (
        ScheduleSection(kind="nothing", every=Seconds.of("1h")),
        ScheduleSection(kind="nothing", cron="0 3 * * *", zone="Europe/Berlin"),
    )
    jobs.apply(JobsSection(schedules={"one": one, "two": two}))
    assert [(s.name, s.origin) for s in jobs.schedules()] == [
        ("mine", "call"),
        ("one", "config"),
        ("two", "config"),
    ]
    after = jobs_on(records, NOTHING)
    after.apply(JobsSection(schedules={"two": two}))
    assert [s.name for s in after.schedules()] == ["mine", "two"]


def test_a_wrong_configuration_of_jobs_says_what_is_wrong() -> None:
    for wrong in (
        {"workers": 0},
        {"workers": 65},
        {"keep_age": "1 parsec"},
        {"schedules": {"s": {"kind": "nothing", "cron": "x"}}},
        {"schedules": {"s": {"kind": "nothing"}}},
        {"schedules": {"a b": {"kind": "nothing", "every": "1h"}}},
        {"worker": 1},
    ):
        with pytest.raises(ValueError, match="validation error"):
            JobsSection.model_validate(wrong)


def test_a_store_that_takes_nothing_is_not_asked_all_the_time() -> None:
    records = FaultyRecords()
    jobs = jobs_on(records, NOTHING)
    jobs.schedule("s", "nothing", every="1s", start=False)
    jobs.start()
    records.plan = ["fail"] * 1000
    until(lambda: records.commits >= 4)
    began, before = time.monotonic(), records.commits
    until(lambda: records.commits >= before + 2)
    assert time.monotonic() - began > 1
    records.plan = []
    until(lambda: jobs.schedules()[0].submitted == 1)
    jobs.close()


def test_saying_an_equal_schedule_again_commits_nothing() -> None:
    records = FaultyRecords()
    for correlation in ("a", "b"):
        who = Submitter("alice", correlation_id=correlation)
        jobs = jobs_on(records, NOTHING, submitter=lambda who=who: who)
        jobs.schedule("s", "nothing", cron="0 3 * * *", start=False)
    assert records.commits == 1
    jobs.schedule("s", "nothing", cron="0 3 * * *", priority=1, start=False)
    assert records.commits == 2


def test_a_schedule_is_started_by_a_program_that_runs_long() -> None:
    records = MemoryRecords()
    jobs_on(records, NOTHING).schedule("s", "nothing", every="1s", start=False)
    jobs = jobs_on(records, NOTHING)
    jobs.start()
    until(lambda: jobs.schedules()[0].submitted >= 1)
    jobs.close()
