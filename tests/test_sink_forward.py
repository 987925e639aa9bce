"""Forwarding, and pumps over consumers that are not a store's: only their interface counts."""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

import dwkernel as dw
from dwkernel import errors, sinks
from dwkernel.sinks import Outcome
from dwkernel.sinks.breaker import Backoff, Breaker
from dwkernel.sinks.desk import WAITING, Desk, Item
from expect import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dwkernel.bus import Message, Stream
    from dwkernel.sinks.sink import Order

PATIENCE_S = 30.0


@pytest.fixture
def kernel(request: pytest.FixtureRequest) -> Iterator[dw.Kernel]:
    drives = [f"memory://{request.node.name}-{number}" for number in range(3)]
    with dw.open(drives=drives, geometry="2+1", create=True) as kernel:
        yield kernel


@pytest.fixture
def stream(kernel: dw.Kernel) -> Stream:
    stream = kernel.bus.stream("s", subjects=["s.>"], create=True)
    stream.publish_many([(f"s.{number % 2}", str(number).encode()) for number in range(30)])
    return stream


@pytest.fixture
def target(kernel: dw.Kernel) -> Stream:
    return kernel.bus.stream("t", subjects=["s.>", "t.*"], create=True)


# --- Forwarding -----------------------------------------------------------------------------------


def test_messages_are_forwarded_whole_and_once(
    kernel: dw.Kernel, stream: Stream, target: Stream
) -> None:
    with kernel.bus.group() as group:
        fields: dict[str, Any] = {"schema": "x", "priority": 3, "correlation_id": "e" * 32}
        group.publish("s.all", b"\xff", key="k", headers={"a": "b"}, **fields)
    last = target.status().last_sequence  # the target takes "s.all" by itself, too
    for name in ("a", "b"):  # the second one sends everything again
        with sinks.attach(stream, sinks.Forward(target), name=name) as pump:
            pump.flush(PATIENCE_S)
            assert pump.status().delivered == 31
    found = list(target.replay(from_sequence=last + 1))
    sent = list(stream.replay())
    assert [message.data for message in found] == [message.data for message in sent]
    one = found[-1]
    assert (one.subject, one.key, one.schema, one.priority) == ("s.all", "k", "x", 3)
    assert (one.headers, one.correlation_id) == ({"a": "b"}, "e" * 32)


def test_one_that_the_target_refuses_is_a_dead_letter_and_holds_nobody(
    stream: Stream, target: Stream
) -> None:
    def subject(message: Message) -> str:
        if message.sequence == 9:
            raise LookupError(message.sequence)
        return "t.x" if message.sequence != 7 else "elsewhere"

    sink = sinks.Forward(target, subject)
    with sinks.attach(stream, sink, name="c", backoff=[0.01], max_deliver=2) as pump:
        pump.flush(PATIENCE_S)
        assert (pump.status().delivered, pump.status().refused) == (28, 2)
    letters = {one.sequence: one.reason or "" for one in stream.dead_letters()}
    assert "stream.subject" in letters[7]
    assert letters[9] == "LookupError: 9"
    assert {message.subject for message in target.replay()} == {"t.x"}


def test_a_target_that_was_deleted_is_gone(
    kernel: dw.Kernel, stream: Stream, target: Stream
) -> None:
    kernel.bus.delete_stream("t")
    with sinks.attach(stream, sinks.Forward(target, "t.x"), name="c") as pump:
        until(lambda: pump.status().state == "gone")
    assert list(stream.dead_letters()) == []
    for wrong in (object(), None):
        with pytest.raises(errors.Invalid, match="no stream"):
            sinks.Forward(wrong)
    given: Any = 7
    with pytest.raises(errors.Invalid, match="subject"):
        sinks.Forward(target, given)


def test_a_target_that_cannot_be_reached_is_tried_again(stream: Stream) -> None:
    class Broker:
        def __init__(self) -> None:
            self.down = 3
            self.taken: dict[str, bytes] = {}

        def publish(self, subject: str, data: bytes, *, message_id: str) -> None:
            if self.down:
                self.down -= 1
                raise ConnectionError
            assert subject.startswith("s.")
            self.taken[message_id] = data

    broker = Broker()
    with sinks.attach(stream, sinks.Forward(broker), name="c", backoff=[0.01]) as pump:
        pump.flush(PATIENCE_S)
    assert sorted(map(int, broker.taken.values())) == list(range(30))


# --- Another consumer -----------------------------------------------------------------------------


@dataclass
class Status:
    """As `ConsumerStatus`, as far as a broker knows."""

    stream: str = "other"
    lag: int = 0
    pending: int = 0
    scheduled: int = 0
    floor_sequence: int = 0
    delivered_sequence: int = 0
    is_paused: bool = False


