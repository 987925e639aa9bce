"""Jobs: what is written, when that fails, and what is left when a process ends."""

from __future__ import annotations

import itertools
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from dwkernel.jobs.core import INTERRUPTIONS_MAX
from dwkernel.jobs.ledger import SPACE
from dwkernel.jobs.record import JobRecord
from expect import PATIENCE_S, code_of, until
from jobs_world import (
    COUNT,
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
    from dwkernel._records import MemoryRecords
    from dwkernel.jobs import JobContext

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


def test_a_job_that_is_cancelled_while_it_is_taken_does_not_run(
    records: MemoryRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = jobs_on(records, COUNT)
    job = jobs.submit("count", {"to": 1}, start=False)
    line = jobs._core.line
    pick = line.pick

    def cancelled(*given: Any) -> Any:
        entry = pick(*given)
        assert job.cancel()
        return entry

    monkeypatch.setattr(line, "pick", cancelled)
    assert jobs._core.claim() is None
    assert (job.state, jobs.list()) == ("cancelled", [])


def test_a_change_behind_our_back_is_seen_before_a_job_runs(records: MemoryRecords) -> None:
    jobs = jobs_on(records, COUNT)
    job = jobs.submit("count", {"to": 1}, start=False)
    assert jobs_on(records, COUNT).cancel(job.id)
    assert jobs._core.claim() is None
    assert (job.state, jobs.list()) == ("cancelled", [])
    assert [key for key, _, _ in records.list_records(SPACE, "", 9)] == [f"done/{job.id}"]


def test_a_commit_whose_outcome_nobody_knows_is_looked_up_before_the_next() -> None:
    records = FaultyRecords()
    jobs = jobs_on(records, COUNT)
    job = jobs.submit("count", {"to": 1}, start=False)
    records.plan, records.is_blind = ["unsure"], True
    assert code_of(job.cancel) == "context.deadline"
    records.is_blind = False
    before = records.commits
    assert jobs._core.claim() is None
    assert (job.state, records.commits) == ("cancelled", before)


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
