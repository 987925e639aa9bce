"""Durable streams from Python: what was acknowledged is there, once, in order, after anything."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

import dwkernel as dw
from dwkernel.bus import Bus
from expect import code_of, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE_S = 30.0


@pytest.fixture
def kernel(request: pytest.FixtureRequest) -> Iterator[dw.Kernel]:
    drives = [f"memory://{request.node.name}-{number}" for number in range(3)]
    with dw.open(drives=drives, geometry="2+1", create=True) as kernel:
        yield kernel


def test_messages_are_kept_as_they_were_sent(kernel: dw.Kernel) -> None:
    stream = kernel.bus.stream("orders", subjects=["orders.>", "returns.*"], create=True)
    before = datetime.now(UTC)
    first = stream.publish(
        "orders.eu.new",
        b"1",
        headers={"a": "b"},
        key="k",
        schema="s",
        priority=7,
        correlation_id="f" * 32,
    )
    assert (first, stream.publish("returns.us", bytearray(b"2"))) == (1, 2)
    assert stream.publish_many([("orders.x", b"3"), ("orders.y", b"4", {"c": "d"})]) == [3, 4]
    messages = list(stream.replay())
    assert [(m.sequence, m.subject, m.data) for m in messages] == [
        (1, "orders.eu.new", b"1"),
        (2, "returns.us", b"2"),
        (3, "orders.x", b"3"),
        (4, "orders.y", b"4"),
    ]
    one = messages[0]
    assert (one.headers, one.key, one.schema, one.priority) == ({"a": "b"}, "k", "s", 7)
    assert one.correlation_id == "f" * 32
    assert before.timestamp() - 1 < one.published_at.timestamp() < time.time() + 1
    assert one.published_at.tzinfo is UTC
    assert messages[3].headers == {"c": "d"}


def test_a_replay_begins_anywhere(kernel: dw.Kernel) -> None:
    stream = kernel.bus.stream("s", subjects=["s"], create=True)
    for number in range(5):
        stream.publish("s", str(number).encode())
    time.sleep(0.01)
    moment = datetime.now(UTC)
    time.sleep(0.01)
    stream.publish("s", b"late")
    assert [m.sequence for m in stream.replay(from_sequence=4)] == [4, 5, 6]
    assert [m.data for m in stream.replay(from_time=moment)] == [b"late"]
    assert list(stream.replay(from_sequence=100)) == []


def test_a_replay_from_a_message_s_own_time_begins_with_it(kernel: dw.Kernel) -> None:
    stream = kernel.bus.stream("s", subjects=["s"], create=True)
    for _ in range(300):
        stream.publish("s", b"")
    for message in stream.replay():
        found = next(stream.replay(from_time=message.published_at))
        assert (found.sequence or 0) <= (message.sequence or 0)


def test_who_follows_gets_what_comes_later(kernel: dw.Kernel) -> None:
    stream = kernel.bus.stream("s", subjects=["s"], create=True)
    stream.publish("s", b"0")
    taken: list[bytes] = []

    def follow() -> None:
        taken.extend(message.data for message in stream.replay(follow=True, idle=1))

    thread = threading.Thread(target=follow)
    thread.start()
    for number in range(1, 4):
        time.sleep(0.02)
        stream.publish("s", str(number).encode())
    thread.join(PATIENCE_S)
    assert taken == [b"0", b"1", b"2", b"3"]


def test_threads_share_commits_and_numbers_are_dense(kernel: dw.Kernel) -> None:
    stream = kernel.bus.stream("s", subjects=["s.*"], create=True)
    numbers: list[list[int | None]] = [[] for _ in range(8)]

    def publish(who: int) -> None:
        for count in range(50):
            numbers[who].append(stream.publish(f"s.{who}", str(count).encode()))

    threads = [threading.Thread(target=publish, args=(who,)) for who in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert sorted(number or 0 for mine in numbers for number in mine) == list(range(1, 401))
    for who, mine in enumerate(numbers):
        assert mine == sorted(mine, key=lambda number: number or 0)
        data = [int(m.data) for m in stream.replay() if m.subject == f"s.{who}"]
        assert data == list(range(50))
    status = stream.status()
    assert (status.messages, status.last_sequence) == (400, 400)


def test_an_identity_is_taken_once_also_after_reopening(tmp_path: Path) -> None:
    with dw.open(tmp_path / "s", drives=3, geometry="2+1", create=True) as kernel:
        stream = kernel.bus.stream("s", subjects=["s"], create=True)
        assert [stream.publish("s", b"1", message_id="a") for _ in range(3)] == [1, 1, 1]
        assert stream.publish("s", b"2", message_id="b") == 2
    with dw.open(tmp_path / "s") as kernel:
        stream = kernel.bus.stream("s")
        assert stream.publish("s", b"3", message_id="a") == 1
        assert stream.publish("s", b"3") == 3
        assert [m.data for m in stream.replay()] == [b"1", b"2", b"3"]


def test_a_delayed_message_comes_when_it_is_due(kernel: dw.Kernel) -> None:
    stream = kernel.bus.stream("s", subjects=["s"], create=True)
    assert stream.publish("s", b"later", delay="300ms") is None
    stream.publish("s", b"now")
    assert [m.data for m in stream.replay()] == [b"now"]
    until(lambda: stream.status().messages == 2)
    assert [m.data for m in stream.replay()] == [b"now", b"later"]


def test_a_scheduled_message_comes_at_its_time(kernel: dw.Kernel) -> None:
    stream = kernel.bus.stream("s", subjects=["s"], create=True)
    due = datetime.now(UTC) + timedelta(milliseconds=400)
    assert stream.publish("s", b"scheduled", at=due) is None
    assert stream.publish("s", b"overdue", at=datetime(2000, 1, 1, tzinfo=UTC)) is None
    until(lambda: [m.data for m in stream.replay()] == [b"overdue"])
    until(lambda: stream.status().messages == 2)
    assert datetime.now(UTC) >= due
    naive = due.replace(tzinfo=None)
    assert code_of(lambda: stream.publish("s", at=naive)) == "stream.option"
    assert code_of(lambda: stream.publish("s", at=due, delay="1s")) == "stream.option"
    assert stream.status().messages == 2


def test_limits_let_the_oldest_go_or_refuse_the_new(kernel: dw.Kernel) -> None:
    old = kernel.bus.stream("old", subjects=["old"], max_messages=3, create=True)
    for number in range(10):
        old.publish("old", str(number).encode())
    assert [m.sequence for m in old.replay()] == [8, 9, 10]
    new = kernel.bus.stream("new", subjects=["new"], max_messages=2, discard="new", create=True)
    new.publish_many([("new", b"1"), ("new", b"2")])
    assert code_of(lambda: new.publish("new", b"3")) == "stream.full"
    assert new.purge() == 2
    assert new.publish("new", b"3") == 3
    assert new.status().first_sequence == 3


def test_what_is_purged_by_subject_is_gone(kernel: dw.Kernel) -> None:
    stream = kernel.bus.stream("s", subjects=["s.>"], create=True)
    stream.publish_many([("s.a", b"1"), ("s.b", b"2"), ("s.a", b"3")])
    stream.purge(subject="s.a")
    assert [m.sequence for m in stream.replay()] == [2]
    assert code_of(lambda: stream.purge(1, subject="s")) == "stream.option"


def test_a_group_is_committed_whole_or_not_at_all(kernel: dw.Kernel) -> None:
    bus = kernel.bus
    orders = bus.stream("orders", subjects=["orders.>"], create=True)
    mail = bus.stream("mail", subjects=["mail.>"], create=True)
    with bus.group() as group:
        group.publish("orders.eu", b"1")
        group.publish("mail.out", b"2", headers={"to": "x"})
    assert [(one.stream, one.sequence) for one in group.published] == [("orders", 1), ("mail", 1)]

    def leave_by_an_error() -> None:
        with bus.group() as group:
            group.publish("orders.eu", b"3")
            raise KeyError

    def send_to_nobody() -> None:
        with bus.group() as group:
            group.publish("orders.eu", b"4")
            group.publish("nobody.takes", b"5")

    with pytest.raises(KeyError):
        leave_by_an_error()
    assert code_of(send_to_nobody) == "stream.subject"
    assert [m.data for m in orders.replay()] == [b"1"]
    assert [(m.data, m.headers) for m in mail.replay()] == [(b"2", {"to": "x"})]


def test_a_put_and_its_messages_are_there_together_or_not_at_all(kernel: dw.Kernel) -> None:
    bus = kernel.bus
    created = bus.stream("created", subjects=["*.created"], create=True)
    mail = bus.stream("mail", subjects=["mail.>"], max_messages=1, discard="new", create=True)
    kernel.containers.create("docs")
    publish = [("docs.created", b"docs/a"), ("mail.out", b"hello", {"to": "x"})]
    info = kernel.put("docs/a", b"content", publish=publish)
    assert kernel.head("docs/a").version == info.version
    assert [m.data for m in created.replay()] == [b"docs/a"]
    assert [(m.data, m.headers) for m in mail.replay()] == [(b"hello", {"to": "x"})]
    assert code_of(lambda: kernel.put("docs/b", b"x" * 200_000, publish=publish)) == "stream.full"
    nobody = [("nobody.takes", b"")]
    assert code_of(lambda: kernel.put("docs/c", b"", publish=nobody)) == "stream.subject"
    conflict = [("docs.created", b"again")]
    assert (
        code_of(lambda: kernel.put("docs/a", b"", if_absent=True, publish=conflict))
        == "object.conflict"
    )
    assert [info.key for info in kernel.list("docs/")] == ["docs/a"]
    assert created.status().messages == 1
    with pytest.raises(ValueError, match="unpack"):
        kernel.put("docs/d", b"", publish=[("docs.created", b"", {}, "id", "more")])


def test_streams_are_made_found_listed_and_deleted(kernel: dw.Kernel) -> None:
    bus = kernel.bus
    assert code_of(lambda: bus.stream("s")) == "stream.not_found"
    made = bus.stream("s", subjects=["s"], create="if_missing")
    assert bus.stream("s", subjects=["s"], create="if_missing").name == made.name
    assert code_of(lambda: bus.stream("s", subjects=["s"], create=True)) == "stream.exists"
    bus.stream("t", subjects=["t.*"], max_age="7d", max_bytes="1 GiB", create=True)
    assert [(one.name, one.subjects) for one in bus.streams()] == [("s", ["s"]), ("t", ["t.*"])]
    bus.delete_stream("s")
    assert code_of(lambda: made.publish("s")) == "stream.not_found"
    assert code_of(lambda: bus.delete_stream("s")) == "stream.not_found"
    assert [one.name for one in bus.streams()] == ["t"]


def test_wrong_input_gets_a_code(kernel: dw.Kernel) -> None:
    bus = kernel.bus
    for name in ("", "a b", "x" * 129, "ä"):
        assert code_of(lambda: bus.stream(name, subjects=["s"], create=True)) == "stream.name"  # noqa: B023
    wrong: list[dict[str, Any]] = [
        {"subjects": []},
        {"subjects": ["s"], "discard": "some"},
        {"subjects": ["s"], "retention": "ever"},
        {"subjects": ["s"], "max_messages": 0},
        {"subjects": ["s"], "duplicate_window": "25h"},
    ]
    for options in wrong:
        assert code_of(lambda: bus.stream("s", create=True, **options)) == "stream.option"  # noqa: B023
    assert code_of(lambda: bus.stream("s", subjects=["a..b"], create=True)) == "bus.pattern"
    stream = bus.stream("s", subjects=["s.*"], create=True)
    assert code_of(lambda: stream.publish("t")) == "stream.subject"
    assert code_of(lambda: stream.publish("s.a", b"x" * (1 << 20) + b"x")) == "bus.message_size"
    assert code_of(lambda: stream.publish("s.a", message_id="x" * 256)) == "stream.option"
    assert code_of(lambda: stream.publish_many([("s.a", b"")] * 1025)) == "stream.option"
    assert stream.status().messages == 0


def test_a_bus_without_a_store_keeps_nothing() -> None:
    with Bus() as bus:
        assert code_of(lambda: bus.stream("s", subjects=["s"], create=True)) == "stream.no_store"
        assert code_of(bus.group) == "stream.no_store"


def test_a_closed_kernel_takes_nothing(kernel: dw.Kernel) -> None:
    stream = kernel.bus.stream("s", subjects=["s"], create=True)
    reading = stream.replay()
    kernel.close()
    assert code_of(lambda: stream.publish("s")) == "bus.closed"
    assert code_of(lambda: next(reading)) == "store.closed"


def test_a_read_only_store_is_read_and_takes_nothing(tmp_path: Path) -> None:
    with dw.open(tmp_path / "s", drives=3, geometry="2+1", create=True) as kernel:
        kernel.bus.stream("s", subjects=["s"], create=True).publish("s", b"1")
    with dw.open(tmp_path / "s", read_only=True) as kernel:
        stream = kernel.bus.stream("s")
        assert [m.data for m in stream.replay()] == [b"1"]
        assert code_of(lambda: stream.publish("s")) == "pool.read_only"


def test_what_was_acknowledged_survives_a_kill_and_a_lost_drive(tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import sys, threading
        import dwkernel as dw
        kernel = dw.open(sys.argv[1], drives=3, geometry="2+1", create=True)
        stream = kernel.bus.stream("s", subjects=["s"], create=True)
        def publish(who):
            for number in range(10**6):
                sequence = stream.publish("s", f"{who} {number}".encode())
                sys.stdout.write(f"{sequence} {who} {number}\\n")
                sys.stdout.flush()
        for who in range(4):
            threading.Thread(target=publish, args=(who,), daemon=True).start()
        threading.Event().wait()
        """
    )
    path = tmp_path / "store"
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        told = [child.stdout.readline() for _ in range(200)]
        os.kill(child.pid, signal.SIGKILL)
        told += child.stdout.readlines()
    acknowledged = {}
    for line in told:
        number, _, data = line.rstrip("\n").partition(" ")
        if line.endswith("\n") and data.count(" ") == 1:
            acknowledged[int(number)] = data.encode()
    (path / "d1").rename(tmp_path / "lost")
    with dw.open(path) as kernel:
        there = {m.sequence: m.data for m in kernel.bus.stream("s").replay()}
    assert len(acknowledged) >= 200
    assert list(there) == list(range(1, len(there) + 1))
    for sequence, content in acknowledged.items():
        assert there[sequence] == content


def test_options_that_are_not_possible_have_a_code(kernel: dw.Kernel) -> None:
    stream = kernel.bus.stream("s", subjects=["s"], create=True)
    assert code_of(lambda: stream.publish("s", priority=300)) == "stream.option"
    assert code_of(lambda: stream.publish("s", correlation_id="zz")) == "stream.option"
    assert code_of(lambda: kernel.bus.publish("s", priority=-1)) == "stream.option"
    assert code_of(lambda: kernel.bus.stream("t", max_messages=-1, create=True)) == "stream.option"
    assert code_of(lambda: stream.consumer("c", max_deliver=-1, create=True)) == "stream.option"
    consumer = stream.consumer("c", create=True)
    assert code_of(lambda: consumer.fetch(-1)) == "stream.option"
    assert stream.status().last_sequence == 0