@dataclass
class Told:
    """A message of `Other`."""

    other: Other
    sequence: int
    id: str = ""
    key: str | None = None
    data: bytes = b""
    subject: str = "s"
    deliveries: int = 1
    headers: dict[str, str] = field(default_factory=dict)
    schema: str | None = None

    def _settle(self, *, is_done: bool) -> None:
        with self.other.lock:
            if self.other.dice.random() < self.other.loss:
                raise errors.new("broker.lost", "the line is dead")
            if self.other.out.pop(self.sequence, None) is None:
                raise errors.new("stream.ack", "not out")
            if is_done:
                self.other.done.append(self.sequence)
            else:
                self.other.waiting.append(self)

    def ack(self) -> None:
        self._settle(is_done=True)

    def nak(self, delay: float = 0) -> None:
        assert delay >= 0
        self._settle(is_done=False)

    def term(self, why: str) -> None:
        self.other.dead.append((self.sequence, why))
        self._settle(is_done=True)

    def in_progress(self) -> None:
        pass


class Other:
    """A broker's consumer, badly connected: only what pumps may use."""

    name = "other"

    def __init__(self, count: int, loss: float = 0.0) -> None:
        self.dice = random.Random(3)
        self.loss = loss
        self.lock = threading.RLock()
        self.waiting = [Told(self, n, f"id-{n}", f"k{n % 3}") for n in range(1, count + 1)]
        self.out: dict[int, Told] = {}
        self.done: list[int] = []
        self.dead: list[tuple[int, str]] = []

    def fetch(self, limit: int, timeout: float) -> list[Any]:
        assert limit > 0
        with self.lock:
            if self.dice.random() < self.loss:
                raise errors.new("broker.lost", "the line is dead")
            # What was out for long is delivered again, as brokers do.
            late = [one for one in self.out.values() if self.dice.random() < self.loss]
            for one in late:
                del self.out[one.sequence]
            taken, self.waiting = (self.waiting + late)[:limit], (self.waiting + late)[limit:]
            again = [Told(self, m.sequence, m.id, m.key, deliveries=2) for m in taken]
            self.out.update({one.sequence: one for one in again})
        if not again:
            time.sleep(min(timeout, 0.005))
        return again

    def flush(self) -> None:
        pass

    def pause(self) -> None:
        raise errors.new("broker.unsupported", "no pauses here")

    resume = pause

    def status(self) -> Status:
        with self.lock:
            return Status(lag=len(self.waiting), pending=len(self.out))


@pytest.mark.parametrize("ordered", [False, True])
def test_a_badly_connected_broker_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, *, ordered: bool
) -> None:
    monkeypatch.setattr("dwkernel.sinks.threads._TROUBLE_S", 0.001)
    monkeypatch.setattr("dwkernel.sinks.threads._TROUBLE_MAX_S", 0.01)
    other = Other(400, loss=0.05)
    dice = random.Random(9)
    first: dict[str | None, list[int]] = defaultdict(list)
    count: dict[int, int] = defaultdict(int)
    lock = threading.Lock()

    def call(message: Message) -> None:
        with lock:
            if dice.random() < 0.1:
                raise OSError("busy")
            sequence = message.sequence or 0
            count[sequence] += 1
            if count[sequence] == 1:
                first[message.key].append(sequence)

    sink = sinks.Call(call, in_flight=3)
    options: dict[str, Any] = {"backoff": [0.001], "breaker": 10_000, "ordered": ordered}
    with sinks.attach(other, sink, **options) as pump:
        until(lambda: len(set(other.done)) == 400)
        pump.flush(PATIENCE_S)
        assert pump.status().stream == "other"
    assert sorted(count) == list(range(1, 401))
    # An acknowledgement that is lost does not send a message once more.
    assert set(count.values()) == {1}
    if ordered:
        assert all(sequences == sorted(sequences) for sequences in first.values())


def test_in_order_what_never_comes_again_holds_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    other = Other(9)
    gate = threading.Event()
    taken: list[int] = []

    def lost(message: Told) -> None:
        if message.sequence == 4:  # behind 1, which is under way; it is dead by its count, say
            with other.lock:
                other.out.pop(4, None)
            raise errors.new("stream.ack", "its time was over")

    def call(message: Message) -> None:
        gate.wait(PATIENCE_S)
        taken.append(message.sequence or 0)

    monkeypatch.setattr(Told, "in_progress", lost)
    options: dict[str, Any] = {"ordered": True, "ack_wait": "0.15s"}
    with sinks.attach(other, sinks.Call(call, in_flight=3), **options) as pump:
        until(lambda: 4 not in other.out and len(other.out) == 8)
        gate.set()
        until(lambda: len(taken) == 8)
        pump.flush(PATIENCE_S)
    assert sorted(taken) == [1, 2, 3, 5, 6, 7, 8, 9]


def test_where_pauses_are_not_known_the_pump_keeps_them() -> None:
    other = Other(5)
    sink = sinks.Call(lambda _: Outcome.gone("moved"))
    with sinks.attach(other, sink, backoff=[0.01]) as pump:
        until(lambda: pump.status().state == "gone")
        pump.pause()
        assert pump.status().state == "paused"
        pump.resume()
        until(lambda: pump.status().state == "gone")
    assert other.done == []
    assert len(other.waiting) + len(other.out) == 5


