"""Consumers of durable streams from Python: at least once, whatever happens in between."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import dwkernel as dw
from expect import code_of, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dwkernel.bus import Stream

PATIENCE_S = 30.0


@pytest.fixture
def kernel(request: pytest.FixtureRequest) -> Iterator[dw.Kernel]:
    drives = [f"memory://{request.node.name}-{number}" for number in range(3)]
    with dw.open(drives=drives, geometry="2+1", create=True) as kernel:
        yield kernel


@pytest.fixture
def stream(kernel: dw.Kernel) -> Stream:
    stream = kernel.bus.stream("s", subjects=["s.>"], create=True)
    stream.publish_many([(f"s.{number % 2}", str(number).encode()) for number in range(6)])
    return stream


def test_messages_come_until_they_are_acknowledged(stream: Stream) -> None:
    consumer = stream.consumer("c", ack_wait="200ms", create=True)
    messages = consumer.fetch(4, timeout=0)
    assert [(m.sequence, m.data, m.deliveries) for m in messages[:2]] == [
        (1, b"0", 1),
        (2, b"1", 1),
    ]
    messages[0].ack()
    messages[1].ack(durable=True)
    assert code_of(messages[0].ack) == "stream.ack"
    assert [m.sequence for m in consumer.fetch(9, timeout=0)] == [5, 6]
    again = consumer.fetch(9, timeout=5)
    assert (again[0].sequence, again[0].deliveries) == (3, 2)
    assert code_of(messages[2].ack) == "stream.ack"
    status = consumer.status()
    assert (status.name, status.stream, status.lag, status.floor_sequence) == ("c", "s", 0, 2)
    assert status.acknowledged == 2
    assert status.to_dict()["pending"] >= 1


def test_a_message_that_is_given_back_comes_after_its_delay(stream: Stream) -> None:
    consumer = stream.consumer("c", backoff=["10s"], create=True)
    one, two = consumer.fetch(2, timeout=0)
    one.nak("100ms")
    two.in_progress()
    two.nak(0)
    assert [m.sequence for m in consumer.fetch(1, timeout=0)] == [2]
    start = time.monotonic()
    taken: list[int | None] = []
    while 1 not in taken:
        taken += [m.sequence for m in consumer.fetch(1, timeout=5)]
    assert time.monotonic() - start < 5


def test_who_waits_gets_what_is_published_or_given_back(kernel: dw.Kernel) -> None:
    stream = kernel.bus.stream("s", subjects=["s"], create=True)
    consumer = stream.consumer("c", create=True)
    taken: list[tuple[int | None, int | None]] = []

    def take(count: int) -> None:
        for _ in range(count):
            taken.extend((m.sequence, m.deliveries) for m in consumer.fetch(1, PATIENCE_S))

    thread = threading.Thread(target=take, args=(1,))
    thread.start()
    time.sleep(0.05)
    stream.publish("s", b"1")
    thread.join(PATIENCE_S)
    stream.publish("s", b"2")
    (message,) = consumer.fetch(1, timeout=0)
    thread = threading.Thread(target=take, args=(1,))
    thread.start()
    time.sleep(0.05)
    message.nak()
    thread.join(PATIENCE_S)
    assert taken == [(1, 1), (2, 2)]


def test_what_fails_too_often_is_a_dead_letter_and_is_driven_again(stream: Stream) -> None:
    consumer = stream.consumer("c", max_deliver=2, create=True)
    for _ in range(2):
        for message in consumer.fetch(1, timeout=0):
            message.nak()
    (given_up,) = consumer.fetch(1, timeout=0)
    given_up.term("no such customer")
    letters = list(stream.dead_letters())
    assert [(one.consumer, one.sequence, one.deliveries, one.reason) for one in letters] == [
        ("c", 1, 2, None),
        ("c", 2, 1, "no such customer"),
    ]
    assert [how for _, how in letters[0].history] == ["returned", "returned"]
    assert letters[0].message is not None
    assert letters[0].message.data == b"0"
    assert consumer.redrive(2) == 1
    assert consumer.redrive(2) == 0
    assert stream.redrive() == 1
    again = consumer.fetch(2, timeout=0)
    assert sorted((m.sequence or 0, m.deliveries) for m in again) == [(1, 1), (2, 1)]


def test_only_what_is_wanted_comes(stream: Stream) -> None:
    some = stream.consumer("some", subjects=["s.1"], filter="subject == 's.1'", create=True)
    assert [m.sequence for m in some.fetch(9, timeout=0)] == [2, 4, 6]
    late = stream.consumer("late", start=5, ack="none", create=True)
    assert [m.sequence for m in late.fetch(9, timeout=0)] == [5, 6]
    new = stream.consumer("new", start="new", create=True)
    assert new.fetch(9, timeout=0) == []
    urgent = stream.consumer("urgent", start="new", priority_window=10, create=True)
    for priority in (0, 5, 0, 9):
        stream.publish("s.p", priority=priority)
    assert [m.priority for m in urgent.fetch(9, timeout=0)] == [9, 5, 0, 0]


def test_a_work_queue_lets_go_what_is_done(kernel: dw.Kernel) -> None:
    stream = kernel.bus.stream("s", subjects=["s"], retention="work_queue", create=True)
    consumer = stream.consumer("c", create=True)
    for number in range(4):
        stream.publish("s", str(number).encode())
    for message in consumer.fetch(3, timeout=0):
        message.ack()
    consumer.flush()
    assert [m.data for m in stream.replay()] == [b"3"]


def test_a_paused_consumer_hands_nothing_out(stream: Stream) -> None:
    consumer = stream.consumer("c", create=True)
    consumer.pause()
    assert consumer.fetch(1, timeout=0.05) == []
    assert consumer.status().is_paused
    consumer.resume()
    assert len(consumer.fetch(1, timeout=0)) == 1


def test_consumers_are_made_found_listed_and_deleted(stream: Stream) -> None:
    assert code_of(lambda: stream.consumer("c")) == "stream.consumer_not_found"
    made = stream.consumer("c", create="if_missing")
    assert stream.consumer("c", create="if_missing").name == made.name == "c"
    assert code_of(lambda: stream.consumer("c", create=True)) == "stream.consumer_exists"
    assert [one.name for one in stream.consumers()] == ["c"]
    stream.delete_consumer("c")
    assert code_of(lambda: made.fetch(1, timeout=0)) == "stream.consumer_not_found"
    assert stream.consumers() == []
    wrong: list[dict[str, Any]] = [
        {"max_deliver": 0},
        {"ack_wait": "1us"},
        {"ack": "maybe"},
        {"start": "soon"},
        {"max_ack_pending": 0},
    ]
    for options in wrong:
        assert code_of(lambda: stream.consumer("x", create=True, **options)) == "stream.option"  # noqa: B023
    assert code_of(lambda: stream.consumer("a b", create=True)) == "stream.option"
    (message, *_) = stream.replay()
    assert code_of(message.ack) == "stream.ack"


def test_tasks_publish_and_fetch_and_a_cancelled_one_takes_nothing(kernel: dw.Kernel) -> None:
    async def main() -> None:
        stream = kernel.bus.stream("s", subjects=["s"], create=True)
        consumer = stream.consumer("c", create=True)
        assert await consumer.afetch(5, timeout=0) == []
        waiting = asyncio.create_task(consumer.afetch(5))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await stream.apublish("s", b"1", message_id="a") == 1
        # Less than `ack_wait`.
        messages = await consumer.afetch(5, timeout=10)
        assert [m.sequence for m in messages] == [1]
        messages[0].ack()
        waiting = asyncio.create_task(consumer.afetch(5))
        await asyncio.sleep(0.05)
        await stream.apublish("s", b"2")
        assert [m.data for m in await asyncio.wait_for(waiting, PATIENCE_S)] == [b"2"]

    asyncio.run(main())


def test_closing_ends_a_fetch_that_waits(kernel: dw.Kernel) -> None:
    stream = kernel.bus.stream("s", subjects=["s"], create=True)
    consumer = stream.consumer("c", create=True)
    codes: list[str] = []
    thread = threading.Thread(target=lambda: codes.append(code_of(lambda: consumer.fetch(1))))
    thread.start()
    time.sleep(0.05)
    kernel.close()
    thread.join(PATIENCE_S)
    assert codes == ["store.closed"]


HANDLER = """
import os, signal, sys
import dwkernel as dw
with dw.open(sys.argv[1]) as kernel:
    consumer = kernel.bus.stream("s").consumer("c")
    for message in consumer.fetch(3, timeout=0):
        print(message.sequence, message.deliveries, flush=True)
        if message.sequence == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        message.ack(durable=True)
