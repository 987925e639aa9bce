"""A latch opens once, and an interrupt of who waits leaves nobody hanging."""

from __future__ import annotations

import signal
import threading
import time

import pytest

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
