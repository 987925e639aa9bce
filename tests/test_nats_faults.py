"""Faults of a NATS server: killed or hanging, it loses nothing that it was not allowed to."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from dwkernel import brokers, errors
from dwkernel.conformance import servers
from dwkernel.conformance.streams.checks import take, until
from dwkernel.conformance.streams.histories import random_history
from expect import code_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dwkernel.brokers.nats import NatsBroker

pytestmark = pytest.mark.skipif(servers.find("nats") is None, reason=servers.missing("nats"))

PATIENCE_S = 30.0


@pytest.fixture
def server() -> Iterator[servers.LocalServer]:
    with servers.LocalServer("nats") as server:
        yield server


@pytest.fixture
def bus(server: servers.LocalServer) -> Iterator[NatsBroker]:
    with connect(server.url) as bus:
        yield bus


def connect(url: str, **options: Any) -> NatsBroker:
    from dwkernel.brokers.nats import NatsBroker

    found = brokers.connect(url, **options)
    assert isinstance(found, NatsBroker)
    return found


def lost_within(call: Callable[[], object], least_s: float, most_s: float) -> None:
    start = time.monotonic()
    assert code_of(call) == "broker.lost"
    assert least_s <= time.monotonic() - start < most_s


def test_calls_fail_in_their_time_while_the_server_is_away_and_work_again(
    server: servers.LocalServer, bus: NatsBroker
) -> None:
    stream = bus.stream("s", subjects=["s.>"], create=True)
    consumer = stream.consumer("c", create=True)
    heard = bus.subscribe("t")
    stream.publish("s.a", b"1")
    (message,) = take(consumer, 1)
    message.ack(durable=True)
    server.kill()
    until(lambda: not bus.is_connected, "it is noticed")
    lost_within(lambda: stream.publish("s.a", b"2", timeout="500ms"), 0.4, 3)
    lost_within(lambda: consumer.fetch(1, timeout="500ms"), 0.4, 3)
    lost_within(lambda: bus.request("t", timeout="500ms"), 0.4, 3)
    lost_within(lambda: bus.publish("t", timeout="500ms"), 0.4, 3)
    lost_within(lambda: list(stream.replay(timeout="500ms")), 0.4, 3)
    server.start()
    until(lambda: bus.is_connected, "it is connected again")
    assert stream.publish("s.a", b"2") == 2
    # Sooner than it would come again: no request of before has taken it.
    assert [one.sequence for one in take(consumer, 1, ack=True, patience_s=15)] == [2]
    bus.publish("t", b"x")
    found = heard.next(PATIENCE_S)
    assert found is not None
    assert found.data == b"x"
    assert [one.data for one in stream.replay()] == [b"1", b"2"]


def test_a_call_that_is_under_way_is_told_at_once_that_the_connection_broke(
    server: servers.LocalServer, bus: NatsBroker
) -> None:
    stream = bus.stream("s", subjects=["s.>"], create=True)
    server.suspend()
    failures: list[errors.DwError] = []

    def publish() -> None:
        try:
            stream.publish("s.a", b"1", timeout=PATIENCE_S)
        except errors.DwError as error:
            failures.append(error)

    thread = threading.Thread(target=publish)
    start = time.monotonic()
    thread.start()
    time.sleep(0.2)
    server.kill()
    thread.join(PATIENCE_S)
    assert time.monotonic() - start < PATIENCE_S / 2
    assert [(one.code, one.details["outcome"]) for one in failures] == [("broker.lost", "unknown")]
    assert failures[0].retryable


def test_a_server_that_hangs_is_lost_until_it_goes_on(
    server: servers.LocalServer, bus: NatsBroker
) -> None:
    stream = bus.stream("s", subjects=["s.>"], create=True)
    consumer = stream.consumer("c", create=True)
    server.suspend()
    try:
        lost_within(lambda: stream.publish("s.a", b"1", timeout="1s"), 0.9, 4)
        lost_within(lambda: consumer.fetch(1, timeout="500ms"), 0.4, 5)
        lost_within(lambda: bus.request("t", timeout="500ms"), 0.4, 4)
    finally:
        server.resume()
    # What was sent meanwhile may be there: its outcome was unknown.
    until(lambda: bus.is_connected, "it is connected")
    assert stream.publish("s.a", b"2", message_id="2") in {1, 2}
    assert b"2" in [one.data for one in take(consumer, stream.status().messages, ack=True)]


class Work:
    """Publishers and consumers on threads, and what they know."""

    def __init__(self, bus: NatsBroker) -> None:
        self.stream = bus.stream("s", subjects=["s.>"], create=True)
        self.consumer = self.stream.consumer("c", ack_wait="1s", create=True)
        self.confirmed: dict[int, bytes] = {}
        self.done: set[int] = set()
        self.unsure: set[int] = set()
        self.came_again: list[int] = []
        self.is_over = threading.Event()
        self.threads = [threading.Thread(target=self.publish, args=(who,)) for who in range(4)]
        self.threads += [threading.Thread(target=self.consume) for _ in range(2)]
        for thread in self.threads:
            thread.start()

    def publish(self, who: int) -> None:
        for number in range(10**6):
            if self.is_over.is_set():
                return
            data = b"%d %d" % (who, number)
            with contextlib.suppress(errors.Unavailable):
                found = self.stream.publish("s.a", data, message_id=data.decode(), timeout=2)
                self.confirmed[found or 0] = data

    def consume(self) -> None:
        while not self.is_over.is_set():
            with contextlib.suppress(errors.Unavailable, errors.State):
                self.take()

    def take(self) -> None:
        before = set(self.done)
        for message in self.consumer.fetch(10, timeout=0.2):
            sequence = message.sequence or 0
            if sequence in before:
                self.came_again.append(sequence)
            try:
                message.ack(durable=True)
            except errors.Unavailable:
                # It may be done: nobody told.
                self.unsure.add(sequence)
                raise
            self.done.add(sequence)

    def end(self) -> None:
        self.is_over.set()
        for thread in self.threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


def test_what_was_confirmed_is_there_after_a_kill_and_what_was_done_does_not_come_again(
    server: servers.LocalServer, bus: NatsBroker
) -> None:
    work = Work(bus)
    try:
        for count in (150, 300, 450):
            until(lambda count=count: len(work.done) > count, "work is done")  # type: ignore[misc]
            server.restart()
        until(lambda: len(work.done) > 600, "work goes on")
    finally:
        work.end()
    there = {one.sequence: one.data for one in work.stream.replay()}
    assert list(there) == list(range(1, len(there) + 1))
    assert {number: there.get(number) for number in work.confirmed} == work.confirmed
    end = time.monotonic() + PATIENCE_S
    while (status := work.consumer.status()).lag + status.pending:
        assert time.monotonic() < end, status
        work.take()
    assert work.done | work.unsure == set(there)
    assert len(work.unsure - work.done) < 50
    assert work.came_again == []


def test_a_durable_acknowledgement_holds_when_the_server_is_killed_at_once(
    server: servers.LocalServer, bus: NatsBroker
) -> None:
    stream = bus.stream("s", subjects=["s.>"], create=True)
    consumer = stream.consumer("c", create=True)
    again: list[int] = []
    for first in (1, 11, 21):
        stream.publish_each([("s.a", b"")] * 10)
        messages = take(consumer, 10)
        assert [one.sequence for one in messages] == list(range(first, first + 10))
        for message in messages[:5]:
            message.ack(durable=True)
        for message in messages[5:]:
            message.ack()
        consumer.flush()
        server.restart()
        again += [one.sequence or 0 for one in consumer.fetch(10, timeout=0.3)]
    assert again == []
    # Without the record they would have come: the server's own state is behind.
    with connect(server.url) as other:
        assert other.stream("s").consumer("c").fetch(99, timeout=0.3) == []


@pytest.mark.parametrize("seed", range(4))
def test_histories_hold_while_the_server_is_killed_between(
    server: servers.LocalServer, seed: int
) -> None:
    def factory() -> NatsBroker:
        server.restart()
        return connect(server.url)

    random_history(factory, seed)


def test_a_consumer_of_another_process_goes_on_where_a_killed_one_left(
    server: servers.LocalServer, bus: NatsBroker
) -> None:
    stream = bus.stream("s", subjects=["s.>"], create=True)
    consumer = stream.consumer("c", ack_wait="2s", create=True)
    stream.publish_each([("s.a", b"%d" % number) for number in range(1, 4)])
    program = """
    import os, signal, sys
    from dwkernel import brokers
    bus = brokers.connect(sys.argv[1])
    for message in bus.stream("s").consumer("c").fetch(3, timeout=5):
        print(message.sequence, message.deliveries, flush=True)
        if message.sequence == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        message.ack(durable=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), server.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "1 1\n2 1\n"), done.stderr
    again = take(consumer, 2, ack=True)
    assert sorted((one.sequence, one.deliveries) for one in again) == [(2, 2), (3, 2)]
    assert consumer.fetch(9, timeout=0.2) == []


