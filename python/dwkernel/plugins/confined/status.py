"""What is known of a confined plugin's process."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Confinement", "Event", "Status"]


class Confinement(NamedTuple):
    """What keeps the process in."""

    landlock: int
    """Version of Landlock's interface that is used; 0 if this system has none."""
    seccomp: bool
    network: str
    """`"granted"`, `"denied"`, or `"open"` where nothing here can deny it."""
    missing: tuple[str, ...]
    """What this system cannot do, in sentences."""


class Event(NamedTuple):
    """Something that a plugin told, by `emit` or `log`."""

    name: str
    data: object


class Status(NamedTuple):
    """A moment's figures. Times are seconds since 1970."""

    id: str
    version: str
    state: str
    """`starting`, `running`, `stopping`, `ended`; a supervisor's also `waiting`, `quarantined`."""
    pid: int | None
    since: float
    calls: int
    """That were answered, in whatever way."""
    failures: int
    """Of these, that raised, came too late or were cut off."""
    open_calls: int
    restarts: int
    rss_bytes: int
    cpu_s: float
    events_dropped: int
    last_error: str | None
    """Why a call failed or the process ended, last time."""
    last_lines: tuple[str, ...]
    """What it printed, the last of it."""
    confinement: Confinement | None
