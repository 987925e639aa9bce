"""Messages as programs write them in lists."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from dwkernel.units import parse_duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import Buffer

    from dwkernel.units import Duration

__all__ = ["due_s", "filled", "padded", "unix_ns"]

_FIELDS = 8


def due_s(delay: Duration | None, at: datetime | None) -> float | None:
    """Return in how many seconds a message is due; None for at once.

    Raises:
        Invalid: `stream.option` if both are given, or a time without a time zone; `unit.invalid`

    """
    from dwkernel import errors  # noqa: PLC0415 - who says neither needs none

    if at is None:
        return None if delay is None else parse_duration(delay)
    if delay is not None:
        raise errors.new("stream.option", "a message is due after a delay or at a time, not both")
    if at.tzinfo is None:
        text = f"at={at} has no time zone: datetime.now(UTC) has one"
        raise errors.new("stream.option", text)
    return max(0.0, at.timestamp() - time.time())


def filled(  # noqa: PLR0913, PLR0917 - each field of a message is one
    subject: str,
    data: Buffer,
    headers: Mapping[str, str] | None = None,
    key: str | None = None,
    schema: str | None = None,
    priority: int = 0,
    correlation_id: str | None = None,
    message_id: str | None = None,
) -> tuple[Any, ...]:
    """Return a message with every field, as `_native` takes it."""
    plain = None if headers is None else dict(headers)
    return (subject, data, plain, key, schema, priority, correlation_id, message_id)


def padded(message: Sequence[Any]) -> tuple[Any, ...]:
    """Return `(subject, data[, headers[, message_id]])` with every field that a message has.

    One that has them all (`(subject, data, headers, key, schema, priority, correlation_id,
    message_id)`) is returned as it is.

    Raises:
        ValueError: it has fewer than two fields, or another number than eight above four.

    """
    if len(message) == _FIELDS:
        return tuple(message)
    subject, data, *rest = message
    headers, message_id = (*rest, None, None)[: max(2, len(rest))]
    return filled(subject, data, headers, message_id=message_id)


def unix_ns(moment: datetime) -> int:
    """Return a moment in nanoseconds since 1970; one without a zone is local time.

    In whole numbers: a float of seconds is up to 128 ns off, and so may be behind what it names.
    """
    since = moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return since // timedelta(microseconds=1) * 1000
