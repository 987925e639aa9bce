"""A job as a program has it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel._latch import Latch
from dwkernel.jobs.context import JobProgress
from dwkernel.jobs.schedule import moment
from dwkernel.reports import rfc3339, table
from dwkernel.units import parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from dwkernel.jobs.core import Core
    from dwkernel.jobs.entry import Entry
    from dwkernel.jobs.record import JobRecord, Submitter
    from dwkernel.units import Duration

__all__ = ["Job"]

_WATCH_S = 0.1


class Job:
    """A job: how it stands now, each time that one asks. Threads may share it."""

    def __init__(self, core: Core, entry: Entry) -> None:
        """Made by `kernel.jobs`."""
        self._core = core
        self._entry = entry

    @property
    def _record(self) -> JobRecord:
        return self._entry.record

    @property
    def id(self) -> str:
        """Its name, a UUID of version 7: ids rise in the order of submission."""
        return self._record.id

    @property
    def kind(self) -> str:
        """What it does."""
        return self._record.kind

    @property
    def options(self) -> dict[str, Any]:
        """How, as its kind validated it."""
        return dict(self._record.options)

    @property
    def priority(self) -> int:
        """0 to 255; higher goes first."""
        return self._record.priority

    @property
    def state(self) -> str:
        """How it stands.

        `"waiting"`; `"scheduled"`: waiting until `due_at`; `"running"`; `"interrupted"`: it ran and
        goes on when there is a worker for it; and its ends: `"done"`, `"failed"`, `"cancelled"`.
        """
        return self._core.state_of(self._record)

    @property
    def is_finished(self) -> bool:
        """Whether it is done, failed or cancelled."""
        return self._record.is_finished

    @property
    def progress(self) -> JobProgress | None:
        """How far it is: `done`, `total`, `unit`, `text`, `at`; None if it has not said."""
        context = self._entry.context
        if context is not None:
            return context.latest
        kept = self._record.progress
        return None if kept is None else JobProgress(kept)

    @property
    def is_stalled(self) -> bool:
        """Whether it runs and has not been heard of for long, `stall_after` of the settings.

        It may hang: one that is cancelled and does not look for half a minute is left alone, and
        its place is given to the next.
        """
        context = self._entry.context
        if context is None or self._record.is_finished:
            return False
        return time.monotonic() - context.seen_s >= parse_duration(self._core.settings.stall_after)

    @property
    def result(self) -> Any:
        """What came out, plain data; None until it is done."""
        return self._record.result

    @property
    def error(self) -> errors.DwError | None:
        """Why it failed, or why its last attempt did; None if nothing went wrong."""
        fault = self._record.error
        return None if fault is None else fault.error(self.id, self.kind)

    @property
    def attempts(self) -> int:
        """How often it was begun; going on after a crash does not count."""
        return self._record.attempts

    @property
    def max_attempts(self) -> int:
        """How often it is tried."""
        return self._record.max_attempts

    @property
    def submitter(self) -> Submitter:
        """Who wanted it: principal, tenant, roles, correlation id."""
        return self._record.submitter

    @property
    def parent(self) -> str | None:
        """The id of the job that submitted it, or None."""
        return self._record.parent

    @property
    def schedule(self) -> str | None:
        """The name of the schedule that submitted it, or None."""
        return self._record.schedule

    @property
    def submitted_at(self) -> datetime | None:
        """When it was submitted."""
        return moment(self._record.submitted_ms)

    @property
    def due_at(self) -> datetime | None:
        """When it may begin."""
        return moment(self._record.due_ms)

    @property
    def started_at(self) -> datetime | None:
        """When it was begun for the first time, or None."""
        return moment(self._record.started_ms)

    @property
    def ended_at(self) -> datetime | None:
        """When it ended, or None."""
        return moment(self._record.ended_ms)

    def cancel(self) -> bool:
        """Cancel it: at once if it waits; one that runs is told to end, also after a crash.

        Returns:
            False if it has ended already. One that runs may still end otherwise, if it ends before
            it looks; if it does neither within half a minute, its thread is left alone.

        Raises:
            As `Jobs.cancel`.

        """
        return self._core.cancel(self._entry)

    def wait(self, timeout: Duration | None = None) -> Any:
        """Wait until it has ended, and return its result.

        Args:
            timeout: how long to wait; None waits for ever.

        Raises:
            Timeout: `context.deadline`: it has not ended yet
            State: `job.cancelled`
            DwError: with the code that it failed with; `job.failed` for other exceptions

        """
        timeout_s = None if timeout is None else parse_duration(timeout)
        over = Latch()
        with self._listening(over.open) as has_ended:
            if not has_ended and not over.wait(timeout_s):
                text = f"the job {self.id} is {self.state}"
                raise errors.new("context.deadline", text, job=self.id)
        return self._end()

    async def done(self) -> Any:
        """Wait as `wait`, without a thread: `await job.done()`."""
        loop = asyncio.get_running_loop()
        over = asyncio.Event()
        with self._listening(lambda: loop.call_soon_threadsafe(over.set)) as has_ended:
            if not has_ended:
                await over.wait()
        return self._end()

    def watch(self, every: Duration = _WATCH_S) -> Iterator[JobProgress]:
        """Iterate over its progress as it changes, until it has ended.

        Args:
            every: how often to look.

        """
        every_s = parse_duration(every)
        over, seen = Latch(), None
        with self._listening(over.open) as has_ended:
            while True:
                is_over = has_ended or over.is_open
                now = self.progress
                if now is not None and now != seen:
                    seen = now
                    yield now
                if is_over:
                    return
                over.wait(every_s)

    @contextlib.contextmanager
    def _listening(self, listener: Callable[[], object]) -> Iterator[bool]:
        """Have `listener` called at the end; yield whether that was already."""
        self._core.check_process()
        try:
            with self._core.change:
                listeners = self._entry.listeners
                has_ended = listeners is None or self._record.is_finished
                if listeners is not None and not has_ended:
                    listeners.append(listener)
            yield has_ended
        finally:
            with self._core.change, contextlib.suppress(ValueError):
                (self._entry.listeners or []).remove(listener)

    def _end(self) -> Any:
        record = self._record
        if record.state == "cancelled":
            raise errors.new("job.cancelled", f"the job {record.id} was cancelled", job=record.id)
        if record.state == "failed" and record.error is not None:
            raise record.error.error(record.id, record.kind)
        return record.result

    def seconds(self) -> float | None:
        """Return how long it has run, from its first beginning to its end or to now."""
        record = self._record
        if record.started_ms is None:
            return None
        ended_ms = record.ended_ms if record.is_finished else self._core.clock()
        return max(0, (ended_ms or 0) - record.started_ms) / 1000

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, ready for JSON."""
        record = self._record
        fault = record.error
        times = ("submitted_at", "due_at", "started_at", "ended_at")
        shown = {name: getattr(self, name) for name in times}
        return {
            "id": record.id,
            "kind": record.kind,
            "state": self.state,
            "options": record.options,
            "priority": record.priority,
            "progress": self.progress,
            "stalled": self.is_stalled,
            "result": record.result,
            "error": None if fault is None else {"code": fault.code, "message": fault.text},
            "attempts": record.attempts,
            "max_attempts": record.max_attempts,
            "principal": record.submitter.principal,
            "tenant": record.submitter.tenant,
            "correlation_id": record.submitter.correlation_id,
            "parent": record.parent,
            "schedule": record.schedule,
            "unique": record.unique,
            **{name: None if at is None else rfc3339(at) for name, at in shown.items()},
        }

    def _repr_html_(self) -> str:
        """Return a table for notebooks."""
        return table(("", ""), self.to_dict().items())

    def __repr__(self) -> str:
        """Return what it is and how it stands."""
        return f"<Job {self.kind} {self.id} {self.state}>"
