"""Streams on a Redis cluster: each in one slot, found wherever that is."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from dwkernel import brokers, errors
from dwkernel.conformance import streams
from dwkernel.conformance.servers import LocalServer, find, missing
from expect import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dwkernel.brokers.redis import RedisBroker

pytest.importorskip("redis")
if find("redis") is None:
    pytest.skip(missing("redis"), allow_module_level=True)

PATIENCE_S = 60.0
SLOTS = 16384
# All of it runs on one server, in test_brokers.py.
SUITE = streams.CASES if "DWK_LONG" in os.environ else streams.CASES[:3]


@pytest.fixture(scope="module")
def cluster() -> Iterator[list[LocalServer]]:
    """Three servers with a third of the slots each, and a copy of the first one."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(clustered()) for _ in range(4)]
        for number, server in enumerate(servers[:3]):
            first, end = number * SLOTS // 3, (number + 1) * SLOTS // 3
            raw(server, "CLUSTER", "ADDSLOTS", *range(first, end))
            raw(server, "CONFIG", "SET", "cluster-node-timeout", 1000)
        for server in servers[1:]:
            raw(server, "CLUSTER", "MEET", "127.0.0.1", servers[0].port)
        until(lambda: all(b"cluster_known_nodes:4" in told(server) for server in servers))
        raw(servers[3], "CLUSTER", "REPLICATE", raw(servers[0], "CLUSTER", "MYID"))
        until(lambda: all(b"cluster_state:ok" in told(server) for server in servers))
        until(lambda: b"master_link_status:up" in raw(servers[3], "INFO"))
        yield servers


def clustered() -> LocalServer:
    # It takes a second port 10,000 above the first one, which may be none.
    for _ in range(20):
        with contextlib.suppress(TimeoutError):
            return LocalServer("redis", {"cluster-enabled": "yes"})
    pytest.fail("no port for a cluster")


def told(server: LocalServer) -> bytes:
    answer: bytes = raw(server, "CLUSTER", "INFO")
    return answer


def connect(server: LocalServer, **options: Any) -> RedisBroker:
    from dwkernel.brokers.redis import RedisBroker

    bus = brokers.connect(server.url, **options)
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


def slot_of(server: LocalServer, tenant: str, stream: str) -> int:
    return int(raw(server, "CLUSTER", "KEYSLOT", f"{{dwk:{tenant}:{stream}}}"))


def test_streams_are_found_wherever_they_are(cluster: list[LocalServer]) -> None:
    with connect(cluster[1], tenant="t") as bus:
        names = [f"s{number}" for number in range(12)]
        for name in names:
            stream = bus.stream(name, subjects=[f"{name}.>"], create=True)
            assert stream.publish(f"{name}.a", b"1") == 1
            consumer = stream.consumer("c", create=True)
            for message in consumer.fetch(1, timeout=0):
                message.ack()
            assert consumer.status().floor_sequence == 1
            assert consumer.fetch(1, timeout=0.05) == []
        thirds = {slot_of(cluster[0], "t", name) * 3 // SLOTS for name in names}
        assert thirds == {0, 1, 2}
        assert sorted(stream.name for stream in bus.streams()) == sorted(names)

        def span() -> None:
            with bus.group() as group:
                group.publish("s0.a")
                group.publish("s1.a")

        with pytest.raises(errors.Unsupported) as caught:
            span()
        assert caught.value.code == "broker.unsupported"
        bus.delete_stream("s0")
        assert "s0" not in [stream.name for stream in bus.streams()]


@pytest.mark.parametrize("case", SUITE, ids=streams.name_of)
def test_a_cluster_keeps_what_it_promises(case: streams.Case, cluster: list[LocalServer]) -> None:
    # Through one server after the other.
    turns = itertools.cycle(cluster[:3])
    case(lambda: connect(next(turns)))


def test_topics_reach_who_is_connected_to_another_server(cluster: list[LocalServer]) -> None:
    with connect(cluster[0]) as one, connect(cluster[2]) as other:
        assert not one.promises.no_responder
        subscription = other.subscribe("a.*")
        other.subscribe("svc.echo", lambda message: message.data)
        one.publish("a.b", b"1")
        assert [message.data for message in subscription.fetch(1, PATIENCE_S)] == [b"1"]
        assert one.request("svc.echo", b"2", timeout=PATIENCE_S).data == b"2"


def test_a_stream_is_followed_to_where_it_moves(cluster: list[LocalServer]) -> None:
    with connect(cluster[2], tenant="moving") as bus:
        names = (f"m{number}" for number in range(100))
        name = next(one for one in names if slot_of(cluster[0], "moving", one) > 2 * SLOTS // 3)
        stream = bus.stream(name, subjects=["s"], create=True)
        consumer = stream.consumer("c", create=True)
        slot, source, target = slot_of(cluster[0], "moving", name), cluster[2], cluster[1]
        target_id, source_id = (raw(one, "CLUSTER", "MYID") for one in (target, source))
        confirmed: list[int] = []
        done = threading.Event()

        def publish() -> None:
            while not done.is_set():
                confirmed.append(stream.publish("s") or 0)

        thread = threading.Thread(target=publish)
        thread.start()
        until(lambda: len(confirmed) > 10)
        raw(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
        raw(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
        keys = raw(source, "CLUSTER", "GETKEYSINSLOT", slot, 100)
        raw(source, "MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
        count = len(confirmed)
        for server in (target, source):
            raw(server, "CLUSTER", "SETSLOT", slot, "NODE", target_id)
        until(lambda: len(confirmed) > count + 10)
        done.set()
        thread.join(PATIENCE_S)
        assert confirmed == list(range(1, len(confirmed) + 1))
        taken: list[int | None] = []
        while len(taken) < len(confirmed):
            for message in consumer.fetch(100, timeout=5):
                taken.append(message.sequence)
                message.ack()
        assert taken == confirmed


def test_a_server_that_dies_is_succeeded_by_its_copy(cluster: list[LocalServer]) -> None:
    # Connected through the one that dies; with both servers having each message, none is lost.
    with connect(cluster[0], tenant="dying", replicas=2) as bus:
        names = (f"d{number}" for number in range(100))
        name = next(one for one in names if slot_of(cluster[1], "dying", one) < SLOTS // 3)
        stream = bus.stream(name, subjects=["s"], create=True)
        numbers = [stream.publish("s", b"before") for _ in range(20)]
        subscription = bus.subscribe("t")
        cluster[0].kill()
        # Nobody copies the successor: one server is all there is.
        bus._client.options = type(bus._client.options)(tenant="dying", timeout_s=PATIENCE_S)
        assert stream.publish("s", b"after") == 21
        assert [message.sequence for message in stream.replay()] == [*numbers, 21]
        until(lambda: bus.publish("t", b"1") == 1 or subscription.fetch(1, timeout=0) != [])
