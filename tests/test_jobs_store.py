"""Jobs of a real store: scrub and rebuild, kill -9, closing, reading only."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import dwkernel as dw
from dwkernel._records import MemoryRecords, NativeRecords, Records, each_record
from dwkernel.jobs import builtin
from dwkernel.jobs.core import INTERRUPTIONS_MAX
from dwkernel.jobs.ledger import SPACE
from expect import PATIENCE_S, code_of, until
from jobs_world import Gate, Kind

if TYPE_CHECKING:
    from dwkernel._records import Change
    from dwkernel.jobs import Job


@pytest.fixture
def filled(path: Path) -> Path:
    """A store of which everything is 12 MiB."""
    with dw.open(path, drives=3, create=True) as kernel:
        kernel.containers.create("docs")
        for number in range(12):
            kernel.put(f"docs/{number}", os.urandom(1 << 20))
    return path


def native(kernel: dw.Kernel) -> Records:
    return NativeRecords(kernel._store, kernel._caller, kernel._limit)


def done(job: Job) -> int:
    return 0 if job.progress is None else int(job.progress["done"])


# --- Records --------------------------------------------------------------------------------------


def expected(wish: str, seen: int) -> int | None:
    """Return the version that a change asks for; an old one is not the row's."""
    return {"any": None, "absent": 0, "seen": seen, "old": seen - 1 if seen > 1 else 999_999}[wish]


def test_records_of_the_store_do_what_those_in_memory_do(kernel: dw.Kernel) -> None:
    twins: list[tuple[Records, dict[str, int]]] = [(native(kernel), {}), (MemoryRecords(), {})]
    chance = random.Random(7)
    keys = ["a", "a/b", "b", "ö", "z" * 100]
    for step in range(400):
        space = chance.choice(["one", "two"])
        chosen = chance.sample(keys, chance.randint(1, 3))
        wishes = [(key, chance.choice(["any", "absent", "seen", "old"])) for key in chosen]
        values = [None if chance.random() < 0.3 else b"%d" % step for _ in chosen]
        told: list[str] = []
        for records, versions in twins:
            changes: list[Change] = [
                (key, value, expected(wish, versions.get(f"{space} {key}", 0)))
                for (key, wish), value in zip(wishes, values, strict=True)
            ]
            try:
                version = records.commit_records(space, changes)
            except dw.errors.Conflict as error:
                told.append(f"conflict {error.details['key']}")
                continue
            told.append("done")
            for key, value, _ in changes:
                versions[f"{space} {key}"] = 0 if value is None else version
            for key in chosen:
                row = records.get_record(space, key)
                assert (row and row[1]) == (versions[f"{space} {key}"] or None)
        assert told[0] == told[1]
        rows = [
            [(key, value) for key, value, _ in records.list_records(space, "a", 3)]
            for records, _ in twins
        ]
        assert rows[0] == rows[1]
    for records, _ in twins:
        records.commit_records("three", [(f"a/{n:04}", b"", 0) for n in range(600)])
        records.commit_records("three", [("a", b"", 0), ("b", b"", 0)])
        found = [key for key, _, _ in each_record(records, "three", "a/")]
        assert found == [f"a/{n:04}" for n in range(600)]


# --- The kinds of the kernel ----------------------------------------------------------------------


def test_scrub_and_rebuild_run_as_jobs(filled: Path) -> None:
    with dw.open(filled) as kernel:
        assert {"pack", "scrub", "rebuild"} == set(kernel.jobs.kinds())
        scrub = kernel.jobs.submit("scrub", {"restart": True})
        assert scrub.wait(PATIENCE_S)["stripes"] >= 12
        lost = Path(kernel.pool.status().drives[1].path)
        shards = [file for file in (lost / "blobs" / "s").rglob("*") if file.is_file()]
        for file in shards[:3]:
            file.unlink()
        result = kernel.jobs.submit("rebuild", {"drive": "d2"}).wait(PATIENCE_S)
        assert (result["restored_shards"], result["stripes"] > 0) == (3, True)
        assert kernel.jobs.submit("scrub").wait(PATIENCE_S)["absent_shards"] == 0
        wrong = kernel.jobs.submit("rebuild", {"drive": "d9"}, max_attempts=1)
        assert code_of(lambda: wrong.wait(PATIENCE_S)) == "drive.unknown"


