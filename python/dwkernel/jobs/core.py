"""What the threads that run jobs share: jobs by id, the line, what runs, and who may go on.

All meet under one lock, which is never held while the store or a job is called. Each job has a lock
of its own for its commits; it is taken first.

Threads of the program come in here, too, and Ctrl-C may end what they do at any call. So locks are
taken as locks, not as conditions: these are written in Python, and could be left taken.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from dwkernel import errors
from dwkernel._latch import Bell, Condition
from dwkernel.jobs.context import JobContext
from dwkernel.jobs.entry import Entry
from dwkernel.jobs.ids import Ids
from dwkernel.jobs.kinds import Kinds
from dwkernel.jobs.ledger import SPACE, Ledger
from dwkernel.jobs.line import Line
from dwkernel.jobs.record import Fault, JobRecord, versioned

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dwkernel._records import Change, Records
    from dwkernel.jobs.context import StopReason
    from dwkernel.jobs.kinds import JobKind
    from dwkernel.jobs.record import State, Submitter
    from dwkernel.jobs.settings import JobsSection

__all__ = ["INTERRUPTIONS_MAX", "Core", "wall_ms"]

# A job whose process ends so often in a row while it runs, with no checkpoint in between, is the
# likely cause of that.
INTERRUPTIONS_MAX = 10
_STATE_KEY = "state"
_STATE_VERSION = 1

Phase = Literal["idle", "running", "closing", "closed"]

_log = logging.getLogger("dwkernel.jobs")


def wall_ms() -> int:
    """Return the time, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Core:
    """The shared state of a store's jobs."""

    def __init__(
        self,
        records: Records,
        settings: JobsSection,
        *,
        kernel_of: Callable[[Submitter], Any],
        announce: Callable[[str, dict[str, Any]], object],
        clock: Callable[[], int],
    ) -> None:
        """Begin with nothing read."""
        self.ledger = Ledger(records)
        self.settings = settings
        self.clock = clock
        self.kinds = Kinds()
        self.ids = Ids()
        self.owner = os.urandom(8).hex()
        # Told of what changes for everybody; workers that wait for a job have `ready`.
        self.change = Condition()
        self.ready = Bell(self.change)
        self.line = Line()
        self.live: dict[str, Entry] = {}
        self.running: dict[str, JobContext] = {}
        self.uniques: dict[str, Entry] = {}
        self.of_schedule: dict[str, set[str]] = {}
        self.phase: Phase = "idle"
        self.is_paused = False
        # Told of each job that has ended.
        self.on_finished: Callable[[JobRecord], object] = lambda _: None
        self._kernel_of = kernel_of
        self._announce = announce
        # Which job holds a group.
        self._groups: dict[str, Entry] = {}
        self._is_loaded = False
        self._load_lock = threading.Lock()
        self._pid = os.getpid()

    def check_process(self) -> None:
        """Refuse a forked child: what it would wait for is in its parent.

        Raises:
            State: `store.forked`

        """
        if self._pid != os.getpid():
            raise errors.new("store.forked", "the store's jobs run in the parent process")

    # --- What is there ----------------------------------------------------------------------------

    def load(self) -> None:
        """Read what the store has of unfinished jobs, once."""
        self.check_process()
        if not self._is_loaded:
            with self._load_lock:
                self._load()

    def _load(self) -> None:
        if not self._is_loaded:
            found = list(self.ledger.live())
            kept = self.ledger.records.get_record(SPACE, _STATE_KEY)
            with self.change:
                if kept is not None:
                    self.is_paused = _paused(kept[0])
                for entry in found:
                    self._know(entry)
                    self.line.add(entry)
                    with contextlib.suppress(ValueError):
                        self.ids.saw(entry.record.id)
                self._is_loaded = True
                self.wake()

    def wake(self) -> None:
        """Let all threads look again; the caller holds the lock."""
        self.change.notify_all()
        self.ready.notify_all()

    def _know(self, entry: Entry) -> None:
        record = entry.record
        self.live[record.id] = entry
        if record.unique is not None:
            self.uniques[record.unique] = entry
        if record.schedule is not None:
            self.of_schedule.setdefault(record.schedule, set()).add(record.id)

    def _leave(self, entry: Entry) -> None:
        record = entry.record
        self.live.pop(record.id, None)
        self.line.remove(record.id)
        if record.unique is not None and self.uniques.get(record.unique) is entry:
            del self.uniques[record.unique]
        if record.schedule is not None:
            those = self.of_schedule.get(record.schedule, set())
            those.discard(record.id)
            if not those:
                self.of_schedule.pop(record.schedule, None)

    def state_of(self, record: JobRecord) -> str:
        """Return the state of a job as people see it."""
        if record.state == "waiting" and record.due_ms > self.clock():
            return "scheduled"
        if record.state == "running" and record.owner != self.owner:
            return "interrupted"
        return record.state

    # --- Coming in --------------------------------------------------------------------------------

    def submit(self, record: JobRecord, also: Sequence[Change] = ()) -> tuple[Entry, int]:
        """Write a new job down and let it wait; return it and its version.

        One that is there under the same unique key is returned instead, with version 0.
        """
        while True:
            entry = Entry(record, 0)
            version = 0
            try:
                with entry.lock:
                    other = self._reserve(entry)
                    if other is None:
                        version = self._insert(entry, also)
                if other is None:
                    self.tell("submitted", entry.record)
                    return entry, version
            finally:
                self._line_up(entry)
            # It may be on its way: it counts when it is durable.
            with other.lock:
                if other.version and not other.record.is_finished:
                    return other, 0
            self.after(other)

    def _reserve(self, entry: Entry) -> Entry | None:
        record = entry.record
        with self.change:
            if self.phase in ("closing", "closed"):
                raise errors.new("store.closed", "the store's jobs are closed")
            if record.unique is not None:
                other = self.uniques.get(record.unique)
                if other is not None:
                    return other
            if len(self.live) >= self.settings.waiting_max:
                text = f"{len(self.live):,} jobs are unfinished, as many as jobs.waiting_max allows"
                raise errors.new("queue.full", text)
            if record.unique is not None:
                self.uniques[record.unique] = entry
        return None

    def _insert(self, entry: Entry, also: Sequence[Change]) -> int:
        try:
            version = self.ledger.insert(entry, also)
            with self.change:
                self._know(entry)
        except errors.DwError:
            raise
        except BaseException:
            # Ctrl-C: it may be there all the same.
            with contextlib.suppress(errors.DwError):
                if self.ledger.is_there(entry):
                    with self.change:
                        self._know(entry)
            raise
        return version

    def _line_up(self, entry: Entry) -> None:
        """Let a new job wait, after it was announced; one that is not there gives its name back."""
        record = entry.record
        with self.change:
            if self.live.get(record.id) is entry:
                self.line.add(entry)
                self.ready.notify()
            elif record.unique is not None and self.uniques.get(record.unique) is entry:
                del self.uniques[record.unique]

    # --- Running ----------------------------------------------------------------------------------

    def claim(self) -> tuple[Entry, JobContext] | None:
        """Take the next job that can run now; None if there is none.

        Raises:
            As commits do: the job waits again.

        """
        with self.change:
            if self.is_paused or self.phase in ("closing", "closed"):
                return None
            entry = self.line.pick(self.clock(), self._hindrance)
            if entry is None:
                return None
            # Who runs it, whatever becomes of that name meanwhile.
            kind = self.kinds.get(entry.record.kind)
            group = _group_of(kind)
            if group is not None:
                self._groups[group] = entry
        try:
            with entry.lock:
                self.ledger.change_locked(entry, self._begin)
                context = self._started(entry, kind, group)
        except errors.NotFound:
            self.lost(entry, group)
            return None
        except BaseException:
            self._give_back(entry, group)
            raise
        if context is None:
            # It was cancelled, or must not run any more.
            self._give_back(entry, group)
            return None
        self.tell("started", entry.record)
        return entry, context

    def _hindrance(self, entry: Entry) -> str | None:
        record = entry.record
        if self.kinds.get(record.kind) is None and not record.cancel:
            return f"kind:{record.kind}"
        group = _group_of(self.kinds.get(record.kind))
        return f"group:{group}" if group in self._groups else None

    def _begin(self, record: JobRecord) -> JobRecord | None:
        if record.is_finished:
            return None
        now_ms = self.clock()
        if record.cancel:
            return record.ended("cancelled", now_ms)
        # What an earlier opening ran, and did not put down, ended with its process.
        is_orphan = record.state == "running" and record.owner != self.owner
        interruptions = record.interruptions + is_orphan
        if interruptions >= INTERRUPTIONS_MAX:
            text = f"its process ended {interruptions} times in a row while it ran"
            return record.ended("failed", now_ms, error=Fault("job.failed", text))
        return replace(
            record,
            state="running",
            owner=self.owner,
            attempts=record.attempts + (record.state == "waiting"),
            interruptions=interruptions,
            started_ms=now_ms if record.started_ms is None else record.started_ms,
        )

    def _started(self, entry: Entry, kind: JobKind | None, group: str | None) -> JobContext | None:
        record = entry.record
        if kind is None or record.state != "running" or record.owner != self.owner:
            return None
        context = JobContext(
            entry,
            record,
            kind,
            kernel=self._kernel_of(record.submitter),
            write=self.write,
            clock=self.clock,
        )
        context.group = group
        entry.context = context
        with self.change:
            if not self.running:
                # The timekeeper looks more often while something runs.
                self.change.notify_all()
            self.running[record.id] = context
            if self.kinds.get(record.kind) is not kind:
                context.stop("kind")
            if self.is_paused:
                context.stop("pause")
            if self.phase in ("closing", "closed"):
                context.stop("close")
        return context

    def _give_back(self, entry: Entry, group: str | None) -> None:
        """Let a job that was taken out of the line wait again, or leave if it has ended."""
        with self.change:
            self._free_group(group, entry)
            if not entry.record.is_finished:
                self.line.add(entry)
            self.ready.notify_all()
        self.after(entry)

    def lost(self, entry: Entry, group: str | None) -> None:
        """Forget a job whose row is gone: somebody removed it behind our back."""
        _log.warning("the job %s is not in the store any more", entry.record.id)
        with self.change:
            self.running.pop(entry.record.id, None)
            self._free_group(group, entry)
            self._leave(entry)
            listeners, entry.listeners = entry.listeners or [], None
            entry.record = entry.record.ended(
                "failed", self.clock(), error=Fault("job.not_found", "its row is gone")
            )
            self.ready.notify_all()
        for listener in listeners:
            listener()

    def _free_group(self, group: str | None, entry: Entry) -> None:
        if group is not None and self._groups.get(group) is entry:
            del self._groups[group]
            self.line.free(f"group:{group}")

    def write(self, entry: Entry, wait_s: float = -1) -> None:
        """Write how far a running job is, and its checkpoint.

        With `wait_s` only if nothing else of the job is being written for so long.
        """
        context = entry.context
        if context is None or not entry.lock.acquire(timeout=wait_s):
            return
        try:
            self._write(entry, context)
        finally:
            entry.lock.release()

    def _write(self, entry: Entry, context: JobContext) -> None:
        context.is_dirty = False

        def told(record: JobRecord) -> JobRecord | None:
            if not self._is_mine(entry, record, context):
                return None
            return self._noted(record, context)

        try:
            self.ledger.change_locked(entry, told)
        except BaseException:
            context.is_dirty = True
            raise

    def _is_mine(self, entry: Entry, record: JobRecord, context: JobContext) -> bool:
        is_running = record.state == "running" and record.owner == self.owner
        return is_running and entry.context is context and not context.is_abandoned

    @staticmethod
    def _noted(record: JobRecord, context: JobContext) -> JobRecord:
        interruptions = 0 if context.has_saved else record.interruptions
        return replace(
            record,
            checkpoint=context.checkpoint,
            progress=None if context.latest is None else dict(context.latest),
            interruptions=interruptions,
        )

    def settle(
        self,
        entry: Entry,
        context: JobContext,
        outcome: Callable[[JobRecord], JobRecord],
    ) -> None:
        """Write what became of a run, unless it is nobody's any more, and free its place.

        Raises:
            As commits do; call it again then.

        """

        def ended(record: JobRecord) -> JobRecord | None:
            if not self._is_mine(entry, record, context):
                return None
            return outcome(self._noted(record, context))

        try:
            self.ledger.change(entry, ended)
        except errors.NotFound:
            self.lost(entry, context.group)
            return
        self.release(entry, context)

    def abandon(self, entry: Entry, context: JobContext) -> bool:
        """End a job that does not look whether it is to end; its thread is left alone.

        What the thread still does may be anything, so that its group stays taken until it is back.
        """
        text = "the job does not end, and its thread is left alone"
        if context.group is not None:
            text += f"; other jobs of its group {context.group} wait until that ends"
        error = errors.new("context.deadline", text)

        def ended(record: JobRecord) -> JobRecord | None:
            if not self._is_mine(entry, record, context):
                return None
            state: State = "cancelled" if record.cancel else "failed"
            return record.ended(state, self.clock(), error=Fault.of(error))

        if self.ledger.change(entry, ended) is None:
            return False
        context.is_abandoned = True
        self.release(entry, context)
        return True

    def release(self, entry: Entry, context: JobContext) -> None:
        """Let go of a run; the job waits again unless it has ended."""
        record = entry.record
        with self.change:
            if self.running.get(record.id) is not context:
                return
            del self.running[record.id]
            entry.context = None
            if not context.is_abandoned:
                self._free_group(context.group, entry)
            if not record.is_finished:
                self.line.add(entry)
            self.ready.notify_all()
        self.after(entry)

    def came_back(self, entry: Entry, context: JobContext) -> None:
        """Let the group go of a run that was left alone: its thread is free again."""
        with self.change:
            self._free_group(context.group, entry)
            self.ready.notify_all()

    def after(self, entry: Entry) -> None:
        """Tell everybody once that a job has ended, if it has."""
        if not entry.record.is_finished:
            return
        listeners = None
        try:
            with self.change:
                self._leave(entry)
                listeners, entry.listeners = entry.listeners, None
        finally:
            for listener in listeners or ():
                try:
                    listener()
                except Exception as error:  # noqa: BLE001 - who listens may be gone, as loops go
                    _log.debug("a listener of the job %s: %s", entry.record.id, error)
        if listeners is not None:
            self.on_finished(entry.record)
            end = "finished" if entry.record.state == "done" else entry.record.state
            self.tell(end, entry.record)

    # --- Steering ---------------------------------------------------------------------------------

    def cancel(self, entry: Entry) -> bool:
        """Cancel a job that waits, ask one that runs; False if it has ended already."""
        self.check_process()
        had_ended = entry.record.is_finished

        def wanted(record: JobRecord) -> JobRecord | None:
            if record.is_finished:
                return None
            if record.state == "running" and record.owner == self.owner and entry.context:
                return None if record.cancel else replace(record, cancel=True)
            return record.ended("cancelled", self.clock())

        self.ledger.change(entry, wanted)
        context = entry.context
        if context is not None and not entry.record.is_finished:
            context.stop("cancel")
        self.after(entry)
        after = entry.record
        return not had_ended and (not after.is_finished or after.state == "cancelled")

    def stop_running(self, reason: StopReason, does: JobKind | None = None) -> None:
        """Ask what runs to end: everything, or what one kind does."""
        with self.change:
            for context in self.running.values():
                if does is None or context.does is does:
                    context.stop(reason)

    def pause(self, *, paused: bool) -> None:
        """Run nothing, or go on; kept over a restart."""
        value = b'{"v":1,"paused":%s}' % (b"true" if paused else b"false")
        self.ledger.records.commit_records(SPACE, [(_STATE_KEY, value, None)])
        with self.change:
            self.is_paused = paused
            self.wake()
        if paused:
            self.stop_running("pause")

    def kind_came(self, name: str) -> None:
        """Let jobs of a kind wait in line that had nobody to do them, and look at schedules."""
        with self.change:
            self.line.free(f"kind:{name}")
            self.wake()

    def tell(self, what: str, record: JobRecord) -> None:
        """Announce what happened to a job; who hears it cannot harm it."""
        data = {
            "id": record.id,
            "kind": record.kind,
            "state": self.state_of(record),
            "attempt": record.attempts,
            "principal": record.submitter.principal,
            "error": None if record.error is None else record.error.code,
        }
        self.announce(f"job.{what}", data)

    def announce(self, subject: str, data: dict[str, Any]) -> None:
        """Publish something; who hears it cannot harm it."""
        try:
            self._announce(subject, data)
        except Exception as error:  # noqa: BLE001 - jobs go on, whoever cannot be told
            _log.warning("%s cannot be announced: %s", subject, error)


def _paused(row: bytes) -> bool:
    try:
        return bool(versioned(row, _STATE_VERSION).get("paused"))
    except errors.DwError as error:
        # Who wrote it may have wanted that; resuming writes it anew.
        _log.warning("whether jobs run cannot be read, so they are paused: %s", error)
        return True


def _group_of(kind: JobKind | None) -> str | None:
    group: str | None = getattr(kind, "group", None)
    return group
