"""Jobs: kept until they are done, one owner at a time, one outcome."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from dwkernel import errors
from dwkernel._records import MemoryRecords
from dwkernel.jobs import JobContext, Jobs, JobsSection, Stop, Submitter, runner, timekeeper
from dwkernel.jobs.core import INTERRUPTIONS_MAX
from dwkernel.jobs.ids import Ids
from dwkernel.jobs.ledger import SPACE
from dwkernel.jobs.record import Fault, JobRecord
from expect import PATIENCE_S, code_of, until
from jobs_world import (
    BEGIN_MS,
    DAY_MS,
    HOUR_MS,
    Clock,
    Crash,
    FaultyRecords,
    Gate,
    Kind,
    jobs_on,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def records() -> MemoryRecords:
    return MemoryRecords()


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()


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


# --- One job --------------------------------------------------------------------------------------


def test_a_job_is_done_with_its_result_and_progress(records: MemoryRecords) -> None:
    jobs = jobs_on(records, COUNT)
    job = jobs.submit("count", {"to": 3})
    assert job.wait(PATIENCE_S) == 3
    assert (job.state, job.result, job.error, job.attempts) == ("done", 3, None, 1)
    assert job.progress is not None
    assert (job.progress["done"], job.progress["total"], job.progress["unit"]) == (3, 3, "steps")
    assert job.started_at is not None
    assert job.ended_at is not None
    assert job.submitted_at is not None
    assert job.submitted_at <= job.started_at <= job.ended_at
    jobs.close()
    again = jobs_on(records, COUNT).get(job.id)
    assert again.to_dict() == job.to_dict()


def test_nothing_runs_before_it_is_wanted(records: MemoryRecords) -> None:
    before = threading.active_count()
    jobs = jobs_on(records, COUNT)
    job = jobs.submit("count", {"to": 1}, start=False)
    assert (jobs.list(), jobs.history(), jobs.kinds()) != ([], [], [])
    assert threading.active_count() == before
    assert job.state == "waiting"
    jobs.start()
    assert job.wait(PATIENCE_S) == 1
    jobs.close()
    assert threading.active_count() == before


def test_ids_rise_also_within_a_millisecond_and_when_the_clock_goes_back() -> None:
    ids = Ids()
    made = [ids.new(now) for now in [5] * 5000 + [3, 9, 1]]
    assert made == sorted(set(made))
    assert all(one[14] == "7" and one[19] in "89ab" for one in made)
    later = Ids()
    later.saw(made[-1])
    assert later.new(0) > made[-1]


def test_what_is_kept_of_a_job_comes_back_as_it_was() -> None:
    full = JobRecord(
        id="x",
        kind="k",
        options={"a": [1, None, {"ö": 2.5}]},
        priority=9,
        state="running",
        submitter=Submitter("alice", "acme", ("writer",), "ff" * 16),
        unique="u",
        backoff_s=(1.0, 2.5),
        checkpoint={"at": [1]},
        error=Fault("pool.full", "no room", {"a": "b"}),
        cancel=True,
    )
    assert JobRecord.from_bytes(full.to_bytes()) == full
    least = JobRecord(id="x", kind="k", options={})
    assert JobRecord.from_bytes(least.to_bytes()) == least
    later = full.to_bytes().replace(b'{"v":1,', b'{"v":1,"another":7,')
    assert JobRecord.from_bytes(later) == full


def test_a_record_of_a_later_version_is_left_alone(records: MemoryRecords) -> None:
    job = JobRecord(id="0" * 36, kind="count", options={"to": 1})
    newer = job.to_bytes().replace(b'"v":1', b'"v":2')
    records.commit_records(SPACE, [(job.key, newer, 0), ("live/zz", b"\xff", 0)])
    assert code_of(lambda: JobRecord.from_bytes(newer)) == "format.newer"
    assert code_of(lambda: JobRecord.from_bytes(b"\xff")) == "format.damaged"
    jobs = jobs_on(records, COUNT)
    assert jobs.submit("count", {"to": 1}).wait(PATIENCE_S) == 1
    jobs.close()
    assert records.get_record(SPACE, job.key) is not None


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"options": {"x": object()}}, "job.option"),
        ({"options": {"x": float("nan")}}, "job.option"),
        ({"options": {"x": "\ud800"}}, "job.option"),
        ({"options": {"x": "y" * 20_000}}, "job.option"),
        ({"priority": 256}, "job.option"),
        ({"priority": -1}, "job.option"),
        ({"priority": True}, "job.option"),
        ({"delay": "1 parsec"}, "unit.invalid"),
        ({"delay": "11000d"}, "job.option"),
        ({"delay": 1, "at": datetime.now(UTC)}, "job.option"),
        ({"at": datetime(2026, 1, 1)}, "job.option"),  # noqa: DTZ001 - that is what is wrong with it
        ({"unique": ""}, "job.option"),
        ({"unique": "u" * 201}, "job.option"),
        ({"max_attempts": 0}, "job.option"),
        ({"backoff": "1s"}, "job.option"),
        ({"backoff": []}, "job.option"),
        ({"kind": "none"}, "job.kind"),
    ],
)
def test_a_wrong_option_is_refused_and_nothing_is_kept(
    records: MemoryRecords, options: dict[str, Any], code: str
) -> None:
    jobs = jobs_on(records, COUNT)
    assert code_of(lambda: jobs.submit(**{"kind": "count", **options})) == code
    assert jobs.list() == []


def test_a_kind_refuses_options_with_its_own_words(records: MemoryRecords) -> None:
    class Picky(Kind):
        def validate(self, options: Any) -> Any:
            return {"n": int(options["n"])}

    jobs = jobs_on(records, Picky("picky", lambda context: context.options["n"]))
    with pytest.raises(errors.Invalid, match="picky: ValueError: invalid literal") as caught:
        jobs.submit("picky", {"n": "x"})
    assert caught.value.code == "job.option"
    assert jobs.submit("picky", {"n": "7"}).wait(PATIENCE_S) == 7
    jobs.close()


def test_what_is_no_kind_is_refused(records: MemoryRecords) -> None:
    jobs = jobs_on(records, COUNT)
    nothing: Any = object()
    assert code_of(lambda: jobs.register(nothing)) == "job.option"
    assert code_of(lambda: jobs.register(Kind("A b", count))) == "job.option"
    assert code_of(lambda: jobs.register(Kind("count", count))) == "job.option"
    jobs.register(Kind("count", lambda _: "new"), replace=True)
    assert jobs.submit("count").wait(PATIENCE_S) == "new"
    jobs.close()


# --- Failing --------------------------------------------------------------------------------------


def test_whatever_a_job_raises_hurts_only_itself(records: MemoryRecords) -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise ValueError

    raised: list[BaseException] = [
        ValueError("x"),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        Broken(),
        errors.new("pool.full", "no room", drive="d1"),
    ]

    def fail(context: JobContext) -> None:
        raise raised[context.options["n"]]

    jobs = jobs_on(records, Kind("fail", fail), COUNT)
    failed = [jobs.submit("fail", {"n": n}) for n in range(len(raised))]
    codes = [code_of(lambda job=job: job.wait(PATIENCE_S)) for job in failed]  # type: ignore[misc]
    assert codes == ["job.failed"] * 5 + ["pool.full"]
    assert {job.state for job in failed} == {"failed"}
    error = failed[-1].error
    assert isinstance(error, errors.Full)
    assert error.details["drive"] == "d1"
    assert jobs.submit("count", {"to": 1}).wait(PATIENCE_S) == 1
    jobs.close()


def test_a_result_that_cannot_be_kept_fails_the_job(records: MemoryRecords) -> None:
    results = [object(), "x" * 20_000, {"set": {1}}]
    jobs = jobs_on(records, Kind("give", lambda context: results[context.options["n"]]))
    for number in range(3):
        job = jobs.submit("give", {"n": number})
        assert code_of(lambda job=job: job.wait(PATIENCE_S)) == "job.option"  # type: ignore[misc]
    jobs.close()


def test_a_job_is_tried_as_often_as_it_may_be_and_goes_on_from_its_checkpoint(
    records: MemoryRecords,
) -> None:
    seen: list[tuple[int, Any]] = []

    def fail(context: JobContext) -> str:
        seen.append((context.attempt, context.checkpoint))
        context.save(context.attempt)
        if context.attempt < 3:
            raise LookupError(context.attempt)
        return "at last"

    jobs = jobs_on(records, Kind("fail", fail))
    job = jobs.submit("fail", max_attempts=3, backoff=[0.01])
    assert job.wait(PATIENCE_S) == "at last"
    assert seen == [(1, None), (2, 1), (3, 2)]
    twice = jobs.submit("fail", max_attempts=2, backoff=[0.01])
    assert code_of(lambda: twice.wait(PATIENCE_S)) == "job.failed"
    assert (twice.attempts, twice.state) == (2, "failed")
    jobs.close()


def test_waits_between_attempts_grow_and_the_last_one_repeats() -> None:
    record = JobRecord(id="x", kind="k", options={}, max_attempts=9, backoff_s=(1.0, 10.0))
    fault = Fault("job.failed", "x")
    waits = []
    for attempt in range(1, 5):
        running = replace(record, attempts=attempt, state="running", owner="o")
        after = runner.retried(running, fault, BEGIN_MS, 0.5)
        assert (after.state, after.owner, after.error) == ("waiting", None, fault)
        waits.append(after.due_ms - BEGIN_MS)
    assert waits == [1000, 10_000, 10_000, 10_000]
    spread = [runner.retried(running, fault, 0, chance).due_ms for chance in (0.0, 1.0)]
    assert spread == [8000, 12_000]
    over = runner.retried(replace(running, attempts=9), fault, 0, 0.5)
    assert over.state == "failed"


def test_an_attempt_ends_with_its_time(records: MemoryRecords, gate: Gate) -> None:
    jobs = jobs_on(records, gate)
    job = jobs.submit("gate", timeout=0.05)
    assert code_of(lambda: job.wait(PATIENCE_S)) == "context.deadline"
    assert job.state == "failed"
    jobs.close()


def test_a_job_that_does_not_look_is_left_alone_and_its_place_is_filled(
    records: MemoryRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timekeeper, "OVERDUE_S", 0.05)
    event = threading.Event()
    jobs = jobs_on(records, hang(event), COUNT, section={"workers": 1})
    job = jobs.submit("hang", timeout=0.05, max_attempts=5)
    assert code_of(lambda: job.wait(PATIENCE_S)) == "context.deadline"
    assert jobs.submit("count", {"to": 2}).wait(PATIENCE_S) == 2
    event.set()
    until(lambda: len(jobs._crew.alive()) == 1)
    assert job.state == "failed"
    assert jobs.submit("count", {"to": 3}).wait(PATIENCE_S) == 3
    jobs.close()


# --- Order ----------------------------------------------------------------------------------------


def order_of(records: MemoryRecords, priorities: list[int]) -> list[int]:
    """Return in which order one worker runs jobs of such priorities, by their numbers."""
    seen: list[int] = []
    kind = Kind("note", lambda context: seen.append(context.options["n"]))
    jobs = jobs_on(records, kind, section={"workers": 1})
    waiting = [
        jobs.submit("note", {"n": n}, priority=one, start=False) for n, one in enumerate(priorities)
    ]
    jobs.start()
    for job in waiting:
        job.wait(PATIENCE_S)
    jobs.close()
    return seen


def test_the_most_urgent_goes_first_and_among_equals_who_came_first(
    records: MemoryRecords,
) -> None:
    assert order_of(records, [0, 5, 0, 255, 5, 1]) == [3, 1, 4, 5, 0, 2]


def test_nobody_waits_for_ever_behind_what_is_more_urgent(records: MemoryRecords) -> None:
    seen = order_of(records, [0] + [9] * 40)
    assert seen.index(0) == 7


def test_a_job_begins_when_it_is_due_and_not_before(records: MemoryRecords) -> None:
    clock = Clock()
    jobs = jobs_on(records, COUNT, clock=clock)
    at = datetime.fromtimestamp(BEGIN_MS / 1000, UTC) + timedelta(hours=1)
    job = jobs.submit("count", {"to": 1}, at=at, start=False)
    later = jobs.submit("count", {"to": 1}, delay="2h", start=False)
    assert (job.state, job.due_at, later.state) == ("scheduled", at, "scheduled")
    assert [one.id for one in jobs.list(state="scheduled")] == [job.id, later.id]
    assert jobs._core.claim() is None
    clock.now_ms += HOUR_MS - 1
    assert jobs._core.claim() is None
    clock.now_ms += 1
    claimed = jobs._core.claim()
    assert claimed is not None
    assert claimed[0].record.id == job.id
    assert jobs._core.claim() is None


def test_so_many_run_at_a_time_as_there_are_workers_and_that_may_change(
    records: MemoryRecords, gate: Gate
) -> None:
    jobs = jobs_on(records, gate, section={"workers": 2})
    waiting = [jobs.submit("gate") for _ in range(8)]
    until(lambda: len(gate.inside) == 2)
    jobs.apply(JobsSection(workers=5))
    until(lambda: len(gate.inside) == 5)
    assert gate.most == 5
    jobs.apply(JobsSection(workers=1))
    gate.opened.set()
    for job in waiting:
        assert job.wait(PATIENCE_S) == "through"
    until(lambda: len(jobs._crew.alive()) == 1)
    jobs.close()


def test_of_a_group_one_runs_at_a_time_and_others_go_meanwhile(records: MemoryRecords) -> None:
    inside, most, lock = 0, 0, threading.Lock()

    def enter(_: JobContext) -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(0.002)
        with lock:
            inside -= 1

    kinds = [Kind("a", enter, group="g"), Kind("b", enter, group="g"), COUNT]
    jobs = jobs_on(records, *kinds, section={"workers": 4})
    waiting = [jobs.submit("ab"[n % 2]) for n in range(20)]
    others = [jobs.submit("count", {"to": 1}) for _ in range(20)]
    for job in (*waiting, *others):
        job.wait(PATIENCE_S)
    assert most == 1
    jobs.close()


def test_a_unique_job_is_there_once_until_it_has_ended(records: MemoryRecords, gate: Gate) -> None:
    jobs = jobs_on(records, gate)
    barrier, found = threading.Barrier(8), []

    def submit() -> None:
        barrier.wait()
        found.append(jobs.submit("gate", unique="one").id)

    threads = [threading.Thread(target=submit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(jobs.list()) == 1
    gate.opened.set()
    jobs.get(found[0]).wait(PATIENCE_S)
    assert jobs.submit("gate", unique="one").id != found[0]
    jobs.close()
    again = jobs_on(records, gate)
    first = again.submit("gate", unique="two", start=False)
    other = jobs_on(records, gate).submit("gate", unique="two", start=False)
    assert first.id == other.id


def test_no_more_unfinished_jobs_are_taken_than_the_settings_allow(
    records: MemoryRecords,
) -> None:
    jobs = jobs_on(records, COUNT, section={"waiting_max": 2})
    two = [jobs.submit("count", {"to": 1}, start=False) for _ in range(2)]
    assert code_of(lambda: jobs.submit("count", {"to": 1}, start=False)) == "queue.full"
    two[0].cancel()
    jobs.submit("count", {"to": 1}, start=False)


# --- Stopping -------------------------------------------------------------------------------------


def test_one_that_waits_is_cancelled_at_once_and_never_runs(records: MemoryRecords) -> None:
    jobs = jobs_on(records, COUNT)
    job = jobs.submit("count", {"to": 1}, start=False)
    assert jobs.cancel(job.id)
    assert job.state == "cancelled"
    jobs.start()
    assert jobs.submit("count", {"to": 1}).wait(PATIENCE_S) == 1
    assert code_of(job.wait) == "job.cancelled"
    assert not job.cancel() or job.state == "cancelled"
    jobs.close()


def test_one_that_runs_is_cancelled_when_it_looks(records: MemoryRecords, gate: Gate) -> None:
    jobs = jobs_on(records, gate)
    job = jobs.submit("gate")
    until(lambda: gate.inside)
    assert job.cancel()
    assert code_of(lambda: job.wait(PATIENCE_S)) == "job.cancelled"
    assert job.state == "cancelled"
    jobs.close()


def test_of_cancelling_and_ending_one_counts(records: MemoryRecords) -> None:
    announced: list[tuple[str, str]] = []
    jobs = jobs_on(
        records,
        Kind("nothing", lambda _: "end"),
        announce=lambda subject, data: announced.append((data["id"], subject)),
        section={"workers": 4},
    )
    for _ in range(200):
        job = jobs.submit("nothing")
        job.cancel()
        try:
            state = "done" if job.wait(PATIENCE_S) == "end" else "?"
        except errors.State:
            state = "cancelled"
        assert job.state == state
        assert jobs.get(job.id).state == state
    jobs.close()
    ends = [one for one in announced if one[1] in ("job.finished", "job.cancelled", "job.failed")]
    assert len(ends) == len({one[0] for one in ends}) == 200
    assert jobs_on(records).list() == []


def test_a_cancelled_job_does_not_go_on_after_a_crash(records: MemoryRecords, gate: Gate) -> None:
    jobs = jobs_on(records, gate)
    jobs.submit("gate", start=False)
    claimed = jobs._core.claim()
    assert claimed is not None
    assert jobs.cancel(claimed[0].record.id)
    # The process ends here: the job never looked.
    after = jobs_on(records, gate)
    job = after.get(claimed[0].record.id)
    assert job.state == "interrupted"
    after.start()
    assert code_of(lambda: job.wait(PATIENCE_S)) == "job.cancelled"
    after.close()


def test_closing_puts_jobs_down_and_the_next_opening_goes_on(records: MemoryRecords) -> None:
    runs: list[Any] = []
    gate = threading.Event()

    def step(context: JobContext) -> str:
        runs.append(context.checkpoint)
        context.save("here", now=True)
        while not gate.wait(0.002):
            context.check()
        return "end"

    jobs = jobs_on(records, Kind("step", step))
    job = jobs.submit("step")
    until(lambda: runs)
    jobs.close()
    assert job.state == "interrupted"
    assert code_of(lambda: jobs.submit("step")) == "store.closed"
    assert code_of(jobs.start) == "store.closed"
    gate.set()
    after = jobs_on(records, Kind("step", step))
    after.start()
    again = after.get(job.id)
    assert again.wait(PATIENCE_S) == "end"
    assert (runs, again.attempts) == ([None, "here"], 1)
    after.close()


def test_a_job_that_hangs_is_named_and_does_not_hang_the_close(records: MemoryRecords) -> None:
    event = threading.Event()
    jobs = jobs_on(records, hang(event))
    job = jobs.submit("hang")
    until(lambda: job.state == "running")
    began = time.monotonic()
    with pytest.raises(errors.Timeout, match=f"hang {job.id}") as caught:
        jobs.close(0.05)
    assert time.monotonic() - began < 10
    assert caught.value.details["jobs"] == f"hang {job.id}"
    event.set()
    assert jobs_on(records).get(job.id).state == "interrupted"


def test_a_job_may_close_what_runs_it(records: MemoryRecords) -> None:
    closed = threading.Event()

    def close(_: JobContext) -> None:
        jobs.close(1)
        closed.set()

    jobs = jobs_on(records, Kind("close", close))
    jobs.submit("close")
    assert closed.wait(PATIENCE_S)
    until(lambda: not jobs._crew.alive())


def test_paused_runs_nothing_also_after_a_restart(records: MemoryRecords, gate: Gate) -> None:
    jobs = jobs_on(records, gate, COUNT)
    job = jobs.submit("gate")
    until(lambda: gate.inside)
    jobs.pause()
    until(lambda: not gate.inside and job.state == "interrupted")
    jobs.close()
    after = jobs_on(records, gate, COUNT)
    assert after.is_paused
    other = after.submit("count", {"to": 1})
    assert after._core.claim() is None
    gate.opened.set()
    after.resume()
    assert (other.wait(PATIENCE_S), after.get(job.id).wait(PATIENCE_S)) == (1, "through")
    after.close()


def test_jobs_of_a_kind_that_is_gone_wait_until_it_comes_back(
    records: MemoryRecords, gate: Gate
) -> None:
    jobs = jobs_on(records, COUNT)
    unregister = jobs.register(gate)
    job, other = jobs.submit("gate"), jobs.submit("gate")
    until(lambda: len(gate.inside) == 2)
    unregister()
    until(lambda: not gate.inside and job.state == other.state == "interrupted")
    assert jobs.submit("count", {"to": 1}).wait(PATIENCE_S) == 1
    assert code_of(lambda: jobs.submit("gate")) == "job.kind"
    assert (job.state, jobs.kinds()) == ("interrupted", ["count"])
    gate.opened.set()
    jobs.register(gate)
    assert (job.wait(PATIENCE_S), other.wait(PATIENCE_S)) == ("through", "through")
    unregister()
    jobs.close()


def test_taking_away_a_kind_that_was_replaced_takes_nothing_away(records: MemoryRecords) -> None:
    jobs = jobs_on(records)
    unregister = jobs.register(Kind("k", lambda _: 1))
    jobs.register(Kind("k", lambda _: 2), replace=True)
    unregister()
    assert jobs.submit("k").wait(PATIENCE_S) == 2
    jobs.close()


def test_stop_is_no_exception_that_a_job_keeps_by_mistake() -> None:
    assert not issubclass(Stop, Exception)


# --- Crashes --------------------------------------------------------------------------------------


def test_a_job_that_kills_its_process_again_and_again_has_failed(records: MemoryRecords) -> None:
    first = jobs_on(records, COUNT)
    job_id = first.submit("count", {"to": 1}, start=False).id
    assert first._core.claim() is not None
    for _ in range(INTERRUPTIONS_MAX - 1):
        jobs = jobs_on(records, COUNT)
        jobs._core.load()
        assert jobs._core.claim() is not None
    last = jobs_on(records, COUNT)
    last._core.load()
    assert last._core.claim() is None
    job = last.get(job_id)
    assert job.state == "failed"
    assert job.error is not None
    assert "10 times in a row" in str(job.error)


def test_a_checkpoint_forgives_crashes(records: MemoryRecords) -> None:
    first = jobs_on(records, COUNT)
    first.submit("count", {"to": 1}, start=False)
    for number in range(2 * INTERRUPTIONS_MAX):
        jobs = jobs_on(records, COUNT)
        jobs._core.load()
        claimed = jobs._core.claim()
        assert claimed is not None, number
        assert claimed[1].save(number, now=True)


def test_what_became_of_a_job_is_kept_when_the_store_takes_it_again() -> None:
    records = FaultyRecords()
    runs = itertools.count()
    jobs = jobs_on(records, Kind("one", lambda _: next(runs)))
    job = jobs.submit("one", start=False)
    # The claim fails, the next one is unsure; and so the end.
    records.plan = ["fail", "unsure", None, "fail", "unsure"]
    jobs.start()
    assert job.wait(PATIENCE_S) == 0
    assert next(runs) == 1
    assert [one.state for one in jobs.history()] == ["done"]
    jobs.close()


def test_a_submission_whose_outcome_was_unknown_is_known_by_looking() -> None:
    records = FaultyRecords()
    jobs = jobs_on(records, COUNT)
    records.plan = ["unsure"]
    job = jobs.submit("count", {"to": 1}, start=False)
    assert [one.id for one in jobs_on(records).list()] == [job.id]
    records.plan = ["fail"]
    assert code_of(lambda: jobs.submit("count", {"to": 1}, unique="u", start=False)) == "pool.full"
    assert jobs.submit("count", {"to": 1}, unique="u", start=False).id != job.id
    records.plan = ["before"]
    with pytest.raises(Crash):
        jobs.submit("count", {"to": 1}, start=False)


def test_a_job_whose_row_was_removed_behind_its_back_is_forgotten(
    records: MemoryRecords, gate: Gate
) -> None:
    jobs = jobs_on(records, gate, COUNT)
    running, waiting = jobs.submit("gate"), jobs.submit("gate", delay="1h")
    until(lambda: gate.inside)
    records.commit_records(SPACE, [(f"live/{one.id}", None, None) for one in (running, waiting)])
    gate.opened.set()
    assert code_of(lambda: running.wait(PATIENCE_S)) == "job.not_found"
    assert code_of(waiting.cancel) == "job.not_found"
    assert jobs.submit("count", {"to": 1}).wait(PATIENCE_S) == 1
    jobs.close()


# --- What is written ------------------------------------------------------------------------------


def test_a_job_that_reports_all_the_time_does_not_fill_the_journal() -> None:
    records = FaultyRecords()

    def busy(context: JobContext) -> int:
        end = time.monotonic() + 1.5
        for number in itertools.count():
            context.progress(number)
            context.save(number)
            if time.monotonic() > end:
                return number
        return 0

    jobs = jobs_on(records, Kind("busy", busy))
    job = jobs.submit("busy")
    assert job.wait(PATIENCE_S) > 1000
    # Submitted, claimed, ended; progress and checkpoints five times a second.
    assert records.commits <= 3 + 1.5 * 6 + 3
    jobs.close()


def test_a_checkpoint_that_was_only_remembered_is_durable_soon(records: MemoryRecords) -> None:
    event = threading.Event()

    def save(context: JobContext) -> None:
        saved.append(context.save(1))
        saved.append(context.save(2))
        event.wait(PATIENCE_S)

    saved: list[bool] = []
    jobs = jobs_on(records, Kind("save", save))
    job = jobs.submit("save")
    until(lambda: len(saved) == 2)
    assert saved == [True, False]

    def kept() -> Any:
        found = records.get_record(SPACE, f"live/{job.id}")
        return None if found is None else JobRecord.from_bytes(found[0]).checkpoint

    until(lambda: kept() == 2)
    event.set()
    job.wait(PATIENCE_S)
    jobs.close()


def test_finished_jobs_are_forgotten_by_count_and_by_age(records: MemoryRecords) -> None:
    clock = Clock()
    section = {"keep_count": 10, "keep_age": "7d"}
    jobs = jobs_on(records, COUNT, clock=clock, section=section)
    ids = []
    for _ in range(30):
        job = jobs.submit("count", {"to": 1}, start=False)
        ids.append(job.id)
        assert job.cancel()
        clock.now_ms += HOUR_MS
    assert jobs._archive.trim() == 20
    assert [job.id for job in jobs.history(100)] == ids[:19:-1]
    assert code_of(lambda: jobs.get(ids[0])) == "job.not_found"
    clock.now_ms += 7 * DAY_MS - 3 * HOUR_MS
    after = jobs_on(records, COUNT, clock=clock, section=section)
    after._archive.trim()
    assert [job.id for job in after.history(100)] == ids[:-4:-1]
    assert len(records.list_records(SPACE, "", 1000)) == 3


def test_history_and_list_choose(records: MemoryRecords) -> None:
    jobs = jobs_on(records, COUNT, Kind("nothing", lambda _: None))
    done = [jobs.submit(kind, {"to": 1}) for kind in ("count", "nothing", "count")]
    for job in done:
        job.wait(PATIENCE_S)
    cancelled = jobs.submit("count", {"to": 1}, delay="1h")
    waiting = jobs.submit("nothing", delay="1h")
    cancelled.cancel()
    assert {job.id for job in jobs.history()} == {job.id for job in (*done, cancelled)}
    assert jobs.history()[0].id == cancelled.id
    assert [job.id for job in jobs.history(kind="nothing")] == [done[1].id]
    assert [job.id for job in jobs.list(state="cancelled")] == [cancelled.id]
    assert len(jobs.history(2)) == 2
    assert jobs.history(0) == []
    assert [job.id for job in jobs.list()] == [waiting.id]
    assert jobs.list(kind="count") == []
    assert jobs.list(limit=0) == []
    assert code_of(lambda: jobs.list(state="asleep")) == "job.option"
    assert code_of(lambda: jobs.get("none")) == "job.not_found"
    jobs.close()


# --- Who ------------------------------------------------------------------------------------------


def test_a_job_runs_as_who_submitted_it_and_so_do_its_children(records: MemoryRecords) -> None:
    alice = Submitter("alice", "acme", ("writer",), "ab" * 16)
    seen: list[Any] = []

    def parent(context: JobContext) -> str:
        seen.append((context.submitter, context.kernel))
        return jobs.submit("child").id

    jobs = jobs_on(
        records,
        Kind("parent", parent),
        Kind("child", lambda context: seen.append((context.submitter, context.kernel))),
        submitter=lambda: alice if not seen else Submitter("nobody"),
        kernel_of=lambda who: f"kernel of {who.principal}",
    )
    job = jobs.submit("parent")
    child = jobs.get(job.wait(PATIENCE_S))
    child.wait(PATIENCE_S)
    assert seen == [(alice, "kernel of alice")] * 2
    assert (child.parent, job.parent) == (job.id, None)
    assert child.submitter == alice
    jobs.close()


def test_what_happens_is_announced(records: MemoryRecords) -> None:
    told: list[tuple[str, str]] = []

    def announce(subject: str, data: dict[str, Any]) -> None:
        told.append((subject, data["state"]))
        raise LookupError

    def fail(_: JobContext) -> None:
        raise ValueError

    jobs = jobs_on(records, COUNT, Kind("fail", fail), announce=announce)
    jobs.submit("count", {"to": 1}).wait(PATIENCE_S)
    assert code_of(lambda: jobs.submit("fail").wait(PATIENCE_S)) == "job.failed"
    jobs.submit("count", {"to": 1}, delay="1h").cancel()
    jobs.close()
    assert [one[0] for one in told] == [
        *("job.submitted", "job.started", "job.finished"),
        *("job.submitted", "job.started", "job.failed"),
        *("job.submitted", "job.cancelled"),
    ]


def test_a_program_watches_and_waits(records: MemoryRecords, gate: Gate) -> None:
    def steps(context: JobContext) -> str:
        for number in range(1, 4):
            context.progress(number, 3)
            barrier.wait(PATIENCE_S)
        return "end"

    barrier = threading.Barrier(2)
    jobs = jobs_on(records, Kind("steps", steps), gate)
    job, seen = jobs.submit("steps"), []
    for progress in job.watch(0.002):
        seen.append(progress["done"])
        barrier.wait(PATIENCE_S)
    assert seen == [1, 2, 3]
    assert list(job.watch())[-1]["done"] == 3
    held = jobs.submit("gate")
    assert code_of(lambda: held.wait(0.01)) == "context.deadline"
    held.cancel()
    jobs.close()


def test_a_coroutine_waits_without_a_thread(records: MemoryRecords, gate: Gate) -> None:
    jobs = jobs_on(records, COUNT, gate)

    async def main() -> list[Any]:
        held = jobs.submit("gate")
        waiting = asyncio.create_task(held.done())
        results = await asyncio.gather(
            *(jobs.submit("count", {"to": n}).done() for n in range(1, 6))
        )
        assert not waiting.done()
        gate.opened.set()
        return [*results, await waiting, await held.done()]

    assert asyncio.run(main()) == [1, 2, 3, 4, 5, "through", "through"]
    jobs.close()


def test_jobs_of_many_threads_run_once_each(records: MemoryRecords) -> None:
    ran: dict[str, int] = {}
    running: set[str] = set()
    lock = threading.Lock()

    def run(context: JobContext) -> None:
        with lock:
            assert context.id not in running
            running.add(context.id)
            ran[context.id] = ran.get(context.id, 0) + 1
        with lock:
            running.discard(context.id)

    def submit() -> None:
        for _ in range(100):
            jobs.submit("once")

    jobs: Jobs = jobs_on(records, Kind("once", run), section={"workers": 8, "keep_count": 10_000})
    threads = [threading.Thread(target=submit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: not jobs.list())
    jobs.close()
    assert set(ran.values()) == {1}
    assert len(ran) == 800
    assert {job.state for job in jobs.history(1000)} == {"done"}