"""


def test_a_kill_between_handler_and_acknowledgement_delivers_exactly_once_more(
    tmp_path: Path,
) -> None:
    path = tmp_path / "store"
    with dw.open(path, drives=3, geometry="2+1", create=True) as kernel:
        stream = kernel.bus.stream("s", subjects=["s"], create=True)
        stream.consumer("c", create=True)
        stream.publish_many([("s", b"1"), ("s", b"2"), ("s", b"3")])
    command = [sys.executable, "-c", textwrap.dedent(HANDLER), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "1 1\n2 1\n"), done.stderr
    with dw.open(path) as kernel:
        consumer = kernel.bus.stream("s").consumer("c")
        again = consumer.fetch(9, timeout=0)
        assert [(m.sequence, m.deliveries) for m in again] == [(2, 2), (3, 2)]
        for message in again:
            message.ack()
    with dw.open(path) as kernel:
        assert kernel.bus.stream("s").consumer("c").fetch(9, timeout=0) == []


def test_a_consumer_that_nobody_uses_is_removed(kernel: dw.Kernel) -> None:
    stream = kernel.bus.stream("s", subjects=["s"], create=True)
    stream.publish("s", b"1")
    idle = stream.consumer("idle", inactive_after="300ms", create=True)
    kept = stream.consumer("kept", create=True)
    assert (idle.settings.inactive_after_s, kept.settings.inactive_after_s) == (0.3, None)
    (message,) = idle.fetch(1)
    time.sleep(0.6)
    message.ack()
    until(lambda: [one.name for one in stream.consumers()] == ["kept"])
    assert code_of(lambda: idle.fetch(1, timeout=0)) == "stream.consumer_not_found"


def test_a_dead_letter_knows_the_number_of_its_message(kernel: dw.Kernel) -> None:
    stream = kernel.bus.stream("s", subjects=["s"], create=True)
    stream.publish_many([("s", b"1"), ("s", b"2")])
    consumer = stream.consumer("c", create=True)
    consumer.fetch(2)[1].term("bad")
    (letter,) = consumer.dead_letters()
    assert letter.message is not None
    assert (letter.sequence, letter.message.sequence, letter.message.data) == (2, 2, b"2")


def test_a_consumer_that_was_deleted_has_no_status(kernel: dw.Kernel) -> None:
    stream = kernel.bus.stream("s", subjects=["s"], create=True)
    consumer = stream.consumer("c", create=True)
    stream.delete_consumer("c")
    assert code_of(consumer.status) == "stream.consumer_not_found"
