"""What `Kernel.metrics` asks a kernel, and what the answers are called."""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from dwkernel import _native, errors
from dwkernel.metrics import Family, Kind, Snapshot
from dwkernel.reports import DRIVE_STATES, REDUNDANCIES, PoolStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from dwkernel.bus import Bus, Stream
    from dwkernel.queue import BoundedQueue, BytesQueue, QueueStats

__all__ = ["OTHERS", "gather"]

OTHERS = "(others)"
"""The label under which what is above the limit is joined."""

# Labels, and figures by field.
_Row = tuple[tuple[str, ...], "Mapping[str, Any]"]


class _Measure(NamedTuple):
    """A figure of many things of a kind.

    `join` says how the figures of several become one; None: they cannot, and there is none then.
    """

    field: str
    name: str
    kind: Kind
    unit: str
    help: str
    join: Literal["sum", "max"] | None = "sum"


class _Thing(NamedTuple):
    """A kind of things: figures' names begin with `prefix`, and `labels` tell things apart."""

    prefix: str
    labels: tuple[str, ...]
    measures: tuple[_Measure, ...]


_SUBSCRIPTION = _Thing(
    "dwkernel_subscription",
    ("subscription",),
    (
        _Measure("depth", "waiting_messages", "gauge", "messages", "Messages that wait."),
        _Measure("depth_bytes", "waiting_bytes", "gauge", "bytes", "About their bytes in memory."),
        _Measure("spilled", "spilled_messages", "gauge", "messages", "Those in the spill file."),
        _Measure("spilled_bytes", "spilled_bytes", "gauge", "bytes", "Their bytes in the file."),
        _Measure("lag_s", "oldest_seconds", "gauge", "seconds", "Age of what waits.", "max"),
        _Measure("busy_s", "busy_seconds", "gauge", "seconds", "Time at the message.", "max"),
        _Measure("queued", "taken_messages", "counter", "messages", "Messages taken in."),
        _Measure("delivered", "delivered_messages", "counter", "messages", "Handed out."),
        _Measure("dropped", "dropped_messages", "counter", "messages", "Dropped by its policy."),
        _Measure("filtered", "filtered_messages", "counter", "messages", "Its filter kept out."),
        _Measure("failed", "failed_messages", "counter", "messages", "Its handler raised."),
        _Measure("lost", "lost_messages", "counter", "messages", "Spilled and not read again."),
        _Measure("waits", "publisher_waits", "counter", "waits", "A publisher waited for it."),
    ),
)
_STREAM = _Thing(
    "dwkernel_stream",
    ("stream",),
    (
        _Measure("messages", "messages", "gauge", "messages", "Messages that are there."),
        _Measure("bytes", "bytes", "gauge", "bytes", "About the bytes of these."),
        _Measure("last_sequence", "committed_messages", "counter", "messages", "Ever committed."),
        _Measure("first_sequence", "first_sequence", "gauge", "", "The first number.", None),
        _Measure("last_sequence", "last_sequence", "gauge", "", "The last number.", None),
        _Measure("frames", "frames", "gauge", "frames", "Rows that are not merged yet."),
        _Measure("blocks", "blocks", "gauge", "blocks", "Rows with merged messages."),
        _Measure("delayed", "delayed_messages", "gauge", "messages", "Not due yet."),
        _Measure("window_ids", "window_ids", "gauge", "ids", "Message ids remembered."),
        _Measure("window_is_short", "window_is_short", "gauge", "", "1: ids are lost.", "max"),
        _Measure("failed", "upkeep_failed", "gauge", "", "1: merging or removing fails.", "max"),
    ),
)
_CONSUMER = _Thing(
    "dwkernel_consumer",
    ("stream", "consumer"),
    (
        _Measure("lag", "lag_messages", "gauge", "messages", "Messages it has not reached."),
        _Measure("pending", "pending_messages", "gauge", "messages", "Out, not acknowledged."),
        _Measure("scheduled", "scheduled_messages", "gauge", "messages", "To be delivered again."),
        _Measure("redelivered", "redelivered_messages", "gauge", "messages", "Of both, again."),
        _Measure("oldest_s", "oldest_seconds", "gauge", "seconds", "The oldest, not done.", "max"),
        _Measure("is_paused", "paused", "gauge", "", "1: it hands nothing out.", "max"),
        _Measure("deliveries", "deliveries", "counter", "deliveries", "Deliveries so far."),
        _Measure("acknowledged", "acknowledged_messages", "counter", "messages", "Acknowledged."),
        _Measure("dead", "dead_letters", "counter", "letters", "Became dead letters."),
        _Measure("floor_sequence", "floor_sequence", "gauge", "", "Done up to here.", None),
    ),
)
_POOL = _Thing(
    "dwkernel_pool",
    (),
    (
        _Measure("usable_bytes", "usable_bytes", "gauge", "bytes", "Room for content, in all."),
        _Measure("used_bytes", "used_bytes", "gauge", "bytes", "Content that is stored."),
        _Measure("objects", "objects", "gauge", "objects", "Objects, containers, other rows."),
        _Measure("stripes", "stripes", "gauge", "stripes", "Stripes of the pool."),
        _Measure("degraded_stripes", "degraded_stripes", "gauge", "stripes", "They miss a shard."),
        _Measure("lost_stripes", "lost_stripes", "gauge", "stripes", "They cannot be read."),
        _Measure("hedged_reads", "hedged_reads", "counter", "reads", "Asked other drives, too."),
        _Measure("hedges_won", "hedges_won", "counter", "", "The others were complete first."),
        _Measure("tolerance", "tolerated_drives", "gauge", "drives", "May be lost, if full."),
        _Measure("epoch", "epoch", "gauge", "", "Membership's version."),
        _Measure("is_read_only", "read_only", "gauge", "", "1: it cannot be written to."),
        _Measure("advice", "advice", "gauge", "", "How many things somebody should do."),
    ),
)
_DRIVE = _Thing(
    "dwkernel_drive",
    ("drive",),
    (
        _Measure("capacity_bytes", "capacity_bytes", "gauge", "bytes", "The whole drive."),
        _Measure("used_bytes", "used_bytes", "gauge", "bytes", "What the pool wrote on it."),
        _Measure("journal", "journal", "gauge", "", "1: it holds a copy of the journal.", "max"),
        _Measure("late_reads", "late_reads", "counter", "reads", "Later than others usually."),
    ),
)
_QUEUE = _Thing(
    "dwkernel_queue",
    ("queue",),
    (
        _Measure("depth", "waiting_items", "gauge", "items", "Items in it."),
        _Measure("puts", "put_items", "counter", "items", "Items that went in."),
        _Measure("gets", "taken_items", "counter", "items", "Items that came out."),
        _Measure("put_waits", "put_waits", "counter", "waits", "Somebody slept for room."),
        _Measure("get_waits", "get_waits", "counter", "waits", "Somebody slept for items."),
    ),
)


