"""`BoundedQueue`: threads, asyncio tasks, signals, forks, the garbage collector."""

from __future__ import annotations

import asyncio
import copy
import gc
import itertools
import multiprocessing as mp
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwkernel import errors
from dwkernel.queue import BoundedQueue
from expect import code_of, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE_S = 20.0


steps = st.lists(
    st.one_of(
        st.just(("put", 0)),
        st.just(("get", 0)),
        st.tuples(st.just("put_many"), st.integers(0, 9)),
        st.tuples(st.just("get_many"), st.integers(0, 9)),
    ),
    max_size=60,
)


@given(capacity=st.integers(1, 9), steps=steps)
def test_one_thread_sees_what_a_deque_would_do(capacity: int, steps: list[tuple[str, int]]) -> None:
    queue: BoundedQueue[int] = BoundedQueue(capacity)
    model: deque[int] = deque()
    for number, (step, count) in enumerate(steps):
        if step == "put":
            assert queue.try_put(number) == (len(model) < capacity)
            if len(model) < capacity:
                model.append(number)
        elif step == "get":
            assert queue.try_get(-1) == (model.popleft() if model else -1)
        elif step == "put_many":
            items = [number * 10 + extra for extra in range(count)]
            room = capacity - len(model)
            model.extend(items[:room])
            if count <= room:
                assert queue.put_many(items) == count
            else:
                with pytest.raises(errors.Timeout) as caught:
                    queue.put_many(items, 0)
                assert caught.value.left == items[room:]  # type: ignore[attr-defined]
        else:
            expected = [model.popleft() for _ in range(min(count, len(model)))]
            if expected or count == 0:
                assert queue.get_many(count) == expected
            else:
                assert code_of(lambda: queue.get_many(count, 0)) == "queue.timeout"  # noqa: B023
        assert len(queue) == len(model)


EACH = 3000


def produce(queue: BoundedQueue[tuple[int, int]], who: int) -> None:
    for number in range(0, EACH, 10):
        items = [(who, number + extra) for extra in range(10)]
        if who == 0:
            queue.put_many(items)
        else:
            for item in items:
                queue.put(item)


def consume_in_batches(queue: BoundedQueue[Any], taken: list[Any]) -> None:
    while True:
        try:
            taken += queue.get_many(4)
        except errors.State:
            return


def test_threads_lose_nothing_and_keep_each_producers_order() -> None:
    queue: BoundedQueue[tuple[int, int]] = BoundedQueue(7)
    taken: list[list[tuple[int, int]]] = [[], [], []]
    consumers = [threading.Thread(target=consume_in_batches, args=(queue, taken[0]))]
    consumers += [threading.Thread(target=mine.extend, args=(queue,)) for mine in taken[1:]]
    producers = [threading.Thread(target=produce, args=(queue, who)) for who in range(3)]
    for thread in consumers + producers:
        thread.start()
    for thread in producers:
        thread.join(PATIENCE_S)
    queue.close()
    for thread in consumers:
        thread.join(PATIENCE_S)
    everything = sorted(item for mine in taken for item in mine)
    assert everything == [(who, number) for who in range(3) for number in range(EACH)]
    for mine, who in itertools.product(taken, range(3)):
        numbers = [number for from_whom, number in mine if from_whom == who]
        assert numbers == sorted(numbers)


def test_objects_go_through_as_they_are() -> None:
    queue: BoundedQueue[object] = BoundedQueue(2)
    item = object()
    queue.put(item)
    assert queue.get() is item
    queue.put(None)
    assert queue.try_get("nothing") is None


def test_references_are_kept_and_given_back() -> None:
    class Item:
        pass

    queue: BoundedQueue[Item] = BoundedQueue(8)
    item = Item()
    before = sys.getrefcount(item)
    for _ in range(3):
        queue.put(item)
        queue.put_many([item, item])
        assert sys.getrefcount(item) == before + 3
        queue.get_many(2)
        queue.get()
    assert sys.getrefcount(item) == before
    for _ in range(8):
        queue.put(item)
    with pytest.raises(errors.Timeout):
        queue.put(item, 0)
    assert not queue.try_put(item)
    assert sys.getrefcount(item) == before + 8
    del queue
    assert sys.getrefcount(item) == before


def test_the_collector_sees_what_is_in_it() -> None:
    class Item:
        queue: object = None

    queue: BoundedQueue[Item] = BoundedQueue(2)
    item = Item()
    item.queue = queue
    gone = weakref.ref(item)
    queue.put(item)
    del queue, item
    gc.collect()
    assert gone() is None


