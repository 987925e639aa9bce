"""Calls that an interrupt must not cut in two."""

from __future__ import annotations

import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from dwkernel._aside import aside
from dwkernel._latch import Latch


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
