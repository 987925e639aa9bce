"""The thread that looks at the clock: schedules, progress to write, overdue jobs, old ones."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from dwkernel import errors
from dwkernel.jobs.archive import SLACK
from dwkernel.units import parse_duration

if TYPE_CHECKING:
    from dwkernel.jobs.archive import Archive
    from dwkernel.jobs.context import JobContext
    from dwkernel.jobs.core import Core
    from dwkernel.jobs.entry import Entry
    from dwkernel.jobs.runner import Crew
    from dwkernel.jobs.schedules import Schedules

__all__ = ["OVERDUE_S", "Timekeeper"]

# Progress and checkpoints are written as often, each job's in one commit.
_WRITE_EVERY_S = 1.0
# What the store does not take now is tried as often.
_AGAIN_S = 1.0
# Without anything to do it looks as often, so that a clock that jumps is noticed.
_LOOK_S = 5.0
_TRIM_EVERY_S = 60.0
# A job whose time is over, or that was cancelled, has so long to look.
OVERDUE_S = 30.0

_log = logging.getLogger("dwkernel.jobs")


class Timekeeper:
    """Does what is due."""

    def __init__(self, core: Core, schedules: Schedules, archive: Archive, crew: Crew) -> None:
        """Take what it looks after."""
        self._core = core
        self._schedules = schedules
        self._archive = archive
        self._crew = crew
        self._trimmed_s = 0.0
        self.thread = threading.Thread(target=self._keep, name="dwk-jobs", daemon=True)

    def _keep(self) -> None:
        core = self._core
        while True:
            is_well = False
            try:
                is_well = self.look()
            except errors.State as error:
                _log.warning("the store's schedules stand still: %s", error)
                return
            except Exception as error:  # noqa: BLE001 - it is told, and tried at the next look
                _log.warning("the store's jobs are not looked after now: %s", error)
            with core.change:
                if core.phase in ("closing", "closed"):
                    return
                core.change.wait(self._wait_s() if is_well else _AGAIN_S)
                if core.phase in ("closing", "closed"):
                    return

    def look(self) -> bool:
        """Do what is due now; False if something must be tried again soon."""
        is_well = self._core.is_paused or self._schedules.look()
        is_well = self.write() and is_well
        self._watch_over()
        now_s = time.monotonic()
        is_due = now_s - self._trimmed_s >= _TRIM_EVERY_S
        if is_due:
            self._trimmed_s = now_s
        self._archive.trim(slack=0 if is_due else SLACK)
        return is_well

    def write(self) -> bool:
        """Write the progress of all that run; False if some of it cannot be kept now."""
        is_well = True
        for context in self._running():
            if context.is_dirty:
                try:
                    context.write()
                except errors.State:
                    raise
                except errors.DwError as error:
                    _log.warning("the progress of %s cannot be kept: %s", context.id, error)
                    is_well = False
        return is_well

    def _watch_over(self) -> None:
        for context in self._running():
            entry = self._core.live.get(context.id)
            if entry is None:
                continue
            if context.is_overdue(OVERDUE_S) and self._core.abandon(entry, context):
                _log.warning("the job %s hangs: its thread is left alone", context.id)
                self._crew.abandon(context.id)
            else:
                self._listen_to(entry, context)

    def _listen_to(self, entry: Entry, context: JobContext) -> None:
        """Say once that a job has not been heard of for long."""
        silent_s = time.monotonic() - context.seen_s
        was_stalled = context.is_stalled
        context.is_stalled = silent_s >= parse_duration(self._core.settings.stall_after)
        if context.is_stalled and not was_stalled:
            text = "the job %s %s has neither told nor saved nor looked for %.0f s"
            _log.warning(text, context.kind, context.id, silent_s)
            self._core.tell("stalled", entry.record)

    def _running(self) -> list[JobContext]:
        with self._core.change:
            return list(self._core.running.values())

    def _wait_s(self) -> float:
        # What runs may report progress at any time, and that wakes nobody.
        until_s = self._until_due_s()
        return min(_WRITE_EVERY_S, until_s) if self._core.running else until_s

    def _until_due_s(self) -> float:
        next_ms = None if self._core.is_paused else self._schedules.next_ms()
        if next_ms is None:
            return _LOOK_S
        return min(_LOOK_S, max(0.01, (next_ms - self._core.clock()) / 1000))
