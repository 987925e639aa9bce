"""Random histories on Redis: clients die, answers get lost, servers hang, die and lose power."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dwkernel import brokers, errors
from dwkernel.conformance.cutter import Cutter
from dwkernel.conformance.servers import LocalServer, find, missing
from expect import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwkernel.brokers import Message
    from dwkernel.brokers.redis import RedisBroker
    from dwkernel.brokers.redis.consumer import RedisConsumer
    from dwkernel.brokers.redis.stream import RedisStream

pytest.importorskip("redis")
if find("redis") is None:
    pytest.skip(missing("redis"), allow_module_level=True)

PATIENCE_S = 30.0


def connect(port: int, **options: Any) -> RedisBroker:
    from dwkernel.brokers.redis import RedisBroker

    bus = brokers.connect(f"redis://127.0.0.1:{port}", **options)
    assert isinstance(bus, RedisBroker)
    return bus


class World:
    """Clients that die between calls, answers that get lost, a server that hangs and is killed."""

    def __init__(self, server: LocalServer, cutter: Cutter, seed: int) -> None:
        """Make a stream and its consumer. Clients of odd seeds do not wait for long."""
        self.random = random.Random(seed)
        self.server, self.cutter = server, cutter
        self.options = {"tenant": f"history-{seed}", "timeout": 0.1 if seed % 2 else PATIENCE_S}
        self.count = 0
        self.confirmed: dict[int, bytes] = {}
        # Published by a call that was lost: they may be there.
        self.unknown: set[bytes] = set()
        self.acknowledged: set[int] = set()
        # Acknowledged by a call that was lost: they may come again.
        self.unsure: set[int] = set()
        self.held: list[Message] = []
        self.codes: Counter[str] = Counter()
        self.hanging = threading.Thread()
        self.hanging.start()
        with connect(server.port, tenant=self.options["tenant"]) as bus:
            stream = bus.stream("s", subjects=["s"], create=True)
            stream.consumer("c", ack_wait="150ms", max_ack_pending=20, create=True)
        self.bus, self.stream, self.consumer = self.client(cutter.port, self.options)

    def client(
        self, port: int, options: dict[str, Any]
    ) -> tuple[RedisBroker, RedisStream, RedisConsumer]:
        end = time.monotonic() + PATIENCE_S
        while True:
            with suppress(errors.Unavailable):
                bus = connect(port, **options)
                try:
                    stream = bus.stream("s")
                    return bus, stream, stream.consumer("c")
                except errors.Unavailable:
                    bus.close()
            assert time.monotonic() < end, "it does not come back"

    def step(self) -> None:
        verbs: list[Callable[[], None]] = [
            *[self.publish] * 4,
            *[self.fetch] * 4,
            *[self.settle] * 6,
            self.die,
            self.trouble,
        ]
        try:
            self.random.choice(verbs)()
        except errors.Unavailable as error:
            self.codes[error.code] += 1

    def publish(self) -> None:
        batch = [("s", f"{self.count + n}".encode()) for n in range(self.random.randint(1, 5))]
        self.count += len(batch)
        try:
            numbers = self.stream.publish_many(batch)
        except errors.Unavailable:
            self.unknown |= {data for _, data in batch}
            raise
        for number, (_, data) in zip(numbers, batch, strict=True):
            assert number not in self.confirmed, "a number was given twice"
            self.confirmed[number] = data

    def fetch(self) -> None:
        for message in self.consumer.fetch(self.random.randint(1, 6), timeout=0):
            self.see(message)
            self.held.append(message)

    def see(self, message: Message) -> None:
        assert message.sequence not in self.acknowledged, "it was acknowledged"
        if message.sequence in self.confirmed:
            assert message.data == self.confirmed[message.sequence]
        else:
            assert message.data in self.unknown

    def settle(self) -> None:
        if not self.held:
            return
        message = self.held.pop(self.random.randrange(len(self.held)))
        verb = self.random.choice(["ack", "ack", "ack", "nak", "in_progress", "none"])
        try:
            if verb == "ack":
                message.ack(durable=True)
                assert message.sequence not in self.acknowledged, "it was acknowledged twice"
                self.acknowledged.add(message.sequence or 0)
            elif verb == "nak":
                message.nak(self.random.choice([None, 0, 0.05]))
            elif verb == "in_progress":
                message.in_progress()
        except errors.State as error:
            self.codes[error.code] += 1
        except errors.Unavailable:
            if verb == "ack":
                self.unsure.add(message.sequence or 0)
            # Who asks again is told what became of it.
            self.held.append(message)
            raise

    def die(self) -> None:
        """The client is gone, with what it had; another one takes its place."""
        self.bus._link.close()
        self.held.clear()
        self.bus, self.stream, self.consumer = self.client(self.cutter.port, self.options)

    def trouble(self) -> None:
        chance = self.random.random()
        if chance < 0.1:
            self.hanging.join()
            self.server.restart()
        elif chance < 0.3:
            # One that hangs already cannot be told to.
            self.hanging.join()
            self.server.suspend()
            self.hanging = threading.Timer(0.25, self.server.resume)
            self.hanging.start()
        else:
            self.cutter.losses = self.random.randint(1, 3)

    def drain(self) -> None:
        self.bus.close()
        options = {"tenant": self.options["tenant"]}
        self.bus, self.stream, self.consumer = self.client(self.server.port, options)

        def is_done() -> bool:
            for message in self.consumer.fetch(20, timeout=0.05):
                self.see(message)
                message.ack()
                self.acknowledged.add(message.sequence or 0)
            return self.consumer.status().floor_sequence == self.stream.status().last_sequence

        until(is_done)
        there = {one.sequence or 0: one.data for one in self.stream.replay()}
        assert set(there) <= self.acknowledged | self.unsure, "each was acknowledged, or nearly"
        assert self.confirmed.items() <= there.items(), "what was confirmed is there"
        rest = Counter(data for number, data in there.items() if number not in self.confirmed)
        assert set(rest) <= self.unknown
        assert max(rest.values(), default=1) == 1, "and nothing twice"
        assert set(self.codes) <= {"broker.lost", "stream.ack"}


@pytest.mark.parametrize("seed", range(8))
def test_in_random_histories_nothing_is_lost_and_nothing_done_comes_again(seed: int) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(LocalServer("redis"))
        cutter = stack.enter_context(Cutter(server.port))
        world = World(server, cutter, seed)
        for _ in range(150):
            world.step()
        world.drain()
        world.bus.close()


@pytest.mark.parametrize("seed", range(4))
def test_a_torn_log_holds_each_step_whole_or_not_at_all(seed: int) -> None:
    chance = random.Random(seed)
    with LocalServer("redis") as server, connect(server.port) as bus:
        stream = bus.stream("s", subjects=["s"], max_messages=50, create=True)
        consumer = stream.consumer("c", create=True)
        for _ in range(20):
            stream.publish_many([("s", b"x" * 100)] * 3)
            for message in consumer.fetch(2, timeout=0):
                message.ack()
        server.kill()
        # What a power cut leaves of what was not synced: any beginning of it.
        logs = Path(server.directory).rglob("appendonly.aof*")
        log = max(logs, key=lambda one: one.stat().st_size)
        size = log.stat().st_size
        os.truncate(log, size - chance.randrange(size // 2))
        server.start()
        status = stream.status()
        assert 0 < status.last_sequence < 60
        assert status.last_sequence % 3 == 0
        numbers = [one.sequence for one in stream.replay()]
        assert numbers == list(range(status.first_sequence, status.last_sequence + 1))
        known = consumer.status()
        assert known.delivered_sequence <= status.last_sequence
        assert known.deliveries == known.delivered_sequence
        assert known.acknowledged <= known.deliveries
        assert known.pending == known.deliveries - known.acknowledged
        assert stream.publish("s") == status.last_sequence + 1
        (message,) = consumer.fetch(1, timeout=0)
        assert message.sequence == known.delivered_sequence + 1