def test_packing_gives_back_the_room_of_what_was_deleted(filled: Path) -> None:
    with dw.open(filled) as kernel:
        for number in range(0, 12, 2):
            kernel.delete(f"docs/{number}")
        report = kernel.jobs.submit("pack").wait(PATIENCE_S)
        assert report["dropped_stripes"] >= 6
        assert report["freed_bytes"] >= 6 << 20
        nothing = kernel.pool.pack()
        assert (nothing.dropped_stripes, nothing.freed_bytes) == (0, 0)
        assert str(nothing).startswith("nothing to pack in ")
        assert kernel.pool.scrub().lost_stripes == 0
        assert code_of(lambda: kernel.jobs.submit("pack", {"rate": 1})) == "job.option"


@pytest.mark.parametrize(
    "wrong", [{"fast": True}, {"rate": "1 furlong"}, {"restart": "perhaps"}, {"rate": []}]
)
def test_a_wrong_option_of_scrub_is_named(kernel: dw.Kernel, wrong: dict[str, Any]) -> None:
    with pytest.raises(dw.errors.Invalid, match=next(iter(wrong))) as caught:
        kernel.jobs.submit("scrub", wrong)
    assert caught.value.code == "job.option"


def test_a_scrub_that_is_stopped_goes_on_where_it_was(path: Path) -> None:
    with dw.open(path, drives=3, create=True) as kernel:
        kernel.containers.create("docs")
        # Small stripes, more of them than a page holds: a scrub remembers pages.
        for number in range(300):
            kernel.put(f"docs/{number}", os.urandom(70_000))
        everything = kernel.pool.scrub().stripes
        job = kernel.jobs.submit("scrub", {"rate": "30 MiB", "restart": True})
        until(lambda: done(job) > everything * 2 // 3)
    assert job.state == "interrupted"
    with dw.open(path) as kernel:
        again = kernel.jobs.get(job.id)
        assert again.state == "interrupted"
        kernel.jobs.start()
        assert 0 < again.wait(PATIENCE_S)["stripes"] < everything
        assert again.attempts == 1
        cancelled = kernel.jobs.submit("scrub", {"rate": "1 MiB"})
        until(lambda: done(cancelled))
        assert cancelled.cancel()
        assert code_of(lambda: cancelled.wait(PATIENCE_S)) == "job.cancelled"


@pytest.mark.parametrize(("proved_s", "has_failed"), [(3600.0, True), (0.0, False)])
def test_a_scrub_that_ends_its_process_each_time_fails_unless_it_has_worked_for_a_while(
    filled: Path, monkeypatch: pytest.MonkeyPatch, proved_s: float, has_failed: bool
) -> None:
    monkeypatch.setattr(builtin, "_PROVED_S", proved_s)
    with dw.open(filled) as kernel:
        core = kernel.jobs._core
        job = kernel.jobs.submit("scrub", {"rate": "100 MiB"}, start=False)
        for _ in range(INTERRUPTIONS_MAX):
            # As the next process finds it.
            claimed = core.claim()
            assert claimed is not None
            entry, context = claimed
            context.does.run(context)
            core.release(entry, context)
            core.owner = os.urandom(8).hex()
        assert (core.claim() is None) == has_failed
        assert (job.state == "failed") == has_failed


def test_pool_jobs_wait_for_one_another(filled: Path) -> None:
    with dw.open(filled) as kernel:
        slow = kernel.jobs.submit("scrub", {"rate": "20 MiB"})
        rebuild = kernel.jobs.submit("rebuild")
        until(lambda: slow.progress)
        assert (slow.state, rebuild.state) == ("running", "waiting")
        assert rebuild.wait(PATIENCE_S)["missing_shards"] == 0
        assert (slow.state, rebuild.attempts) == ("done", 1)


# --- Processes ------------------------------------------------------------------------------------

_COUNTING = """
    import itertools, sys, time
    import dwkernel as dw

    class Count:
        name = "count"

        def validate(self, options):
            return options

        def run(self, context):
            at = context.checkpoint or 0
            print("from", at, flush=True)
            while at < 1_000_000:
                at += 1
                context.progress(at, 1_000_000)
                if context.save(at, now=at % 7 == 0):
                    print("durable", at, flush=True)
            return at

    class Tick:
        name = "tick"

        def validate(self, options):
            return options

        def run(self, context):
            return None

    kernel = dw.open(sys.argv[1])
    kernel.jobs.register(Count())
    kernel.jobs.register(Tick())
    kernel.jobs.submit("count", unique="one")
    kernel.jobs.schedule("ticks", "tick", every="1s", overlap="queue")
    time.sleep(PATIENCE)
"""
_KILLED = _COUNTING.replace("PATIENCE", "600")
_LEAVING = _COUNTING.replace("PATIENCE", "0.3")


def start(script: str, path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(script), str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_job_outlives_processes_that_are_killed(path: Path) -> None:
    with dw.open(path, drives=3, create=True):
        pass
    chance, durable = random.Random(3), 0
    ids = set()
    for round_ in range(6):
        with start(_KILLED, path) as child:
            assert child.stdout is not None
            first = child.stdout.readline().split()
            assert first[0] == "from"
            # A later one may be durable of which nobody was told.
            assert int(first[1]) >= durable, round_
            wanted = chance.randint(1, 60)
            for _ in range(wanted):
                durable = int(child.stdout.readline().split()[1])
            time.sleep(chance.random() / 2)
            child.send_signal(signal.SIGKILL)
            for line in child.stdout.read().splitlines():
                with_number = line.split()
                if len(with_number) == 2 and with_number[0] == "durable":
                    durable = max(durable, int(with_number[1]))
        with dw.open(path, read_only=True) as kernel:
            (job,) = kernel.jobs.list(kind="count")
            ids.add(job.id)
            assert (job.state, job.attempts) == ("interrupted", 1)
            ticks = [*kernel.jobs.list(kind="tick"), *kernel.jobs.history(1000, "tick")]
            due = [tick.due_at for tick in ticks]
            assert len(set(due)) == len(due) == kernel.jobs.schedules()[0].submitted
    assert len(ids) == 1
    assert durable > 6


def test_a_program_that_ends_without_closing_leaves_jobs_at_their_checkpoint(path: Path) -> None:
    with dw.open(path, drives=3, create=True):
        pass
    with start(_LEAVING, path) as child:
        out, _ = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 0
    last = int(out.split()[-1])
    with dw.open(path, read_only=True) as kernel:
        (job,) = kernel.jobs.list(kind="count")
        # It was put down in order, so that not even what was only remembered is lost.
        assert job._record.checkpoint >= last
        assert (job._record.state, job._record.interruptions) == ("interrupted", 0)


# --- The kernel -----------------------------------------------------------------------------------


def test_a_kernel_without_jobs_starts_no_thread_and_imports_nothing(path: Path) -> None:
    script = """
        import sys, threading
        import dwkernel as dw
        assert not any(name.startswith(("dwkernel.jobs", "pydantic")) for name in sys.modules)
        with dw.open(sys.argv[1], drives=3, create=True) as kernel:
            assert threading.active_count() == 1
            assert "dwkernel.jobs" not in sys.modules
            kernel.jobs.list(), kernel.jobs.kinds(), kernel.jobs.schedules()
            assert threading.active_count() == 1
        assert "cronsim" not in sys.modules
        print("well")
    """
    with start(script, path) as child:
        assert child.communicate(timeout=PATIENCE_S)[0] == "well\n"


def test_a_store_that_is_open_to_read_shows_jobs_and_takes_none(path: Path, gate: Gate) -> None:
    with dw.open(path, drives=3, create=True) as kernel:
        kernel.jobs.register(gate)
        job = kernel.jobs.submit("gate")
        kernel.jobs.schedule("s", "gate", every="1h")
        until(lambda: gate.inside)
    with dw.open(path, read_only=True) as kernel:
        found = kernel.jobs.get(job.id)
        assert (found.state, [one.id for one in kernel.jobs.list()]) == ("interrupted", [job.id])
        assert [one.name for one in kernel.jobs.schedules()] == ["s"]
        for call in (
            lambda: kernel.jobs.submit("scrub", start=False),
            found.cancel,
            kernel.jobs.pause,
            lambda: kernel.jobs.unschedule("s"),
        ):
            assert code_of(call) == "pool.read_only"


def test_a_job_that_hangs_keeps_no_store_open(path: Path) -> None:
    event = threading.Event()
    kernel = dw.open(path, drives=3, create=True)
    kernel.jobs.register(Kind("hang", lambda _: event.wait(PATIENCE_S)))
    job = kernel.jobs.submit("hang")
    until(lambda: job.state == "running")
    began = time.monotonic()
    with pytest.raises(dw.errors.Timeout, match=job.id):
        kernel.close(timeout=0.1)
    assert time.monotonic() - began < 20
    assert kernel.closed
    assert code_of(lambda: kernel.jobs.submit("scrub")) == "store.closed"
    with dw.open(path) as again:
        assert again.jobs.get(job.id).state == "interrupted"
    event.set()


def test_what_happens_to_jobs_is_heard_on_the_bus(kernel: dw.Kernel) -> None:
    with kernel.bus.subscribe("job.*") as subscription:
        job = kernel.jobs.submit("scrub")
        job.wait(PATIENCE_S)
        messages = [one for _ in range(3) if (one := subscription.next(PATIENCE_S))]
    assert [one.subject for one in messages] == ["job.submitted", "job.started", "job.finished"]
    told = json.loads(messages[-1].data)
    assert (told["id"], told["kind"], told["state"]) == (job.id, "scrub", "done")


def test_who_listens_and_does_not_read_holds_up_no_job(kernel: dw.Kernel) -> None:
    with kernel.bus.subscribe("job.>", limit=1) as subscription:
        for _ in range(3):
            assert kernel.jobs.submit("scrub").wait(PATIENCE_S)
        heard = subscription.next(PATIENCE_S)
        assert heard is not None
        assert heard.subject == "job.submitted"


def test_a_job_is_its_submitters(kernel: dw.Kernel) -> None:
    seen: list[Any] = []
    kernel.jobs.register(Kind("look", lambda context: seen.append(context.kernel)))
    job = kernel.jobs.submit("look")
    job.wait(PATIENCE_S)
    assert seen == [kernel]
    assert job.submitter.principal
    assert len(job.submitter.correlation_id) == 32


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_is_refused(kernel: dw.Kernel) -> None:
    kernel.jobs.start()
    child = os.fork()
    if child == 0:
        try:
            code = code_of(lambda: kernel.jobs.submit("scrub"))
            kernel.jobs.close()
            os._exit(0 if code == "store.forked" else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert kernel.jobs.submit("scrub").wait(PATIENCE_S)


def test_coroutines_have_the_same_verbs(path: Path) -> None:
    async def main() -> None:
        async with dw.aio.open(path, drives=3, create=True) as kernel:
            job = await kernel.jobs.submit("scrub", {"restart": True}, priority=3)
            assert set(await job.done()) >= {"stripes"}
            later = await kernel.jobs.submit("scrub", delay="1h")
            assert [one.id for one in await kernel.jobs.list()] == [later.id]
            assert await kernel.jobs.cancel(later.id)
            assert [one.id for one in await kernel.jobs.history(5)] == [later.id, job.id]
            assert (await kernel.jobs.get(job.id)).priority == 3
            assert (await kernel.jobs.schedule("s", "scrub", every="1h")).name == "s"
            assert [one.name for one in await kernel.jobs.schedules()] == ["s"]
            assert await kernel.jobs.unschedule("s")
            await kernel.jobs.pause()
            await kernel.jobs.resume()
            await kernel.jobs.start()

    asyncio.run(main())


def test_everything_of_jobs_lies_in_one_space(kernel: dw.Kernel) -> None:
    kernel.jobs.submit("scrub").wait(PATIENCE_S)
    kernel.jobs.schedule("s", "scrub", every="1h", start=False)
    kernel.jobs.pause()
    keys = [key for key, _, _ in native(kernel).list_records(SPACE, "", 100)]
    assert [key.partition("/")[0] for key in keys] == ["done", "schedule", "state"]
