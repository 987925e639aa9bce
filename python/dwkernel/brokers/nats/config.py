"""Streams and consumers as JetStream configures them.

What its configuration has no place for rides in the description, as JSON: `{"dwkernel": …}`.
https://docs.nats.io/nats-concepts/jetstream/streams, …/consumers
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel.brokers.settings import refuse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dwkernel.brokers.settings import ConsumerSettings, StreamSettings
    from dwkernel.bus.promises import Promises

__all__ = [
    "Kept",
    "companion_config",
    "companion_of",
    "consumer_config",
    "kept_of",
    "moment_of",
    "nanoseconds",
    "stream_config",
]

# No stream that `check_name` lets pass is called so.
_COMPANION = "DW:"
# Records of what was done and dead letters' versions, for each subject: see `done`.
_RECORDS_MAX = 4096
_WINDOW_MIN_S = 0.1
# JetStream wants a limit where there is a backoff.
_DELIVERIES_MAX = (1 << 31) - 1
_RETENTION = {"limits": "limits", "interest": "interest", "work_queue": "workqueue"}


@dataclass(frozen=True)
class Kept:
    """What a consumer keeps that JetStream does not know of.

    Attributes:
        ack: `"explicit"`, `"none"` or `"all"`.
        ack_wait_s: after so long a message is delivered again.
        max_deliver: how often at most; None is without limit.
        backoff_s: how long each redelivery waits.
        dead_letters: whether what is given up is kept.

    """

    ack: str
    ack_wait_s: float
    max_deliver: int | None
    backoff_s: tuple[float, ...]
    dead_letters: bool

    def wait_s(self, deliveries: int) -> float:
        """Return how long the redelivery after so many deliveries waits."""
        if not self.backoff_s:
            return 0.0
        return self.backoff_s[min(deliveries, len(self.backoff_s)) - 1]


def companion_of(stream: str) -> str:
    """Return the name of the stream that keeps a stream's records and dead letters."""
    return f"{_COMPANION}{stream}"


def stream_config(settings: StreamSettings, replicas: int, promises: Promises) -> dict[str, Any]:
    """Return the configuration of a new stream.

    Raises:
        Unsupported: `broker.unsupported`

    """
    settings.refuse_beyond(promises)
    age_s, window_s = settings.max_age_s, settings.duplicate_window_s
    if age_s is not None and window_s > age_s:
        text = "duplicate_window: on NATS it is no longer than max_age"
        raise errors.new("broker.unsupported", text, option="duplicate_window")
    return {
        "name": settings.name,
        "subjects": list(settings.subjects),
        "retention": _RETENTION[settings.retention],
        "max_consumers": -1,
        "max_msgs": settings.max_messages or -1,
        "max_bytes": settings.max_bytes or -1,
        "max_age": nanoseconds(age_s or 0),
        "max_msg_size": -1,
        "discard": settings.discard,
        "storage": "file",
        "num_replicas": replicas,
        "duplicate_window": nanoseconds(max(window_s, _WINDOW_MIN_S)),
        "allow_direct": True,
    }


def companion_config(stream: str, replicas: int) -> dict[str, Any]:
    """Return the configuration of the stream that keeps a stream's records and dead letters."""
    return {
        "name": companion_of(stream),
        "subjects": [f"$DW.{stream}.>"],
        "retention": "limits",
        "max_consumers": -1,
        "max_msgs": -1,
        "max_bytes": -1,
        "max_msgs_per_subject": _RECORDS_MAX,
        "discard": "old",
        "storage": "file",
        "num_replicas": replicas,
        "allow_direct": True,
    }


def consumer_config(settings: ConsumerSettings, promises: Promises) -> dict[str, Any]:
    """Return the configuration of a new consumer.

    Raises:
        Unsupported: `broker.unsupported`

    """
    settings.refuse_beyond(promises)
    if len(settings.subjects) > 1:
        refuse(promises.several_subjects, "subjects")
    kept = {
        "ack": settings.ack,
        "ack_wait_s": settings.ack_wait_s,
        "max_deliver": settings.max_deliver,
        "backoff_s": settings.backoff_s,
        "dead_letters": settings.dead_letters,
    }
    config: dict[str, Any] = {
        "durable_name": settings.name,
        "description": json.dumps({"dwkernel": kept}, separators=(",", ":")),
        "ack_policy": settings.ack,
        "replay_policy": "instant",
        # Counted here: what was delivered too often is kept as a dead letter before it is let go.
        "max_deliver": -1,
        "max_ack_pending": settings.max_ack_pending if settings.ack != "none" else 0,
        **_start(settings),
    }
    if settings.ack != "none":
        config["ack_wait"] = nanoseconds(settings.ack_wait_s)
    if settings.backoff_s and settings.ack != "none":
        # On JetStream a backoff takes the place of `ack_wait`; here it comes on top.
        config["backoff"] = [nanoseconds(settings.ack_wait_s + one) for one in settings.backoff_s]
        config["max_deliver"] = _DELIVERIES_MAX
    if settings.subjects:
        config["filter_subject"] = settings.subjects[0]
    return config


def kept_of(config: Mapping[str, Any]) -> Kept:
    """Return what a consumer's configuration keeps; another program's has less of it."""
    try:
        found = json.loads(config.get("description") or "{}")["dwkernel"]
        return Kept(
            found["ack"],
            float(found["ack_wait_s"]),
            found["max_deliver"],
            tuple(found["backoff_s"]),
            bool(found["dead_letters"]),
        )
    except (ValueError, KeyError, TypeError):
        limit = config.get("max_deliver", -1)
        return Kept(
            config.get("ack_policy", "explicit"),
            config.get("ack_wait", 30_000_000_000) / 1e9,
            limit if limit > 0 else None,
            (),
            dead_letters=True,
        )


def _start(settings: ConsumerSettings) -> dict[str, Any]:
    start = settings.start
    if isinstance(start, datetime):
        return {"deliver_policy": "by_start_time", "opt_start_time": moment_of(start)}
    if isinstance(start, int):
        if start <= 1:
            return {"deliver_policy": "all"}
        return {"deliver_policy": "by_start_sequence", "opt_start_seq": start}
    return {"deliver_policy": {"first": "all", "last": "last", "new": "new"}[start]}


def moment_of(moment: datetime) -> str:
    """Return a moment as JetStream writes it (RFC 3339)."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def nanoseconds(seconds: float) -> int:
    """Return whole nanoseconds."""
    return round(seconds * 1_000_000_000)
