"""What the threads of a pump share: messages in hand, the breaker, counts, and who may go on.

One *keeper* thread fetches and keeps what is in hand alive; `in_flight` *workers* call the sink.
All of them meet here, under one lock, which is never held while a consumer, a message or a sink is
called.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from dwkernel._latch import Condition
from dwkernel.sinks.breaker import Backoff, Breaker
from dwkernel.sinks.desk import OUT, SETTLING, WAITING, Desk, Item
from dwkernel.sinks.outcome import Outcome, outcome_of
from dwkernel.sinks.status import Counts

if TYPE_CHECKING:
    from dwkernel._native import Message
    from dwkernel.sinks.sink import Order

__all__ = ["Batch", "Core", "Plan"]

# What is in hand takes about so much memory at most.
_HAND_BYTES_MAX = 32 << 20
# In order so many are held, so that keys that fail do not hold up the others at once.
HELD_MAX = 1000
# A store's consumer makes each fetch durable: so many, at least, share that.
_HELD_MIN = 64
_FETCH_MIN = 16
_FETCH_FIRST = 32
# While there is work acknowledgements are made durable as often: no more comes again after a crash.
_FLUSH_EVERY_S = 0.1

Phase = Literal["running", "paused", "gone", "closing", "closed"]


@dataclass(frozen=True)
class Plan:
    """How a pump goes about it."""

    name: str
    order: Order
    batch: int
    batch_bytes: int
    in_flight: int
    max_deliver: int | None
    timeout_s: float
    beat_s: float
    backoff: Backoff
    threshold: int

    @property
    def held_max(self) -> int:
        """Return how many messages may be in hand."""
        least = _HELD_MIN if self.order == "none" else HELD_MAX
        return max(2 * self.batch * self.in_flight, least)


class Batch:
    """Items that a worker has at its sink."""

    def __init__(self, items: list[Item], now: float) -> None:
        """Begin now."""
        self.items = items
        self.began = now
        # It took too long: what comes of it is nobody's any more.
        self.is_abandoned = False


class Core:
    """The shared state of one pump."""

    def __init__(self, consumer: Any, sink: Any, plan: Plan) -> None:
        """Take a consumer (anything with the interface of `bus.Consumer`) and a sink."""
        self.consumer = consumer
        self.sink = sink
        self.plan = plan
        self.change = Condition()
        self.desk = Desk(plan.order, plan.batch, plan.batch_bytes)
        self.breaker = Breaker(plan.threshold, plan.backoff)
        self.counts = Counts()
        self.phase: Phase = "running"
        self.out: set[Batch] = set()
        self.working = plan.in_flight
        self.stuck = 0
        # Something was acknowledged, and nothing says yet that this is durable.
        self.is_dirty = False
        self._flushed_at = 0.0
        self._beat_at = 0.0
        # The consumer is to be paused for good: the receiver is gone.
        self.must_pause = False
        self.close_by: float | None = None
        self._largest = _HAND_BYTES_MAX // _FETCH_FIRST

    # --- Workers ----------------------------------------------------------------------------------

    def next_batch(self) -> Batch | None:
        """Wait for something to send; None at the end."""
        with self.change:
            while self.phase not in ("closing", "closed"):
                now = time.monotonic()
                wait_s = self.breaker.wait_s(now)
                if self.phase == "running" and wait_s == 0:
                    items = self.desk.take(now, 1 if self.breaker.is_open else None)
                    if items:
                        self.breaker.sent()
                        batch = Batch(items, now)
                        self.out.add(batch)
                        return batch
                    wait_s = self.desk.next_s(now)
                self.change.wait(wait_s if self.phase == "running" else None)
            return None

    def settle(self, batch: Batch, outcomes: list[Outcome]) -> None:
        """Do what the outcomes say: acknowledge, give back or keep, bury."""
        with self.change:
            if batch.is_abandoned:
                self.stuck -= 1
                self.change.notify_all()
                return
            self.out.discard(batch)
            for item in batch.items:
                item.state = SETTLING
        self._settle(batch, outcomes)

    def abandon(self, batch: Batch) -> None:
        """Give up waiting for a call that takes too long; its worker is stuck with it."""
        with self.change:
            if batch not in self.out:
                return
            self.out.discard(batch)
            batch.is_abandoned = True
            self.stuck += 1
            self.counts.timed_out += 1
            for item in batch.items:
                item.state = SETTLING
        late = Outcome.failed(f"no answer within {self.plan.timeout_s:g} s")
        self._settle(batch, [late] * len(batch.items))

    def _settle(self, batch: Batch, outcomes: list[Outcome]) -> None:
        ends = [self._end(item, one) for item, one in zip(batch.items, outcomes, strict=True)]
        now = time.monotonic()
        with self.change:
            for item, outcome, end in zip(batch.items, outcomes, ends, strict=True):
                if end == "kept":
                    self.desk.retry(item, now + self.plan.backoff.delay_s(item.failures))
                elif outcome.kind == "taken":
                    self.desk.taken(item)
                else:
                    self.desk.remove(item)
                self._count(outcome, end, now)
            self._judge(outcomes, now)
            self.change.notify_all()
            is_due = self.is_dirty and now - self._flushed_at >= _FLUSH_EVERY_S
            if is_due:
                self._flushed_at = now
        if is_due:
            self.flush()

    def flush(self) -> None:
        """Make acknowledgements durable, in one commit; a consumer that can't does it later."""
        self.is_dirty = False
        try:
            self.consumer.flush()
        except Exception as error:  # noqa: BLE001 - brokers' consumers may raise anything
            self.is_dirty = True
            self.trouble(error)

    def _end(self, item: Item, outcome: Outcome) -> str:
        """Tell the consumer what became of an item; return where that leaves it."""
        try:
            return self._tell(item, outcome)
        except Exception as error:  # noqa: BLE001 - brokers' messages may raise anything
            # Its time was over, or the consumer can't be reached: the message comes again.
            if getattr(error, "code", None) != "stream.ack":
                self.trouble(error)
        return "back"

    def _tell(self, item: Item, outcome: Outcome) -> str:
        message, is_held = item.message, self.plan.order != "none"
        if outcome.kind == "taken":
            message.ack()
            return "done"
        if outcome.kind == "gone":
            wait_s = 0.0
        else:
            deliveries = message.deliveries or 1
            item.failures += 1
            tries = deliveries - 1 + item.failures if is_held else deliveries
            if outcome.kind == "refused" or tries >= (self.plan.max_deliver or tries + 1):
                message.term(outcome.reason)
                return "buried"
            wait_s = self.plan.backoff.delay_s(deliveries)
        if is_held:
            return "kept"
        message.nak(wait_s)
        return "back"

    def _count(self, outcome: Outcome, end: str, now: float) -> None:
        counts = self.counts
        if outcome.kind == "taken":
            counts.delivered += 1
            self.is_dirty = True
            return
        if end == "buried":
            counts.refused += 1
            self.is_dirty = True
        if outcome.kind == "failed":
            counts.failed += 1
            if outcome.after_s is not None:
                self.breaker.hold(now, outcome.after_s)
        self._note(outcome.reason)

    def _judge(self, outcomes: list[Outcome], now: float) -> None:
        kinds = {outcome.kind for outcome in outcomes}
        if "gone" in kinds:
            self.breaker.answered()
            if self.phase in ("running", "paused"):
                self.phase, self.must_pause = "gone", True
        elif kinds & {"taken", "refused"}:
            self.breaker.succeeded()
        elif kinds:
            self.breaker.failed(now)

    def trouble(self, error: BaseException) -> None:
        """Note what went wrong."""
        with self.change:
            self._note(outcome_of(error).reason)

    def _note(self, reason: str) -> None:
        self.counts.last_error = reason
        self.counts.last_error_at = datetime.now(UTC)

    # --- Keeper -----------------------------------------------------------------------------------

    def room(self) -> int:
        """Return how many messages to fetch now."""
        with self.change:
            if self.phase != "running":
                return 0
            if not self.desk.is_open:
                return HELD_MAX
            held = self.desk.held
            if self.breaker.is_open:
                # One for the probe, when its time comes.
                return int(held == 0 and self.breaker.wait_s(time.monotonic()) == 0)
            if self.breaker.wait_s(time.monotonic()) != 0 and held:
                return 0
            bytes_left = _HAND_BYTES_MAX - self.desk.size
            fitting = max(int(held == 0), bytes_left // max(self._largest, 1))
            room = self.plan.held_max - held
            return min(room, fitting) if room >= _FETCH_MIN else 0

    def took(self, messages: list[Message]) -> list[Message]:
        """Take messages in hand; return those that were taken before: acknowledge them."""
        now = time.monotonic()
        with self.change:
            again = [one for message in messages if (one := self.desk.add(message, now))]
            if messages:
                largest = max(len(message.data) for message in messages) + 1024
                self._largest = max(largest, (self._largest + largest) // 2)
                self.change.notify_all()
        return again

    def beat(self) -> None:
        """Say of what is in hand that it is, so that it is not delivered again meanwhile."""
        now = time.monotonic()
        if now < self._beat_at:
            return
        # Messages are looked through a few times in between, not at each turn.
        self._beat_at = now + self.plan.beat_s / 4
        with self.change:
            due = [
                item
                for item in self.desk
                if item.state in (WAITING, OUT)
                and not item.is_lost
                and now - item.beat >= self.plan.beat_s
            ]
        for item in due:
            item.beat = now
            try:
                item.message.in_progress()
            except Exception as error:  # noqa: BLE001 - brokers' messages may raise anything
                is_over = getattr(error, "code", None) == "stream.ack"
                with self.change:
                    # Settled meanwhile, it is no more to be kept alive.
                    if is_over and item.state in (WAITING, OUT):
                        self.desk.lost(item)

    def expire(self) -> None:
        """Give up calls that take too long."""
        limit = time.monotonic() - self.plan.timeout_s
        with self.change:
            late = [batch for batch in self.out if batch.began < limit]
        for batch in late:
            self.abandon(batch)

    def forget_lost(self) -> None:
        """Let go of lost messages that never come again: dead by their count, or purged."""
        with self.change:
            if self.desk.held == len(self.desk):
                return
        status = self.consumer.status()
        with self.change:
            if status.pending + status.scheduled <= self.desk.held:
                self.desk.forget_lost()
                self.change.notify_all()

    def left(self) -> bool:
        """Hear that a worker ended; True if nobody is left to close the sink but it."""
        with self.change:
            self.working -= 1
            self.change.notify_all()
            return self.working == 0 and self.phase == "closed"

    def is_settling(self, last: int) -> bool:
        """Return whether a message up to a number is done, and not counted yet."""
        with self.change:
            return any(
                item.state == SETTLING and (item.message.sequence or 0) <= last
                for item in self.desk
            )

    def left_over(self) -> list[Item]:
        """Return what is in hand and at no sink, at the end."""
        with self.change:
            return [item for item in self.desk if item.state == WAITING and not item.is_lost]
