"""Schedules of the configuration, and all whose kind is not there: they wait, and say why."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

import dwkernel as dw
import plugin_maker
from dwkernel._records import MemoryRecords
from dwkernel.jobs import Jobs, JobsSection, timekeeper
from expect import PATIENCE_S, code_of, until
from jobs_world import BEGIN_MS, HOUR_MS, MINUTE_MS, Clock, FaultyRecords, Kind, jobs_on

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli

NOTHING = Kind("nothing", lambda _: None)


class Picky(Kind):
    """A kind that takes one option, as its version has it."""

    def __init__(self, option: str) -> None:
        super().__init__("picky", lambda context: dict(context.options))
        self.option = option
        self.asked = 0

    def validate(self, options: Any) -> Any:
        self.asked += 1
        return {"of": self.option, self.option: int(options[self.option])}


def section(**schedules: Any) -> JobsSection:
    return JobsSection.model_validate({"schedules": schedules})


def problems(jobs: Jobs) -> dict[str, str | None]:
    return {one.name: one.problem for one in jobs.schedules()}


def test_a_schedule_of_the_configuration_waits_for_its_kind_and_the_rest_works(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[tuple[str, Any]] = []
    clock = Clock()
    jobs = jobs_on(
        MemoryRecords(), NOTHING, clock=clock, announce=lambda *event: told.append(event)
    )
    caplog.set_level(logging.INFO, "dwkernel.jobs")
    wanted = section(
        late={"kind": "late", "every": "1h", "options": {"a": 1}},
        now={"kind": "nothing", "every": "1h"},
    )
    jobs.apply(wanted)
    late, now = jobs.schedules()
    assert (late.name, late.kind, late.options, late.next_at) == ("late", "late", {"a": 1}, None)
    assert late.problem is not None
    assert "no kind of job 'late', there are: nothing" in late.problem
    assert (now.problem, now.origin) == (None, "config")
    assert jobs.submit("nothing").wait(PATIENCE_S) is None
    jobs._keeper.look()
    assert caplog.text.count("the schedule late submits nothing: no kind of job") == 1
    assert [data for subject, data in told if subject == "job.schedule.waiting"] == [
        {"name": "late", "kind": "late", "problem": late.problem}
    ]
    clock.now_ms += 10 * HOUR_MS
    jobs.register(Kind("late", lambda context: context.options["a"]))
    until(lambda: problems(jobs)["late"] is None)
    assert "the schedule late goes on" in caplog.text
    # It begins when its kind comes.
    (late, _) = jobs.schedules()
    assert late.next_at is not None
    assert round(late.next_at.timestamp() * 1000) == BEGIN_MS + 11 * HOUR_MS
    clock.now_ms += HOUR_MS
    until(lambda: jobs._keeper.look() and jobs.history(kind="late"))
    assert jobs.history(kind="late")[0].result == 1
    jobs.close()


def test_a_keeper_hears_of_a_kind_that_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    # It does not look by itself for as long as this takes.
    monkeypatch.setattr(timekeeper, "_LOOK_S", 10 * PATIENCE_S)
    jobs = jobs_on(MemoryRecords(), NOTHING)
    jobs.apply(section(late={"kind": "late", "every": "1s"}))
    jobs.start()
    until(lambda: jobs._keeper._trimmed_s)  # it has looked, and waits
    ran: list[str] = []
    jobs.register(Kind("late", lambda context: ran.append(context.id)))
    until(lambda: ran)
    jobs.close()


@pytest.mark.parametrize(
    ("late_ms", "catch_up", "count"),
    [(MINUTE_MS, False, 1), (MINUTE_MS + 1, False, 0), (HOUR_MS * 5 // 2, True, 1)],
)
def test_what_is_due_while_its_kind_is_away_is_as_if_the_store_had_been_closed(
    late_ms: int, catch_up: bool, count: int
) -> None:
    clock = Clock()
    jobs = jobs_on(MemoryRecords(), NOTHING, clock=clock)
    kind = Kind("comes", lambda _: None, max_attempts=7)
    unregister = jobs.register(kind)
    jobs.schedule("s", "comes", cron="0 * * * *", catch_up=catch_up, start=False)
    unregister()
    assert jobs._schedules.next_ms() is None, "who waits for it looks all the time"
    clock.now_ms += HOUR_MS + late_ms
    jobs._keeper.look()
    assert jobs.list() == []
    assert "no kind of job 'comes'" in str(problems(jobs)["s"])
    jobs.register(kind)
    jobs._keeper.look()
    jobs._keeper.look()
    assert problems(jobs) == {"s": None}
    # With what the kind wants: nobody could ask it before.
    assert [job.max_attempts for job in jobs.list()] == [7] * count
    assert jobs.schedules()[0].missed == 1 - count


def test_options_that_a_new_version_refuses_are_the_problem_of_their_schedule_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    records = MemoryRecords()
    old = section(s={"kind": "picky", "every": "1h", "options": {"n": "1"}})
    new = section(s={"kind": "picky", "every": "1h", "options": {"m": "1"}})
    jobs = jobs_on(records, Picky("n"))
    # While the kind is there a change that it refuses is refused, and the last good state stays.
    assert code_of(lambda: jobs.apply(new)) == "job.option"
    jobs.apply(old)
    assert code_of(lambda: jobs.apply(new)) == "job.option"
    assert jobs.schedules()[0].options == {"of": "n", "n": 1}
    after = jobs_on(records)
    after.apply(old)
    other = Picky("m")
    unregister = after.register(other)
    after._keeper.look()
    after._keeper.look()
    assert other.asked == 1
    assert "picky: KeyError: 'm'" in str(problems(after)["s"])
    assert caplog.text.count("KeyError") == 1
    unregister()
    after.register(Picky("n"))
    assert problems(after) == {"s": None}


def test_a_schedule_that_the_store_does_not_take_is_tried_again() -> None:
    records = FaultyRecords()
    jobs = jobs_on(records, NOTHING)
    records.plan = ["fail"]
    jobs.apply(section(s={"kind": "nothing", "every": "1h"}))
    assert jobs._schedules._wanted["s"].problem is not None
    assert jobs._keeper.look()
    assert problems(jobs) == {"s": None}
    records.plan = ["fail"]
    jobs.apply(section())
    assert list(problems(jobs)) == []


def test_who_was_given_no_configuration_leaves_the_schedules_of_others(path: Path) -> None:
    weekly = {"jobs": {"schedules": {"weekly": {"kind": "scrub", "cron": "0 3 * * sun"}}}}
    with dw.open(path, drives=3, create=True, config=weekly) as kernel:
        assert problems(kernel.jobs) == {"weekly": None}
    with dw.open(path) as kernel:
        assert problems(kernel.jobs) == {"weekly": None}
        # What it wants itself comes and goes.
        kernel.config.set({"jobs.schedules": {"mine": {"kind": "scrub", "every": "6h"}}})
        assert problems(kernel.jobs) == {"mine": None, "weekly": None}
        kernel.config.rollback()
        assert problems(kernel.jobs) == {"weekly": None}
    with dw.open(path, config={"jobs": {"workers": 1}}) as kernel:
        assert problems(kernel.jobs) == {}


def test_a_store_that_is_open_to_read_shows_what_the_configuration_wants(path: Path) -> None:
    schedules = {"old": {"kind": "scrub", "every": "1h"}}
    with dw.open(path, drives=3, create=True, config={"jobs": {"schedules": schedules}}) as kernel:
        assert problems(kernel.jobs) == {"old": None}
    other = {"new": {"kind": "scrub", "every": "1h"}}
    with dw.open(path, read_only=True, config={"jobs": {"schedules": other}}) as kernel:
        assert kernel.jobs.list() == []
        shown = problems(kernel.jobs)
        assert shown["old"] is None
        assert "pool.read_only" in str(shown["new"])


def test_commands_leave_and_show_the_schedules_of_a_program(cli: Cli, path: Path) -> None:
    schedules = {
        "weekly": {"kind": "scrub", "cron": "0 3 * * sun"},
        "late": {"kind": "late", "every": "1h"},
    }
    with dw.open(path, drives=3, create=True, config={"jobs": {"schedules": schedules}}) as kernel:
        kernel.jobs.register(Kind("late", lambda _: None))
        assert problems(kernel.jobs) == {"weekly": None, "late": None}
    assert cli.answer("job", "list", path) == []
    cli.run("job", "submit", path, "scrub")
    late, weekly = cli.answer("job", "schedules", path)
    assert "no kind of job 'late'" in late["problem"]
    assert weekly["problem"] is None
    assert "waits: no kind of job 'late'" in cli.run("job", "schedules", path).stdout


PLUGIN = """
class Plugin:
    name = "late"
    max_attempts = 5
    def validate(self, options):
        return {"size": 7, **options}
    def run(self, context):
        return context.options["size"]
