"""Runs one job: calls its kind, and decides what becomes of it."""

from __future__ import annotations

import logging
import random
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from dwkernel import errors
from dwkernel.jobs.context import CURRENT, Stop
from dwkernel.jobs.record import RESULT_BYTES_MAX, Fault, plain_data
from dwkernel.reports import plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwkernel.jobs.context import JobContext
    from dwkernel.jobs.core import Core
    from dwkernel.jobs.entry import Entry
    from dwkernel.jobs.record import JobRecord

__all__ = ["Crew", "retried", "run"]

# After a claim or a result that the store does not take: how long until the next try.
_TROUBLE_S, _TROUBLE_MAX_S = 0.2, 30.0
# Who waits looks up as often, so that a clock that jumps is noticed.
_LOOK_S = 5.0
# Waits between attempts are spread by this part to either side, so that many that failed together
# part.
_JITTER = 0.2
# So many threads may hang in jobs before no more are started in their place.
_STUCK_MAX = 16

_log = logging.getLogger("dwkernel.jobs")


def run(core: Core, entry: Entry, context: JobContext) -> None:
    """Run a job that was claimed, to whatever end, and write that down."""
    outcome = _outcome(core, context)
    trouble_s = 0.0
    while True:
        try:
            core.settle(entry, context, outcome)
        except errors.State as error:
            # The store is closed or lost its drives: the next opening goes on with the job.
            _log.warning("what became of the job %s cannot be kept: %s", context.id, error)
            core.release(entry, context)
            return
        except Exception as error:  # noqa: BLE001 - whatever the store says, it is tried again
            trouble_s = min(_TROUBLE_MAX_S, max(_TROUBLE_S, 2 * trouble_s))
            _log.warning("what became of the job %s cannot be kept yet: %s", context.id, error)
            if _closed_within(core, trouble_s):
                core.release(entry, context)
                return
            continue
        return


def _closed_within(core: Core, seconds: float) -> bool:
    with core.change:
        return core.change.wait_for(lambda: core.phase in ("closing", "closed"), seconds)


def _outcome(core: Core, context: JobContext) -> Callable[[JobRecord], JobRecord]:
    """Call the kind; return what makes of the job's record what becomes of it."""
    token = CURRENT.set(context)
    try:
        context.check()
        value = context.does.run(context)
        result = plain_data(plain(value), f"the result of {context.kind}", RESULT_BYTES_MAX)
    except Stop as stop:
        return _stopped(core, stop)
    except BaseException as error:  # noqa: BLE001 - SystemExit, too: it hurts only the job
        return _raised(core, context, error)
    finally:
        CURRENT.reset(token)

    def done(record: JobRecord) -> JobRecord:
        return record.ended("done", core.clock(), result=result, error=None)

    return done


def _stopped(core: Core, stop: Stop) -> Callable[[JobRecord], JobRecord]:
    if stop.reason == "deadline":
        error = errors.new("context.deadline", "the job did not end in its time")
        return lambda record: _failed(core, record, Fault.of(error))

    def put_down(record: JobRecord) -> JobRecord:
        if record.cancel or stop.reason == "cancel":
            return record.ended("cancelled", core.clock())
        return replace(record, state="interrupted", owner=None)

    return put_down


def _raised(
    core: Core, context: JobContext, error: BaseException
) -> Callable[[JobRecord], JobRecord]:
    reason = context.why_stop
    code = error.code if isinstance(error, errors.DwError) else None
    if reason is not None and code in ("context.cancelled", "store.closed", "bus.closed"):
        # What it called was stopped, as it was itself.
        return _stopped(core, Stop(reason))
    fault = Fault.of(error)
    trace = None if isinstance(error, errors.DwError) else error
    context.log.warning("%s %s failed: %s", context.kind, context.id, fault.text, exc_info=trace)
    return lambda record: _failed(core, record, fault)