def test_nobody_at_the_address_is_told_in_time(server: servers.LocalServer) -> None:
    server.kill()
    lost_within(lambda: connect(server.url, connect_timeout="500ms"), 0, 4)


def test_random_work_of_several_connections_loses_nothing(server: servers.LocalServer) -> None:
    chance = random.Random(7)
    with connect(server.url) as one, connect(server.url) as two:
        stream = one.stream("s", subjects=["s"], create=True)
        consumers = [
            stream.consumer("c", ack_wait="1s", create=True),
            two.stream("s").consumer("c"),
        ]
        for number in range(1, 121):
            stream.publish("s", b"%d" % number)
        done: set[int] = set()
        for_good: set[int] = set()
        end = time.monotonic() + PATIENCE_S
        while len(done) < 120:
            assert time.monotonic() < end, sorted(set(range(1, 121)) - done)
            for message in chance.choice(consumers).fetch(chance.randint(1, 9), timeout=0.1):
                sequence = message.sequence or 0
                assert sequence not in for_good
                if chance.random() < 0.6:
                    is_durable = chance.random() < 0.5
                    message.ack(durable=is_durable)
                    done.add(sequence)
                    for_good |= {sequence} if is_durable else set()
                elif chance.random() < 0.5:
                    message.nak(0)


