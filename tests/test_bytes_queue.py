"""BytesQueue: bytes between real processes, some of which are killed."""

from __future__ import annotations

import asyncio
import collections
import functools
import gc
import json
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from dwkernel import errors
from dwkernel._shared_queue import BytesQueue, Participant
from expect import code_of, until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a BytesQueue needs Linux")

SHM = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory lies
LONG = 20  # seconds within which anything that works has happened, also on a busy machine


def file_of(name: str) -> Path:
    return SHM / f"dwkernel-{os.geteuid()}-{name}"


@pytest.fixture
def queue() -> Iterator[BytesQueue]:
    with BytesQueue("64 KiB") as queue:
        yield queue
    queue.leave()


# --- One process ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 100, 16383, 16384, 60000])
def test_every_kind_of_buffer_comes_out_as_equal_bytes(queue: BytesQueue, size: int) -> None:
    data = random.Random(size).randbytes(size)
    array = np.frombuffer(data, dtype=np.uint8).copy()
    for buffer in (data, bytearray(data), memoryview(data), array, array.data):
        queue.put(buffer)
        assert type(got := queue.get()) is bytes
        assert got == data
        assert queue.try_put(buffer)
        assert queue.try_get() == data
        assert queue.put_many([buffer]) == 1
        assert queue.get_many(5) == [data]
    with pytest.raises(errors.Invalid) as caught:
        queue.put("text")  # type: ignore[arg-type]
    assert caught.value.code == "buffer.type"


def test_a_queue_knows_its_depth_and_its_figures(queue: BytesQueue) -> None:
    queue.put(b"12345")
    assert queue.put_many(b"x" * n for n in range(10)) == 10
    assert (len(queue), queue.capacity_bytes, queue.message_bytes_max) == (11, 65536, 65528)
    queue.get_many(3)
    status = queue.status()
    assert (status.items, status.puts, status.gets, status.recoveries) == (8, 11, 3, 0)
    assert status.used_bytes == 8 * 8 + 7 * 8 + 16
    assert status.participants == (Participant(os.getpid(), alive=True),)
    assert status.name == queue.name
    assert not status.closed
    assert queue.stats()["puts"] == 11
    assert queue.name in repr(queue)


def test_nothing_there_is_empty_or_the_default(queue: BytesQueue) -> None:
    assert code_of(queue.try_get) == "queue.empty"
    assert queue.try_get(None) is None
    assert queue.try_get(7) == 7
    assert code_of(lambda: queue.get(timeout=0)) == "queue.timeout"
    assert code_of(lambda: queue.get("20 ms")) == "queue.timeout"
    assert code_of(lambda: queue.get_many(3, timeout=0.02)) == "queue.timeout"


def test_a_full_queue_refuses_and_times_out() -> None:
    with BytesQueue(256) as queue:
        while queue.try_put(b"12345678"):
            pass
        assert len(queue) == 16
        begin = time.monotonic()
        assert code_of(lambda: queue.put(b"", timeout=0.05)) == "queue.timeout"
        assert time.monotonic() - begin >= 0.05
        assert code_of(lambda: queue.put(bytes(249))) == "queue.message_size"
        assert queue.get_many(100) == [b"12345678"] * 16
        queue.put(bytes(248), timeout=0)


def test_many_that_do_not_all_fit_say_how_many_did() -> None:
    with BytesQueue(256) as queue:
        for messages, code in (
            ([b"12345678"] * 20, "queue.timeout"),
            ([b"", bytes(300)], "queue.message_size"),
        ):
            with pytest.raises(errors.DwError) as caught:
                queue.put_many(messages, timeout=0.02)
            assert caught.value.code == code
            assert int(caught.value.details["put"]) == len(queue)
            queue.get_many(100)


