"""The place that callers go through, while others exchange what is in it."""

from __future__ import annotations

import random
import sys
import threading
import time

import pytest

from dwkernel import errors
from dwkernel.plugins import Slot, swap
from expect import code_of

PATIENCE_S = 30.0


def test_a_use_keeps_what_it_found_and_the_next_has_what_is_there() -> None:
    slot = Slot("old")
    with slot.use() as first:
        old = slot.swap("new")
        with slot.use() as second:
            assert (first, second) == ("old", "new")
            assert slot.drain(old, 0.0) == [threading.current_thread().name]
    assert slot.drain(old, 0.0) == []
    assert slot.in_flight == 0


def test_a_use_that_is_overtaken_by_a_swap_goes_on_to_the_new_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slot = Slot("old")

    def overtaken() -> int:
        """Swap and drain in the moment before a use writes itself down."""
        monkeypatch.setattr(swap, "_get_ident", threading.get_ident)
        assert slot.drain(slot.swap("new"), 0.0) == []
        return threading.get_ident()

    monkeypatch.setattr(swap, "_get_ident", overtaken)
    with slot.use() as instance:
        assert instance == "new"
    assert slot.in_flight == 0


def test_a_use_that_raises_is_over() -> None:
    slot = Slot(1)
    with pytest.raises(KeyError), slot.use():
        raise KeyError
    assert slot.in_flight == 0


def test_a_use_is_over_when_nobody_has_it_any_more() -> None:
    # As when Ctrl-C comes in the last step of a `with`, before it could leave.
    slot = Slot("old")
    use = slot.use()
    use.__enter__()
    assert not slot.freeze(0.0)
    assert slot.drain(slot.held, 0.0) == [threading.current_thread().name]
    del use
    assert slot.in_flight == 1
    assert slot.freeze(0.0)
    assert slot.in_flight == 0


def test_a_use_that_is_interrupted_while_it_waits_is_not_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slot = Slot("old")
    real = slot._entered

    def interrupted(use: swap.Use[str]) -> None:
        slot.thaw()
        real(use)
        raise KeyboardInterrupt

    assert slot.freeze(0.0)
    monkeypatch.setattr(slot, "_entered", interrupted)
    use = slot.use()
    with pytest.raises(KeyboardInterrupt):
        use.__enter__()
    assert slot.in_flight == 0


def test_a_drain_ends_with_the_last_use() -> None:
    slot = Slot(1)
    inside, leave = threading.Event(), threading.Event()

    def user() -> None:
        with slot.use():
            inside.set()
            leave.wait(PATIENCE_S)

    thread = threading.Thread(target=user)
    thread.start()
    assert inside.wait(PATIENCE_S)
    old = slot.swap(2)
    threading.Timer(0.05, leave.set).start()
    assert slot.drain(old, PATIENCE_S) == []
    thread.join()


def test_a_frozen_slot_lets_those_within_end_and_others_wait() -> None:
    slot = Slot("old")
    got: list[str] = []
    inside, leave = threading.Event(), threading.Event()

    def nested() -> None:
        with slot.use():
            inside.set()
            leave.wait(PATIENCE_S)
            with slot.use() as inner:  # it could not end if this waited
                got.append(f"nested {inner}")

    def user() -> None:
        with slot.use() as instance:
            got.append(instance)

    first = threading.Thread(target=nested)
    first.start()
    assert inside.wait(PATIENCE_S)
    assert not slot.freeze(0.01)  # somebody is in, and stays
    assert slot.held.is_open
    threading.Timer(0.05, leave.set).start()
    assert slot.freeze(PATIENCE_S)
    first.join()
    second = threading.Thread(target=user)
    second.start()
    second.join(0.05)
    assert (second.is_alive(), got) == (True, ["nested old"])
    slot.swap("new")
    second.join()
    assert got == ["nested old", "new"]


def test_a_slot_that_refuses_says_why_and_lets_nobody_wait() -> None:
    slot = Slot(1)
    assert slot.freeze(1.0)
    waiting = threading.Thread(target=lambda: codes.append(code_of(lambda: slot.use().__enter__())))
    codes: list[str] = []
    waiting.start()
    slot.refuse(lambda: errors.new("plugin.state", "it rests"))
    waiting.join(PATIENCE_S)
    assert codes == ["plugin.state"]
    slot.refuse(None)
    slot.thaw()
    with slot.use() as one:
        assert one == 1


@pytest.mark.parametrize("seed", range(3))
def test_nobody_is_let_in_where_it_was_drained(seed: int) -> None:
    """Threads use, one swaps, drains, and then closes what it drained."""

    class Instance:
        closed = False

    slot = Slot(Instance())
    stop = threading.Event()
    wrong: list[str] = []
    uses = [0] * 16

    def user(number: int) -> None:
        while not stop.is_set():
            with slot.use() as instance:
                uses[number] += 1
                if instance.closed:
                    wrong.append("it was closed at the beginning")
                if uses[number] % 50 == 0:
                    time.sleep(0)
                if instance.closed:
                    wrong.append("it was closed in the middle")

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    threads = [threading.Thread(target=user, args=(n,)) for n in range(len(uses))]
    try:
        for thread in threads:
            thread.start()
        chance = random.Random(seed)
        for _ in range(200):
            if chance.random() < 0.3:
                assert slot.freeze(PATIENCE_S)
                assert slot.in_flight == 0
            old = slot.swap(Instance())
            assert slot.drain(old, PATIENCE_S) == []
            old.instance.closed = True
    finally:
        stop.set()
        sys.setswitchinterval(interval)
        for thread in threads:
            thread.join()
    assert not wrong
    assert all(uses)