def test_waits_end_in_time_with_a_code() -> None:
    queue: BoundedQueue[int] = BoundedQueue(1)
    start = time.monotonic()
    assert code_of(lambda: queue.get(0.05)) == "queue.timeout"
    assert code_of(lambda: queue.get("50ms")) == "queue.timeout"
    assert code_of(lambda: queue.get(-1)) == "unit.invalid"
    assert code_of(lambda: queue.get(float("nan"))) == "unit.invalid"
    queue.put(1)
    assert code_of(lambda: queue.put(2, timeout=0.05)) == "queue.timeout"
    assert 0.1 <= time.monotonic() - start < PATIENCE_S
    assert code_of(lambda: queue.put(2, timeout="soon")) == "unit.invalid"
    with pytest.raises(TimeoutError):
        queue.put(2, 0)
    assert queue.get_many(5) == [1]


def test_empty_and_full_are_told_at_once() -> None:
    queue: BoundedQueue[int] = BoundedQueue(1)
    assert code_of(queue.try_get) == "queue.empty"
    assert queue.try_get(-1) == -1
    assert queue.try_put(1)
    assert not queue.try_put(2)


def test_closing_lets_out_what_is_in_it_and_ends_waits() -> None:
    queue: BoundedQueue[int] = BoundedQueue(4)
    queue.put_many([1, 2, 3])
    queue.close()
    queue.close()
    assert code_of(lambda: queue.put(4)) == "queue.closed"
    assert code_of(lambda: queue.put_many([4])) == "queue.closed"
    assert (queue.get(), list(queue)) == (1, [2, 3])
    assert code_of(queue.get) == "queue.closed"
    assert code_of(lambda: queue.get_many(2)) == "queue.closed"
    for fill in (0, 1):
        waiting: BoundedQueue[int] = BoundedQueue(1)
        waiting.put_many([0] * fill)
        call = waiting.get if fill == 0 else lambda: waiting.put(1)  # noqa: B023
        outcome: list[str] = []
        thread = threading.Thread(target=lambda: outcome.append(code_of(call)))  # noqa: B023
        thread.start()
        until(lambda: waiting.stats().getters + waiting.stats().putters == 1)  # noqa: B023
        waiting.close()
        thread.join(PATIENCE_S)
        assert outcome == ["queue.closed"]


def test_iteration_ends_when_it_is_closed_while_waiting() -> None:
    queue: BoundedQueue[int] = BoundedQueue(2)
    taken: list[int] = []
    thread = threading.Thread(target=lambda: taken.extend(queue))
    thread.start()
    with queue:
        queue.put_many([1, 2, 3])
        until(lambda: queue.stats().getters == 1)
    thread.join(PATIENCE_S)
    assert taken == [1, 2, 3]
    assert queue.closed


def test_any_iterable_goes_in_and_what_does_not_is_handed_back() -> None:
    queue: BoundedQueue[int] = BoundedQueue(1000)
    assert queue.put_many(iter(range(600))) == 600
    assert queue.put_many((600, 601)) == 2
    assert queue.get_many(1000) == list(range(602))
    small: BoundedQueue[int] = BoundedQueue(3)
    numbers = iter(range(1000))
    with pytest.raises(errors.Timeout) as caught:
        small.put_many(numbers, 0)
    left: list[int] = caught.value.left  # type: ignore[attr-defined]
    assert small.get_many(5) + left + list(numbers) == list(range(1000))


def test_what_an_iterator_gave_before_it_raised_goes_in() -> None:
    def numbers() -> Iterator[int]:
        yield from (1, 2)
        raise KeyError

    queue: BoundedQueue[int] = BoundedQueue(3)
    with pytest.raises(KeyError):
        queue.put_many(numbers())
    assert queue.get_many(3) == [1, 2]
    with pytest.raises(TypeError):
        queue.put_many(5)  # type: ignore[arg-type]


def test_urgent_lanes_come_first() -> None:
    queue: BoundedQueue[str] = BoundedQueue(4, lanes=2)
    queue.put("later", lane=1)
    queue.put("now")
    assert queue.stats().lanes == [1, 1]
    assert queue.get_many(4) == ["now", "later"]
    assert code_of(lambda: queue.put("never", lane=2)) == "queue.capacity"
    relieved: BoundedQueue[int] = BoundedQueue(8, lanes=2, relief=2)
    for number in range(4):
        relieved.put(number)
        relieved.put(10 + number, lane=1)
    assert [relieved.get() for _ in range(4)] == [0, 10, 1, 11]


