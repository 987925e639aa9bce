"""Moments as people read them: in their time zone, which they say; JSON has them in UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import tzinfo

__all__ = ["local", "second", "stamp"]


def local(moment: datetime, zone: tzinfo | None = None) -> datetime:
    """Return a moment in this machine's time zone (`TZ`), or in `zone`.

    One that nobody could have written stays in UTC.
    """
    try:
        return moment.astimezone(zone)
    except (OverflowError, ValueError, OSError):
        return moment.astimezone(UTC)


def second(moment: datetime, zone: tzinfo | None = None) -> str:
    """Return a moment to the second.

    >>> from datetime import timedelta, timezone
    >>> second(datetime(2026, 3, 1, 22, 5, 9, tzinfo=UTC), timezone(timedelta(hours=2)))
    '2026-03-02 00:05:09+02:00'
    """
    return local(moment, zone).isoformat(" ", "seconds")


def stamp(moment: datetime, *, short: bool) -> str:
    """Return a moment to the millisecond: with `short` without its date if that is today's."""
    moment = local(moment)
    if short and moment.date() == local(datetime.now(UTC)).date():
        return moment.timetz().isoformat("milliseconds")
    return moment.isoformat(" ", "milliseconds") if short else moment.isoformat()