def test_what_an_iterable_gave_before_it_raised_is_put(queue: BytesQueue) -> None:
    def numbers() -> Iterator[bytes]:
        yield b"1"
        yield b"2"
        raise LookupError

    with pytest.raises(LookupError):
        queue.put_many(numbers())
    with pytest.raises(errors.Invalid):
        queue.put_many([b"3", 4])  # type: ignore[list-item]
    assert queue.get_many(9, LONG) == [b"1", b"2", b"3"]
    assert queue.put_many([]) == 0


def test_an_iterable_may_use_the_queue_itself(queue: BytesQueue) -> None:
    queue.put(b"0")
    assert queue.put_many(queue.get() + b"+" for _ in range(1)) == 1
    assert queue.get() == b"0+"


def test_more_than_the_ring_holds_goes_through_in_one_call() -> None:
    messages = [bytes([n % 251]) * (n % 3000) for n in range(3000)]
    with BytesQueue("16 KiB") as queue:
        thread = threading.Thread(target=queue.put_many, args=(messages,))
        thread.start()
        got: list[bytes] = []
        while len(got) < len(messages):
            got += queue.get_many(100, timeout=LONG)
        thread.join()
    assert got == messages


def test_a_closed_queue_is_iterated_to_its_end(queue: BytesQueue) -> None:
    queue.put_many([b"1", b"2"])
    assert next(iter(queue)) == b"1"
    queue.close()
    assert queue.closed
    assert code_of(lambda: queue.put(b"3")) == "queue.closed"
    assert code_of(lambda: queue.try_put(b"3")) == "queue.closed"
    assert list(queue) == [b"2"]
    for work in (queue.get, queue.try_get, lambda: queue.try_get(None), lambda: queue.get_many(2)):
        assert code_of(work) == "queue.closed"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"capacity_bytes": 10}, "queue.capacity"),
        ({"capacity_bytes": "9 GiB"}, "queue.capacity"),
        ({"capacity_bytes": 2**70}, "queue.capacity"),
        ({"capacity_bytes": "much"}, "unit.invalid"),
        ({"name": "a/b"}, "queue.name"),
        ({"name": ""}, "queue.name"),
        ({"name": "x" * 101}, "queue.name"),
    ],
)
def test_a_queue_that_cannot_be_is_refused(arguments: dict[str, Any], code: str) -> None:
    assert code_of(lambda: BytesQueue(**arguments)) == code


def test_wrong_arguments_are_refused_before_anything_is_done(queue: BytesQueue) -> None:
    wrong: list[Any] = [-1, float("nan"), float("inf"), "soon", b"1"]
    for timeout in wrong:
        assert code_of(functools.partial(queue.put, b"x", timeout)) == "unit.invalid"
        assert code_of(functools.partial(queue.get, timeout)) == "unit.invalid"
    for limit in (0, -1):
        assert code_of(functools.partial(queue.get_many, limit)) == "queue.capacity"
    assert len(queue) == 0


def test_a_name_is_used_once_and_free_after_closing() -> None:
    name = f"mine-{os.getpid()}"
    queue = BytesQueue(name=name)
    assert file_of(name).stat().st_mode & 0o777 == 0o600
    assert code_of(lambda: BytesQueue(name=name)) == "queue.exists"
    other = BytesQueue.attach(name)
    other.put(b"through another door")
    queue.close()
    assert BytesQueue.attach(name).get() == b"through another door"
    again = BytesQueue(name=name)
    queue.leave()
    assert not BytesQueue.attach(name).closed
    again.leave()
    assert code_of(lambda: BytesQueue.attach(name)) == "queue.not_found"
    assert code_of(other.get) == "queue.closed"
    assert not file_of(name).exists()


def test_a_queue_that_nobody_holds_any_more_takes_its_name_along() -> None:
    queue = BytesQueue()
    file = file_of(queue.name)
    assert file.exists()
    del queue
    gc.collect()
    assert not file.exists()


