"""How often each subject occurs in a stream, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import nlargest
from typing import TYPE_CHECKING

from dwkernel.reports import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dwkernel.bus import Message
    from dwkernel.cli.bus.subjects import Wanted

__all__ = ["Counted", "SubjectCount", "count_subjects"]

# So many subjects are counted at a time, some 200 bytes each.
SUBJECTS_MAX = 65_536
_TELL_EVERY = 1000


@dataclass(frozen=True, slots=True)
class SubjectCount(Report):
    """What a stream holds of one subject.

    Attributes:
        subject: the subject.
        messages: how many.
        bytes: of their data.

    """

    subject: str
    messages: int
    bytes: int


@dataclass(slots=True)
class Counted(Report):
    """What a stream holds by subject.

    Attributes:
        subjects: the most frequent ones, most messages first.
        others: how many messages have another one.
        other_bytes: of their data.
        is_exact: False if there were too many subjects to count them all: then these are the least
            that there are, and some of the others may be theirs.

    """

    subjects: list[SubjectCount] = field(default_factory=list)
    others: int = 0
    other_bytes: int = 0
    is_exact: bool = True


def count_subjects(
    messages: Iterable[Message],
    wanted: Wanted,
    top: int,
    tell: Callable[[int, int | None], object] | None,
) -> Counted:
    """Read messages and count their subjects; `tell` hears how many were read."""
    counts: dict[str, list[int]] = {}
    result, read = Counted(), 0
    for read, message in enumerate(messages, 1):
        if wanted.takes(message):
            one = counts.setdefault(message.subject, [0, 0])
            one[0] += 1
            one[1] += len(message.data)
            if len(counts) > SUBJECTS_MAX:
                result.is_exact = False
                counts = _keep(counts, SUBJECTS_MAX // 2, result)
        if tell is not None and read % _TELL_EVERY == 0:
            tell(read, None)
    if tell is not None:
        tell(read, None)
    counts = _keep(counts, top, result)
    result.subjects = [SubjectCount(subject, *one) for subject, one in counts.items()]
    return result


def _keep(counts: dict[str, list[int]], limit: int, result: Counted) -> dict[str, list[int]]:
    """Return the `limit` largest, and add the others to `result`."""
    kept = dict(nlargest(limit, counts.items(), key=lambda item: (item[1], item[0])))
    for subject, (messages, data_bytes) in counts.items():
        if subject not in kept:
            result.others += messages
            result.other_bytes += data_bytes
    return kept
