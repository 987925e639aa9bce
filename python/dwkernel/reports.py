"""What status and long work give back: for people, for notebooks, and as plain data."""

from __future__ import annotations

import html
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from dwkernel.units import format_duration, format_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "DriveStatus",
    "PackReport",
    "PoolStatus",
    "Progress",
    "RebuildReport",
    "Report",
    "ScrubReport",
]


DRIVE_STATES = ("ok", "missing", "failed", "suspect", "stale", "draining", "foreign")
REDUNDANCIES = ("full", "degraded", "lost")


def rfc3339(moment: datetime) -> str:
    """Return a moment as JSON has it: RFC 3339, in UTC.

    >>> from datetime import timedelta, timezone
    >>> rfc3339(datetime(2026, 3, 2, 0, 5, 9, tzinfo=timezone(timedelta(hours=2))))
    '2026-03-01T22:05:09Z'
    """
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def plain(value: object) -> Any:
    """Return `value` as JSON can write it."""
    if isinstance(value, Report):
        return value.to_dict()
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, dict):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return an HTML table."""
    cells = "".join(f"<th>{html.escape(text)}</th>" for text in head)
    lines = [
        "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    ]
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def counted(number: int, noun: str) -> str:
    """Return `number` of something, in English.

    >>> counted(1, "file"), counted(2, "stripe"), counted(0, "empty directory")
    ('1 file', '2 stripes', '0 empty directories')
    """
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


class Report:
    """Base of everything that verbs report: a dataclass with `to_dict` and `_repr_html_`."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, ready for JSON."""
        names = (part.name for part in fields(self))  # type: ignore[arg-type]
        return {name: plain(getattr(self, name)) for name in names}

    def _repr_html_(self) -> str:
        """Return a table for notebooks."""
        return table(("", ""), self.to_dict().items())


@dataclass(frozen=True, slots=True)
class Progress(Report):
    """How far a piece of work is.

    Attributes:
        work: `"put"`, `"scrub"`, `"rebuild"`, …
        done: what is done, in `unit`.
        total: of how much, or None if nobody knows.
        unit: `"bytes"` or `"stripes"`.

    """

    work: str
    done: int
    total: int | None
    unit: str


@dataclass(frozen=True, slots=True)
class DriveStatus(Report):
    """One drive of the pool.

    Attributes:
        id: what people call it: `"d1"`.
        path: where it is, or was seen last.
        state: `"ok"`, `"missing"`, `"failed"`, `"suspect"`, `"stale"`, `"draining"`, `"foreign"`.
        capacity_bytes: all of it.
        used_bytes: what the pool wrote on it, without preallocated room.
        labels: what its owner calls it by.
        journal: whether it holds a copy of the journal.
        uuid: its identity.
        late_reads: answers to reads, since opening, that came later than others usually do.

    """

    id: str
    path: str
    state: str
    capacity_bytes: int
    used_bytes: int
    labels: dict[str, str] = field(default_factory=dict)
    journal: bool = False
    uuid: str = ""
    late_reads: int = 0


