"""Which messages are meant: patterns of subjects, filters, numbers and times."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from typing import TYPE_CHECKING

import typer

from dwkernel import errors
from dwkernel._native import BusFilter
from dwkernel.bus import Bus
from dwkernel.units import parse_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dwkernel.bus import Message

__all__ = ["Wanted", "check", "matches", "moment_of", "overlap"]


def matches(pattern: str, subject: str) -> bool:
    """Return whether `pattern` stands for `subject`.

    >>> matches("a.*", "a.b"), matches("a.*", "a.b.c"), matches("a.>", "a.b.c"), matches("a.>", "a")
    (True, False, True, False)
    """
    return overlap(pattern, subject)


def overlap(one: str, other: str) -> bool:
    """Return whether there are subjects for which both patterns stand.

    >>> overlap("a.*", "*.b"), overlap("a.>", "a.b.*"), overlap("a.*", "a.b.c"), overlap("a", "b")
    (True, True, False, False)
    """
    for left, right in zip_longest(one.split("."), other.split(".")):
        if left is None or right is None:
            return False
        if ">" in (left, right):
            return True
        if left != right and "*" not in (left, right):
            return False
    return True


def check(patterns: Iterable[str]) -> None:
    """Refuse what is no pattern.

    Raises:
        Invalid: `bus.pattern`

    """
    with Bus() as bus:
        for pattern in patterns:
            bus.subscribe(pattern).close()


@dataclass(frozen=True)
class Wanted:
    """What of a stream is wanted: all by default.

    Attributes:
        patterns: any of these subjects.
        filter: and what this lets through.

    """

    patterns: Sequence[str] = ()
    filter: BusFilter | None = field(default=None)

    @classmethod
    def of(cls, patterns: Sequence[str] | None, expression: str | None) -> Wanted:
        """Read what was given on the command line.

        Raises:
            Invalid: `bus.pattern`, `bus.filter`

        """
        check(patterns or ())
        return cls(patterns or (), None if expression is None else BusFilter(expression))

    @property
    def is_all(self) -> bool:
        """Whether nothing is left out."""
        return not self.patterns and self.filter is None

    def takes(self, message: Message) -> bool:
        """Return whether a message is wanted."""
        if self.patterns and not any(matches(one, message.subject) for one in self.patterns):
            return False
        return self.filter is None or self.filter.accepts(message)


def moment_of(text: str | None) -> datetime | None:
    """Read a moment: ISO 8601, in local time if it says no zone; or how long ago, such as `2h`.

    Raises:
        BadParameter: it is neither

    """
    if text is None:
        return None
    with contextlib.suppress(ValueError, OverflowError, OSError):
        return datetime.fromisoformat(text).astimezone(UTC)
    try:
        return datetime.now(UTC) - timedelta(seconds=parse_duration(text))
    except (errors.Invalid, OverflowError):
        example = "2026-11-26T10:00:00Z, or how long ago: 2h"
        raise typer.BadParameter(f"{text!r} is no moment: write {example}") from None  # noqa: EM102, TRY003
