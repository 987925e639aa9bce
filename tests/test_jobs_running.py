"""Jobs: in which order they run, how they are stopped, and what is looked at."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from dwkernel import errors
from dwkernel.jobs import JobContext, JobsSection, Stop
from dwkernel.jobs.runner import run
from expect import PATIENCE_S, code_of, until
from jobs_world import (
    BEGIN_MS,
    COUNT,
    HOUR_MS,
    Clock,
    FaultyRecords,
    Gate,
    Kind,
    hang,
    jobs_on,
)

if TYPE_CHECKING:
    from dwkernel._records import MemoryRecords

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


def test_a_unique_job_is_there_once_until_it_has_ended(gate: Gate) -> None:
    records = FaultyRecords()
    # So that all of them come while the first one is on its way.
    records.slow_s = 0.05
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
    assert not job.cancel()
    jobs.close()


def test_one_that_runs_is_cancelled_when_it_looks(records: MemoryRecords, gate: Gate) -> None:
    jobs = jobs_on(records, gate)
    job = jobs.submit("gate")
    until(lambda: gate.inside)
    assert job.cancel()
    assert code_of(lambda: job.wait(PATIENCE_S)) == "job.cancelled"
    assert job.state == "cancelled"
    jobs.close()


def test_what_has_ended_is_not_listed_also_before_everybody_is_told(
    records: MemoryRecords,
) -> None:
    jobs = jobs_on(records, COUNT)
    job = jobs.submit("count", {"to": 1}, start=False)
    entry = jobs._core.live[job.id]
    entry.record = entry.record.ended("cancelled", BEGIN_MS)
    assert code_of(job.wait) == "job.cancelled"
    assert jobs.list() == []


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
    assert jobs_on(records).get(job.id).state == "interrupted"
    event.set()


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


def test_a_kind_that_is_taken_away_while_it_runs_holds_up_nobody_of_its_group(
    records: MemoryRecords, gate: Gate
) -> None:
    gate.group = "g"  # type: ignore[attr-defined]
    jobs = jobs_on(records, Kind("other", lambda _: "end", group="g"))
    unregister = jobs.register(gate)
    job = jobs.submit("gate")
    until(lambda: gate.inside)
    other = jobs.submit("other")
    unregister()
    assert other.wait(PATIENCE_S) == "end"
    assert job.state == "interrupted"
    jobs.close()


def test_a_kind_that_is_taken_away_while_a_job_is_taken_does_not_fail_it(
    records: MemoryRecords,
) -> None:
    jobs = jobs_on(records)
    unregister = jobs.register(Kind("k", lambda _: "old"))
    job = jobs.submit("k", start=False)
    claimed = jobs._core.claim()
    assert claimed is not None
    unregister()
    run(jobs._core, *claimed)
    assert job.state == "interrupted"
    jobs.register(Kind("k", lambda _: "new"))
    jobs.start()
    assert (job.wait(PATIENCE_S), job.attempts) == ("new", 1)
    jobs.close()


def test_what_was_taken_is_done_by_the_kind_that_was_there_then(records: MemoryRecords) -> None:
    jobs = jobs_on(records, Kind("k", lambda _: "old"))
    job = jobs.submit("k", start=False)
    claimed = jobs._core.claim()
    assert claimed is not None
    jobs.register(Kind("k", lambda _: "new"), replace=True)
    run(jobs._core, *claimed)
    assert job.result == "old"


def test_taking_away_a_kind_that_was_replaced_takes_nothing_away(records: MemoryRecords) -> None:
    jobs = jobs_on(records)
    unregister = jobs.register(Kind("k", lambda _: 1))
    jobs.register(Kind("k", lambda _: 2), replace=True)
    unregister()
    assert jobs.submit("k").wait(PATIENCE_S) == 2
    jobs.close()


def test_stop_is_no_exception_that_a_job_keeps_by_mistake() -> None:
    assert not issubclass(Stop, Exception)
