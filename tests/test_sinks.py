"""Pumps and sinks: what is in a stream comes to its receiver, whatever happens in between."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
import threading
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

import dwkernel as dw
from dwkernel import errors, sinks
from dwkernel.sinks import Outcome
from expect import code_of, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from dwkernel.bus import Message, Stream

PATIENCE_S = 30.0
TAKEN = Outcome.taken()


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


def slow(seconds: float) -> Callable[[Message], Outcome]:
    def answer(_: Message) -> Outcome:
        time.sleep(seconds)
        return TAKEN

    return answer


class Receiver(sinks.Sink):
    """Keeps what it is given, and answers by a function of each message."""

    def __init__(self, answer: Callable[[Message], Any] = lambda _: TAKEN, **wishes: Any) -> None:
        self.answer = answer
        self.calls: list[list[Message]] = []
        self.taken: list[int] = []
        self.closed = 0
        self.lock = threading.Lock()
        vars(self).update(wishes)

    def deliver(self, messages: Sequence[Message]) -> list[Outcome]:
        with self.lock:
            self.calls.append(list(messages))
        outcomes = [self.answer(message) for message in messages]
        with self.lock:
            self.taken += [
                message.sequence or 0
                for message, outcome in zip(messages, outcomes, strict=True)
                if outcome == TAKEN
            ]
        return outcomes

    def close(self) -> None:
        self.closed += 1


def test_messages_are_acknowledged_after_the_sink_has_them(stream: Stream) -> None:
    gate = threading.Event()
    receiver = Receiver(lambda _: gate.wait(PATIENCE_S) and TAKEN, batch=4)
    with sinks.attach(stream, receiver, name="c") as pump:
        until(lambda: len(receiver.calls) == 1)
        consumer = stream.consumer("c")
        assert consumer.status().acknowledged == 0
        assert (pump.status().state, pump.status().delivered) == ("running", 0)
        gate.set()
        pump.flush(PATIENCE_S)
        assert consumer.status().floor_sequence == 6
        stream.publish("s.later")
        pump.flush(PATIENCE_S)
        status = pump.status()
        assert (status.delivered, status.failed, status.lag, status.pending) == (7, 0, 0, 0)
        assert (status.name, status.stream, status.to_dict()["state"]) == ("c", "s", "running")
        assert max(len(call) for call in receiver.calls) <= 4
    assert receiver.taken == list(range(1, 8))
    assert (receiver.closed, pump.closed, pump.status().state) == (1, True, "closed")


def test_what_failed_comes_again_with_its_id_after_the_backoff(stream: Stream) -> None:
    tries: dict[int | None, list[tuple[str, float]]] = defaultdict(list)

    def answer(message: Message) -> Outcome:
        tries[message.sequence].append((message.id, time.monotonic()))
        if message.sequence == 2 and len(tries[2]) < 3:
            raise LookupError(message.sequence)
        return TAKEN

    with sinks.attach(stream, Receiver(answer), name="c", backoff=["0.1s", "0.4s"]) as pump:
        pump.flush(PATIENCE_S)
        status = pump.status()
    assert {sequence: len(one) for sequence, one in tries.items() if len(one) > 1} == {2: 3}
    ids, times = zip(*tries[2], strict=True)
    assert len(set(ids)) == 1
    assert times[1] - times[0] >= 0.08
    assert times[2] - times[1] >= 0.32
    assert (status.failed, status.last_error) == (2, "LookupError: 2")
    assert status.last_error_at is not None


def test_a_sink_that_raises_anything_hurts_only_itself(stream: Stream) -> None:
    calls: list[int] = []

    def raising(_: Message) -> Outcome:
        calls.append(1)
        kinds: list[Any] = [SystemExit(3), KeyboardInterrupt(), ValueError("x"), None, []]
        one = kinds[len(calls) % 5]
        if isinstance(one, BaseException):
            raise one
        return one if one is None or len(calls) > 12 else TAKEN

    options: dict[str, Any] = {"backoff": [0.01], "breaker": 1000}
    with (
        sinks.attach(stream, Receiver(raising), name="bad", **options) as bad,
        sinks.attach(stream, receiver := Receiver(), name="good") as good,
    ):
        good.flush(PATIENCE_S)
        until(lambda: bad.status().failed >= 12)
        assert bad.status().state == "running"
    assert receiver.taken == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("ordered", [False, True])
def test_what_is_refused_or_tried_too_often_is_a_dead_letter(
    stream: Stream, *, ordered: bool
) -> None:
    def answer(message: Message) -> Outcome:
        if message.sequence == 2:
            return Outcome.refused("no such customer")
        if message.sequence == 3:
            raise errors.new("sink.refused", "neither this")
        return Outcome.failed("busy") if message.sequence == 5 else TAKEN

    receiver = Receiver(answer)
    options: dict[str, Any] = {"backoff": [0.01], "max_deliver": 3, "ordered": ordered}
    with sinks.attach(stream, receiver, name="c", **options) as pump:
        pump.flush(PATIENCE_S)
        status = pump.status()
    assert sorted(receiver.taken) == [1, 4, 6]
    assert (status.refused, status.failed) == (3, 3)
    letters = [(one.sequence, one.reason) for one in stream.dead_letters()]
    assert letters[0] == (2, "no such customer")
    assert "neither this" in (letters[1][1] or "")
    assert letters[2] == (5, "busy")
    tries = [one.sequence for call in receiver.calls for one in call]
    assert tries.count(5) == 3


def test_one_that_is_gone_pauses_everything_also_after_a_restart(stream: Stream) -> None:
    gone = Receiver(lambda _: Outcome.gone("moved away"))
    with sinks.attach(stream, gone, name="c") as pump:
        until(lambda: stream.consumer("c").status().is_paused)
        assert (pump.status().state, pump.status().last_error) == ("gone", "moved away")
        assert code_of(lambda: pump.flush(1)) == "sink.gone"
        assert len(gone.calls) == 1
    well = Receiver()
    with sinks.attach(stream, well, name="c") as pump:
        assert pump.status().state == "paused"
        stream.publish("s.more")
        assert code_of(lambda: pump.flush("0.3s")) == "bus.timeout"
        assert well.calls == []
        pump.resume()
        pump.flush(PATIENCE_S)
    assert sorted(well.taken) == [1, 2, 3, 4, 5, 6, 7]
    assert list(stream.dead_letters()) == []


def test_a_pause_lasts_until_it_is_resumed(stream: Stream) -> None:
    receiver = Receiver()
    with sinks.attach(stream, receiver, name="c") as pump:
        pump.flush(PATIENCE_S)
        pump.pause()
        stream.publish("s.more")
        assert code_of(lambda: pump.flush("0.3s")) == "bus.timeout"
        assert (pump.status().state, len(receiver.taken)) == ("paused", 6)
        pump.resume()
        pump.flush(PATIENCE_S)
        assert (pump.status().state, len(receiver.taken)) == ("running", 7)


@pytest.mark.parametrize("seed", range(3))
def test_order_by_key_is_held_whatever_fails(kernel: dw.Kernel, seed: int) -> None:
    dice = random.Random(seed)
    stream = kernel.bus.stream("s", subjects=["s"], create=True)
    with kernel.bus.group() as group:
        for number in range(300):
            group.publish("s", str(number).encode(), key=f"k{dice.randrange(12)}")
    done: dict[str | None, list[int]] = defaultdict(list)
    under_way: set[str | None] = set()
    wrong: list[str] = []
    lock = threading.Lock()

    def answer(message: Message) -> Outcome:
        with lock:
            if message.key in under_way:
                wrong.append(f"two of {message.key} at a time")
            under_way.add(message.key)
            luck = dice.random()
        time.sleep(luck / 1000)
        with lock:
            under_way.discard(message.key)
            if luck < 0.3:
                return Outcome.failed("bad luck")
            done[message.key].append(message.sequence or 0)
        return TAKEN

    options: dict[str, Any] = {"backoff": [0.001, 0.02], "breaker": 1000, "in_flight": 4}
    # Several runs: what was held back is given back and gathered again.
    for _ in range(4):
        receiver = Receiver(answer, batch=5)
        with sinks.attach(stream, receiver, name="c", ordered=True, **options) as pump:
            if _ < 3:
                count = sum(map(len, done.values()))
                until(lambda count=count: sum(map(len, done.values())) > count + 40)  # type: ignore[misc]
            else:
                pump.flush(PATIENCE_S)
    assert wrong == []
    assert sorted(one for each in done.values() for one in each) == list(range(1, 301))
    for key, sequences in done.items():
        assert sequences == sorted(sequences), key


def test_in_order_a_failure_holds_back_its_own_key_only(kernel: dw.Kernel) -> None:
    stream = kernel.bus.stream("s", subjects=["s"], create=True)
    for key in ("bad", "good", "bad", "good", None, None):
        stream.publish("s", key=key)
    mended = threading.Event()

    def answer(message: Message) -> Outcome:
        return Outcome.failed("x") if message.key == "bad" and not mended.is_set() else TAKEN

    receiver = Receiver(answer)
    options: dict[str, Any] = {"backoff": [0.01], "breaker": 10_000}
    with sinks.attach(stream, receiver, name="c", ordered=True, **options) as pump:
        until(lambda: sorted(receiver.taken) == [2, 4, 5, 6])
        tried = {one.sequence for call in receiver.calls for one in call}
        assert 3 not in tried
        mended.set()
        pump.flush(PATIENCE_S)
    assert receiver.taken[-2:] == [1, 3]


def test_after_failures_in_a_row_only_probes_are_sent(stream: Stream) -> None:
    well = threading.Event()
    receiver = Receiver(
        lambda _: TAKEN if well.is_set() else Outcome.failed("down"), in_flight=2, batch=2
    )
    options: dict[str, Any] = {"backoff": ["0.01s", "0.2s", "0.2s", "0.5s"], "breaker": 3}
    with sinks.attach(stream, receiver, name="c", **options) as pump:
        until(lambda: pump.status().failures_in_row >= 4)
        status = pump.status()
        assert status.state == "waiting"
        assert status.wait_s > 0
        before = len(receiver.calls)
        time.sleep(1.0)
        probes = receiver.calls[before:]
        assert 1 <= len(probes) <= 7
        assert {len(call) for call in probes} == {1}
        well.set()
        pump.flush(PATIENCE_S)
        assert (pump.status().state, pump.status().failures_in_row) == ("running", 0)
    assert sorted(receiver.taken) == [1, 2, 3, 4, 5, 6]


def test_nothing_is_sent_before_the_receiver_wants_it(stream: Stream) -> None:
    times: list[float] = []

    def answer(_: Message) -> Outcome:
        times.append(time.monotonic())
        return Outcome.failed("too many", after="0.8s") if len(times) == 1 else TAKEN

    with sinks.attach(stream, Receiver(answer), name="c", backoff=[0.01]) as pump:
        pump.flush(PATIENCE_S)
    assert times[1] - times[0] >= 0.75
    assert len(times) == 7


def test_a_sink_that_hangs_hurts_only_itself(stream: Stream) -> None:
    gate = threading.Event()
    hanging = Receiver(lambda _: gate.wait(PATIENCE_S) and TAKEN)
    with (
        sinks.attach(stream, hanging, name="bad", timeout="0.3s", backoff=[0.05]) as bad,
        sinks.attach(stream, receiver := Receiver(), name="good") as good,
    ):
        good.flush(PATIENCE_S)
        until(lambda: bad.status().timed_out == 1)
        status = bad.status()
        assert (status.stuck, status.state) == (1, "waiting")
        assert status.last_error == "no answer within 0.3 s"
        gate.set()
        bad.flush(PATIENCE_S)
        assert bad.status().stuck == 0
    assert len(receiver.taken) == 6
    gate.clear()
    stream.publish("s.last")
    hanging = Receiver(lambda _: gate.wait(PATIENCE_S))
    late = sinks.attach(stream, hanging, name="late")
    until(lambda: len(hanging.calls) == 1)
    begin = time.monotonic()
    assert code_of(lambda: late.close("0.2s")) == "bus.timeout"
    assert time.monotonic() - begin < 5
    gate.set()


def test_a_slow_receiver_keeps_its_message(stream: Stream) -> None:
    receiver = Receiver(slow(0.6), batch=6)
    with sinks.attach(stream, receiver, name="c", ack_wait="1.5s") as pump:
        pump.flush(PATIENCE_S)
        # One call of 3.6 s, more than twice as long as its consumer waits.
        assert stream.consumer("c").status().deliveries == 6
    assert receiver.taken == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("ordered", [False, True])
def test_what_was_taken_too_late_is_not_sent_again(stream: Stream, *, ordered: bool) -> None:
    consumer = stream.consumer("c", ack_wait="0.2s", create=True)
    receiver = Receiver(slow(0.5))
    # The pump is told a wrong `ack_wait`: so nobody says in time that the message is in hand.
    with sinks.attach(consumer, receiver, ordered=ordered) as pump:
        pump.flush(PATIENCE_S)
        assert pump.status().delivered == 6
        assert consumer.status().deliveries > 6
    assert sorted(receiver.taken) == [1, 2, 3, 4, 5, 6]


def test_what_an_earlier_run_left_is_gathered_and_sent_in_order(kernel: dw.Kernel) -> None:
    stream = kernel.bus.stream("s", subjects=["s"], create=True)
    for _ in range(6):
        stream.publish("s", key="k")
    consumer = stream.consumer("c", create=True)
    # As after a crash: what was out comes again when it is due, and not in its order.
    for message, delay in zip(consumer.fetch(4, timeout=0), (0.5, 0.2, 0, 0.3), strict=True):
        message.nak(delay)
    with sinks.attach(consumer, receiver := Receiver(), ordered=True) as pump:
        pump.flush(PATIENCE_S)
    assert receiver.taken == [1, 2, 3, 4, 5, 6]


def test_closing_gives_back_what_was_not_sent(stream: Stream) -> None:
    gate = threading.Event()
    receiver = Receiver(lambda _: gate.wait(PATIENCE_S) and TAKEN)
    pump = sinks.attach(stream, receiver, name="c")
    until(lambda: len(receiver.calls) == 1 and pump.status().in_hand == 6)
    closing = threading.Thread(target=pump.close)
    closing.start()
    until(lambda: pump.status().state == "closed")
    gate.set()
    closing.join(PATIENCE_S)
    assert (receiver.taken, receiver.closed) == ([1], 1)
    assert code_of(pump.flush) == code_of(pump.resume) == "bus.closed"
    pump.close()
    consumer = stream.consumer("c")
    assert [one.sequence for one in consumer.fetch(9, timeout=0)] == [2, 3, 4, 5, 6]


def test_a_kernel_that_closes_closes_its_sinks_first(path: Path) -> None:
    with dw.open(path, drives=3, create=True) as kernel:
        stream = kernel.bus.stream("s", subjects=["s"], create=True)
        stream.publish_many([("s", b"")] * 100)
        receiver = Receiver(slow(0.005))
        pump = sinks.attach(stream, receiver, name="c")
        until(lambda: len(receiver.taken) > 10)
    assert (pump.closed, receiver.closed) == (True, 1)
    assert pump.status().last_error is None
    count = len(receiver.taken)
    with dw.open(path) as kernel:
        consumer = kernel.bus.stream("s").consumer("c")
        # What the sink took was acknowledged, durably, and nothing else was.
        assert [m.sequence for m in consumer.fetch(200, timeout=0)] == list(range(count + 1, 101))


def test_a_sink_may_close_its_own_kernel(path: Path) -> None:
    kernel = dw.open(path, drives=3, create=True)
    stream = kernel.bus.stream("s", subjects=["s"], create=True)
    stream.publish("s")
    closed: list[float] = []

    def close(_: Message) -> None:
        begin = time.monotonic()
        kernel.close()
        closed.append(time.monotonic() - begin)

    pump = sinks.attach(stream, sinks.Call(close), name="c")
    until(lambda: pump.closed and bool(closed))
    assert closed[0] < 10


def test_a_deleted_stream_ends_its_pump(kernel: dw.Kernel, stream: Stream) -> None:
    with sinks.attach(stream, Receiver(), name="c") as pump:
        pump.flush(PATIENCE_S)
        kernel.bus.delete_stream("s")
        until(lambda: pump.closed)
        assert "not_found" in (pump.status().last_error or "")


def test_an_interpreter_that_exits_stops_its_pumps(tmp_path: Path) -> None:
    code = f"""
        import dwkernel as dw, threading, time
        kernel = dw.open({str(tmp_path / "store")!r}, drives=3, create=True)
        stream = kernel.bus.stream("s", subjects=["s"], create=True)
        stream.publish_many([("s", b"")] * 1000)
        begun = threading.Event()
        def slow(message):
            with open({str(tmp_path / "taken")!r}, "a") as file:
                file.write("x")
            begun.set()
            time.sleep(0.05)
        dw.sinks.attach(stream, dw.sinks.Call(slow, in_flight=3), name="a")
        dw.sinks.attach(stream, dw.sinks.Files({str(tmp_path / "out")!r}), name="b").flush("20s")
        begun.wait(20)
        print("over")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "over\n", "")
    with dw.open(tmp_path / "store") as kernel:
        status = kernel.bus.stream("s").consumer("a").status()
        # What was under way could end, and was acknowledged.
        assert status.acknowledged == (tmp_path / "taken").stat().st_size > 0


