"""Redis servers and connections that fail: nothing confirmed is lost, nothing is done twice."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from dwkernel import brokers, errors
from dwkernel.conformance.cutter import Cutter
from dwkernel.conformance.servers import LocalServer, find, missing
from expect import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dwkernel.brokers.redis import RedisBroker
    from dwkernel.brokers.redis.consumer import RedisConsumer
    from dwkernel.brokers.redis.stream import RedisStream

pytest.importorskip("redis")
if find("redis") is None:
    pytest.skip(missing("redis"), allow_module_level=True)

PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer("redis") as server:
        yield server


@pytest.fixture
def cutter(server: LocalServer) -> Iterator[Cutter]:
    with Cutter(server.port) as cutter:
        yield cutter


@pytest.fixture
def bus(cutter: Cutter, request: pytest.FixtureRequest) -> Iterator[RedisBroker]:
    with connect(cutter.port, tenant=request.node.name) as bus:
        yield bus


@pytest.fixture
def stream(bus: RedisBroker) -> RedisStream:
    return bus.stream("s", subjects=["s"], create=True)


def connect(port: int, **options: Any) -> RedisBroker:
    from dwkernel.brokers.redis import RedisBroker

    bus = brokers.connect(f"redis://127.0.0.1:{port}", **options)
    assert isinstance(bus, RedisBroker)
    return bus


def raw(server: LocalServer, *command: Any) -> Any:
    """Ask the server as any other program does."""
    import redis

    url = f"redis://127.0.0.1:{server.port}?protocol=2&socket_timeout={PATIENCE_S}"
    connection: Any = redis.ConnectionPool.from_url(url).make_connection()
    try:
        connection.send_command(*command)
        return connection.read_response()
    finally:
        connection.disconnect()


def lost(call: Callable[[], object], patience_s: float) -> errors.DwError:
    """Return the error of a call that fails because nobody answers, within `patience_s`."""
    begun = time.monotonic()
    with pytest.raises(errors.DwError) as caught:
        call()
    assert caught.value.code == "broker.lost"
    assert time.monotonic() - begun < patience_s
    return caught.value


# --- Answers that get lost ------------------------------------------------------------------------


@pytest.mark.parametrize("losses", [1, 3])
def test_a_publish_whose_answer_was_lost_is_taken_once(
    cutter: Cutter, bus: RedisBroker, stream: RedisStream, losses: int
) -> None:
    def losing(call: Callable[[], Any]) -> Any:
        cutter.losses = losses
        return call()

    assert losing(lambda: stream.publish("s", b"1")) == 1
    assert losing(lambda: stream.publish_many([("s", b"2"), ("s", b"3")])) == [2, 3]
    assert losing(lambda: stream.publish("s", b"4", message_id="a")) == 4
    assert losing(lambda: stream.publish("s", b"5", delay="1ms")) is None
    until(lambda: stream.status().messages == 5)

    def group() -> None:
        with bus.group() as group:
            cutter.losses = losses
            group.publish("s", b"6")

    group()
    assert [one.data for one in stream.replay()] == [b"1", b"2", b"3", b"4", b"5", b"6"]
    assert cutter.lost >= 5 * losses


def test_a_connection_that_dies_without_a_word_is_given_up(
    cutter: Cutter, stream: RedisStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dwkernel.brokers.redis import link

    monkeypatch.setattr(link, "_ATTEMPT_S", 0.2)
    cutter.is_mute, cutter.losses = True, 2
    begun = time.monotonic()
    assert stream.publish("s", b"1") == 1
    assert time.monotonic() - begun < 5
    assert stream.status().messages == 1


def test_a_delivery_whose_answer_was_lost_comes_with_the_next_one(
    cutter: Cutter, stream: RedisStream
) -> None:
    stream.publish_many([("s", b"1"), ("s", b"2")])
    consumer = stream.consumer("c", create=True)
    cutter.losses = 1
    assert [(m.sequence, m.deliveries) for m in consumer.fetch(1, timeout=0)] == [(1, 1)]
    # Given up by its caller, handed out by the server: not in half a minute, but now.
    cutter.losses = 1000
    lost(lambda: consumer.fetch(1, timeout=0), 10)
    cutter.losses = 0
    (message,) = consumer.fetch(1, timeout=0)
    assert (message.sequence, message.deliveries) == (2, 1)
    message.ack()
    assert consumer.status().deliveries == 2


@pytest.mark.parametrize("verb", ["ack", "nak", "term", "in_progress"])
def test_an_acknowledgement_whose_answer_was_lost_is_taken_once(
    cutter: Cutter, stream: RedisStream, verb: str
) -> None:
    stream.publish("s", b"1")
    consumer = stream.consumer("c", max_deliver=2, backoff=["1h"], create=True)
    (message,) = consumer.fetch(1, timeout=0)
    cutter.losses = 2
    getattr(message, verb)()
    status = consumer.status()
    found = (status.acknowledged, status.scheduled, status.dead, status.pending)
    expected = {
        "ack": (1, 0, 0, 0),
        "nak": (0, 1, 0, 0),
        "term": (0, 0, 1, 0),
        "in_progress": (0, 0, 0, 1),
    }
    assert found == expected[verb]


def test_an_acknowledgement_that_was_given_up_may_be_made_again(
    cutter: Cutter, bus: RedisBroker
) -> None:
    stream = bus.stream("s", subjects=["s"], create=True)
    stream.publish("s", b"1")
    with connect(cutter.port, tenant=bus._client.options.tenant, timeout=0.5) as hasty:
        consumer = hasty.stream("s").consumer("c", create=True)
        (message,) = consumer.fetch(1, timeout=0)
        cutter.losses = 1000
        lost(message.ack, 5)
        cutter.losses = 0
        message.ack()
        with pytest.raises(errors.State):
            message.ack()
        assert consumer.status().acknowledged == 1


def test_what_is_made_and_deleted_and_driven_again_is_so_once(
    cutter: Cutter, bus: RedisBroker, stream: RedisStream
) -> None:
    cutter.losses = 2
    bus.stream("other", subjects=["o"], create=True)
    cutter.losses = 2
    consumer = stream.consumer("c", create=True)
    stream.publish("s", b"1")
    consumer.fetch(1, timeout=0)[0].term("why")
    (letter,) = consumer.dead_letters()
    cutter.losses = 2
    assert consumer.redrive(letter.sequence) == 1
    assert len(consumer.fetch(9, timeout=0)) == 1
    cutter.losses = 2
    stream.delete_consumer("c")
    assert stream.consumers() == []
    cutter.losses = 2
    bus.delete_stream("other")
    assert [one.name for one in bus.streams()] == ["s"]


def test_a_call_that_comes_late_is_refused(bus: RedisBroker, stream: RedisStream) -> None:
    client, lane = bus._client, bus._client.lane()

    def publish(call: str) -> bytes:
        arguments = [
            "1",
            stream.uid,
            lane.name,
            call,
            -1,
            "1",
            6,
            "id",
            "x",
            "subject",
            "s",
            "data",
            "",
        ]
        answer: bytes = client.run("publish", client.keys.stream("s"), arguments, 5)[0]
        return answer

    assert [publish("1"), publish("3"), publish("2"), publish("3")] == [
        b"ok",
        b"ok",
        b"stale",
        b"ok",
    ]
    assert stream.status().messages == 2


# --- Servers that hang, are busy, or die ----------------------------------------------------------


def test_a_server_that_hangs_is_lost_in_time_and_goes_on() -> None:
    with LocalServer("redis") as server, connect(server.port) as bus:
        stream = bus.stream("s", subjects=["s"], create=True)
        consumer = stream.consumer("c", create=True)
        stream.publish("s", b"1")
        server.suspend()
        try:
            error = lost(lambda: stream.publish("s", b"2", timeout="300ms"), 3)
            assert error.details["outcome"] == "unknown"
            lost(lambda: consumer.fetch(1, timeout="300ms"), 10)
            lost(lambda: bus.publish("t", timeout="300ms"), 3)
            lost(lambda: connect(server.port, connect_timeout="300ms"), 5)
        finally:
            server.resume()
        assert stream.publish("s", b"3") in {2, 3}
        # The delivery that nobody saw comes at once, the message of unknown outcome at most once.
        data: list[bytes] = []
        until(lambda: _took(consumer, data) and b"3" in data)
        assert data in ([b"1", b"3"], [b"1", b"2", b"3"])


def _took(consumer: RedisConsumer, data: list[bytes]) -> bool:
    data.extend(one.data for one in consumer.fetch(9, timeout=0.1))
    return True


def _is_busy(server: LocalServer) -> bool:
    import redis

    try:
        raw(server, "PING")
    except redis.ResponseError as error:
        return "BUSY" in str(error)
    return False


def test_a_busy_server_is_waited_for() -> None:
    with LocalServer("redis", {"lua-time-limit": "20"}) as server, connect(server.port) as bus:
        stream = bus.stream("s", subjects=["s"], create=True)
        endless = socket.create_connection(("127.0.0.1", server.port))
        with endless:
            endless.sendall(b"EVAL 'while true do end' 0\r\n")
            until(lambda: _is_busy(server))
            lost(lambda: stream.publish("s", b"1", timeout="300ms"), 3)
            killer = threading.Timer(0.3, raw, (server, "SCRIPT", "KILL"))
            killer.start()
            assert stream.publish("s", b"2") == 1
            killer.join()


def test_scripts_that_the_server_forgot_are_sent_again(
    server: LocalServer, stream: RedisStream
) -> None:
    for number in range(1, 4):
        raw(server, "SCRIPT", "FLUSH")
        assert stream.publish("s", b"") == number


def test_connections_that_are_killed_are_made_again(server: LocalServer, bus: RedisBroker) -> None:
    stream = bus.stream("s", subjects=["s"], create=True)
    consumer = stream.consumer("c", create=True)
    done = threading.Event()
    taken: Counter[int] = Counter()

    def take() -> None:
        while not done.is_set() or consumer.status().floor_sequence < 300:
            for message in consumer.fetch(10, timeout=0.2):
                taken[message.sequence or 0] += 1
                message.ack()

    taker = threading.Thread(target=take)
    taker.start()
    numbers: list[int] = []
    publishers = [
        threading.Thread(
            target=lambda: numbers.extend(stream.publish("s", b"") or 0 for _ in range(100))
        )
        for _ in range(3)
    ]
    for publisher in publishers:
        publisher.start()
    while any(publisher.is_alive() for publisher in publishers):
        raw(server, "CLIENT", "KILL", "TYPE", "normal")
        time.sleep(0.01)
    done.set()
    taker.join(PATIENCE_S)
    assert sorted(numbers) == list(range(1, 301))
    assert taken == Counter(range(1, 301))


def test_a_kill_loses_nothing_that_was_confirmed_and_nobody_notices_but_by_waiting() -> None:
    with LocalServer("redis") as server, connect(server.port) as bus:
        stream = bus.stream("s", subjects=["s"], create=True)
        consumer = stream.consumer("c", create=True)
        confirmed: list[list[int]] = [[], [], []]
        done = threading.Event()
        taken: Counter[int] = Counter()

        def publish(mine: list[int]) -> None:
            while not done.is_set():
                mine.append(stream.publish("s", str(len(mine)).encode()) or 0)

        def take() -> None:
            while not done.is_set():
                for message in consumer.fetch(10, timeout=0.2):
                    message.ack(durable=True)
                    taken[message.sequence or 0] += 1

        threads = [threading.Thread(target=publish, args=(mine,)) for mine in confirmed]
        threads.append(threading.Thread(target=take))
        for thread in threads:
            thread.start()
        for count in (50, 150, 250):
            until(lambda: sum(map(len, confirmed)) > count)  # noqa: B023
            server.restart()
        until(lambda: sum(map(len, confirmed)) > 400)
        done.set()
        for thread in threads:
            thread.join(PATIENCE_S)
        for message in consumer.fetch(1000, timeout=0):
            message.ack()
            taken[message.sequence or 0] += 1
        numbers = sorted(number for mine in confirmed for number in mine)
        assert numbers == list(range(1, len(numbers) + 1))
        assert [one.sequence for one in stream.replay()] == numbers
        assert set(taken) >= set(numbers)
        # What was acknowledged durably came once: an acknowledgement is not done twice either.
        assert max(taken.values()) == 1


def test_a_consumer_that_is_shared_by_machines_does_each_message_once(server: LocalServer) -> None:
    with ExitStack() as stack:
        buses = [stack.enter_context(connect(server.port, tenant="shared")) for _ in range(3)]
        stream = buses[0].stream("s", subjects=["s"], create=True)
        stream.consumer("c", create=True)
        done: Counter[int] = Counter()

        def work(consumer: RedisConsumer) -> None:
            while sum(done.values()) < 200:
                for message in consumer.fetch(5, timeout=0.1):
                    message.ack()
                    done[message.sequence or 0] += 1

        threads = [
            threading.Thread(target=work, args=(bus.stream("s").consumer("c"),)) for bus in buses
        ]
        for thread in threads:
            thread.start()
        for _ in range(200):
            stream.publish("s", b"")
        for thread in threads:
            thread.join(PATIENCE_S)
        assert done == Counter(range(1, 201))
