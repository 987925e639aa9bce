"""What a bus promises, and what it does not: said by each, and tested by `dwkernel.conformance`.

>>> import dwkernel as dw
>>> with dw.bus.Bus() as bus:
...     promise = bus.promises.delayed
...     bool(promise), promise.says
(True, 'durable at once, in the stream when it is due')
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["KERNEL", "Promise", "Promises"]


@dataclass(frozen=True)
class Promise:
    """One promise; true if it is kept.

    Attributes:
        kept: whether it is. What is not is refused (`broker.unsupported`) where it is asked for.
        says: how far it goes, or why it cannot be kept.

    """

    kept: bool
    says: str

    def __bool__(self) -> bool:
        """Return whether it is kept."""
        return self.kept


@dataclass(frozen=True)
class Promises:
    """What a bus and its streams promise.

    Attributes:
        exactly_once_window: a `message_id` is taken once within the stream's `duplicate_window`.
        atomic_batches: `publish_many` commits all of its messages or none.
        atomic_groups: `group()` commits messages for several streams, all or none.
        with_storage: messages are committed with a put, in one commit.
        delayed: `publish(delay=…)`.
        priority: `consumer(priority_window=…)`: of those that wait the most urgent comes first.
        inactive_after: `consumer(inactive_after=…)`: one that nobody uses is removed.
        max_age: messages go when they are older.
        max_bytes: the oldest go when they are more than so many bytes.
        max_messages: the oldest go when they are more.
        discard_new: at a limit new messages are refused.
        interest: `retention="interest"`: what all consumers have done goes.
        work_queue: `retention="work_queue"`: what is done goes, and what nobody reads waits.
        compaction_by_key: `keep_last_per_key`: older messages of the same key go.
        replay_from_time: `replay(from_time=…)`, and a consumer's `start=` of a moment.
        purge_by_subject: `purge(subject=…)`.
        several_subjects: a consumer's `subjects=` may be more than one pattern.
        filters: a consumer's `filter=`, an expression.
        ack_all: `ack="all"`: an acknowledgement covers all before it.
        ack_none: `ack="none"`: what was handed out is done.
        pause: a consumer's `pause` and `resume`.
        dead_letters: what is delivered no more is kept with its reason and history, and redriven.
        durable_ack: what was acknowledged with `durable=True` never comes again.
        exact_deliveries: `message.deliveries` counts every delivery, also those before a crash.
        survives_kill: what was confirmed is there after the process that holds it was killed.
        survives_power_cut: … after its machine lost power.
        survives_lost_disk: … after a disk was lost.
        several_machines: programs on several machines can use it.
        groups: `subscribe(group=…)`: of the subscriptions of a group one gets each message.
        no_responder: a request that nobody would answer is told so at once.
        message_bytes_max: the largest content of a message, in bytes.

    """

    exactly_once_window: Promise
    atomic_batches: Promise
    atomic_groups: Promise
    with_storage: Promise
    delayed: Promise
    priority: Promise
    inactive_after: Promise
    max_age: Promise
    max_bytes: Promise
    max_messages: Promise
    discard_new: Promise
    interest: Promise
    work_queue: Promise
    compaction_by_key: Promise
    replay_from_time: Promise
    purge_by_subject: Promise
    several_subjects: Promise
    filters: Promise
    ack_all: Promise
    ack_none: Promise
    pause: Promise
    dead_letters: Promise
    durable_ack: Promise
    exact_deliveries: Promise
    survives_kill: Promise
    survives_power_cut: Promise
    survives_lost_disk: Promise
    several_machines: Promise
    groups: Promise
    no_responder: Promise
    message_bytes_max: int = 1 << 20

    def __iter__(self) -> Iterator[tuple[str, Promise]]:
        """Yield each promise with its name."""
        for field in fields(self):
            promise = getattr(self, field.name)
            if isinstance(promise, Promise):
                yield field.name, promise

    def table(self) -> str:
        """Return a Markdown table of them."""
        lines = ["| promise | kept | how far |", "|---|---|---|"]
        lines += [f"| `{name}` | {'yes' if one else 'no'} | {one.says} |" for name, one in self]
        return "\n".join(lines)


def _yes(says: str) -> Promise:
    return Promise(kept=True, says=says)


KERNEL = Promises(
    exactly_once_window=_yes("ids are durable with their messages and read back at opening"),
    atomic_batches=_yes("one commit of the journal"),
    atomic_groups=_yes("one commit of the journal, whatever the number of streams"),
    with_storage=_yes("messages ride in the commit of the put"),
    delayed=_yes("durable at once, in the stream when it is due"),
    priority=_yes("within the consumer's window"),
    inactive_after=_yes("durably, with its dead letters; an opening counts as use"),
    max_age=_yes("a sweep lets them go"),
    max_bytes=_yes("the oldest go"),
    max_messages=_yes("the oldest go"),
    discard_new=_yes("refused with `stream.full`"),
    interest=_yes("what all consumers have done goes"),
    work_queue=_yes("what is done goes"),
    compaction_by_key=_yes("older ones go when 4 MiB or 4,096 commits are merged, not at once"),
    replay_from_time=_yes("by the time of the commit"),
    purge_by_subject=_yes("by a pattern"),
    several_subjects=_yes("up to 256 patterns"),
    filters=_yes("evaluated before delivery"),
    ack_all=_yes("it covers all that were delivered before"),
    ack_none=_yes("at most once"),
    pause=_yes("durable on return"),
    dead_letters=_yes("in the commit that ends the last delivery"),
    durable_ack=_yes("on return it is as durable as a put"),
    exact_deliveries=_yes("a count is durable before its delivery leaves"),
    survives_kill=_yes("as any put; drives in memory end with the process"),
    survives_power_cut=_yes("as any put: synced on drives before it is confirmed"),
    survives_lost_disk=_yes("as many as the geometry tolerates"),
    several_machines=Promise(kept=False, says="one process at a time has a store open"),
    groups=_yes("one of a group gets each message"),
    no_responder=_yes("at once"),
)
