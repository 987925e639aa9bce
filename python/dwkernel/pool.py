"""The drives of a store: how they are, and work on them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dwkernel import errors
from dwkernel._progress import showing
from dwkernel.reports import PackReport, PoolStatus, RebuildReport, ScrubReport
from dwkernel.units import Duration, Size, parse_duration, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwkernel import _native
    from dwkernel.kernel import Kernel
    from dwkernel.reports import Progress

__all__ = ["Pool"]

_STATUS_TIMEOUT = "1min"
# Reading every byte of a large pool takes days; a month is a limit all the same.
_WORK_TIMEOUT = "30d"


class Pool:
    """The drives of a store: `kernel.pool`.

    Long work can be stopped with Ctrl-C and by a raising `progress` callable: what is done stays
    done, and calling it again goes on. It runs beside reads and writes. If the callable has a
    method `look`, that is asked 20 times a second whether to go on, also where there is nothing to
    tell; what it raises stops the work, too.
    """

    def __init__(
        self, native: _native.Pool, caller: _native.Caller, kernel: Kernel | None = None
    ) -> None:
        """Take an open store; use `kernel.pool`."""
        # One that nobody else refers to any more is not closed while this is used.
        self._kernel = kernel
        self._native = native
        self._caller = caller

    def status(self, *, timeout: Duration = _STATUS_TIMEOUT) -> PoolStatus:
        """Return how every drive is, what is degraded and what to do about it."""
        native = self._native.status(self._caller, parse_duration(timeout))
        return PoolStatus._of(native)  # noqa: SLF001 - of this package

    def scrub(
        self,
        *,
        restart: bool = False,
        rate: Size | None = None,
        progress: Callable[[Progress], object] | bool | None = None,
        timeout: Duration = _WORK_TIMEOUT,
    ) -> ScrubReport:
        """Read and verify everything, superblocks and journal too, and repair what is wrong.

        One that was stopped or killed goes on where it was.

        Args:
            restart: begin at the beginning all the same.
            rate: at most so many bytes per second, such as `"50 MiB"`; None for no limit.
            progress: True shows a bar; a callable gets a `Progress` now and then.
            timeout: the deadline.

        """
        with showing(progress, "scrub", "stripes", None) as show:
            native = self._native.scrub(
                self._caller, parse_duration(timeout), restart, _rate(rate), show
            )
        return ScrubReport(**native)

    def rebuild(
        self,
        drive: str | None = None,
        *,
        rate: Size | None = None,
        progress: Callable[[Progress], object] | bool | None = None,
        timeout: Duration = _WORK_TIMEOUT,
    ) -> RebuildReport:
        """Restore what is missing, everywhere or of one drive, without rereading what is well.

        Args:
            drive: as status shows it, by id or path.
            rate: at most so many bytes per second; None for no limit.
            progress: True shows a bar; a callable gets a `Progress` now and then.
            timeout: the deadline.

        Raises:
            NotFound: `drive.unknown`

        """
        with showing(progress, "rebuild", "stripes", None) as show:
            native = self._native.rebuild(
                self._caller, parse_duration(timeout), drive, _rate(rate), show
            )
        return RebuildReport(**native)

    def pack(
        self,
        *,
        progress: Callable[[Progress], object] | bool | None = None,
        timeout: Duration = _WORK_TIMEOUT,
    ) -> PackReport:
        """Give back the room of what was deleted, and pack stripes that are half empty.

        The store does it by itself when it is worth it; this does all that can be done, now, beside
        reads and writes. What is done when it is stopped stays done.

        Args:
            progress: True shows a bar; a callable gets a `Progress` now and then, and ends it by
                raising.
            timeout: the deadline.

        Raises:
            Timeout: `context.deadline`

        """
        with showing(progress, "pack", "stripes", None) as show:
            native = self._native.collect(self._caller, parse_duration(timeout), show)
        return PackReport(**native)

    def replace(
        self,
        old: str,
        new: str | os.PathLike[str],
        *,
        rate: Size | None = None,
        progress: Callable[[Progress], object] | bool | None = None,
        timeout: Duration = _WORK_TIMEOUT,
    ) -> RebuildReport:
        """Put a new, empty drive in an old one's place and rebuild onto it.

        Args:
            old: as status shows it, by id or path; it may be gone.
            new: a path (made if it is not there) or URL.
            rate: at most so many bytes per second; None for no limit.
            progress: True shows a bar; a callable gets a `Progress` now and then.
            timeout: the deadline.

        Raises:
            NotFound: `drive.unknown`
            Exists: `drive.not_empty`

        """
        with showing(progress, "replace", "stripes", None) as show:
            native = self._native.replace(
                self._caller,
                parse_duration(timeout),
                old,
                place(new, "drive.url"),
                _rate(rate),
                show,
            )
        return RebuildReport(**native)


def _rate(rate: Size | None) -> int:
    return 0 if rate is None else parse_size(rate)


def place(where: object, code: str) -> str:
    """Return where something is as text that can be written down."""
    try:
        text = os.fsdecode(where)  # type: ignore[arg-type] # what it is not is refused here
        text.encode()
    except (TypeError, UnicodeError):
        raise errors.new(code, f"{where!r} is no path of UTF-8 text") from None
    return text