@pytest.mark.parametrize("wrong", [{"capacity": 0}, {"capacity": -1}, {"capacity": 2**31}])
def test_impossible_sizes_are_refused(wrong: dict[str, int]) -> None:
    assert code_of(lambda: BoundedQueue(**wrong)) == "queue.capacity"
    assert code_of(lambda: BoundedQueue(1, lanes=65)) == "queue.capacity"
    assert code_of(lambda: BoundedQueue(1, relief=0)) == "queue.capacity"


def test_arguments_go_by_position_and_by_name() -> None:
    queue: BoundedQueue[int] = BoundedQueue(4)
    queue.put(item=1, timeout=1)
    queue.put(2, 1.5, lane=0)
    assert queue.get(timeout="1s") == 1
    assert queue.get(1) == 2
    calls: list[Callable[..., object]] = [
        queue.put,
        lambda: queue.put(1, 2, 3),  # type: ignore[call-arg]
        lambda: queue.put(1, nobody=2),  # type: ignore[call-arg]
        lambda: queue.get(1, 2),  # type: ignore[call-arg]
        lambda: BoundedQueue.get(4),  # type: ignore[arg-type]
        BoundedQueue.put,
    ]
    for wrong in calls:
        with pytest.raises(TypeError):
            wrong()
    assert len(queue) == 0


def test_statistics_count_and_the_queue_says_how_full_it_is() -> None:
    queue: BoundedQueue[int] = BoundedQueue(4)
    queue.put_many([1, 2, 3])
    queue.get()
    with pytest.raises(errors.Timeout):
        queue.put_many([4, 5, 6], 0.01)
    stats = queue.stats()
    assert (stats.depth, stats.puts, stats.gets, stats.put_waits) == (4, 5, 1, 1)
    assert stats.to_dict()["get_waits"] == 0
    assert repr(queue) == "<BoundedQueue 4 of 4>"
    assert queue
    assert (queue.capacity, queue.lanes) == (4, 1)


# --- asyncio --------------------------------------------------------------------------------------


def test_tasks_and_threads_share_a_queue() -> None:
    queue: BoundedQueue[int] = BoundedQueue(3)
    back: BoundedQueue[int] = BoundedQueue(3)

    async def main() -> list[int]:
        async def feed() -> None:
            for number in range(200):
                await queue.aput(number)
            queue.close()

        feeder = asyncio.create_task(feed())
        taken = [item async for item in back]
        await feeder
        return taken

    def echo() -> None:
        for item in queue:
            back.put(item)
        back.close()

    thread = threading.Thread(target=echo)
    thread.start()
    assert asyncio.run(main()) == list(range(200))
    thread.join(PATIENCE_S)


def test_a_cancelled_get_loses_neither_item_nor_wake_up() -> None:
    async def main() -> None:
        queue: BoundedQueue[int] = BoundedQueue(4)
        first = asyncio.create_task(queue.aget())
        second = asyncio.create_task(queue.aget())
        await asyncio.sleep(0)
        assert queue.stats().getters == 2
        # The first one in the line is told, and is cancelled before it can look.
        queue.put(7)
        first.cancel()
        assert await asyncio.wait_for(second, PATIENCE_S) == 7
        with pytest.raises(asyncio.CancelledError):
            await first

    asyncio.run(main())


def test_cancelled_at_random_nothing_is_lost() -> None:
    async def main() -> list[int]:
        queue: BoundedQueue[int] = BoundedQueue(2)
        taken: list[int] = []

        async def consume() -> None:
            while True:
                taken.append(await queue.aget())

        async def feed() -> None:
            for number in range(500):
                try:
                    async with asyncio.timeout(number % 3 / 1e4):
                        await queue.aput(number)
                except TimeoutError:
                    await queue.aput(number)

        async def disturb() -> None:
            while True:
                victim = asyncio.create_task(consume())
                await asyncio.sleep(0.0002)
                victim.cancel()

        tasks = [asyncio.create_task(work()) for work in (consume, disturb)]
        await asyncio.wait_for(feed(), PATIENCE_S)
        await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        return taken

    assert sorted(asyncio.run(main())) == list(range(500))


