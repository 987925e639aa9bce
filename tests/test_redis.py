"""What is Redis's own: how streams lie there, what the server at hand promises, and its failures.

What every bus must do is in test_brokers.py.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from dwkernel import brokers, errors
from dwkernel.brokers.subjects import matches
from dwkernel.conformance.servers import LocalServer, find, missing
from expect import code_of, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dwkernel.brokers.broker import Broker
    from dwkernel.brokers.redis import RedisBroker
    from dwkernel.brokers.redis.consumer import RedisConsumer
    from dwkernel.brokers.redis.group import RedisGroup
    from dwkernel.brokers.redis.stream import RedisStream
    from dwkernel.bus import ports

pytest.importorskip("redis")
if find("redis") is None:
    pytest.skip(missing("redis"), allow_module_level=True)

PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer("redis") as server:
        yield server


@pytest.fixture
def bus(server: LocalServer, request: pytest.FixtureRequest) -> Iterator[RedisBroker]:
    with connect(server.url, tenant=request.node.name) as bus:
        yield bus


@pytest.fixture
def stream(bus: RedisBroker) -> RedisStream:
    return bus.stream("s", subjects=["s.>"], create=True)


def connect(url: str, **options: Any) -> RedisBroker:
    from dwkernel.brokers.redis import RedisBroker

    bus = brokers.connect(url, **options)
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


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def ports_of(
    bus: RedisBroker,
    stream: RedisStream,
    consumer: RedisConsumer,
    group: RedisGroup,
) -> tuple[Broker, ports.Stream, ports.Consumer, ports.Group]:
    """Let mypy compare each class with its port."""
    return bus, stream, consumer, group


# --- How it lies there ----------------------------------------------------------------------------


def test_messages_are_entries_that_xrange_shows(server: LocalServer, stream: RedisStream) -> None:
    stream.publish("s.a", b"\x00\xff", headers={"unit": "°C"}, key="k", message_id="m", priority=7)
    tag = b"{dwk:test_messages_are_entries_that_xrange_shows:s}"
    ((name, fields),) = raw(server, "XRANGE", tag + b":messages", "-", "+")
    found = dict(zip(fields[::2], fields[1::2], strict=True))
    assert name == b"1-0"
    assert found[b"subject"] == b"s.a"
    assert found[b"data"] == b"\x00\xff"
    assert found[b"headers"].decode() == '{"unit": "°C"}'
    assert (found[b"key"], found[b"message_id"], found[b"priority"]) == (b"k", b"m", b"7")
    consumer = stream.consumer("c", create=True)
    (message,) = consumer.fetch(1, timeout=0)
    message.term("why")
    ((_, letter),) = raw(server, "XRANGE", tag + b":consumer:c:letters", "-", "+")
    assert letter[:2] == [b"letter_sequence", b"1"]
    assert b"\x00\xff" in letter


def use_everything(bus: RedisBroker) -> None:
    stream = bus.stream(
        "s",
        subjects=["s.>"],
        max_age="1h",
        max_bytes="1 MiB",
        max_messages=100,
        keep_last_per_key=True,
        create=True,
    )
    consumer = stream.consumer("c", backoff=["1ms"], create=True)
    stream.publish("s.a", b"1", message_id="m", key="k")
    stream.publish("s.a", b"2", key="k")
    stream.publish("s.a", b"3", delay="1ms")
    until(lambda: stream.status().messages == 2)
    for message in consumer.fetch(1, timeout=0):
        message.in_progress()
        message.nak(0)
    for message in consumer.fetch(2, timeout=0):
        message.term("why")
    assert stream.redrive() == 2
    assert [one.data for one in consumer.fetch(9, timeout=0)] == [b"2", b"3"]
    consumer.pause()
    consumer.resume()
    assert len(list(stream.replay())) == 2
    assert consumer.status().pending == 2
    assert stream.purge(subject="s.>") == 2
    stream.delete_consumer("c")
    stream.consumer("d", create=True)


def clustered() -> LocalServer:
    # It takes a second port 10,000 above the first one, which may be none.
    for _ in range(20):
        with contextlib.suppress(TimeoutError):
            return LocalServer("redis", {"cluster-enabled": "yes"})
    pytest.fail("no port for a cluster")


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalServer]:
    with clustered() as server:
        raw(server, "CLUSTER", "ADDSLOTS", *range(16384))
        until(lambda: b"cluster_state:ok" in raw(server, "CLUSTER", "INFO"))
        yield server


def test_a_stream_lies_in_one_slot_of_a_cluster(cluster: LocalServer) -> None:
    with connect(cluster.url) as bus:
        use_everything(bus)
        assert not bus.promises.atomic_groups
        with bus.group() as group:
            group.publish("s.a", b"1")
            group.publish("s.b", b"2")
        assert [(one.stream, one.sequence) for one in group.published] == [("s", 4), ("s", 5)]
        bus.stream("t", subjects=["t"], create=True)

        def span_two() -> None:
            with bus.group() as group:
                group.publish("s.a", b"3")
                group.publish("t", b"4")

        assert code_of(span_two) == "broker.unsupported"
        assert [one.data for one in bus.stream("s").replay()] == [b"1", b"2"]


def test_a_deleted_stream_leaves_nothing_behind(server: LocalServer) -> None:
    with connect(server.url, tenant="gone") as bus:
        use_everything(bus)
        bus.stream("s").publish("s.a", message_id="other", key="k")
        bus.stream("s").publish("s.a", delay="1h")
        for message in bus.stream("s").consumer("d").fetch(1, timeout=0):
            message.term("why")
        assert raw(server, "KEYS", "*dwk:gone:*:letters")
        bus.delete_stream("s")
        assert raw(server, "KEYS", "*dwk:gone:*") == []


def test_tenants_do_not_see_each_other(server: LocalServer) -> None:
    with connect(server.url, tenant="a:s}") as one, connect(server.url, tenant="a") as other:
        one.stream("s", subjects=["s"], create=True).publish("s", b"1")
        assert other.streams() == []
        assert code_of(lambda: other.stream("s")) == "stream.not_found"
        taken: list[Any] = []
        subscription = other.subscribe(">", taken.append)
        assert one.publish("s", b"1") == 0
        subscription.close()
        assert taken == []


def test_who_waits_is_told_that_the_stream_is_gone(bus: RedisBroker, stream: RedisStream) -> None:
    consumer = stream.consumer("c", create=True)
    codes: list[str] = []
    thread = threading.Thread(target=lambda: codes.append(code_of(lambda: consumer.fetch(1))))
    thread.start()
    bus.delete_stream("s")
    bus.stream("s", subjects=["s.>"], create=True).publish("s.a", b"another one's")
    thread.join(PATIENCE_S)
    assert codes == ["stream.not_found"]
    assert code_of(lambda: stream.publish("s.a")) == "stream.not_found"


@pytest.mark.parametrize("verb", ["nak", "ack", "resume"])
def test_who_waits_is_woken_by_what_another_program_does(
    server: LocalServer, bus: RedisBroker, stream: RedisStream, verb: str
) -> None:
    # With one more message only an acknowledgement makes room; else it is given back, or let go on.
    count = {"nak": 2, "ack": 3, "resume": 3}[verb]
    stream.publish_many([("s.a", b"")] * count)
    most = 10 if verb == "nak" else 2
    consumer = stream.consumer("c", max_ack_pending=most, create=True)
    with connect(server.url, tenant=bus._client.options.tenant) as another:
        theirs = another.stream("s").consumer("c")
        first = theirs.fetch(2, timeout=0)[0]
        if verb == "resume":
            theirs.pause()
            first.ack()
        taken: list[float] = []
        thread = threading.Thread(target=_take, args=(consumer, taken))
        thread.start()
        time.sleep(0.1)
        assert taken == []
        begun = time.monotonic()
        getattr(theirs if verb == "resume" else first, verb)()
        thread.join(PATIENCE_S)
        assert taken[0] - begun < 1


def _take(consumer: RedisConsumer, taken: list[float]) -> None:
    for message in consumer.fetch(1, PATIENCE_S):
        taken.append(time.monotonic())
        message.ack()


def test_an_acknowledgement_of_all_covers_what_the_same_reader_was_handed(
    bus: RedisBroker, stream: RedisStream
) -> None:
    stream.publish_many([("s.a", b"")] * 4)
    first = stream.consumer("c", ack="all", ack_wait="200ms", create=True)
    another = bus.stream("s").consumer("c")
    first.fetch(1, timeout=0)
    another.fetch(2, timeout=0)[1].ack()
    assert another.status().floor_sequence == 0
    assert [one.sequence for one in another.fetch(1, timeout=0)] == [4]
    assert [(one.sequence, one.deliveries) for one in another.fetch(1, timeout=5)] == [(1, 2)]


def test_only_who_uses_redis_loads_its_client() -> None:
    program = "import dwkernel, dwkernel.brokers, sys; sys.exit('redis' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_work_queue_keeps_what_is_not_done(stream: RedisStream, bus: RedisBroker) -> None:
    queue = bus.stream("q", subjects=["q"], retention="work_queue", create=True)
    queue.publish_many([("q", b"")] * 5)
    consumer = queue.consumer("c", max_deliver=1, create=True)
    one, two, three, four = consumer.fetch(4, timeout=0)
    two.ack()
    four.ack()
    assert [message.sequence for message in queue.replay()] == [1, 2, 3, 4, 5]
    three.nak()
    one.ack()
    assert [message.sequence for message in queue.replay()] == [5]
    # Its copy is taken in anew: the queue has let it go.
    assert consumer.redrive() == 1
    again = consumer.fetch(9, timeout=0)
    assert [(message.sequence, message.deliveries) for message in again] == [(5, 1), (6, 1)]
    assert stream.status().messages == 0


def test_a_key_that_somebody_deletes_is_missed(server: LocalServer, stream: RedisStream) -> None:
    stream.publish("s.a")
    assert stream.purge() == 1
    assert list(stream.replay()) == []
    raw(server, "DEL", "{dwk:test_a_key_that_somebody_deletes_is_missed:s}:messages")
    assert code_of(lambda: stream.publish("s.a")) == "broker.failed"
    assert code_of(lambda: list(stream.replay())) == "broker.failed"


def test_the_servers_patterns_stand_for_the_same_subjects_as_ours(bus: RedisBroker) -> None:
    chance = random.Random(5)
    tokens = ["a", "b", "%", "a%", "-", "a-z", "[a]", "(", "+", "?", "^", "$", "ä", "%a"]

    def text(count: int, wild: list[str]) -> str:
        return ".".join(chance.choice(tokens + wild) for _ in range(count))

    subjects = [text(chance.randint(1, 3), []) for _ in range(150)]
    stream = bus.stream("s", subjects=[">"], create=True)
    stream.publish_many([(subject, b"") for subject in subjects])
    for number in range(150):
        pattern = text(chance.randint(1, 3), ["*"] * 8)
        if chance.random() < 0.3:
            pattern = ".".join([*pattern.split(".")[:2], ">"])
        consumer = stream.consumer(f"c{number}", subjects=[pattern], ack="none", create=True)
        found = [message.subject for message in consumer.fetch(200, timeout=0)]
        assert found == [one for one in subjects if matches(pattern, one)], pattern


def test_it_speaks_tls(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: no certificate for the server")
    key, certificate = str(tmp_path / "key"), str(tmp_path / "certificate")
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command = [*make, "-nodes", "-keyout", key, "-out", certificate, *subject]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    port = free_port()
    settings = {
        "tls-port": str(port),
        "tls-cert-file": certificate,
        "tls-key-file": key,
        "tls-ca-cert-file": certificate,
        "tls-auth-clients": "no",
    }
    try:
        server = LocalServer("redis", settings)
    except TimeoutError as error:
        if "Bad directive" in str(error):
            pytest.skip("this redis-server was built without TLS")
        raise
    with server:
        url = f"rediss://localhost:{port}"
        assert code_of(lambda: connect(url, connect_timeout="300ms")) == "broker.lost"
        with connect(f"{url}?ssl_ca_certs={certificate}") as bus:
            stream = bus.stream("s", subjects=["s"], create=True)
            assert stream.publish("s", b"x" * 100_000) == 1
            consumer = stream.consumer("c", create=True)
            assert [len(message.data) for message in consumer.fetch(1, timeout=0)] == [100_000]
            assert consumer.fetch(1, timeout=0.1) == []
            subscription = bus.subscribe("t")
            assert bus.publish("t", b"1") == 1
            assert [message.data for message in subscription.fetch(1, PATIENCE_S)] == [b"1"]


# --- What the server at hand promises -------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "kill", "power_cut"),
    [
        ({}, True, True),
        ({"appendfsync": "everysec"}, False, False),
        ({"appendfsync": "no"}, True, False),
        ({"no-appendfsync-on-rewrite": "yes"}, True, False),
        ({"appendonly": "no"}, False, False),
    ],
)
def test_promises_are_those_of_the_append_only_file(
    settings: dict[str, str], kill: bool, power_cut: bool
) -> None:
    with LocalServer("redis", settings) as server, connect(server.url) as bus:
        assert bool(bus.promises.survives_kill) is kill
        assert bool(bus.promises.survives_power_cut) is power_cut
        stream = bus.stream("s", subjects=["s"], create=True)
        stream.publish("s", b"1")
        consumer = stream.consumer("c", create=True)
        (message,) = consumer.fetch(1, timeout=0)
        if bus.promises.durable_ack:
            message.ack(durable=True)
            consumer.flush()
        else:
            assert code_of(consumer.flush) == "broker.unsupported"
            assert code_of(lambda: message.ack(durable=True)) == "broker.unsupported"
            message.ack()
        if kill:
            assert stream.publish("s", b"2") == 2
            server.restart()
            assert [one.data for one in stream.replay()] == [b"1", b"2"]
            (message,) = stream.consumer("c").fetch(9, timeout=0)
            assert (message.sequence, message.deliveries) == (2, 1)


def test_what_a_url_says_of_the_protocol_changes_nothing(server: LocalServer) -> None:
    options = "?protocol=3&decode_responses=true&socket_timeout=0.001"
    with connect(server.url + options, tenant="protocol") as bus:
        stream = bus.stream("s", subjects=["s"], create=True)
        stream.publish("s", b"\xff", headers={"a": "b"})
        assert [one.data for one in stream.consumer("c", create=True).fetch(1, timeout=1)] == [
            b"\xff"
        ]
        subscription = bus.subscribe("t.*")
        bus.publish("t.a", b"\xff")
        assert [one.data for one in subscription.fetch(1, PATIENCE_S)] == [b"\xff"]


def test_a_server_that_does_not_tell_promises_nothing(server: LocalServer) -> None:
    raw(server, "ACL", "SETUSER", "shy", "on", ">secret", "~*", "&*", "+@all", "-config")
    with connect(f"redis://shy:secret@127.0.0.1:{server.port}") as bus:
        assert bus.url == f"redis://127.0.0.1:{server.port}"
        assert not bus.promises.survives_kill
        assert "does not say" in bus.promises.survives_kill.says
        bus.stream("shy", subjects=["s"], create="if_missing").publish("s", b"1")


def test_who_may_not_is_told_so(server: LocalServer) -> None:
    raw(server, "ACL", "SETUSER", "reader", "on", ">secret", "~*", "&*", "+@all", "-evalsha")
    wrong = f"redis://reader:wrong@127.0.0.1:{server.port}"
    assert code_of(lambda: connect(wrong)) == "broker.denied"
    with connect(wrong.replace("wrong", "secret")) as bus:
        assert code_of(lambda: bus.stream("r", subjects=["r"], create=True)) == "broker.denied"
    assert code_of(lambda: connect("redis://127.0.0.1:1", connect_timeout=1)) == "broker.lost"
    assert code_of(lambda: connect("redis://127.0.0.1/x?db=y")) == "broker.url"
    assert code_of(lambda: connect(server.url, credentials="file")) == "broker.unsupported"


def test_rights_keep_tenants_apart(server: LocalServer) -> None:
    keys = ["~{dwk:acme:*", "~dwk:acme:*", "&dwk:acme:*", "&dwk-inbox:acme:*"]
    rights = ["resetchannels", *keys, "+@all", "-@admin", "-@dangerous"]
    raw(server, "ACL", "SETUSER", "acme", "on", ">secret", *rights)
    url = f"redis://acme:secret@127.0.0.1:{server.port}"
    with connect(url, tenant="acme") as bus:
        use_everything(bus)
        bus.subscribe("svc.*", lambda message: message.data)
        assert bus.request("svc.echo", b"x", timeout=PATIENCE_S).data == b"x"
        bus.delete_stream("s")
    with connect(url, tenant="acme2") as bus:
        assert code_of(lambda: bus.stream("s", subjects=["s"], create=True)) == "broker.denied"
        assert code_of(bus.streams) == "broker.denied"
        assert code_of(lambda: bus.publish("s")) == "broker.denied"
        begun = time.monotonic()
        for pattern in ("a", "a.*", "a.*.b", ">"):
            assert code_of(lambda: bus.subscribe(pattern)) == "broker.denied"  # noqa: B023
        assert code_of(lambda: bus.request("svc.echo")) == "broker.denied"
        assert time.monotonic() - begun < 5


def test_streams_are_refused_where_their_keys_may_be_evicted() -> None:
    policy = {"maxmemory-policy": "allkeys-lru"}
    with LocalServer("redis", policy) as server, connect(server.url) as bus:
        refused = code_of(lambda: bus.stream("s", subjects=["s"], create=True))
        assert refused == "broker.unsupported"
        assert bus.publish("s", b"channels need no memory") == 0


def test_full_memory_takes_no_message_and_lets_consumers_empty_the_stream() -> None:
    limits = {"maxmemory": "8mb", "maxmemory-policy": "volatile-lru"}
    with LocalServer("redis", limits) as server, connect(server.url) as bus:
        stream = bus.stream("s", subjects=["s"], retention="work_queue", create=True)
        consumer = stream.consumer("c", create=True)
        for number in range(40):
            raw(server, "SET", f"cache-{number}", b"x" * 50_000, "EX", 1000)
        confirmed: list[int | None] = []

        def fill() -> None:
            while True:
                confirmed.append(stream.publish("s", b"x" * 50_000))

        assert code_of(fill) == "stream.full"
        # What may go is gone; of ours nothing is.
        assert raw(server, "KEYS", "cache-*") == []
        assert [one.sequence for one in stream.replay()] == confirmed
        for _ in range(5):
            for message in consumer.fetch(1, timeout=0):
                message.ack()
        until(lambda: _takes(stream))
        assert code_of(fill) == "stream.full"
        assert stream.purge() > 0
        assert stream.status().messages == 0


def _takes(stream: RedisStream) -> bool:
    try:
        return stream.publish("s", b"again") is not None
    except errors.Full:
        return False


def test_a_message_is_confirmed_when_replicas_have_it() -> None:
    with LocalServer("redis") as first, LocalServer("redis") as second:
        raw(second, "REPLICAOF", "127.0.0.1", first.port)
        until(lambda: b"master_link_status:up" in raw(second, "INFO"))
        with connect(first.url, replicas=2, timeout="10s") as bus:
            stream = bus.stream("s", subjects=["s"], create=True)
            assert stream.publish("s", b"1") == 1
            assert raw(second, "XLEN", "{dwk::s}:messages") == 1
            second.suspend()
            begun = time.monotonic()
            with pytest.raises(errors.Unavailable) as caught:
                stream.publish("s", b"2", timeout=0.5)
            assert time.monotonic() - begun < 5
            assert (caught.value.code, caught.value.details["outcome"]) == (
                "broker.lost",
                "unknown",
            )
            # Asked again over another connection it waits again, for what was done before.
            killer = threading.Timer(0.2, raw, (first, "CLIENT", "KILL", "TYPE", "normal"))
            killer.start()
            assert code_of(lambda: stream.publish("s", b"3", timeout=1)) == "broker.lost"
            killer.join()
            second.resume()
            assert stream.publish("s", b"4") == 4


# --- The process ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_a_wait_and_loses_nothing(stream: RedisStream) -> None:
    consumer = stream.consumer("c", create=True)
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        consumer.fetch(1, timeout=PATIENCE_S)
    timer.join()
    stream.publish("s.a", b"1")
    assert [one.data for one in consumer.fetch(1, timeout=0)] == [b"1"]


def test_a_connection_does_not_cross_a_fork(bus: RedisBroker, stream: RedisStream) -> None:
    child = os.fork()
    if child == 0:
        code = "none"
        with contextlib.suppress(BaseException):
            code = code_of(lambda: stream.publish("s.a"))
        os._exit(0 if code == "bus.forked" else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert stream.publish("s.a") == 1
    assert bus.is_connected


def test_closing_ends_waits_and_refuses_what_comes_later(
    bus: RedisBroker, stream: RedisStream
) -> None:
    consumer = stream.consumer("c", create=True)
    codes: list[str] = []
    calls: list[Callable[[], object]] = [
        lambda: consumer.fetch(1),
        lambda: next(stream.replay(follow=True)),
    ]
    threads = [
        threading.Thread(target=lambda call=call: codes.append(code_of(call))) for call in calls
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    begun = time.monotonic()
    bus.close()
    for thread in threads:
        thread.join(PATIENCE_S)
    # Sooner than the wait on the server ends by itself.
    assert time.monotonic() - begun < 1
    assert codes == ["bus.closed", "bus.closed"]
    late: list[Callable[[], object]] = [
        lambda: stream.publish("s.a"),
        lambda: bus.publish("s.a"),
        lambda: bus.subscribe("s.a"),
        stream.purge,
        consumer.flush,
    ]
    assert [code_of(call) for call in late] == ["bus.closed"] * len(late)