"""


def test_a_schedule_begins_when_its_plugin_is_enabled(tmp_path: Path) -> None:
    home = tmp_path / "plugins" / "p"
    broken = {"main.py": "1 / 0"}
    plugin_maker.write(home, files=broken, kinds=["job"])
    given = {
        "plugins": {"folders": [str(home.parent)], "enabled": ["p"]},
        "jobs": {"schedules": {"s": {"kind": "late", "every": "1s"}}},
    }
    drives = [f"memory://wanted-{number}" for number in range(3)]
    with dw.open(drives=drives, geometry="2+1", create=True, config=given) as kernel:
        with kernel.bus.subscribe("job.schedule.*") as heard:
            assert "no kind of job 'late'" in str(problems(kernel.jobs)["s"])
            kernel.jobs.start()
            assert kernel.jobs.submit("scrub").wait(PATIENCE_S)
            plugin_maker.write(home, files={"main.py": PLUGIN}, kinds=["job"], version="1.1")
            kernel.plugins.enable("p")
            until(lambda: kernel.jobs.history(kind="late"))
            subjects = [one.subject for _ in range(2) if (one := heard.next(PATIENCE_S))]
        assert subjects == ["job.schedule.waiting", "job.schedule.ready"]
        done = kernel.jobs.history(kind="late")[-1]
        assert (done.result, done.max_attempts, done.schedule) == (7, 5, "s")
        assert problems(kernel.jobs) == {"s": None}