def test_a_damaged_queue_is_an_error() -> None:
    queue = BytesQueue(1024)
    queue.put(b"x")
    with file_of(queue.name).open("r+b") as file:
        file.seek(12288)
        file.write(b"\xff" * 8)
    for work in (queue.get, queue.try_get, lambda: queue.get_many(2), lambda: next(queue)):
        assert code_of(work) == "queue.damaged"
    with file_of(queue.name).open("r+b") as file:
        file.write(b"\0" * 8)
    assert code_of(lambda: BytesQueue.attach(queue.name)) == "queue.damaged"


def poke(queue: BytesQueue, offset: int, word: int) -> None:
    with file_of(queue.name).open("r+b") as file:
        file.seek(offset)
        file.write(word.to_bytes(8, "little"))


def test_a_lock_that_a_living_process_keeps_is_not_waited_for_for_ever(queue: BytesQueue) -> None:
    with file_of(queue.name).open("rb") as file:
        file.seek(4096)
        me = int.from_bytes(file.read(8), "little")
    queue.put(b"x")
    poke(queue, 128, me)
    poke(queue, 384, me)
    assert not queue.try_put(b"y")
    assert queue.try_get(None) is None
    for work in (lambda: queue.put(b"y", "50ms"), lambda: queue.get(0.05)):
        assert code_of(work) == "queue.timeout"
    assert code_of(lambda: queue.put_many([b"y"], 0.05)) == "queue.timeout"
    poke(queue, 128, me + 1)  # the same process id, and another start: it is dead
    poke(queue, 384, me + 1)
    assert queue.try_put(b"y")
    assert queue.get_many(5) == [b"x", b"y"]
    assert queue.stats()["recoveries"] == 2


def test_other_threads_run_while_one_waits(queue: BytesQueue) -> None:
    got: list[bytes] = []
    thread = threading.Thread(target=lambda: got.append(queue.get()))
    thread.start()
    until(lambda: queue.stats()["get_waits"] == 1)
    queue.put(b"for the thread")
    thread.join(LONG)
    assert got == [b"for the thread"]


# --- asyncio --------------------------------------------------------------------------------------


def test_tasks_wait_without_holding_up_the_loop() -> None:
    async def main() -> None:
        with BytesQueue(256) as there, BytesQueue(256) as back:

            async def echo() -> None:
                for _ in range(200):
                    await back.aput(await there.aget(timeout=LONG), timeout=LONG)

            async def send() -> None:
                for n in range(200):
                    await there.aput(bytes(n % 200))

            tasks = [asyncio.create_task(echo()), asyncio.create_task(send())]
            for n in range(200):
                assert await back.aget() == bytes(n % 200)
            await asyncio.gather(*tasks)
            with pytest.raises(TimeoutError):
                await back.aget(timeout=0.01)

    asyncio.run(main())


def test_a_message_survives_a_cancelled_aget() -> None:
    async def main() -> None:
        with BytesQueue(256) as queue:
            for n in range(20):
                task = asyncio.create_task(queue.aget())
                await asyncio.sleep(0.001)
                task.cancel()
                queue.put(bytes([n]))
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert await queue.aget(timeout=LONG) == bytes([n])
            task = asyncio.create_task(queue.aget())
            await asyncio.sleep(0.01)
            queue.close()
            with pytest.raises(errors.State):
                await task

    asyncio.run(main())


# --- Several processes ----------------------------------------------------------------------------


def produce(queue: BytesQueue, producer: int, count: int) -> None:
    for n in range(count):
        queue.put(f"{producer} {n} ".encode().ljust(n % 300, b"."))


def consume(queue: BytesQueue, results: BytesQueue) -> None:
    results.put(json.dumps([one.split()[:2] for one in queue], default=bytes.decode).encode())


def echo(queue: BytesQueue, back: BytesQueue) -> None:
    for message in queue:
        back.put(message)


def put_for_ever(queue: BytesQueue, producer: int) -> None:
    n = 0
    while True:
        if n % 3:
            queue.put_many([f"{producer} {m}".encode() for m in range(n, n + 5)])
            n += 5
        else:
            queue.put(f"{producer} {n}".encode())
            n += 1


