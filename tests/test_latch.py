"""A latch opens once, and an interrupt of who waits leaves nobody hanging."""

from __future__ import annotations

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from dwkernel._aside import aside
from dwkernel._latch import Latch


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


def test_all_who_wait_go_on_when_it_opens() -> None:
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


# --- Aside ----------------------------------------------------------------------------------------


def test_on_the_main_thread_a_call_is_made_aside_and_on_others_where_it_is() -> None:
    assert aside(threading.get_ident) != threading.get_ident()
    with ThreadPoolExecutor(1) as pool:
        own = pool.submit(threading.get_ident).result(60)
        assert pool.submit(aside, threading.get_ident).result(60) == own


def test_what_a_call_aside_raises_is_raised() -> None:
    def fails() -> None:
        raise LookupError("here")

    with pytest.raises(LookupError, match="here"):
        aside(fails)


def test_an_interrupt_ends_the_waiting_and_not_the_call() -> None:
    main = threading.main_thread().ident or 0
    goes_on, ended = Latch(), Latch()

    def long() -> None:
        signal.pthread_kill(main, signal.SIGINT)
        goes_on.wait(60)
        ended.open()

    with pytest.raises(KeyboardInterrupt):
        aside(long)
    assert not ended.is_open
    goes_on.open()
    assert ended.wait(60)