def gather(
    bus: Bus, pool: PoolStatus, queues: Mapping[str, BoundedQueue[Any] | BytesQueue], limit: int
) -> Snapshot:
    """Ask everything once.

    Raises:
        State: `store.closed`

    """
    taken_at, start = datetime.now(UTC), time.monotonic()
    families = [_about(), *_of_pool(pool)]
    subscriptions = [((one.name,), vars(one)) for one in bus.stats()]
    families.append(_count("dwkernel_subscriptions", "subscriptions", len(subscriptions)))
    families += _table(_SUBSCRIPTION, subscriptions, limit)
    streams = bus.streams()
    families.append(_count("dwkernel_streams", "streams", len(streams)))
    families += _table(_STREAM, _rows_of(streams), limit)
    consumers = [row for stream in streams for row in _consumers_of(stream)]
    families.append(_count("dwkernel_consumers", "consumers", len(consumers)))
    families += _table(_CONSUMER, consumers, limit)
    named = [((name,), _figures(queue.stats())) for name, queue in queues.items()]
    families += _table(_QUEUE, named, limit)
    kept = [family for family in families if family.samples]
    return Snapshot(taken_at, time.monotonic() - start, kept)


def _figures(stats: QueueStats | dict[str, int]) -> Mapping[str, Any]:
    return {"depth": stats["items"], **stats} if isinstance(stats, dict) else stats.to_dict()


def _about() -> Family:
    family = Family("dwkernel_build_info", "gauge", "", "1, with the version that runs.")
    family.add(1, {"version": _native.__version__})
    return family


def _count(name: str, unit: str, count: int) -> Family:
    family = Family(name, "gauge", unit, f"How many {unit} there are.")
    family.add(count, {})
    return family


def _of_pool(status: PoolStatus) -> Iterator[Family]:
    figures = {
        **{one.field: getattr(status, one.field, 0) for one in _POOL.measures},
        "is_read_only": status.read_only is not None,
        "advice": len(status.advice),
    }
    yield from _table(_POOL, [((), figures)], 1)
    redundancy = Family(
        "dwkernel_pool_redundancy", "gauge", "", "1 for its redundancy.", one_of=True
    )
    for known in REDUNDANCIES:
        redundancy.add(int(status.redundancy == known), {"redundancy": known})
    yield redundancy
    drives = [
        ((drive.id,), {one.field: getattr(drive, one.field) for one in _DRIVE.measures})
        for drive in status.drives
    ]
    yield from _table(_DRIVE, drives, len(drives))
    states = Family("dwkernel_drive_state", "gauge", "", "1 for its state.", one_of=True)
    for drive in status.drives:
        for known in DRIVE_STATES:
            states.add(int(drive.state == known), {"drive": drive.id, "state": known})
    yield states


def _rows_of(streams: Iterable[Stream]) -> Iterator[_Row]:
    for stream in streams:
        # One that was deleted in this moment is left out.
        with contextlib.suppress(errors.NotFound):
            status = stream.status()
            yield (stream.name,), {**vars(status), "failed": status.failure is not None}


def _consumers_of(stream: Stream) -> list[_Row]:
    rows: list[_Row] = []
    with contextlib.suppress(errors.NotFound):
        for consumer in stream.consumers():
            status = consumer.status()
            figures = {**vars(status), "oldest_s": status.oldest_s or 0.0}
            rows.append(((stream.name, consumer.name), figures))
    return rows


def _table(thing: _Thing, rows: Iterable[_Row], limit: int) -> list[Family]:
    """Return a family for each measure: up to `limit` things by label, the others as one."""
    by_label: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for labels, figures in sorted(rows, key=lambda row: row[0]):
        place = labels
        if labels not in by_label and len(by_label) >= limit:
            place = (OTHERS,) * len(labels)
        by_label.setdefault(place, []).append(figures)
    # Each thing's labels are one dictionary, for all of its figures.
    named = [
        (dict(zip(thing.labels, labels, strict=True)), together)
        for labels, together in by_label.items()
    ]
    return [_family(thing, measure, named) for measure in thing.measures]


def _family(
    thing: _Thing,
    measure: _Measure,
    named: Iterable[tuple[dict[str, str], list[Mapping[str, Any]]]],
) -> Family:
    name = f"{thing.prefix}_{measure.name}"
    family = Family(name, measure.kind, measure.unit, measure.help)
    wanted, join = measure.field, max if measure.join == "max" else sum
    for labels, together in named:
        if len(together) == 1:
            family.add(together[0][wanted], labels)
        elif measure.join is not None:
            family.add(join(figures[wanted] for figures in together), labels)
    return family