def get_for_ever(queue: BytesQueue) -> None:
    while True:
        queue.get()
        queue.get_many(7)


def hold(queue: BytesQueue, ready: Any) -> None:
    queue.try_get(None)
    ready.set()
    time.sleep(1000)


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_processes_lose_and_double_nothing(method: str) -> None:
    context: Any = multiprocessing.get_context(method)
    with BytesQueue("32 KiB") as queue, BytesQueue("4 MiB") as results:
        producers = [context.Process(target=produce, args=(queue, p, 3000)) for p in range(3)]
        consumers = [context.Process(target=consume, args=(queue, results)) for _ in range(2)]
        for process in producers + consumers:
            process.start()
        for process in producers:
            process.join()
        queue.close()
        taken = [json.loads(results.get(timeout=LONG)) for _ in consumers]
        for process in consumers:
            process.join()
            assert process.exitcode == 0
        # Who ended in good order has left.
        assert [one.pid for one in results.status().participants] == [os.getpid()]
    for pairs in taken:
        last: dict[str, int] = {}
        for producer, n in pairs:
            assert last.get(producer, -1) < int(n), "a producer's order"
            last[producer] = int(n)
    counts = collections.Counter(tuple(pair) for pairs in taken for pair in pairs)
    assert counts == {(str(p), str(n)): 1 for p in range(3) for n in range(3000)}


def test_a_forked_child_goes_on_with_what_it_inherited(queue: BytesQueue) -> None:
    file = file_of(queue.name)
    pid = os.fork()
    if pid == 0:
        queue.put(b"%d" % os.getpid())
        queue.leave()
        os._exit(0)
    assert queue.get(timeout=LONG) == b"%d" % pid
    assert os.waitpid(pid, 0)[1] == 0
    assert file.exists(), "only the maker takes the name away"
    queue.put(b"still here")
    assert queue.get() == b"still here"


def test_a_queue_cannot_be_unpickled_when_it_is_gone() -> None:
    with BytesQueue() as queue:
        packed = pickle.dumps(queue)
        assert pickle.loads(packed).name == queue.name  # noqa: S301 - our own
    queue.leave()
    with pytest.raises(errors.NotFound) as caught:
        pickle.loads(packed)  # noqa: S301 - our own
    assert caught.value.code == "queue.not_found"


def test_producers_killed_at_random_moments_leave_whole_messages_without_gaps() -> None:
    context = multiprocessing.get_context("fork")
    chance = random.Random(5)
    expected: collections.Counter[bytes] = collections.Counter()

    def take(queue: BytesQueue, count: int) -> None:
        for _ in range(count):
            producer, n = queue.get(timeout=LONG).split()
            assert int(n) == expected[producer], "without a gap"
            expected[producer] += 1

    with BytesQueue(1000) as queue:
        for life in range(25):
            steady, victim = (
                context.Process(target=put_for_ever, args=(queue, 2 * life + one)) for one in (0, 1)
            )
            steady.start()
            victim.start()
            take(queue, chance.randrange(3000))
            victim.kill()
            victim.join()
            take(queue, 200)
            steady.kill()
            steady.join()
            while (message := queue.try_get(None)) is not None:
                producer, n = message.split()
                assert int(n) == expected[producer]
                expected[producer] += 1


def test_consumers_killed_at_random_moments_take_only_what_they_got() -> None:
    context = multiprocessing.get_context("fork")
    chance = random.Random(6)
    n, last = 0, -1
    with BytesQueue(1000) as queue:
        for _ in range(25):
            victim = context.Process(target=get_for_ever, args=(queue,))
            victim.start()
            for _ in range(chance.randrange(3000)):
                queue.put(b"%d" % n, timeout=LONG)
                n += 1
            victim.kill()
            victim.join()
            while (message := queue.try_get(None)) is not None:
                assert int(message) > last, "in order and once"
                last = int(message)
        queue.put(b"%d" % n)
        assert queue.get() == b"%d" % n


