"""Settings of streams and consumers as the server keeps them: names and values of a hash."""

from __future__ import annotations

import json
import math
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dwkernel.brokers.settings import ConsumerSettings, StreamSettings

__all__ = ["kept_of_consumer", "kept_of_stream"]

# What a double, a number of the server's scripts, holds exactly.
_NUMBER_MAX = 1 << 53


def kept_of_stream(settings: StreamSettings) -> list[Any]:
    """Return the settings of a stream."""
    kept: list[Any] = [
        *("subjects", json.dumps(settings.subjects, ensure_ascii=False)),
        *("discard", settings.discard),
        *("retention", settings.retention),
        *("keep_last_per_key", int(settings.keep_last_per_key)),
        *("duplicate_window", _milliseconds(settings.duplicate_window_s)),
    ]
    if settings.max_age_s is not None:
        kept += ["max_age", max(1, _milliseconds(settings.max_age_s))]
    if settings.max_bytes is not None:
        kept += ["max_bytes", settings.max_bytes]
    if settings.max_messages is not None:
        kept += ["max_messages", settings.max_messages]
    return kept


def kept_of_consumer(settings: ConsumerSettings) -> list[Any]:
    """Return a new consumer's name, where it begins, and its settings as the server keeps them."""
    start = settings.start
    if isinstance(start, datetime):
        begin: list[Any] = ["time", int(start.timestamp() * 1_000_000)]
    elif isinstance(start, int):
        begin = ["sequence", min(start, _NUMBER_MAX)]
    else:
        begin = [start, 0]
    kept = [
        *("ack", settings.ack),
        *("ack_wait", max(1, _milliseconds(settings.ack_wait_s))),
        *("backoff", json.dumps([_milliseconds(one) for one in settings.backoff_s])),
        *("max_ack_pending", settings.max_ack_pending),
        *("subjects", json.dumps(settings.subjects, ensure_ascii=False)),
        *("dead_letters", int(settings.dead_letters)),
    ]
    if settings.max_deliver is not None:
        kept += ["max_deliver", settings.max_deliver]
    return [settings.name, *begin, *kept]


def _milliseconds(seconds: float) -> int:
    """Return whole milliseconds, not fewer than asked for."""
    return math.ceil(seconds * 1000)
