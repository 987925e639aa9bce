"""A latch opens once, and an interrupt of who waits leaves nobody hanging."""

from __future__ import annotations

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

import dwkernel
from dwkernel._latch import Bell, Condition, Latch
from dwkernel.brokers.subscription import BrokerSubscription
from dwkernel.plugins.swap import Slot
from expect import interrupted, until


def test_who_waits_goes_on_when_it_opens_and_not_before() -> None:
    latch = Latch()
    began = time.monotonic()
    assert not latch.wait(0.05)
    assert time.monotonic() - began >= 0.05
    assert not latch.wait(-1)
    threading.Timer(0.05, latch.open).start()
    assert latch.wait()
    latch.open()
    assert latch.is_open
    assert latch.wait(0)


def test_all_who_wait_go_on_when_it_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dwkernel._latch._LOOK_S", 50.0)
    latch = Latch()
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(latch.wait, 60) for _ in range(8)]
        time.sleep(0.05)
        assert not any(one.done() for one in waiting)
        began = time.monotonic()
        latch.open()
        assert all(one.result(60) for one in waiting)
        assert time.monotonic() - began < 30, "they looked for themselves"


def test_an_interrupt_at_any_moment_leaves_nobody_hanging() -> None:
    main = threading.main_thread().ident or 0

    def work(latch: Latch, begun: threading.Lock, pause_s: float) -> None:
        begun.acquire()
        signal.pthread_kill(main, signal.SIGINT)
        time.sleep(pause_s)
        latch.open()

    workers = []
    for number in range(400):
        latch = Latch()
        begun = threading.Lock()
        begun.acquire()
        given = (latch, begun, number % 3 * 1e-4)
        worker = threading.Thread(target=work, args=given, daemon=True)
        worker.start()
        workers.append(worker)
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - it may come anywhere in here
            begun.release()
            while True:
                latch.wait(0)
        assert latch.wait(60)
    for worker in workers:
        worker.join(60)
        assert not worker.is_alive()


def test_who_waits_at_a_condition_is_told_and_looks_again_by_itself() -> None:
    condition = Condition()
    other = Bell(condition)
    seen: list[str] = []

    def work(name: str, bell: Condition | Bell) -> None:
        with condition, condition:
            bell.wait_for(lambda: name in wanted)
            seen.append(name)

    wanted: set[str] = set()
    given = [("a", condition), ("b", other), ("c", other)]
    workers = [threading.Thread(target=work, args=one, daemon=True) for one in given]
    for worker in workers:
        worker.start()
    for name, bell in given[:2]:
        with condition:
            wanted.add(name)
            bell.notify_all()
        until(lambda name=name: name in seen)  # type: ignore[misc]
    wanted.add("c")  # and nobody is told
    for worker in workers:
        worker.join(60)
    assert seen == ["a", "b", "c"]
    with condition:
        began = time.monotonic()
        assert not condition.wait(0.05)
        assert condition.wait_for(lambda: 0, 0.05) == 0
        assert 0.1 <= time.monotonic() - began < 60
        condition.notify()
    with pytest.raises(RuntimeError):
        condition.wait()


def test_one_of_those_who_wait_is_told_by_notify() -> None:
    condition, seen = Condition(), list[int]()

    def work(number: int) -> None:
        with condition:
            while not condition.wait(60):
                pass
            seen.append(number)

    workers = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(3)]
    for worker in workers:
        worker.start()
    for count in (1, 2, 3):
        until(lambda: len(condition._waiting) >= 1)
        with condition:
            condition.notify()
        until(lambda count=count: len(seen) >= count)  # type: ignore[misc]
    for worker in workers:
        worker.join(60)
    assert sorted(seen) == [0, 1, 2]


def test_an_interrupt_at_any_point_leaves_a_condition_free() -> None:
    condition = Condition()
    other = Bell(condition)
    told = threading.Event()

    def rival() -> None:
        while not told.wait(1e-4):
            with condition:
                condition.notify_all()

    def work() -> None:
        with condition:
            with condition:
                condition.wait(1e-4)
                other.wait_for(lambda: False, 1e-4)
            condition.notify()
            other.notify_all()

    def look() -> None:
        assert not condition.is_mine

    worker = threading.Thread(target=rival, daemon=True)
    worker.start()
    interrupted(work, look)
    told.set()
    worker.join(60)
    assert not worker.is_alive()


def test_an_interrupt_of_who_waits_for_a_brokers_message_holds_no_broker_up() -> None:
    subscription = BrokerSubscription("a", None, 8, lambda: None)
    told = threading.Event()

    def broker() -> None:
        while not told.wait(1e-4):
            subscription.put(cast("Any", object()))

    def look() -> None:
        assert not subscription._changed.is_mine

    worker = threading.Thread(target=broker, daemon=True)
    worker.start()
    interrupted(lambda: subscription.fetch(2, 1e-4), look)
    told.set()
    worker.join(60)
    assert not worker.is_alive()
    subscription.close()


def test_an_interrupt_of_who_exchanges_a_plugin_leaves_its_place_free() -> None:
    slot = Slot(0)
    told = threading.Event()

    def user() -> None:
        while not told.wait(1e-4):
            with slot.use():
                pass

    def work() -> None:
        slot.swap(1)
        slot.freeze(1e-4)
        slot.thaw()
        with slot.use():
            slot.refuse(None)

    def look() -> None:
        assert not slot._change.is_mine
        slot.thaw()

    workers = [threading.Thread(target=user, daemon=True) for _ in range(2)]
    for worker in workers:
        worker.start()
    interrupted(work, look)
    told.set()
    for worker in workers:
        worker.join(60)
        assert not worker.is_alive()


def test_no_room_has_a_condition_that_an_interrupt_can_leave_taken() -> None:
    # Confined plugins have a lock of their own, which no main thread waits at.
    home = Path(dwkernel.__file__).parent
    found = [
        path.relative_to(home).as_posix()
        for path in home.rglob("*.py")
        if "threading.Condition(" in path.read_text() and path.parent.name != "confined"
    ]
    assert found == []