def test_a_pump_does_not_cross_a_fork(stream: Stream) -> None:
    with sinks.attach(stream, Receiver(), name="c") as pump:
        pump.flush(PATIENCE_S)
        child = os.fork()
        if child == 0:
            try:
                refused = all(
                    code_of(call) == "bus.forked" for call in (pump.status, pump.flush, pump.pause)
                )
                pump.close()
            finally:
                os._exit(0 if refused else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        stream.publish("s.more")
        pump.flush(PATIENCE_S)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({}, "name="),
        ({"name": "c", "batch": 0.5}, "batch"),
        ({"name": "c", "batch": 0}, "batch"),
        ({"name": "c", "in_flight": 65}, "in_flight"),
        ({"name": "c", "in_flight": 0}, "in_flight"),
        ({"name": "c", "backoff": []}, "backoff"),
        ({"name": "c", "backoff": "1s"}, "backoff"),
        ({"name": "c", "max_deliver": 0}, "max_deliver"),
        ({"name": "c", "breaker": 0}, "breaker"),
    ],
)
def test_a_wrong_option_is_named(stream: Stream, options: dict[str, Any], word: str) -> None:
    with pytest.raises(errors.Invalid, match=word) as caught:
        sinks.attach(stream, Receiver(), **options)
    assert caught.value.code == "sink.option"


