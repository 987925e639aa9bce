"""What changed between two configurations, and what is told of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dwkernel.config.layers import dotted
from dwkernel.config.looking import field_at, flat, is_live
from dwkernel.config.secret import Secret
from dwkernel.config.values import ByteSize, Seconds
from dwkernel.reports import Report

if TYPE_CHECKING:
    from datetime import datetime

    from dwkernel.config.registry import Shape
    from dwkernel.config.sections import Config

__all__ = ["Change", "ConfigStatus", "HistoryEntry", "ReloadReport", "differences", "plain"]


def plain(value: Any) -> Any:  # noqa: PLR0911 - one for each kind of value
    """Return a value as JSON has it: sizes and durations as written, secrets as references."""
    if isinstance(value, ByteSize | Seconds | Secret):
        return str(value)
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(part) for part in value]
    if isinstance(value, str) and value.startswith("literal:"):
        return "literal:…"
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if hasattr(type(value), "model_fields"):
        return {name: plain(getattr(value, name)) for name in type(value).model_fields}
    return str(value)


@dataclass(frozen=True, slots=True)
class Change(Report):
    """A field that changed.

    Attributes:
        path: with dots.
        old: what it was; None if it was not there.
        new: what it is; None if it is not there.
        live: it counts at once; else at the next start.

    """

    path: str
    old: Any
    new: Any
    live: bool

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        old, new = plain(self.old), plain(self.new)
        return {"path": self.path, "old": old, "new": new, "live": self.live}

    def __str__(self) -> str:
        """Print for people."""
        later = "" if self.live else " (at the next start)"
        return f"{self.path}: {plain(self.old)} -> {plain(self.new)}{later}"


@dataclass(frozen=True, slots=True)
class ReloadReport(Report):
    """What a change of the configuration did.

    Attributes:
        version: of the configuration now.
        changed: fields that changed; none if there was nothing new.
        restart_required: paths that wait for a restart, of this change and of those before.

    """

    version: int
    changed: list[Change]
    restart_required: list[str]

    def __str__(self) -> str:
        """Print for people."""
        if not self.changed:
            return f"version {self.version}: nothing changed"
        return "\n".join([f"version {self.version}", *map(str, self.changed)])


@dataclass(frozen=True, slots=True)
class HistoryEntry(Report):
    """A version of the configuration.

    Attributes:
        version: its number, from 1 on; numbers of changes that were rolled back are not used again.
        at: since when it counts.
        why: `"start"`, `"file"`, `"signal"`, `"call"`, `"rollback"` or `"registered"`.
        changed: what was new in it.

    """

    version: int
    at: datetime
    why: str
    changed: list[Change]


@dataclass(frozen=True, slots=True)
class ConfigStatus(Report):
    """How the configuration is.

    Attributes:
        version: what counts.
        since: since when.
        files: what is read, in order; later ones win.
        watching: whether files are watched.
        last_attempt: when somebody last tried to change it; None if nobody did.
        last_error: why that failed, or why files that are there do not count yet; None if all is
            well.
        last_error_code: its code.
        restart_required: paths whose values count at the next start only.
        stuck: subscribers that have not returned from their call, by function and path.

    """

    version: int
    since: datetime
    files: list[str]
    watching: bool
    last_attempt: datetime | None = None
    last_error: str | None = None
    last_error_code: str | None = None
    restart_required: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)


def differences(shape: Shape, old: Config, new: Config) -> list[Change]:
    """Return the fields in which two configurations differ, in the model's order."""
    before, after = flat(old), flat(new)
    routes = [*after, *(route for route in before if route not in after)]
    return [
        Change(dotted(route), before.get(route), after.get(route), is_live(field_at(shape, route)))
        for route in routes
        if before.get(route) != after.get(route)
    ]