def _failed(core: Core, record: JobRecord, fault: Fault) -> JobRecord:
    if record.cancel:
        return record.ended("cancelled", core.clock(), error=fault)
    chance = random.random()  # noqa: S311 - it spreads waits
    return retried(record, fault, core.clock(), chance)


def retried(record: JobRecord, fault: Fault, now_ms: int, chance: float) -> JobRecord:
    """Return a job whose attempt failed: it waits for the next one, or has failed for good."""
    if record.attempts >= record.max_attempts:
        return record.ended("failed", now_ms, error=fault)
    step = record.backoff_s[min(record.attempts, len(record.backoff_s)) - 1]
    wait_s = step * (1 - _JITTER + 2 * _JITTER * chance)
    due_ms = now_ms + round(wait_s * 1000)
    return replace(record, state="waiting", owner=None, error=fault, due_ms=due_ms)


class Crew:
    """The worker threads."""

    def __init__(self, core: Core) -> None:
        """Begin with none."""
        self._core = core
        self._threads: set[threading.Thread] = set()
        self._stuck: set[threading.Thread] = set()
        self._by_job: dict[str, threading.Thread] = {}
        self._number = 0

    def fill(self) -> None:
        """Start threads, as many as the settings want."""
        with self._core.change:
            if self._core.phase != "running":
                return
            stuck = len(self._stuck)
            wanted = self._core.settings.workers + min(stuck, _STUCK_MAX)
            new = []
            while len(self._threads) < wanted:
                self._number += 1
                name = f"dwk-job-{self._number}"
                thread = threading.Thread(target=self._work, name=name, daemon=True)
                self._threads.add(thread)
                new.append(thread)
        for thread in new:
            thread.start()

    def abandon(self, job_id: str) -> None:
        """Count the thread of a job as stuck, and start another one in its place."""
        with self._core.change:
            thread = self._by_job.get(job_id)
            if thread is not None:
                self._stuck.add(thread)
        self.fill()

    def alive(self) -> list[threading.Thread]:
        """Return the threads that run."""
        with self._core.change:
            return [one for one in self._threads if one.is_alive()]

    def _is_surplus(self) -> bool:
        stuck = min(len(self._stuck), _STUCK_MAX)
        return len(self._threads) - stuck > self._core.settings.workers

    def _work(self) -> None:
        me = threading.current_thread()
        trouble_s = 0.0
        try:
            while self._wait(me, trouble_s):
                try:
                    claimed = self._core.claim()
                    trouble_s = 0.0
                except errors.State as error:
                    _log.warning("no job can be taken any more: %s", error)
                    return
                except Exception as error:  # noqa: BLE001 - whatever the store says, as above
                    trouble_s = min(_TROUBLE_MAX_S, max(_TROUBLE_S, 2 * trouble_s))
                    _log.warning("no job can be taken now: %s", error)
                    continue
                if claimed is not None:
                    self._run(me, *claimed)
        finally:
            with self._core.change:
                self._threads.discard(me)
                self._stuck.discard(me)
                self._core.change.notify_all()

    def _run(self, me: threading.Thread, entry: Entry, context: JobContext) -> None:
        with self._core.change:
            self._by_job[context.id] = me
        try:
            run(self._core, entry, context)
        finally:
            if context.is_abandoned:
                self._core.came_back(entry, context)
            with self._core.change:
                if self._by_job.get(context.id) is me:
                    del self._by_job[context.id]

    def _wait(self, me: threading.Thread, trouble_s: float) -> bool:
        """Wait until a job may be ready; False when this thread is to end."""
        core = self._core
        if trouble_s and _closed_within(core, trouble_s):
            return False
        with core.change:
            while True:
                if core.phase in ("closing", "closed") or me in self._stuck or self._is_surplus():
                    return False
                due_ms = None if core.is_paused else core.line.due_ms()
                wait_s = _LOOK_S if due_ms is None else (due_ms - core.clock()) / 1000
                if wait_s <= 0:
                    return True
                core.ready.wait(min(wait_s, _LOOK_S))
