"""What NATS JetStream promises, with this adapter on it.

Found with nats-server 2.9; where a newer one can do more, this adapter does not ask for it yet.
"""

from __future__ import annotations

from dwkernel.bus.promises import Promise, Promises

__all__ = ["HEADROOM_BYTES", "promises_of"]

# The adapter's own headers, and those of a dead letter.
HEADROOM_BYTES = 8 << 10
_DATA_BYTES_MAX = 1 << 20


def _yes(says: str) -> Promise:
    return Promise(kept=True, says=says)


def _no(says: str) -> Promise:
    return Promise(kept=False, says=says)


def promises_of(max_payload: int, replicas: int) -> Promises:
    """Return what is promised.

    Args:
        max_payload: the largest message that the server takes, in bytes, headers included.
        replicas: on how many servers a stream is kept.

    """
    is_alone = replicas == 1
    return Promises(
        exactly_once_window=_yes(
            "by Nats-Msg-Id; an id is forgotten with its message, and the window is no longer "
            "than max_age"
        ),
        atomic_batches=_no(
            "JetStream commits each message by itself; publish_each sends many at a time"
        ),
        atomic_groups=_no("JetStream commits each message by itself"),
        with_storage=_no("NATS and a store have no commit in common"),
        delayed=_no("nats-server has no delayed messages before 2.12"),
        inactive_after=_no("consumers on JetStream are made to stay"),
        priority=_no("JetStream delivers in order; the field travels with the message"),
        max_age=_yes("from 100 ms on"),
        max_bytes=_yes("as JetStream counts them, headers included"),
        max_messages=_yes("the oldest go at once"),
        discard_new=_yes("refused with `stream.full`"),
        interest=_yes("a message that no consumer waits for is not kept at all"),
        work_queue=_yes("one consumer for each subject; a second one is refused"),
        compaction_by_key=_no("JetStream compacts by subject, not by key"),
        replay_from_time=_yes("by the server's clock"),
        purge_by_subject=_yes("by a pattern"),
        several_subjects=_no("one pattern: nats-server takes no more before 2.10"),
        filters=_no("JetStream filters by subject alone"),
        ack_all=_yes("it covers all before it"),
        ack_none=_yes("at most once; what was handed out is recorded before"),
        pause=_no("nats-server has no pause before 2.11"),
        dead_letters=_yes(
            "copied into a stream beside, then given up; of their history the last event is kept"
        ),
        durable_ack=_yes(
            "recorded in a stream beside: the server's own record is 0.1 s late, and after a "
            "kill what was confirmed in that time would come again; of an acknowledgement in the "
            "last moments of ack_wait the redelivery may be under way"
        ),
        exact_deliveries=_no(
            "the server writes counts down 0.1 s late: after it was killed they may be lower; and "
            "2.9.10 miscounts by one if a message is due in the moment when a request ends"
        ),
        survives_kill=_yes("written to the server's files before it is confirmed"),
        survives_power_cut=_no(
            "the server syncs its files every two minutes by default (sync_interval, from 2.10 "
            "on): one machine that loses power may lose as much"
            if is_alone
            else "unless a majority of the servers keeps its power"
        ),
        survives_lost_disk=(
            _no("one copy; connect with replicas=3 to a cluster")
            if is_alone
            else _yes(f"{replicas} copies; as long as a majority is there")
        ),
        several_machines=_yes("that is what it is for"),
        groups=_yes("queue groups"),
        no_responder=_yes("at once"),
        message_bytes_max=min(_DATA_BYTES_MAX, max_payload - HEADROOM_BYTES),
    )
