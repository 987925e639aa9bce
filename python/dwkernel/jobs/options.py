"""What callers say of a job, checked: every option of `submit` and `schedule`."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel.jobs.settings import ATTEMPTS_MAX, STEPS_MAX
from dwkernel.units import parse_duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dwkernel.jobs.kinds import JobKind
    from dwkernel.jobs.settings import JobsSection
    from dwkernel.units import Duration

__all__ = ["attempts_of", "due_ms", "every_s", "policy", "priority_of", "unique_name"]

PRIORITY_MAX = 255
_UNIQUE_MAX = 200
_TIME_MAX_S = 10 * 366 * 24 * 3600.0


def policy(kind: JobKind | None, given: Mapping[str, Any], settings: JobsSection) -> dict[str, Any]:
    """Return how a job is tried: what was given, or what its kind says, or the settings.

    Raises:
        Invalid: `job.option`, `unit.invalid`

    """

    def chosen(name: str) -> Any:
        for value in (given[name], getattr(kind, name, None), getattr(settings, name, None)):
            if value is not None:
                return value
        return None

    timeout = chosen("timeout")
    return {
        "timeout_s": None if timeout is None else _length("timeout", timeout),
        "max_attempts": attempts_of(chosen("max_attempts")),
        "backoff_s": backoff_s(chosen("backoff")),
    }


def backoff_s(steps: Any) -> tuple[float, ...]:
    """Return the waits between attempts, in seconds.

    Raises:
        Invalid: `job.option`, `unit.invalid`

    """
    if isinstance(steps, str | int | float):
        raise errors.new("job.option", f'backoff={steps!r} is one wait: write ["1s", "10s"]')
    backoff = tuple(_length("backoff", step) for step in steps)
    if not 1 <= len(backoff) <= STEPS_MAX:
        raise errors.new("job.option", f"backoff has 1 to {STEPS_MAX} waits")
    return backoff


def attempts_of(given: object) -> int:
    """Return how often a job is tried, 1 to 1,000.

    Raises:
        Invalid: `job.option`

    """
    return between("max_attempts", given, 1, ATTEMPTS_MAX)


def priority_of(given: object) -> int:
    """Return a priority, 0 to 255.

    Raises:
        Invalid: `job.option`

    """
    return between("priority", given, 0, PRIORITY_MAX)


def every_s(every: Duration | None) -> float | None:
    """Return an interval in seconds.

    Raises:
        Invalid: `job.schedule`

    """
    if every is None:
        return None
    try:
        return parse_duration(every)
    except errors.Invalid as error:
        raise errors.new("job.schedule", f"every={every!r}: {error.args[0]}") from None


def between(option: str, given: object, least: int, most: int) -> int:
    """Return a number within its range.

    Raises:
        Invalid: `job.option`

    """
    if not isinstance(given, int) or isinstance(given, bool) or not least <= given <= most:
        text = f"{option}={given!r} is no number from {least} to {most:,}"
        raise errors.new("job.option", text, option=option)
    return given


def unique_name(unique: object) -> str | None:
    """Return the name under which a job is there once.

    Raises:
        Invalid: `job.option`

    """
    if unique is None or (isinstance(unique, str) and 1 <= len(unique) <= _UNIQUE_MAX):
        return unique
    raise errors.new("job.option", f"unique={unique!r} is no name of 1 to {_UNIQUE_MAX} characters")


def due_ms(now_ms: int, at: datetime | None, delay: Duration | None) -> int:
    """Return when a job may begin.

    Raises:
        Invalid: `job.option`, `unit.invalid`

    """
    if at is not None and delay is not None:
        raise errors.new("job.option", "give at= or delay=, not both")
    if at is not None:
        given: object = at
        if not isinstance(given, datetime) or given.tzinfo is None:
            raise errors.new("job.option", f"at={at!r} is no datetime with a time zone")
        at_ms = round(given.timestamp() * 1000)
        if at_ms - now_ms > _TIME_MAX_S * 1000:
            raise errors.new("job.option", f"at={at} is more than ten years from now")
        return max(now_ms, at_ms)
    if delay is None:
        return now_ms
    return now_ms + round(_length("delay", delay) * 1000)


def _length(option: str, given: Duration) -> float:
    """Return a length of time up to ten years."""
    seconds = parse_duration(given)
    if seconds > _TIME_MAX_S:
        text = f"{option}={given!r} is more than ten years"
        raise errors.new("job.option", text, option=option)
    return seconds
