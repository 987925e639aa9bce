"""When a schedule is due: cron lines in a time zone, and intervals. No clock, no I/O.

A cron line has five fields: minute, hour, day of month, month, day of week, as Debian's cron reads
them (`man 5 crontab`), with `L` for the last day and `MON#2` for the second Monday besides.

Where clocks change, it does as Debian's cron does. A line whose minute and hour are both given
runs once at a time that occurs twice, at the first; and for a time that is left out, right after
the gap. One with a `*` in its minute or hour follows the time that passes: it runs in both of the
hours that are called alike, and not in one that does not exist.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dwkernel import errors
from dwkernel.units import parse_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dwkernel.units import Duration

__all__ = ["Cron", "Every", "Timing", "timing_of"]

_FIELDS = 5
_EVERY_MIN_S, _EVERY_MAX_S = 1.0, 366 * 24 * 3600.0
_YEAR_MAX = 9000


class Timing(Protocol):
    """When something is due. All times are milliseconds since 1970."""

    def after(self, moment_ms: int) -> int | None:
        """Return the first due time after a moment, or None if there is none."""

    def until(self, moment_ms: int) -> int | None:
        """Return the last due time up to a moment, that moment included, or None."""


class Cron:
    """The times of a cron line."""

    def __init__(self, line: str, zone: str) -> None:
        """Read a line.

        Raises:
            Invalid: `job.schedule`

        """
        from cronsim import CronSim, CronSimError  # noqa: PLC0415 - who schedules pays for it

        self._make = CronSim
        self._line = line
        try:
            self._zone = ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, OSError, TypeError):
            text = f"no time zone {zone!r}: write a name such as 'Europe/Berlin' or 'UTC'"
            raise errors.new("job.schedule", text, zone=zone) from None
        given: object = line
        if not isinstance(given, str) or len(given.split()) != _FIELDS:
            text = f"cron={line!r} has not five fields"
            raise errors.new("job.schedule", text, cron=line)
        try:
            is_never = self.after(0) is None
        except CronSimError as error:
            raise errors.new("job.schedule", f"cron={line!r}: {error}", cron=line) from None
        if is_never:
            raise errors.new("job.schedule", f"cron={line!r} is never due", cron=line)

    def after(self, moment_ms: int) -> int | None:
        """As `Timing.after`."""
        due = next((due for due in self._times(moment_ms, 1) if due > moment_ms), None)
        # Forwards, what lies right behind a change by half an hour is passed over.
        while due is not None:
            before = next((one for one in self._times(due - 1, -1) if one < due), moment_ms)
            if before <= moment_ms:
                break
            due = before
        return due

    def until(self, moment_ms: int) -> int | None:
        """As `Timing.until`."""
        last = next((due for due in self._times(moment_ms, -1) if due <= moment_ms), None)
        # Backwards, an hour that occurs twice is taken for the first of the two.
        while last is not None:
            due = self.after(last)
            if due is None or due > moment_ms:
                break
            last = due
        return last

    def _times(self, moment_ms: int, direction: int) -> Iterator[int]:
        moment = datetime.fromtimestamp(moment_ms / 1000, UTC).replace(microsecond=0)
        if moment.year > _YEAR_MAX:
            return
        # A second more, so that one that is due at this very moment counts as being until it.
        start = moment if direction > 0 else moment + timedelta(seconds=1)
        zone = UTC if self._zone.key == "UTC" else self._zone
        for due in self._make(self._line, start.astimezone(zone), reverse=direction < 0):
            yield int(due.timestamp()) * 1000


class Every:
    """An interval, counted from a moment."""

    def __init__(self, every: Duration, anchor_ms: int) -> None:
        """Take a length of time from a second to a year.

        Raises:
            Invalid: `job.schedule`

        """
        try:
            self.seconds = parse_duration(every)
        except errors.Invalid as error:
            raise errors.new("job.schedule", f"every={every!r}: {error.args[0]}") from None
        if not _EVERY_MIN_S <= self.seconds <= _EVERY_MAX_S:
            text = f"every={every!r} is not from a second to a year"
            raise errors.new("job.schedule", text, every=every)
        self.anchor_ms = anchor_ms
        self._step_ms = round(self.seconds * 1000)

    def after(self, moment_ms: int) -> int:
        """As `Timing.after`."""
        steps = max((moment_ms - self.anchor_ms) // self._step_ms + 1, 1)
        return self.anchor_ms + steps * self._step_ms

    def until(self, moment_ms: int) -> int | None:
        """As `Timing.until`."""
        steps = (moment_ms - self.anchor_ms) // self._step_ms
        return self.anchor_ms + steps * self._step_ms if steps >= 1 else None


def timing_of(cron: str | None, every: Duration | None, zone: str, anchor_ms: int) -> Timing:
    """Return when a schedule is due.

    Raises:
        Invalid: `job.schedule`

    """
    if (cron is None) == (every is None):
        raise errors.new("job.schedule", "a schedule has either cron= or every=")
    if cron is not None:
        return Cron(cron, zone)
    if zone != "UTC":
        text = f"every= counts seconds, in no time zone: leave out zone={zone!r}, or write cron="
        raise errors.new("job.schedule", text, zone=zone)
    return Every(every or 0, anchor_ms)