def test_a_client_that_gave_up_is_made_anew(bus: NatsBroker) -> None:
    stream = bus.stream("s", subjects=["s"], create=True)
    consumer = stream.consumer("c", create=True)
    heard = bus.subscribe("t")
    connection = bus.connection
    before = connection.epoch

    async def give_up(_deadline: float) -> None:
        # As it does when the server refuses it in between.
        assert connection._client is not None
        await connection._client.close()

    connection.call(give_up)
    until(lambda: connection.epoch > before and bus.is_connected, "it is made anew")
    assert stream.publish("s", b"1") == 1
    assert [one.data for one in take(consumer, 1, ack=True)] == [b"1"]
    bus.publish("t", b"x")
    found = heard.next(PATIENCE_S)
    assert found is not None
    assert found.data == b"x"


def test_a_delivery_of_an_older_connection_is_not_done_for_good(
    server: servers.LocalServer, bus: NatsBroker
) -> None:
    stream = bus.stream("s", subjects=["s"], create=True)
    consumer = stream.consumer("c", ack_wait="2s", create=True)
    stream.publish("s", b"1")
    (message,) = take(consumer, 1)
    before = bus.connection.epoch
    server.restart()
    until(lambda: bus.connection.epoch > before, "it is connected again")
    # Killed at once, the server may have forgotten the delivery, and deliver it to somebody else.
    assert code_of(lambda: message.ack(durable=True)) == "stream.ack"
    (again,) = take(consumer, 1)
    again.ack(durable=True)


def test_nothing_is_asked_before_the_client_has_subscribed_again(bus: NatsBroker) -> None:
    stream = bus.stream("s", subjects=["s"], create=True)
    # As between the moment when the client is connected and the one when it has subscribed.
    bus.connection.soon(bus.connection._up.clear)
    lost_within(lambda: stream.publish("s", timeout="300ms"), 0.2, 3)
    bus.connection.soon(bus.connection._up.set)
    assert stream.publish("s") == 1
