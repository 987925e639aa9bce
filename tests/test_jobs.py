"""Jobs: kept until they are done, with what came out, and for whom they ran."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from dwkernel import errors
from dwkernel.jobs import JobContext, Jobs, Submitter, runner, timekeeper
from dwkernel.jobs.ids import Ids
from dwkernel.jobs.ledger import SPACE
from dwkernel.jobs.record import Fault, JobRecord
from expect import PATIENCE_S, code_of, until
from jobs_world import (
    BEGIN_MS,
    COUNT,
    Gate,
    Kind,
    count,
    hang,
    jobs_on,
)

if TYPE_CHECKING:
    from dwkernel._records import MemoryRecords

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
    before = set(threading.enumerate())
    jobs = jobs_on(records, COUNT)
    job = jobs.submit("count", {"to": 1}, start=False)
    assert (jobs.list(), jobs.history(), jobs.kinds()) != ([], [], [])
    assert set(threading.enumerate()) <= before
    assert job.state == "waiting"
    jobs.start()
    assert job.wait(PATIENCE_S) == 1
    jobs.close()
    assert set(threading.enumerate()) <= before


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


DAMAGES = [
    {"priority": "x"},
    {"due_ms": 10**18},
    {"submitted_ms": -1},
    {"ended_ms": 1.5},
    {"state": "asleep"},
    {"options": []},
    {"unique": 7},
    {"backoff_s": ["x"]},
    {"progress": {"done": 1}},
    {"submitter": {"principal": 5}},
    {"submitter": {"roles": [5]}},
    {"error": {"code": 1, "text": "x"}},
    {"id": "of another"},
]


@pytest.mark.parametrize("damage", DAMAGES, ids=str)
def test_a_row_that_holds_something_else_is_left_alone_and_the_rest_works(
    records: MemoryRecords, damage: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    good = json.loads(JobRecord(id="0" * 36, kind="count", options={"to": 1}).to_bytes())
    bad = json.dumps({**good, **damage}).encode()
    records.commit_records(SPACE, [(f"live/{'0' * 36}", bad, 0)])
    jobs = jobs_on(records, COUNT)
    assert jobs.submit("count", {"to": 1}).wait(PATIENCE_S) == 1
    assert jobs.list() == []
    assert "is left alone" in caplog.text
    jobs.close()


@pytest.mark.parametrize("row", [b"[" * 30_000, b'{"v":2,"paused":false}', b"\xff"])
def test_jobs_are_paused_if_nobody_can_read_whether_they_are(
    records: MemoryRecords, row: bytes
) -> None:
    records.commit_records(SPACE, [("state", row, 0)])
    jobs = jobs_on(records, COUNT)
    assert jobs.is_paused
    job = jobs.submit("count", {"to": 1})
    jobs.resume()
    assert job.wait(PATIENCE_S) == 1
    jobs.close()
    assert not jobs_on(records, COUNT).is_paused


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
        ({"at": datetime(9999, 12, 31, tzinfo=UTC)}, "job.option"),
        ({"at": datetime(2026, 1, 1)}, "job.option"),  # noqa: DTZ001 - that is what is wrong with it
        ({"unique": ""}, "job.option"),
        ({"unique": "u" * 201}, "job.option"),
        ({"max_attempts": 0}, "job.option"),
        ({"backoff": "1s"}, "job.option"),
        ({"backoff": []}, "job.option"),
        ({"backoff": ["4000d"]}, "job.option"),
        ({"backoff": [float("inf")]}, "unit.invalid"),
        ({"timeout": "4000d"}, "job.option"),
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
    for wish in (
        {"group": ["g"]},
        {"max_attempts": 0},
        {"backoff": "1s"},
        {"timeout": "soon"},
    ):
        assert code_of(lambda wish=wish: jobs.register(Kind("w", count, **wish))) == "job.option"  # type: ignore[misc]
    assert jobs.kinds() == ["count"]
    jobs.register(Kind("count", lambda _: "new"), replace=True)
    assert jobs.submit("count").wait(PATIENCE_S) == "new"
    jobs.close()


# --- Failing --------------------------------------------------------------------------------------


def test_whatever_a_job_raises_hurts_only_itself(records: MemoryRecords) -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise ValueError

    class Odd(Exception):
        @property
        def code(self) -> str:
            raise LookupError

    raised: list[BaseException] = [
        Odd(),
        errors.Full("x", "pool.full", {"a": object()}),  # type: ignore[dict-item]
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
    assert codes == ["job.failed", "pool.full", *["job.failed"] * 5, "pool.full"]
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
    assert "left alone" not in str(job.error)
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


def test_a_cancelled_job_that_does_not_look_gives_its_place_to_the_next(
    records: MemoryRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timekeeper, "OVERDUE_S", 0.05)
    event = threading.Event()
    jobs = jobs_on(records, hang(event), COUNT, section={"workers": 1})
    job = jobs.submit("hang")
    until(lambda: job.state == "running")
    next_one = jobs.submit("count", {"to": 2})
    assert job.cancel()
    assert code_of(lambda: job.wait(PATIENCE_S)) == "job.cancelled"
    assert "its thread is left alone" in str(job.error)
    assert next_one.wait(PATIENCE_S) == 2
    event.set()
    until(lambda: len(jobs._crew.alive()) == 1)
    assert job.state == "cancelled"
    jobs.close()


def test_a_group_stays_taken_while_a_thread_that_was_left_alone_may_do_something(
    records: MemoryRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timekeeper, "OVERDUE_S", 0.05)
    event = threading.Event()
    hanging = hang(event)
    hanging.group = "g"  # type: ignore[attr-defined]
    jobs = jobs_on(records, hanging, Kind("other", lambda _: "end", group="g"), COUNT)
    job = jobs.submit("hang")
    until(lambda: job.state == "running")
    other = jobs.submit("other")
    job.cancel()
    assert code_of(lambda: job.wait(PATIENCE_S)) == "job.cancelled"
    assert "jobs of its group g wait" in str(job.error)
    for _ in range(9):
        assert jobs.submit("count", {"to": 2}).wait(PATIENCE_S) == 2
    assert other.state == "waiting"
    event.set()
    assert other.wait(PATIENCE_S) == "end"
    jobs.close()


def test_a_job_that_is_silent_for_long_is_said_to_hang(
    records: MemoryRecords, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[tuple[str, str]] = []
    steps = {name: threading.Event() for name in ("told", "end")}

    def run(context: JobContext) -> None:
        steps["told"].wait(PATIENCE_S)
        context.progress(1)
        steps["end"].wait(PATIENCE_S)

    kind = Kind("quiet", run)
    section = {"stall_after": "0.05s"}
    jobs = jobs_on(
        records,
        kind,
        section=section,
        announce=lambda subject, data: told.append((subject, data["id"])),
    )
    job = jobs.submit("quiet")
    until(lambda: job.is_stalled)
    assert job.to_dict()["stalled"]
    until(lambda: ("job.stalled", job.id) in told)
    jobs._keeper.look()
    assert caplog.text.count("has neither told nor saved nor looked") == 1
    jobs._core.settings = jobs.settings.model_copy(update={"stall_after": PATIENCE_S * 10})
    steps["told"].set()
    until(lambda: job.progress)
    assert not job.is_stalled
    steps["end"].set()
    job.wait(PATIENCE_S)
    assert not job.is_stalled
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


def test_who_hears_of_a_job_may_cancel_it(records: MemoryRecords) -> None:
    def announce(subject: str, data: dict[str, Any]) -> None:
        if subject == "job.submitted":
            assert jobs.cancel(data["id"])

    jobs = jobs_on(records, COUNT, announce=announce)
    job = jobs.submit("count", {"to": 1})
    assert (job.state, jobs.list()) == ("cancelled", [])
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


def test_who_asks_again_and_again_whether_a_job_is_done_leaves_nothing_behind(
    records: MemoryRecords, gate: Gate
) -> None:
    async def impatient() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(job.done(), 0.001)

    jobs = jobs_on(records, gate)
    job = jobs.submit("gate")
    until(lambda: gate.inside)
    for _ in range(5):
        assert code_of(lambda: job.wait(0)) == "context.deadline"
        asyncio.run(impatient())
    assert job._entry.listeners == []
    gate.opened.set()
    assert job.wait(PATIENCE_S) == "through"
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
