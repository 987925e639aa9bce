"""A job that this process knows: its record, and who looks at it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwkernel.jobs.context import JobContext
    from dwkernel.jobs.record import JobRecord

__all__ = ["Entry"]


class Entry:
    """One job.

    Whoever changes the record holds `lock` while that is committed; everybody may read it.
    """

    __slots__ = ("context", "is_stale", "listeners", "lock", "record", "version")

    def __init__(self, record: JobRecord, version: int) -> None:
        """Take what is stored, at its version; 0 if it is not yet."""
        self.record = record
        self.version = version
        self.lock = threading.Lock()
        # What runs it in this process.
        self.context: JobContext | None = None
        # Nobody knows whether the last commit took place: read it again first.
        self.is_stale = False
        # Told once, when it has ended.
        self.listeners: list[Callable[[], object]] | None = []