def test_loops_come_and_go() -> None:
    queue: BoundedQueue[int] = BoundedQueue(1)
    for number in range(3):

        async def main(number: int = number) -> int:
            getter = asyncio.create_task(queue.aget())
            await asyncio.sleep(0)
            threading.Timer(0.01, queue.put, (number,)).start()
            return await asyncio.wait_for(getter, PATIENCE_S)

        assert asyncio.run(main()) == number


def test_a_close_ends_what_tasks_wait_for() -> None:
    async def main() -> None:
        queue: BoundedQueue[int] = BoundedQueue(1)
        getter = asyncio.create_task(queue.aget())
        await asyncio.sleep(0)
        queue.close()
        with pytest.raises(errors.State):
            await asyncio.wait_for(getter, PATIENCE_S)
        with pytest.raises(errors.State):
            await queue.aput(1)

    asyncio.run(main())


# --- signals, forks, the end ----------------------------------------------------------------------


def run(program: str, *, timeout: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.mark.parametrize("call", ["queue.get()", "queue.get_many(5)", "full.put(1)", "next(queue)"])
def test_ctrl_c_ends_a_wait(call: str) -> None:
    done = run(
        f"""
        import os, signal, threading, time
        from dwkernel.queue import BoundedQueue
        queue, full = BoundedQueue(1), BoundedQueue(1)
        full.put(0)
        def interrupt():
            while not (queue.stats().getters or full.stats().putters):
                time.sleep(0.001)
            os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=interrupt).start()
        start = time.monotonic()
        try:
            {call}
        except KeyboardInterrupt:
            print("interrupted", time.monotonic() - start < 5)
        print(queue.stats().getters + full.stats().putters)
        """
    )
    assert done.stdout.split() == ["interrupted", "True", "0"], done.stderr


def test_a_signals_handler_runs_and_the_wait_goes_on() -> None:
    queue: BoundedQueue[int] = BoundedQueue(1)
    ran: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda *_: ran.append(1))
    try:

        def interrupt() -> None:
            until(lambda: queue.stats().getters == 1)
            signal.raise_signal(signal.SIGUSR1)
            until(lambda: bool(ran))
            queue.put(3)

        thread = threading.Thread(target=interrupt)
        thread.start()
        assert queue.get(PATIENCE_S) == 3
        thread.join(PATIENCE_S)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert ran == [1]


def test_others_run_while_one_waits() -> None:
    queue: BoundedQueue[int] = BoundedQueue(1)
    thread = threading.Thread(target=queue.get)
    thread.start()
    until(lambda: queue.stats().getters == 1)
    start = time.monotonic()
    assert sum(range(1000)) == 499500
    assert time.monotonic() - start < 1
    queue.put(1)
    thread.join(PATIENCE_S)


def test_a_program_ends_while_daemons_and_tasks_wait() -> None:
    done = run(
        """
        import asyncio, threading, time
        from dwkernel.queue import BoundedQueue
        queue, full = BoundedQueue(1), BoundedQueue(1)
        full.put(0)
        for call in (queue.get, lambda: full.put(1), lambda: queue.get_many(3, 3600)):
            threading.Thread(target=call, daemon=True).start()
        async def main():
            task = asyncio.create_task(queue.aget())
            await asyncio.sleep(0.05)
        asyncio.run(main())
        while queue.stats().getters < 2:
            time.sleep(0.001)
        print("end")
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


def in_the_child(queue: BoundedQueue[int], answers: Any) -> None:
    for call in (queue.get, lambda: queue.put(1), queue.close, lambda: queue.put_many([1])):
        try:
            call()
        except errors.State as error:
            answers.put(error.code)
    fresh: BoundedQueue[int] = BoundedQueue(1)
    fresh.put(5)
    answers.put(fresh.get())


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_fork_does_not_take_a_queue_along() -> None:
    queue: BoundedQueue[int] = BoundedQueue(2)
    queue.put(1)
    waiter = threading.Thread(target=lambda: queue.get_many(1) and queue.get())
    waiter.start()
    until(lambda: queue.stats().getters == 1)
    context = mp.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=in_the_child, args=(queue, answers))
    child.start()
    child.join(PATIENCE_S)
    assert child.exitcode == 0
    assert [answers.get() for _ in range(5)] == ["queue.forked"] * 4 + [5]
    queue.put(2)
    waiter.join(PATIENCE_S)


def test_it_is_not_pickled_or_copied() -> None:
    queue: BoundedQueue[int] = BoundedQueue(1)
    assert code_of(lambda: pickle.dumps(queue)) == "queue.forked"
    assert code_of(lambda: copy.copy(queue)) == "queue.forked"
