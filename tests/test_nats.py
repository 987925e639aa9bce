"""What is NATS's own: what it refuses, other programs on it, and how a program ends."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import signal
import ssl
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Any

import pytest

from dwkernel import brokers, errors
from dwkernel.conformance import servers
from dwkernel.conformance.streams.checks import take, until
from expect import code_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

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


def test_credentials_and_rights_are_refused_with_a_code() -> None:
    users = """{ users: [
      { user: alice, password: "s e@c/ret" }
      { user: bob, password: b, permissions: { publish: ["ok"], subscribe: "_INBOX.>" } }
    ] }"""
    with servers.LocalServer("nats", {"authorization": users}) as server:
        host = server.url.removeprefix("nats://")
        for login in ("", "alice:wrong@", "nobody:x@"):
            assert code_of(lambda login=login: connect(f"nats://{login}{host}")) == "broker.denied"  # type: ignore[misc]
        with connect(f"nats://alice:s%20e%40c%2Fret@{host}") as bus:
            assert "alice" not in bus.url
            bus.stream("s", subjects=["s"], create=True).publish("s")
        with connect(f"nats://bob:b@{host}") as bus:
            start = time.monotonic()
            assert code_of(lambda: bus.stream("s")) == "broker.denied"
            assert code_of(lambda: bus.request("forbidden")) == "broker.denied"
            assert code_of(lambda: bus.subscribe("forbidden")) == "broker.denied"
            assert time.monotonic() - start < 5
            assert code_of(lambda: bus.request("ok")) == "bus.no_responder"


def test_a_server_without_jetstream_has_topics_and_says_so_of_streams() -> None:
    with servers.LocalServer("nats", {"jetstream": "false"}) as server, connect(server.url) as bus:
        bus.subscribe("t", lambda message: message.data)
        assert bus.request("t", b"x").data == b"x"
        create: Any = {"subjects": ["s"], "create": True}
        assert code_of(lambda: bus.stream("s", **create)) == "broker.unsupported"


def test_what_jetstream_cannot_is_refused_with_its_option(bus: NatsBroker) -> None:
    bus.stream("s", subjects=["s.>"], create=True)
    refused: list[tuple[str, Callable[[], object]]] = [
        ("subjects", lambda: bus.stream("t", subjects=["s.a"], create=True)),
        ("duplicate_window", lambda: bus.stream("t", subjects=["t"], max_age=1, create=True)),
    ]
    queue = bus.stream("q", subjects=["q"], retention="work_queue", create=True)
    queue.consumer("one", create=True)
    refused.append(("retention", lambda: queue.consumer("two", create=True)))
    for option, call in refused:
        with pytest.raises(errors.Unsupported) as caught:
            call()
        assert (caught.value.code, caught.value.details["option"]) == ("broker.unsupported", option)


def test_many_at_a_time_are_each_by_itself(bus: NatsBroker) -> None:
    stream = bus.stream("s", subjects=["s"], max_messages=2000, discard="new", create=True)
    messages: list[Any] = [("s", b"%d" % number, {}, str(number)) for number in range(1500)]
    assert stream.publish_each(messages) == list(range(1, 1501))
    assert stream.publish_each(messages[:10]) == list(range(1, 11))
    with pytest.raises(errors.Full) as caught:
        stream.publish_each([("s", b"x")] * 600)
    assert caught.value.code == "stream.full"
    assert int(caught.value.details["confirmed"]) == 500
    assert stream.status().messages == 2000
    assert code_of(lambda: stream.publish_each([("s", b""), ("t", b"")])) == "stream.subject"
    assert stream.publish_many([]) == []


def test_a_message_with_headers_that_the_server_cannot_take_is_refused(bus: NatsBroker) -> None:
    stream = bus.stream("s", subjects=["s"], create=True)
    data = b"x" * bus.promises.message_bytes_max
    headers = {"x": "y" * 60_000}
    assert code_of(lambda: stream.publish("s", data, headers=headers)) == "bus.message_size"
    assert stream.publish("s", data) == 1
    consumer = stream.consumer("c", create=True)
    take(consumer, 1)[0].term("x" * 256)
    (letter,) = consumer.dead_letters()
    assert letter.message is not None
    assert letter.message.data == data


def test_other_programs_read_and_write_the_same_streams(
    server: servers.LocalServer, bus: NatsBroker
) -> None:
    import nats

    stream = bus.stream("s", subjects=["s.>"], create=True)
    consumer = stream.consumer("c", create=True)

    async def other() -> tuple[Any, Any]:
        client = await nats.connect(server.url)
        context = client.jetstream()
        ack = await context.publish("s.other", b"1", headers={"a": "b", "Nats-Msg-Id": "one"})
        found = await context.get_msg("s", 1)
        await client.close()
        return ack, found

    stream.publish("s.ours", b"0", headers={"Trace": "x y"}, message_id="zero", key="k")
    ack, raw = asyncio.run(other())
    assert (ack.seq, raw.data) == (2, b"0")
    assert (raw.headers["Trace"], raw.headers["Nats-Msg-Id"]) == ("x y", "zero")
    assert raw.headers["Dw-Key"] == "k"
    _, theirs = take(consumer, 2)
    assert (theirs.data, theirs.headers, theirs.subject) == (b"1", {"a": "b"}, "s.other")
    assert (theirs.id, theirs.key, theirs.priority, theirs.principal) == ("one", None, 0, None)
    theirs.term("theirs")
    assert [one.sequence for one in stream.dead_letters()] == [2]
    assert [one.name for one in bus.streams()] == ["s"]


def test_a_stream_made_anew_is_not_taken_for_the_old_one(
    server: servers.LocalServer, bus: NatsBroker
) -> None:
    import nats

    stream = bus.stream("s", subjects=["s"], create=True)
    consumer = stream.consumer("c", create=True)
    stream.publish("s", b"old")
    take(consumer, 1)[0].ack(durable=True)

    async def make_anew() -> None:
        client = await nats.connect(server.url)
        context = client.jetstream()
        await context.delete_stream("s")
        await context.add_stream(name="s", subjects=["s"])
        await client.close()

    asyncio.run(make_anew())
    again = bus.stream("s")
    again.publish("s", b"new")
    with connect(server.url) as other:
        consumer = other.stream("s").consumer("c", create=True)
        assert [one.data for one in take(consumer, 1)] == [b"new"]


def test_who_published_travels_with_the_message(server: servers.LocalServer) -> None:
    with connect(server.url, principal="alice é", tenant="acme") as bus:
        stream = bus.stream("s", subjects=["s"], create=True)
        stream.publish("s")
        (message,) = stream.replay()
        assert (message.principal, message.tenant) == ("alice é", "acme")


def test_a_connection_does_not_cross_a_fork(bus: NatsBroker) -> None:
    stream = bus.stream("s", subjects=["s"], create=True)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            stream.publish("s")
        except errors.DwError as error:
            os.write(writing, error.code.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as told:
        assert told.read() == b"bus.forked"
    os.waitpid(child, 0)
    assert stream.publish("s") == 1


@pytest.mark.usefixtures("interruptible")
def test_a_program_ends_with_a_connection_open_and_stops_on_ctrl_c(
    server: servers.LocalServer, bus: NatsBroker
) -> None:
    bus.stream("s", subjects=["s"], create=True).consumer("c", create=True)
    for last in ("", "consumer.fetch(1)"):
        program = f"""
        import sys
        from dwkernel import brokers
        bus = brokers.connect(sys.argv[1])
        bus.subscribe("t", print)
        consumer = bus.stream("s").consumer("c")
        print("ready", flush=True)
        {last}
        """
        command = [sys.executable, "-c", textwrap.dedent(program), server.url]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            if last:
                time.sleep(0.3)
                child.send_signal(signal.SIGINT)
            _, told = child.communicate(timeout=20)
        if last:
            assert told.strip().endswith("KeyboardInterrupt"), told
        else:
            assert (child.returncode, told) == (0, "")


def test_subscriptions_of_a_group_are_shared_between_connections(
    server: servers.LocalServer, bus: NatsBroker
) -> None:
    taken: list[list[bytes]] = [[], []]
    with connect(server.url) as other:
        bus.subscribe("t", lambda message: taken[0].append(message.data), group="g")
        other.subscribe("t", lambda message: taken[1].append(message.data), group="g")
        for number in range(60):
            bus.publish("t", b"%d" % number)
        until(lambda: len(taken[0]) + len(taken[1]) == 60, "each message comes")
    assert len(set(taken[0]) | set(taken[1])) == 60
    assert all(taken)


def test_consumers_that_are_let_go_are_not_listened_for(bus: NatsBroker) -> None:
    stream = bus.stream("s", subjects=["s"], create=True)
    stream.consumer("c", create=True)
    stream.publish("s")
    before = len(bus.connection._listening)
    for _ in range(20):
        consumer = stream.consumer("c")
        for message in consumer.fetch(1, timeout=0):
            message.nak(0)
        assert list(stream.dead_letters()) == []
    del consumer, message
    gc.collect()
    until(lambda: len(bus.connection._listening) <= before, "they are forgotten")


def test_a_replay_is_whole_also_if_a_delivery_gets_lost(
    bus: NatsBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dwkernel.brokers.nats.pull import Pull

    stream = bus.stream("s", subjects=["s"], create=True)
    stream.publish_each([("s", b"%d" % number) for number in range(1, 11)])
    whole, losses = Pull.now, [4]

    async def losing(self: Pull, *given: Any, **options: Any) -> Any:
        found = await whole(self, *given, **options)
        if losses and len(found) > losses[0]:
            del found[losses.pop()]
        return found

    monkeypatch.setattr(Pull, "now", losing)
    assert [one.sequence for one in stream.replay()] == list(range(1, 11))
    assert losses == []


def test_who_asks_is_told_that_the_handler_raised(bus: NatsBroker) -> None:
    bus.subscribe("t", lambda message: 1 // len(message.data), on_error=lambda *_: None)
    with pytest.raises(errors.Internal, match=r"ZeroDivisionError.*\[bus\.handler\]"):
        bus.request("t", timeout=PATIENCE_S)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_a_connection_with_tls_checks_the_certificate(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    settings = {"tls": f'{{ cert_file: "{certificate}", key_file: "{key}" }}'}
    with servers.LocalServer("nats", settings) as server:
        url = server.url.replace("nats://", "tls://")
        known = ssl.create_default_context(cafile=str(certificate))
        with connect(url, tls=known) as bus:
            assert bus.stream("s", subjects=["s"], create=True).publish("s", b"1") == 1
        # Nobody vouches for it.
        assert code_of(lambda: connect(url, connect_timeout="1s")) == "broker.lost"
