"""Messages in hand: which may go now, in which order. No clock, no lock, no I/O.

An *item* is a message that was fetched and is neither acknowledged nor given back. Items whose
order matters stand in the same *lane*, and only its head may go; so one that failed holds those
behind it.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dwkernel._native import Message
    from dwkernel.sinks.sink import Order

__all__ = ["Desk", "Item"]

WAITING, OUT, SETTLING, DONE = range(4)

# The last messages that were taken are known when they come again, because their acknowledgement
# was late or got lost.
_TAKEN_MAX = 10_000


class Item:
    """A message in hand."""

    __slots__ = ("beat", "due", "failures", "is_lost", "lane", "message", "queued", "size", "state")

    def __init__(self, message: Message, lane: str | None, now: float) -> None:
        """Take a message that was fetched just now."""
        self.message = message
        self.lane = lane
        self.size = len(message.data)
        self.state = WAITING
        self.failures = 0
        self.due = now
        # When its consumer last heard that it is in hand.
        self.beat = now
        # Its time was over: it is delivered again, and may not go before.
        self.is_lost = False
        self.queued = False


class Desk:
    """The items in hand."""

    def __init__(self, order: Order, batch: int, batch_bytes: int) -> None:
        """Make batches of at most so many items and bytes."""
        self._order = order
        self._batch = batch
        self._batch_bytes = batch_bytes
        self._items: dict[str, Item] = {}
        self._taken: dict[str, None] = {}
        self._lanes: dict[str, deque[Item]] = {}
        self._ready: deque[Item] = deque()
        self._later: list[tuple[float, int, Item]] = []
        self._ticket = 0
        self._lost = 0
        # What came before is gathered first, where order matters.
        self.is_open = order == "none"
        self.size = 0

    def __len__(self) -> int:
        """Return how many items are in hand."""
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        """Iterate over the items in hand, as they came."""
        return iter(list(self._items.values()))

    @property
    def held(self) -> int:
        """How many of them are not lost."""
        return len(self._items) - self._lost

    def add(self, message: Message, now: float) -> Message | None:
        """Take a message in; one that was taken by the receiver is returned: acknowledge it."""
        if message.id in self._taken:
            return message
        item = self._items.get(message.id)
        if item is not None:
            self._lost -= item.is_lost
            item.message, item.beat, item.is_lost = message, now, False
            self._offer(item)
            return None
        lane = {"none": None, "key": message.key, "stream": ""}[self._order]
        item = Item(message, lane, now)
        self._items[message.id] = item
        self.size += item.size
        if lane is not None:
            self._lanes.setdefault(lane, deque()).append(item)
        self._offer(item)
        return None

    def open(self) -> None:
        """Let items go, in the order of the stream, now that all that came before are here."""
        if self.is_open:
            return
        self.is_open = True
        self._ready.clear()
        self._later.clear()
        self._lanes.clear()
        for item in sorted(self._items.values(), key=lambda item: item.message.sequence or 0):
            item.queued = False
            if item.lane is not None:
                self._lanes.setdefault(item.lane, deque()).append(item)
            self._offer(item)

    def take(self, now: float, limit: int | None = None) -> list[Item]:
        """Return the next items to be sent together; none if none may go."""
        if not self.is_open:
            return []
        self._promote(now)
        batch: list[Item] = []
        room, size = min(limit or self._batch, self._batch), 0
        while self._ready and len(batch) < room:
            item = self._ready[0]
            if batch and size + item.size > self._batch_bytes:
                break
            self._ready.popleft()
            item.queued = False
            if item.is_lost or item.state != WAITING:
                continue
            if self._order == "stream":
                return self._run(room)
            size += item.size
            item.state = OUT
            batch.append(item)
        return batch

    def _run(self, room: int) -> list[Item]:
        """Return items from the beginning of the only lane."""
        batch: list[Item] = []
        size = 0
        for item in self._lanes[""]:
            full = len(batch) >= room or (batch and size + item.size > self._batch_bytes)
            if full or item.is_lost or item.state != WAITING:
                break
            size += item.size
            item.state = OUT
            batch.append(item)
        return batch

    def next_s(self, now: float) -> float | None:
        """Return in how long the next item is due that waits for its time; None if none does."""
        return max(0.0, self._later[0][0] - now) if self._later and self.is_open else None

    def remove(self, item: Item) -> None:
        """Let go of an item that was acknowledged, buried or given back."""
        if self._items.pop(item.message.id, None) is None:
            return
        self.size -= item.size
        self._lost -= item.is_lost
        item.state = DONE
        if item.lane is None:
            return
        lane = self._lanes[item.lane]
        if lane[0] is item:
            lane.popleft()
        else:
            lane.remove(item)
        if lane:
            self._offer(lane[0])
        else:
            del self._lanes[item.lane]

    def taken(self, item: Item) -> None:
        """Let go of an item that was taken, and know it should it come again."""
        self.remove(item)
        self._taken[item.message.id] = None
        if len(self._taken) > _TAKEN_MAX:
            del self._taken[next(iter(self._taken))]

    def retry(self, item: Item, due: float) -> None:
        """Keep an item that failed, and send it again when it is due."""
        item.state, item.due = WAITING, due
        self._offer(item)

    def lost(self, item: Item) -> None:
        """Hear that an item's time was over. In order it keeps its place, else it just goes."""
        if item.state == WAITING and item.lane is None:
            self.remove(item)
        elif not item.is_lost:
            item.is_lost = True
            self._lost += 1

    def forget_lost(self) -> None:
        """Let go of lost items that will not come again."""
        for item in self:
            if item.is_lost and item.state == WAITING:
                self.remove(item)

    def _offer(self, item: Item) -> None:
        """Put an item in line, if it is the head of its lane."""
        at_head = item.lane is None or self._lanes[item.lane][0] is item
        if item.queued or item.is_lost or item.state != WAITING or not at_head:
            return
        item.queued = True
        self._ticket += 1
        heapq.heappush(self._later, (item.due, self._ticket, item))

    def _promote(self, now: float) -> None:
        while self._later and self._later[0][0] <= now:
            self._ready.append(heapq.heappop(self._later)[2])