@dataclass(frozen=True, slots=True)
class PoolStatus(Report):
    """How the pool is.

    Attributes:
        id: the pool's identity.
        geometry: how data is laid out: `"4+2"`.
        redundancy: `"full"`, `"degraded"` (all can be read, less can be lost) or `"lost"`.
        usable_bytes: room for content, all told.
        used_bytes: content that is stored.
        drives: in the order in which the pool was made.
        advice: what to do, in sentences; empty if nothing.
        warnings: what else is worth knowing.
        objects: how many rows the map holds, containers included.
        stripes: how many stripes there are.
        epoch: membership's version.
        tolerance: how many drives, any, may be lost when redundancy is full.
        degraded_stripes: stripes that miss a shard.
        lost_stripes: stripes that cannot be read with the drives that are here.
        read_only: why it can only be read, or None.
        hedged_reads: reads, since opening, that asked other drives as one was late.
        hedges_won: those of them for which the others were complete first.

    """

    id: str
    geometry: str
    redundancy: str
    usable_bytes: int
    used_bytes: int
    drives: list[DriveStatus]
    advice: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    objects: int = 0
    stripes: int = 0
    epoch: int = 0
    tolerance: int = 0
    degraded_stripes: int = 0
    lost_stripes: int = 0
    read_only: str | None = None
    hedged_reads: int = 0
    hedges_won: int = 0

    @classmethod
    def _of(cls, native: Mapping[str, Any]) -> PoolStatus:
        drives = [DriveStatus(**drive) for drive in native["drives"]]
        return cls(**{**native, "drives": drives})

    def drive(self, name: str) -> DriveStatus:
        """Return the drive that is called `name`, by id or path."""
        found = next((drive for drive in self.drives if name in (drive.id, drive.path)), None)
        if found is None:
            from dwkernel import errors  # noqa: PLC0415 - reports stand below errors

            raise errors.new("drive.unknown", f"no drive {name!r} in this pool", drive=name)
        return found

    def __str__(self) -> str:
        """Print for people."""
        head = (
            f"pool {self.id[:8]}  {self.geometry}  redundancy {self.redundancy}  "
            f"{format_size(self.used_bytes)} of {format_size(self.usable_bytes)} used"
        )
        width = max((len(drive.path) for drive in self.drives), default=0)
        lines = [
            f"  {drive.id:<6} {drive.state:<9} {drive.path:<{width}}  "
            f"{format_size(drive.used_bytes):>10} of {format_size(drive.capacity_bytes)}"
            for drive in self.drives
        ]
        notes = [f"  ! {text}" for text in self.advice] + [f"  {text}" for text in self.warnings]
        return "\n".join([head, *lines, *notes])

    def _repr_html_(self) -> str:
        """Return two tables for notebooks."""
        rows = [
            (drive.id, drive.state, drive.path, format_size(drive.used_bytes))
            for drive in self.drives
        ]
        notes = "".join(f"<li>{html.escape(text)}</li>" for text in (*self.advice, *self.warnings))
        head = html.escape(f"{self.geometry}, redundancy {self.redundancy}")
        return f"<b>{head}</b>{table(('drive', 'state', 'path', 'used'), rows)}<ul>{notes}</ul>"


# Numbers of work that say nothing bad: they are told apart from what was found.
_QUIET = frozenset({"stripes", "good_shards"})


@dataclass(frozen=True, slots=True)
class _Work(Report):
    _NOTHING: ClassVar[str] = ""

    seconds: float = 0.0
    numbers: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __getattr__(self, name: str) -> int:
        """Return one of the numbers by its name."""
        if name in _Work.__slots__:
            raise AttributeError(name)
        try:
            return self.numbers[name]
        except KeyError:
            raise AttributeError(name) from None

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, ready for JSON."""
        return {"seconds": self.seconds, **self.numbers, "notes": list(self.notes)}

    def __str__(self) -> str:
        """Print for people: what was looked at, what was wrong, what was done."""
        told = [self._looked(), *self._found(), *self._moved()]
        first = f"{', '.join(text for text in told if text)} in {format_duration(self.seconds)}"
        return "\n".join([first, *(f"  {note}" for note in self.notes)])

    def _looked(self) -> str:
        return counted(self.numbers.get("stripes", 0), "stripe")

    def _found(self) -> list[str]:
        wrong = [
            self._said(name, number)
            for name, number in self.numbers.items()
            if number and name not in _QUIET and not name.endswith("_bytes")
        ]
        return wrong or [self._NOTHING]

    def _moved(self) -> list[str]:
        moved = (("read", "read_bytes"), ("written", "written_bytes"))
        return [
            f"{format_size(self.numbers[name])} {verb}"
            for verb, name in moved
            if self.numbers.get(name)
        ]

    @staticmethod
    def _said(name: str, number: int) -> str:
        kind, _, noun = name.partition("_")
        if not noun:
            return counted(number, name.removesuffix("s"))
        return counted(number, f"{kind} {noun.replace('_', ' ').removesuffix('s')}")


class ScrubReport(_Work):
    """What a scrub read, found and repaired; each number is an attribute too."""

    __slots__ = ()
    _NOTHING = "nothing wrong"

    def _looked(self) -> str:
        shards = counted(self.numbers.get("good_shards", 0), "shard")
        return f"{super()._looked()}, {shards} verified"


class RebuildReport(_Work):
    """What a rebuild read and restored; each number is an attribute too."""

    __slots__ = ()
    _NOTHING = "nothing missing"


class PackReport(_Work):
    """What packing gave back and moved; each number is an attribute too.

    `dropped_stripes` held nothing any more, `freed_bytes` of content lay on them and on those that
    were emptied, `packed_bytes` were moved, `unreadable_pieces` could not be and stay.
    """

    __slots__ = ()
    _NOTHING = "nothing to pack"

    def _looked(self) -> str:
        return ""

    def _moved(self) -> list[str]:
        moved = (("freed", "freed_bytes"), ("moved", "packed_bytes"))
        return [
            f"{format_size(self.numbers[name])} {verb}"
            for verb, name in moved
            if self.numbers.get(name)
        ]