# --- A whole history ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_kernels_that_close_and_open_again_lose_nothing(path: Path, seed: int) -> None:
    dice = random.Random(seed)
    dw.open(path, drives=3, create=True).close()
    taken: dict[str, int] = defaultdict(int)
    sent = 0
    for run in range(6):
        with dw.open(path) as kernel:
            stream = kernel.bus.stream("s", subjects=["s"], create="if_missing")

            def call(message: Message) -> None:
                if dice.random() < 0.2:
                    raise OSError
                taken[message.id] += 1

            options: dict[str, Any] = {"backoff": [0.001, 0.01], "breaker": 50}
            ordered = bool(seed % 2)
            sinks.attach(stream, sinks.Call(call), name="c", ordered=ordered, **options)
            for _ in range(dice.randrange(1, 40)):
                stream.publish("s", str(sent).encode(), key=f"k{sent % 5}")
                sent += 1
            if run == 5:
                pump = sinks.attach(stream, sinks.Call(call), name="d", start="new")
                pump.close()
        assert not any(thread.name.startswith("dwk-sink-c") for thread in threading.enumerate()), (
            "a thread is left"
        )
    with dw.open(path) as kernel:
        stream = kernel.bus.stream("s")
        again: list[str] = []
        last = sinks.Call(lambda message: again.append(message.id))
        with sinks.attach(stream, last, name="c") as pump:
            pump.flush(PATIENCE_S)
        ids = {message.id for message in stream.replay()}
    assert len(ids) == sent
    assert set(taken) | set(again) == ids
    # A kernel that closes makes acknowledgements durable: nothing came twice.
    assert set(taken.values()) == {1}
    assert not set(again) & set(taken)


# --- The parts ------------------------------------------------------------------------------------


class Bench:
    """Drives a desk by chance: fetches, loses, sends, fails, finishes."""

    def __init__(self, order: Order, seed: int) -> None:
        self.order = order
        self.dice = random.Random(seed)
        self.desk = Desk(order, 4, 100)
        self.waiting: list[Any] = Other(60).waiting
        for one in self.waiting:
            one.data = bytes(self.dice.randrange(60))
        self.desk.open()
        self.out: list[Item] = []
        self.done: dict[str, list[int]] = defaultdict(list)
        self.now = 0.0

    def step(self) -> None:
        self.now += 1
        for one in self.waiting[: self.dice.randrange(4)]:
            self.waiting.remove(one)
            assert self.desk.add(one, self.now) is None
        for item in self.desk:
            if item.state == WAITING and not item.is_lost and self.dice.random() < 0.02:
                self.desk.lost(item)  # its time was over: it comes again
                self.waiting.insert(0, item.message)
        batch = self.desk.take(self.now)
        assert len(batch) <= 4
        assert len(batch) <= 1 or sum(item.size for item in batch) <= 100
        self.out += batch
        keys = [item.message.key for item in self.out]
        assert self.order != "key" or len(keys) == len(set(keys))
        for item in list(self.out):
            self.settle(item)

    def settle(self, item: Item) -> None:
        luck = self.dice.random()
        if self.order == "stream" and item is not self.out[0]:
            return
        if luck < 0.6:
            self.out.remove(item)
            lane = {"none": None, "key": item.message.key, "stream": None}[self.order]
            self.done[lane or ""].append(item.message.sequence or 0)
            self.desk.remove(item)
        elif luck < 0.8 and len(self.out) == 1:
            self.out.remove(item)
            self.desk.retry(item, self.now + self.dice.randrange(5))


@pytest.mark.parametrize("order", ["none", "key", "stream"])
def test_a_desk_gives_each_item_once_and_keeps_order(order: Order) -> None:
    for seed in range(50):
        bench = Bench(order, seed)
        while len(bench.desk) or bench.waiting:
            bench.step()
            assert bench.now < 10_000
        assert sorted(one for each in bench.done.values() for one in each) == list(range(1, 61))
        assert bench.desk.size == 0
        if order != "none":
            assert all(each == sorted(each) for each in bench.done.values())


def test_a_breaker_opens_probes_and_closes() -> None:
    breaker = Breaker(3, Backoff([1, 10], chance=lambda: 0.5))
    for _ in range(2):
        breaker.failed(0.0)
    assert (breaker.is_open, breaker.wait_s(0.0)) == (False, 0.0)
    breaker.failed(0.0)
    assert (breaker.is_open, breaker.wait_s(0.0)) == (True, 1.0)
    breaker.failed(0.5)  # was on its way before
    assert breaker.wait_s(0.5) == 0.5
    assert breaker.wait_s(1.0) == 0
    breaker.sent()
    assert breaker.wait_s(1.0) is None
    breaker.failed(2.0)
    assert breaker.wait_s(2.0) == 10
    breaker.sent()
    breaker.succeeded()
    assert (breaker.is_open, breaker.wait_s(12.0)) == (False, 0.0)


def test_waits_are_spread_by_a_fifth_and_the_last_one_repeats() -> None:
    backoff = Backoff(["1s", "10s"])
    assert all(0.8 <= backoff.delay_s(1) <= 1.2 for _ in range(100))
    assert all(8 <= backoff.delay_s(failures) <= 12 for failures in range(2, 50))
    assert len({backoff.delay_s(1) for _ in range(10)}) > 1
