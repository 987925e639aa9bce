"""What a job sees while it runs."""

from __future__ import annotations

import logging
import threading
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal

from dwkernel import errors
from dwkernel.jobs.record import CHECKPOINT_BYTES_MAX, plain_data

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwkernel.jobs.entry import Entry
    from dwkernel.jobs.kinds import JobKind
    from dwkernel.jobs.record import JobRecord, Submitter

__all__ = ["CURRENT", "JobContext", "JobProgress", "Stop", "StopReason"]

_TEXT_MAX = 200
# Checkpoints that come faster are remembered, and written by the timekeeper within a second.
SAVE_EVERY_S = 0.2

StopReason = Literal["cancel", "close", "pause", "kind", "deadline"]

CURRENT: ContextVar[JobContext | None] = ContextVar("dwkernel_job", default=None)
"""What runs in this thread, so that jobs that it submits know their parent."""


class Stop(BaseException):
    """Raised in a job that is to end early; let it pass.

    It is no `Exception`, so that `except Exception` in the job does not keep it.

    Attributes:
        reason: `"cancel"`, `"close"` (of the store), `"pause"`, `"kind"` (it was taken away) or
            `"deadline"`.

    """

    def __init__(self, reason: StopReason) -> None:
        """Say why."""
        super().__init__(reason)
        self.reason: StopReason = reason


class JobProgress(dict[str, Any]):
    """How far a job is: `done`, `total` (or None), `unit`, `text`, and `at`, ms since 1970."""


class JobContext:
    """Given to `JobKind.run`. Threads of the job may share it.

    Attributes:
        id: the job's.
        options: as the kind validated them.
        checkpoint: what it saved last, in this attempt or one before; None if nothing.
        attempt: 1 for the first; going on after a crash is no new attempt.
        submitter: who wanted it: principal, tenant, roles, correlation id.
        deadline_s: when this attempt is to end, on `time.monotonic()`'s clock; None for never.
        kernel: the store, as the program opened it that runs the job; `submitter` says for whom.
        log: a logger that names the job.

    """

    def __init__(
        self,
        entry: Entry,
        record: JobRecord,
        does: JobKind,
        *,
        kernel: Any,
        write: Callable[[Entry], None],
        clock: Callable[[], int],
    ) -> None:
        """Made by what runs jobs."""
        self._entry = entry
        self._write = write
        self._clock = clock
        self._reason: StopReason | None = None
        self._lock = threading.Lock()
        self._written_s = 0.0
        self.id = record.id
        self.kind = record.kind
        self.does = does
        self.options: dict[str, Any] = record.options
        self.checkpoint: Any = record.checkpoint
        self.latest: JobProgress | None = (
            None if record.progress is None else JobProgress(record.progress)
        )
        self.attempt = record.attempts
        self.submitter: Submitter = record.submitter
        # Of all jobs of one, one runs at a time: as its kind said when it began.
        self.group: str | None = None
        began_s = time.monotonic()
        # When it was last heard of: it looked, told or saved; and when it was cancelled.
        self.seen_s = began_s
        self.cancelled_s: float | None = None
        self.is_stalled = False
        self.deadline_s = None if record.timeout_s is None else began_s + record.timeout_s
        self.kernel = kernel
        self.log = logging.LoggerAdapter(
            logging.getLogger(f"dwkernel.jobs.{record.kind}"), {"job": record.id}
        )
        # Something is not written yet.
        self.is_dirty = False
        self.has_saved = False
        # It did not end in time, and whatever it still does is nobody's.
        self.is_abandoned = False

    @property
    def should_stop(self) -> bool:
        """Whether it is to end now: somebody wants that, or its time is over."""
        return self.why_stop is not None

    @property
    def why_stop(self) -> StopReason | None:
        """Why it is to end, or None."""
        self.seen_s = time.monotonic()
        return self._why()

    def check(self) -> None:
        """Raise `Stop` if it is to end now. What is not saved by then is lost."""
        reason = self.why_stop
        if reason is not None:
            raise Stop(reason)

    def look(self) -> None:
        """Raise as `check`, for who looks in the job's stead: it is no sign of its life."""
        reason = self._why()
        if reason is not None:
            raise Stop(reason)

    def _why(self) -> StopReason | None:
        if self._reason is not None or self.deadline_s is None:
            return self._reason
        return "deadline" if time.monotonic() >= self.deadline_s else None

    def stop(self, reason: StopReason) -> None:
        """Ask it to end; called by others. A cancellation is not taken back by other reasons."""
        with self._lock:
            if self._reason != "cancel":
                self._reason = reason
                if reason == "cancel":
                    self.cancelled_s = time.monotonic()

    def is_overdue(self, grace_s: float) -> bool:
        """Whether it was cancelled, or its time was over, so long ago and it has not ended."""
        ends = [end_s for end_s in (self.deadline_s, self.cancelled_s) if end_s is not None]
        return bool(ends) and time.monotonic() >= min(ends) + grace_s

    def progress(
        self, done: int, total: int | None = None, text: str = "", *, unit: str = ""
    ) -> None:
        """Say how far it is; seen at once, kept within a second, costs a microsecond or two.

        Args:
            done: what is done, in `unit`.
            total: of how much, or None if nobody knows.
            text: what it does just now; 200 characters are kept.
            unit: such as `"bytes"` or `"stripes"`; as said before if empty.

        """
        self.seen_s = time.monotonic()
        before = self.latest
        if not unit and before is not None:
            unit = before["unit"]
        self.latest = JobProgress(
            done=int(done),
            total=None if total is None else int(total),
            unit=str(unit)[:_TEXT_MAX],
            text=str(text)[:_TEXT_MAX],
            at=self._clock(),
        )
        self.is_dirty = True

    def save(self, checkpoint: Any, *, now: bool = False) -> bool:
        """Keep plain data from which it goes on, after whatever happens.

        Args:
            checkpoint: what JSON can hold, up to 20 KiB.
            now: make it durable before this returns. Otherwise one that comes within 0.2 s of the
                last is remembered, and durable within about a second.

        Returns:
            Whether it is durable already. Without `now` a store that does not take it now is no
            error: it is tried again.

        Raises:
            Stop: the job is to end; the checkpoint is kept all the same
            Invalid: `job.option`: it is no plain data, or too much
            DwError: as commits raise them, with `now`; `store.closed` and its like in any case

        """
        self.seen_s = time.monotonic()
        self.checkpoint = plain_data(checkpoint, "the checkpoint", CHECKPOINT_BYTES_MAX)
        self.is_dirty = self.has_saved = True
        if now or time.monotonic() - self._written_s >= SAVE_EVERY_S:
            try:
                self.write()
            except errors.DwError as error:
                if now or isinstance(error, errors.State):
                    raise
                self.log.warning("a checkpoint cannot be kept now: %s", error)
        self.check()
        return not self.is_dirty

    def write(self) -> None:
        """Write checkpoint and progress; called by others, too."""
        self._written_s = time.monotonic()
        self._write(self._entry)
