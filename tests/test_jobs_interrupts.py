"""Ctrl-C and fork while a program asks its jobs for something: nothing is left taken, or half done.

A signal's handler runs where Python code is entered and behind calls of what is written in C. There
a profiler is called, too; so one that raises is a Ctrl-C that can be put anywhere.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from dwkernel._records import MemoryRecords
from dwkernel.jobs.ledger import SPACE
from expect import PATIENCE_S, code_of, uncollected, until
from jobs_world import COUNT, Gate, Kind, jobs_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dwkernel.jobs import Jobs


_LOST = ("_remove", "<genexpr>")


@pytest.fixture(autouse=True, scope="module")
def _frozen() -> Iterator[None]:
    """Keep what other tests left out of what each step collects: most of the time goes there."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def interrupted(call: Callable[[], object], at: int) -> bool:
    """Make a call, with Ctrl-C at such a step of it; False if it has not so many."""
    step = 0

    def count(frame: Any, event: str, _argument: Any) -> None:
        nonlocal step
        # What is raised where the interpreter itself calls is lost.
        if event in ("call", "c_return") and frame.f_code.co_name not in _LOST:
            step += 1
            if step == at:
                sys.setprofile(None)
                raise KeyboardInterrupt

    with uncollected():
        sys.setprofile(count)
        try:
            call()
        except KeyboardInterrupt:
            return True
        finally:
            sys.setprofile(None)
    assert step < at, "it was swallowed"
    return False


class Rows(MemoryRecords):
    """Records that change in one step, as those of a store do: they are written in C."""

    def commit_records(self, space: str, changes: Any) -> int:
        hook = sys.getprofile()
        sys.setprofile(None)
        try:
            return super().commit_records(space, changes)
        finally:
            sys.setprofile(hook)


def in_time(call: Callable[[], object]) -> bool:
    """Look whether a call ends when another thread makes it."""
    done = threading.Event()

    def work() -> None:
        call()
        done.set()

    threading.Thread(target=work, daemon=True).start()
    return done.wait(PATIENCE_S)


def submit(jobs: Jobs) -> None:
    jobs.submit("count", {"to": 1}, unique="one", start=False)


def submit_and_cancel(jobs: Jobs) -> None:
    job = jobs.submit("count", {"to": 1}, unique="one", start=False)
    assert jobs.list()
    job.cancel()


def look(jobs: Jobs) -> None:
    job = jobs.submit("count", {"to": 1}, delay=1000, start=False)
    assert code_of(lambda: job.wait(0)) == "context.deadline"
    jobs.pause()
    jobs.resume()
    jobs.schedules()
    job.cancel()
    list(job.watch())


@pytest.mark.parametrize("call", [submit, submit_and_cancel, look])
def test_ctrl_c_at_any_step_leaves_nothing_taken(call: Callable[[Jobs], None]) -> None:
    at = 0
    while True:
        at += 1
        jobs = jobs_on(Rows(), COUNT)
        jobs._core.load()
        # The lock is looked at by another thread: whoever left it taken could take it again.
        was_interrupted = interrupted(lambda jobs=jobs: call(jobs), at)  # type: ignore[misc]
        assert in_time(jobs.list), f"step {at}"
        assert in_time(lambda jobs=jobs: submit(jobs)), f"step {at}"  # type: ignore[misc]
        if not was_interrupted:
            break
    assert at > 100


def test_a_submission_that_ctrl_c_cut_off_is_there_and_runs_or_is_not_there() -> None:
    at = there = 0
    while True:
        at += 1
        records = Rows()
        jobs = jobs_on(records, COUNT)
        jobs._core.load()
        was_interrupted = interrupted(lambda jobs=jobs: submit(jobs), at)  # type: ignore[misc]
        rows = [key for key, _, _ in records.list_records(SPACE, "live/", 9)]
        assert rows == [f"live/{job.id}" for job in jobs.list()], f"step {at}"
        there += len(rows)
        # It is the one of its name, if it is there.
        submit(jobs)
        assert len(jobs.list()) == 1, f"step {at}"
        if not was_interrupted:
            break
    assert there > 10
    assert at - there > 10


# --- Fork -----------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_is_refused_whatever_its_parent_held(gate: Gate) -> None:
    jobs = jobs_on(MemoryRecords(), gate, Kind("other", lambda _: None))
    job = jobs.submit("gate")
    until(lambda: gate.inside)
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with jobs._core.change:
            held.set()
            over.wait(PATIENCE_S)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(PATIENCE_S)
    child = os.fork()
    if child == 0:
        calls: list[Callable[[], object]] = [
            jobs.list,
            jobs.history,
            jobs.schedules,
            jobs.start,
            jobs.pause,
            job.wait,
            job.cancel,
            lambda: jobs.get(job.id),
            lambda: list(job.watch()),
        ]
        try:
            os._exit(0 if {code_of(call) for call in calls} == {"store.forked"} else 1)
        finally:
            os._exit(2)
    over.set()
    holder.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    gate.opened.set()
    assert job.wait(PATIENCE_S) == "through"
    jobs.close()
