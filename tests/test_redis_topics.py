"""Topics on Redis channels: patterns that are ours, and connections that end."""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from dwkernel import brokers
from dwkernel.conformance.servers import LocalServer, find, missing
from expect import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dwkernel.brokers.redis import RedisBroker

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


def connect(url: str, **options: Any) -> RedisBroker:
    from dwkernel.brokers.redis import RedisBroker

    bus = brokers.connect(url, **options)
    assert isinstance(bus, RedisBroker)
    return bus


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def test_patterns_are_ours_and_not_redis_globs(bus: RedisBroker) -> None:
    taken: dict[str, list[str]] = {}
    patterns = [">", "a.>", "a.*.c", "a.b.c", "a[b]?.*", "a.*"]

    def listen(pattern: str) -> Any:
        taken[pattern] = []
        return bus.subscribe(pattern, lambda message: taken[pattern].append(message.subject))

    subscriptions = [listen(pattern) for pattern in patterns]
    subjects = ["a.b.c", "a.b.x.c", "a", "a.b", "ab.c", "a[b]?.c", "aby.c"]
    for subject in subjects:
        bus.publish(subject, b"")
    until(lambda: len(taken[">"]) == len(subjects))
    for subscription in subscriptions:
        subscription.close()
    assert taken[">"] == subjects
    assert taken["a.>"] == ["a.b.c", "a.b.x.c", "a.b"]
    assert taken["a.*.c"] == taken["a.b.c"] == ["a.b.c"]
    assert taken["a[b]?.*"] == ["a[b]?.c"]
    assert taken["a.*"] == ["a.b"]


def test_who_leaves_a_channel_does_not_end_it_for_who_comes(
    bus: RedisBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = bus.subscribe("a.b")
    send = bus._topics._send
    is_leaving = threading.Event()

    def send_late(connection: Any, *command: Any) -> None:
        if command[0] == "UNSUBSCRIBE":
            is_leaving.set()
            time.sleep(0.2)
        send(connection, *command)

    monkeypatch.setattr(bus._topics, "_send", send_late)
    leaving = threading.Thread(target=first.close)
    leaving.start()
    assert is_leaving.wait(PATIENCE_S)
    with bus.subscribe("a.b") as second:
        leaving.join(PATIENCE_S)
        assert bus.publish("a.b", b"1") == 1
        assert second.next(PATIENCE_S) is not None
    until(lambda: bus.publish("a.b", b"2") == 0)


def test_answers_are_seen_by_who_asked_only(bus: RedisBroker) -> None:
    seen: list[str] = []
    bus.subscribe(">", lambda message: seen.append(message.subject))
    bus.subscribe("svc.echo", lambda message: message.data)
    assert bus.request("svc.echo", b"x", timeout=PATIENCE_S).data == b"x"
    until(lambda: seen == ["svc.echo"])


def test_subscriptions_are_there_again_after_a_restart() -> None:
    with LocalServer("redis") as server, connect(server.url) as bus:
        subscription = bus.subscribe("a.*")
        bus.publish("a.b", b"before")
        assert [one.data for one in subscription.fetch(1, PATIENCE_S)] == [b"before"]
        server.restart()
        until(lambda: bus.publish("a.b", b"after") == 1)
        assert [one.data for one in subscription.fetch(1, PATIENCE_S)] == [b"after"]


def test_a_server_that_hangs_is_listened_to_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from dwkernel.brokers.redis import topics

    monkeypatch.setattr(topics, "_QUIET_S", 0.1)
    with LocalServer("redis") as server, connect(server.url) as bus:
        subscription = bus.subscribe("a")
        before = bus._topics._connection
        server.suspend()
        try:
            until(lambda: bus._topics._connection is not before)
        finally:
            server.resume()
        # The server may count the connection that is gone until it has seen its end.
        until(lambda: bus.publish("a", b"1") > 0 and subscription.fetch(1, timeout=0.1) != [])
