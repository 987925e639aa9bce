"""Subjects and patterns, by the same rules as a kernel's bus has them.

>>> matches("sensors.*.temp", "sensors.a.temp"), matches("a.>", "a"), covers("a.>", "a.*")
(True, False, True)
"""

from __future__ import annotations

import unicodedata

from dwkernel import errors

__all__ = ["check_pattern", "check_subject", "covers", "matches", "overlaps"]

_BYTES_MAX = 255


def check_subject(subject: str) -> str:
    """Return `subject` if it is one.

    Raises:
        Invalid: `bus.subject`

    """
    why = _fault(subject) or ("it has a wildcard" if _wild(subject) else None)
    if why is not None:
        raise errors.new("bus.subject", f"not a subject: {subject!r}: {why}")
    return subject


def check_pattern(pattern: str) -> str:
    """Return `pattern` if it is one.

    Raises:
        Invalid: `bus.pattern`

    """
    why = _fault(pattern)
    if why is None:
        parts = pattern.split(".")
        if any(part not in {">", "*"} and _wild(part) for part in parts):
            why = "a wildcard stands alone in its token"
        elif ">" in parts[:-1]:
            why = "'>' is the last token"
    if why is not None:
        raise errors.new("bus.pattern", f"not a pattern: {pattern!r}: {why}")
    return pattern


def matches(pattern: str, subject: str) -> bool:
    """Return whether `pattern` stands for `subject`."""
    return covers(pattern, subject)


def covers(pattern: str, other: str) -> bool:
    """Return whether `pattern` stands for every subject that `other`, a pattern, stands for."""
    mine, its = pattern.split("."), other.split(".")
    for index, part in enumerate(mine):
        if index >= len(its):
            return False
        if part == ">":
            return True
        one = its[index]
        if one == ">" or part not in {"*", one}:
            return False
    return len(mine) == len(its)


def overlaps(pattern: str, other: str) -> bool:
    """Return whether some subject is meant by both patterns."""
    mine, its = pattern.split("."), other.split(".")
    for part, token in zip(mine, its, strict=False):
        if ">" in (part, token):
            return True
        if "*" not in (part, token) and part != token:
            return False
    return len(mine) == len(its)


def _wild(text: str) -> bool:
    return "*" in text or ">" in text


def _fault(text: str) -> str | None:
    if not text:
        return "it is empty"
    if len(text.encode()) > _BYTES_MAX:
        return f"it is longer than {_BYTES_MAX} bytes"
    if not all(text.split(".")):
        return "a token is empty"
    if any(one.isspace() or unicodedata.category(one) == "Cc" for one in text):
        return "it has white space or control characters"
    return None
