"""How the jobs of a kernel hang together with it."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import weakref
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel._options import principal
from dwkernel._records import NativeRecords
from dwkernel.jobs.builtin import builtin_kinds
from dwkernel.jobs.jobs import Jobs
from dwkernel.jobs.record import Submitter

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwkernel.jobs.settings import JobsSection
    from dwkernel.kernel import Kernel

__all__ = ["jobs_of"]

# At the interpreter's exit jobs that were not closed have so long to come to a checkpoint.
_EXIT_S = 5.0
_ALL: weakref.WeakSet[Jobs] = weakref.WeakSet()


def jobs_of(kernel: Kernel) -> Jobs:
    """Return the jobs of an open store, with the kinds that every store has."""
    records = NativeRecords(kernel._store, kernel._caller, kernel._limit)  # noqa: SLF001 - of this package
    who = principal()
    made = Jobs(
        records,
        # Whoever submits, as long as a kernel has one principal only.
        kernel_of=lambda _: kernel,
        submitter=lambda: Submitter(principal=who, correlation_id=os.urandom(16).hex()),
        announce=_announcing(kernel),
    )
    for kind in builtin_kinds():
        made.register(kind)
    if kernel._plugins is not None:  # noqa: SLF001 - as above
        from dwkernel.plugins.joining import employ  # noqa: PLC0415 - it is loaded if there are any

        employ(kernel._plugins, made)  # noqa: SLF001 - as above
    settings = kernel._settings  # noqa: SLF001 - as above
    settings.follow("jobs", _following(made, keep=not settings.has_source))
    _ALL.add(made)
    return made


def _following(jobs: Jobs, *, keep: bool) -> Callable[[JobsSection], None]:
    """Return what takes the settings of the opening, and then those of each change.

    A change with a schedule that cannot be is refused as a whole. At an opening there is nothing to
    go back to: only that schedule waits.
    """
    changes = False

    def take(settings: JobsSection) -> None:
        nonlocal changes
        if changes:
            jobs._examine(settings)  # noqa: SLF001 - of this package
        changes = True
        jobs._take(settings, keep=keep)  # noqa: SLF001 - as above

    return take


def _announcing(kernel: Kernel) -> Callable[[str, dict[str, Any]], object]:
    """Return what publishes events of jobs on the kernel's bus, if anybody can be listening."""

    def announce(subject: str, data: dict[str, Any]) -> None:
        bus = kernel._bus  # noqa: SLF001 - it is not made for this alone
        if bus is not None:
            with contextlib.suppress(errors.Full, errors.State):
                # Who has no room now has missed it: jobs do not wait for who hears of them.
                bus.publish(subject, json.dumps(data).encode(), timeout=0)

    return announce


def _close_all() -> None:
    for jobs in list(_ALL):
        with contextlib.suppress(Exception):
            jobs.close(_EXIT_S)


atexit.register(_close_all)
