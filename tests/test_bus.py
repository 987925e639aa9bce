"""The bus in memory, from Python: handlers, waiting, slow consumers, the end."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing as mp
import subprocess
import sys
import textwrap
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import dwkernel as dw
from dwkernel import errors
from dwkernel.bus import Bus, Message
from expect import code_of, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE_S = 20.0


@pytest.fixture
def bus() -> Iterator[Bus]:
    with Bus(principal="tester") as bus:
        yield bus


def test_a_message_comes_as_it_was_sent(bus: Bus) -> None:
    with bus.subscribe("sensors.*.temp") as sub:
        published = bus.publish(
            "sensors.a.temp",
            b"21",
            headers={"unit": "C", "name": "ä"},
            key="a",
            schema="text",
            priority=3,
            correlation_id="0" * 31 + "1",
        )
        message = sub.next(PATIENCE_S)
    assert published.to_dict() == {"matched": 1, "queued": 1, "dropped": 0}
    assert message is not None
    assert (message.subject, message.data) == ("sensors.a.temp", b"21")
    assert message.headers == {"unit": "C", "name": "ä"}
    assert (message.key, message.schema, message.priority) == ("a", "text", 3)
    assert message.correlation_id == "0" * 31 + "1"
    assert (message.principal, message.tenant, message.reply_to) == ("tester", None, None)
    assert abs(message.published_ns - time.time_ns()) < 60e9
    assert message.data is message.data


@pytest.mark.parametrize("data", [bytearray(b"ab"), memoryview(b"ab"), b"ab"])
def test_any_buffer_is_sent_as_it_is_now(bus: Bus, data: Any) -> None:
    with bus.subscribe("a") as sub:
        bus.publish("a", data)
        if isinstance(data, bytearray):
            data[:] = b"cd"
        message = sub.next(PATIENCE_S)
    assert message is not None
    assert message.data == b"ab"


def test_patterns_and_filters_choose(bus: Bus) -> None:
    celsius = bus.subscribe("sensors.>", filter="headers.unit == 'C' and size < 1 KiB")
    odd = bus.subscribe("sensors.*", filter=lambda message: int(message.data) % 2 == 1)
    for number, unit in enumerate("CFCF"):
        bus.publish(f"sensors.s{number}", str(number).encode(), headers={"unit": unit})
    bus.publish("others", b"1", headers={"unit": "C"})
    assert [message.data for message in celsius.fetch(10, 0)] == [b"0", b"2"]
    assert [message.data for message in odd.fetch(10, 0)] == [b"1", b"3"]
    assert celsius.stats().filtered == 2


def test_a_handler_gets_what_matches_in_order(bus: Bus) -> None:
    taken: list[bytes] = []
    sub = bus.subscribe("a.>", lambda message: taken.append(message.data))
    for number in range(1000):
        bus.publish("a.b", str(number).encode())
    sub.close()
    assert taken == [str(number).encode() for number in range(1000)]
    assert sub.stats().delivered == 1000
    assert bus.publish("a.b").matched == 0


def test_many_are_published_at_once_in_order(bus: Bus) -> None:
    with bus.subscribe("a.*") as sub:
        published = bus.publish_many([("a.b", b"1"), ("a.c", b"2", {"x": "y"}), ("b", b"3")])
        assert published.matched == 2
        assert [(m.subject, m.headers) for m in sub.fetch(5, 0)] == [
            ("a.b", {}),
            ("a.c", {"x": "y"}),
        ]
    with pytest.raises(TypeError):
        bus.publish_many([("a", b"1", 5)])


def test_messages_with_the_same_key_are_handled_in_order_by_many_workers(bus: Bus) -> None:
    taken: dict[str | None, list[int]] = {}
    threads = set()

    def handle(message: Message) -> None:
        threads.add(threading.get_ident())
        numbers = taken.setdefault(message.key, [])
        time.sleep(0.0001)
        numbers.append(int(message.data))

    sub = bus.subscribe("a", handle, workers=4)
    for number in range(400):
        bus.publish("a", str(number).encode(), key=f"k{number % 7}")
    sub.close()
    assert len(threads) > 1
    assert sorted(itertools.chain(*taken.values())) == list(range(400))
    for numbers in taken.values():
        assert numbers == sorted(numbers)


def test_of_a_group_one_gets_each(bus: Bus) -> None:
    taken: list[list[bytes]] = [[], []]

    def into(mine: list[bytes]) -> Callable[[Message], None]:
        return lambda message: mine.append(message.data)

    subs = [bus.subscribe("jobs", into(mine), group="g") for mine in taken]
    for number in range(100):
        assert bus.publish("jobs", str(number).encode()).matched == 1
    for sub in subs:
        sub.close()
    assert sorted(int(data) for mine in taken for data in mine) == list(range(100))
    assert all(taken)


# --- asking ---------------------------------------------------------------------------------------


def test_who_asks_gets_what_a_handler_returns_or_replies(bus: Bus) -> None:
    bus.subscribe("svc.up", lambda message: message.data.upper())
    bus.subscribe("svc.later", lambda message: message.reply(b"now") and None)
    assert bus.request("svc.up", b"x", timeout="5s").data == b"X"
    assert bus.request("svc.later", timeout="5s").data == b"now"


def test_a_question_that_nobody_answers_ends_with_a_code(bus: Bus) -> None:
    assert code_of(lambda: bus.request("svc.none", timeout=60)) == "bus.no_responder"
    bus.subscribe("svc.silent", lambda _: None)
    assert code_of(lambda: bus.request("svc.silent", timeout=0.05)) == "bus.timeout"

    def fail(_: Message) -> None:
        raise KeyError("no")

    bus.subscribe("svc.bad", fail, on_error=lambda *_: None)
    with pytest.raises(errors.Internal, match="KeyError") as caught:
        bus.request("svc.bad", timeout=60)
    assert caught.value.code == "bus.handler"


def test_who_publishes_may_wait_and_hears_who_failed(bus: Bus) -> None:
    handled: list[bytes] = []

    def fail(message: Message) -> None:
        handled.append(message.data)
        raise ValueError("broken")

    bus.subscribe("a", lambda message: handled.append(message.data), name="good")
    bus.subscribe("a", fail, name="bad", on_error=lambda *_: None)
    outcome = bus.publish_and_wait("a", b"1", timeout=PATIENCE_S)
    assert (outcome.handled, outcome.published.matched) == (1, 2)
    failure = outcome.failures[0]
    assert (failure.subscription, failure.code) == ("bad", "bus.handler")
    assert "ValueError: broken" in failure.why
    assert handled == [b"1", b"1"]


def test_a_handler_that_hangs_hurts_only_itself(bus: Bus) -> None:
    release = threading.Event()
    taken: list[bytes] = []
    slow = bus.subscribe("a", lambda _: release.wait(), name="slow")
    bus.subscribe("a", lambda message: taken.append(message.data), name="quick")
    with pytest.raises(errors.Timeout) as caught:
        bus.publish_and_wait("a", b"1", timeout=0.05)
    assert caught.value.details["subscribers"] == "slow"
    bus.publish("a", b"2")
    until(lambda: taken == [b"1", b"2"])
    until(lambda: slow.stats().busy_s > 0.05)
    assert code_of(lambda: slow.close(0.01)) == "bus.timeout"
    release.set()
    slow.close()


def test_a_handler_that_raises_is_reported_and_gets_the_next(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    reported: list[str] = []

    def handle(message: Message) -> None:
        if message.data == b"bad":
            raise RuntimeError("broken")
        reported.append("handled")

    first = bus.subscribe("a", handle, on_error=lambda _, error: reported.append(str(error)))
    bus.publish("a", b"bad")
    bus.publish("a", b"good")
    first.close()
    assert reported == ["broken", "handled"]
    assert first.stats().failed == 1
    second = bus.subscribe("b", handle)
    bus.publish("b", b"bad")
    second.close()
    assert "RuntimeError: broken" in caplog.text


# --- slow consumers -------------------------------------------------------------------------------


def test_a_full_subscription_holds_the_publisher_back(bus: Bus) -> None:
    sub = bus.subscribe("a", limit=2, name="slow")
    other = bus.subscribe("a", name="other")
    bus.publish_many([("a", b"1"), ("a", b"2")])
    with pytest.raises(errors.Full) as caught:
        bus.publish("a", b"3", timeout=0.05)
    assert (caught.value.code, caught.value.details["subscribers"]) == ("bus.full", "slow")
    assert [message.data for message in other.fetch(5, 0)] == [b"1", b"2", b"3"]
    publisher = threading.Thread(target=bus.publish, args=("a", b"4"))
    publisher.start()
    until(lambda: sub.stats().waits > 1)
    assert [message.data for message in sub.fetch(2, 0)] == [b"1", b"2"]
    publisher.join(PATIENCE_S)
    assert [message.data for message in sub.fetch(2, 0)] == [b"4"]


@pytest.mark.parametrize(
    ("policy", "left"), [("drop_oldest", [b"2", b"3"]), ("drop_newest", [b"0", b"1"])]
)
def test_what_is_dropped_is_counted(bus: Bus, policy: Any, left: list[bytes]) -> None:
    sub = bus.subscribe("a", policy=policy, limit=2)
    dropped = sum(bus.publish("a", str(number).encode()).dropped for number in range(4))
    assert [message.data for message in sub.fetch(5, 0)] == left
    assert (dropped, sub.stats().dropped) == (2, 2)


def test_overflow_goes_through_a_file_in_order(bus: Bus, tmp_path: Path) -> None:
    sub = bus.subscribe("a", policy="spill", limit=10, spill_directory=tmp_path)
    for number in range(500):
        bus.publish("a", str(number).encode() * 50)
    assert sub.stats().spilled > 400
    assert list(tmp_path.iterdir()) == []
    taken = [message.data for _ in range(500) for message in sub.fetch(1, 1)]
    assert taken == [str(number).encode() * 50 for number in range(500)]
    small = bus.subscribe("b", policy="spill", limit=1, spill_directory=tmp_path, spill_limit=100)
    bus.publish("b", b"x" * 50)
    assert code_of(lambda: bus.publish("b", b"x" * 500)) == "bus.full"
    assert small.next(0) is not None


# --- asyncio --------------------------------------------------------------------------------------


def test_coroutines_handle_on_the_loop_that_subscribed(bus: Bus) -> None:
    async def main() -> tuple[list[bytes], bool]:
        taken: list[bytes] = []
        loop = asyncio.get_running_loop()
        same = []

        async def handle(message: Message) -> bytes:
            await asyncio.sleep(0)
            same.append(asyncio.get_running_loop() is loop)
            taken.append(message.data)
            return b"done"

        bus.subscribe("a", handle)
        for number in range(20):
            await bus.apublish("a", str(number).encode())
        answer = await bus.arequest("a", b"last", timeout="10s")
        assert answer.data == b"done"
        return taken, all(same)

    taken, same = asyncio.run(main())
    assert taken == [*(str(number).encode() for number in range(20)), b"last"]
    assert same


def test_coroutines_handle_without_a_loop_of_the_subscriber(bus: Bus) -> None:
    async def handle(message: Message) -> bytes:
        await asyncio.sleep(0)
        if message.data == b"bad":
            raise ValueError("broken")
        return message.data * 2

    bus.subscribe("double", handle, on_error=lambda *_: None)
    assert bus.request("double", b"ab", timeout="10s").data == b"abab"
    assert code_of(lambda: bus.request("double", b"bad", timeout="10s")) == "bus.handler"


def test_tasks_pull_and_lose_nothing_when_cancelled(bus: Bus) -> None:
    async def main() -> list[bytes]:
        sub = bus.subscribe("a")
        first = asyncio.create_task(sub.anext())
        await asyncio.sleep(0)
        first.cancel()
        threading.Timer(0.01, lambda: bus.publish_many([("a", b"1"), ("a", b"2")])).start()
        taken = [(await asyncio.wait_for(sub.anext(), PATIENCE_S)).data]
        threading.Timer(0.01, sub.close).start()
        taken += [message.data async for message in sub]
        return taken

    assert asyncio.run(main()) == [b"1", b"2"]


def test_a_loop_that_is_gone_fails_its_messages(bus: Bus) -> None:
    async def main() -> None:
        async def handle(_: Message) -> None: ...

        bus.subscribe("a", handle, name="gone", on_error=lambda *_: None)

    asyncio.run(main())
    outcome = bus.publish_and_wait("a", timeout=PATIENCE_S)
    assert outcome.failures[0].subscription == "gone"


# --- bad input, the end ---------------------------------------------------------------------------


def test_wrong_input_gets_a_code_that_says_what_to_do(bus: Bus) -> None:
    for subject in ("", "a..b", "a.*", "a b", "x" * 256, "\ud800"):
        assert code_of(lambda: bus.publish(subject)) == "bus.subject"  # noqa: B023
    assert code_of(lambda: bus.subscribe("a.>.b")) == "bus.pattern"
    with pytest.raises(errors.Invalid, match="column") as caught:
        bus.subscribe("a", filter="headers.unit = 'C'")
    assert caught.value.code == "bus.filter"
    assert code_of(lambda: bus.subscribe("a", policy="never")) == "store.option"  # type: ignore[arg-type]
    assert code_of(lambda: bus.subscribe("a", limit=0)) == "queue.capacity"
    assert code_of(lambda: bus.publish("a", b"x" * (1 << 20) + b"x")) == "bus.message_size"
    assert code_of(lambda: bus.publish("a", "text")) == "buffer.type"  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        bus.publish("a", headers={"n": 5})  # type: ignore[dict-item]


def test_closing_drains_and_then_refuses() -> None:
    taken: list[bytes] = []
    bus = Bus()

    def slowly(message: Message) -> None:
        time.sleep(0.001)
        taken.append(message.data)

    bus.subscribe("a", slowly)
    pulled = bus.subscribe("a")
    for number in range(50):
        bus.publish("a", str(number).encode())
    bus.close()
    assert len(taken) == 50
    assert code_of(lambda: bus.publish("a")) == "bus.closed"
    assert code_of(lambda: bus.subscribe("a")) == "bus.closed"
    assert len(list(pulled)) == 50
    assert code_of(pulled.next) == "bus.closed"
    bus.close()


def test_closing_waits_for_no_handler_for_ever() -> None:
    bus, release = Bus(), threading.Event()
    bus.subscribe("a", lambda _: release.wait(), name="stuck")
    bus.publish("a")
    with pytest.raises(errors.Timeout) as caught:
        bus.close(0.05)
    assert caught.value.details["subscribers"] == "stuck"
    release.set()
    bus.close()


def test_statistics_tell_who_lags(bus: Bus) -> None:
    sub = bus.subscribe("a", name="lagging")
    bus.publish("a", b"x" * 100)
    time.sleep(0.02)
    stats = {stats.name: stats for stats in bus.stats()}["lagging"]
    assert (stats.depth, stats.queued, stats.pattern) == (1, 1, "a")
    assert stats.lag_s >= 0.02
    assert stats.depth_bytes >= 100
    assert stats.to_dict()["name"] == sub.name


def test_a_kernel_has_a_bus_that_ends_with_it() -> None:
    drives = [f"memory://bus-{number}" for number in range(3)]
    taken: list[tuple[bytes, str | None]] = []
    with dw.open(drives=drives, geometry="2+1", create=True) as kernel:
        bus = kernel.bus
        assert kernel.bus is bus
        bus.subscribe("a", lambda message: taken.append((message.data, message.principal)))
        kernel.bus.publish("a", b"1")
    assert taken[0][0] == b"1"
    assert taken[0][1]
    assert code_of(lambda: bus.publish("a")) == "bus.closed"
    assert code_of(lambda: kernel.bus) == "store.closed"


def in_the_child(bus: Bus, answers: Any) -> None:
    for call in (lambda: bus.publish("a"), lambda: bus.subscribe("a"), lambda: bus.request("a")):
        try:
            call()
        except errors.State as error:
            answers.put(error.code)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_fork_does_not_take_a_bus_along(bus: Bus) -> None:
    bus.subscribe("a", lambda _: None)
    context = mp.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=in_the_child, args=(bus, answers))
    child.start()
    child.join(PATIENCE_S)
    assert child.exitcode == 0
    assert [answers.get() for _ in range(3)] == ["bus.forked"] * 3


@pytest.mark.parametrize("call", ["bus.publish('a')", "sub.next()", "bus.request('b', timeout=60)"])
def test_ctrl_c_ends_a_wait(call: str) -> None:
    program = f"""
        import os, signal, threading, time
        from dwkernel.bus import Bus
        bus = Bus()
        full, sub, silent = bus.subscribe("a", limit=1), bus.subscribe("c"), bus.subscribe("b")
        bus.publish("a")
        def interrupt():
            time.sleep(0.3)
            os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=interrupt).start()
        start = time.monotonic()
        try:
            {call}
        except KeyboardInterrupt:
            print("interrupted", time.monotonic() - start < 5)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.stdout.split() == ["interrupted", "True"], done.stderr


def test_a_program_ends_with_an_open_bus() -> None:
    program = """
        from dwkernel.bus import Bus
        bus = Bus()
        async def later(message): pass
        bus.subscribe("a", lambda message: None)
        bus.subscribe("a", later)
        bus.publish("a")
        print("end")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")
