"""Messages as programs write them in lists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["padded"]

_FIELDS = 8


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
    return (subject, data, headers, None, None, 0, None, message_id)