def test_who_waits_alone_among_the_dead_is_told() -> None:
    context = multiprocessing.get_context("fork")
    with BytesQueue(256) as queue:
        ready = context.Event()
        child = context.Process(target=hold, args=(queue, ready))
        child.start()
        assert ready.wait(LONG)
        assert code_of(lambda: queue.get(timeout=0.3)) == "queue.timeout"
        child.kill()
        with pytest.raises(ConnectionError) as caught:
            queue.get(LONG)
        assert isinstance(caught.value, errors.Unavailable)
        assert caught.value.code == "queue.abandoned"
        assert caught.value.retryable
        assert code_of(lambda: queue.put_many([bytes(50)] * 10, LONG)) == "queue.abandoned"
        participants = {one.pid: one.alive for one in queue.status().participants}
        assert participants == {os.getpid(): True, child.pid: False}
        child.join()


def test_a_child_that_ended_in_good_order_is_not_taken_for_a_dead_one(queue: BytesQueue) -> None:
    context = multiprocessing.get_context("fork")
    child = context.Process(target=produce, args=(queue, 1, 1))
    child.start()
    child.join()
    assert queue.get().startswith(b"1 0")
    assert code_of(lambda: queue.get(timeout=0.4)) == "queue.timeout"


# --- The end of a process -------------------------------------------------------------------------

# The object outlives the interpreter's tidying up.
MAKE = """
import ctypes, sys
from dwkernel._shared_queue import BytesQueue
queue = BytesQueue(1024, name=sys.argv[1])
ctypes.pythonapi.Py_IncRef(ctypes.py_object(queue))
queue.put(b"x")
print("ready", flush=True)
sys.stdin.read()
"""

# Multiprocessing is loaded only after the queue was made.
LATE = """
import sys
from dwkernel import errors
from dwkernel._shared_queue import BytesQueue
queue = BytesQueue(1024)
print("ready", flush=True)
assert "multiprocessing.util" not in sys.modules
import multiprocessing
child = multiprocessing.get_context("fork").Process(target=queue.put, args=(b"x",))
child.start()
child.join()
assert queue.get() == b"x"
try:
    queue.get(0.4)
except errors.DwError as error:
    print(error.code)
"""

WAIT = """
import sys
from dwkernel._shared_queue import BytesQueue
queue = BytesQueue(1024)
if sys.argv[1] == "put":
    while queue.try_put(bytes(50)):
        pass
print("ready", flush=True)
try:
    queue.put(bytes(50)) if sys.argv[1] == "put" else queue.get()
except KeyboardInterrupt:
    print("interrupted", queue.stats()["items"], flush=True)
"""


def start(code: str, *arguments: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    return process


def test_a_maker_s_end_removes_the_name() -> None:
    name = f"ending-{os.getpid()}"
    with start(MAKE, name) as process:
        assert file_of(name).exists()
        process.communicate()
    assert process.returncode == 0
    assert not file_of(name).exists()


def test_a_child_leaves_in_good_order_also_if_multiprocessing_came_late() -> None:
    with start(LATE) as process:
        said, _ = process.communicate(timeout=LONG)
    assert said == b"queue.timeout\n"


def test_what_a_killed_maker_left_is_swept_when_nobody_uses_it() -> None:
    name = f"killed-{os.getpid()}"
    with start(MAKE, name) as process:
        user = BytesQueue.attach(name)
        process.kill()
    assert user.get() == b"x"
    BytesQueue(256).close()
    assert file_of(name).exists(), "it is used"
    user.leave()
    BytesQueue(256).close()
    assert not file_of(name).exists()


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(("what", "items"), [("get", 0), ("put", 16)])
def test_ctrl_c_ends_a_wait_at_once(what: str, items: int) -> None:
    with start(WAIT, what) as process:
        time.sleep(0.3)
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        try:
            said, _ = process.communicate(timeout=LONG)
        finally:
            process.kill()
        assert said.split() == [b"interrupted", b"%d" % items]
        assert time.monotonic() - begin < 5
        assert process.returncode == 0