def test_what_is_no_sink_and_no_source_is_refused(stream: Stream) -> None:
    any_: Any = object()
    assert code_of(lambda: sinks.attach(stream, any_, name="c")) == "sink.option"
    assert code_of(lambda: sinks.attach(any_, Receiver(), name="c")) == "sink.option"
    consumer = stream.consumer("c", create=True)
    for options in ({"name": "d"}, {"filter": "size > 1"}, {"start": 3}):
        given: dict[str, Any] = options
        assert code_of(lambda given=given: sinks.attach(consumer, Receiver(), **given)) == (  # type: ignore[misc]
            "sink.option"
        )

    async def coroutine(_: Message) -> None:
        pass

    assert code_of(lambda: sinks.Call(coroutine)) == "sink.option"
    assert code_of(lambda: sinks.Call(any_)) == "sink.option"


def test_a_filter_and_a_start_say_what_is_sent(stream: Stream) -> None:
    options: dict[str, Any] = {"filter": "subject == 's.1'", "start": 3}
    with sinks.attach(stream, receiver := Receiver(), name="c", **options) as pump:
        pump.flush(PATIENCE_S)
    assert receiver.taken == [4, 6]


def test_importing_dwkernel_does_not_load_sinks() -> None:
    code = """
import sys, dwkernel
print([name for name in sys.modules if "sinks" in name or "urllib3" in name])
from dwkernel import sinks
sinks.Files, sinks.attach, sinks.verify
print([name for name in sys.modules if "urllib3" in name or "http.client" in name])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n[]\n"
