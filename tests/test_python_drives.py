"""Drives that are written in Python are drives: a store lives on them, and survives losing them."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

import dwkernel as dw
from dwkernel import _native, errors
from expect import code_of
from python_drive import DictDrives

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

URLS = [f"dict://{number}" for number in range(6)]


@pytest.fixture(params=["logs", "blobs"])
def drives(request: pytest.FixtureRequest) -> Iterator[DictDrives]:
    made = DictDrives(logs=request.param == "logs")
    _native.register_drives("dict", made.open)
    yield made
    _native.unregister_drives("dict")


def test_a_store_on_drives_in_python_is_there_after_opening_it_again(drives: DictDrives) -> None:
    long = os.urandom(3_000_000)
    with dw.open(drives=URLS, geometry="4+2", create=True) as kernel:
        kernel.containers.create("c")
        kernel.put("c/short", b"hi")
        kernel.put("c/long", long)
        assert kernel["c/long"] == long
    assert all(drive.held is None for drive in drives.drives.values())
    with dw.open(drives=URLS) as kernel:
        assert (kernel["c/short"], kernel["c/long"]) == (b"hi", long)
        kernel.pool.scrub()
        del kernel["c/long"]
        status = kernel.pool.status()
        assert {drive.state for drive in status.drives} == {"ok"}


def test_losing_two_of_six_costs_nothing_and_a_new_one_is_rebuilt(drives: DictDrives) -> None:
    long = os.urandom(2_000_000)
    with dw.open(drives=URLS, geometry="4+2", create=True) as kernel:
        kernel.containers.create("c")
        kernel.put("c/long", long)
    del drives.drives[URLS[0]]
    with dw.open(drives=URLS) as kernel:
        # One that raises in the middle of things.
        drives.drives[URLS[1]].fault = ("read", OSError("it burns"))
        assert kernel["c/long"] == long
        kernel.put("c/more", long)
        drives.drives[URLS[1]].fault = None
        kernel.pool.replace("d1", "dict://new")
        kernel.pool.rebuild()
        assert kernel["c/more"] == long
    assert drives.drives["dict://new"].blobs


def test_a_drive_that_is_in_use_says_who_has_it(drives: DictDrives) -> None:
    with dw.open(drives=URLS[:1], create=True):
        with pytest.raises(errors.Unavailable) as caught:
            dw.open(drives=URLS[:1])
        assert caught.value.code == "store.locked"
        assert caught.value.details["pid"] == str(os.getpid())
    assert drives.drives[URLS[0]].held is None


@pytest.mark.parametrize("fault", [ValueError("no"), SystemExit(3), KeyboardInterrupt()], ids=type)
def test_whatever_a_drive_raises_it_is_that_drive_that_failed(
    drives: DictDrives, fault: BaseException
) -> None:
    long = os.urandom(500_000)
    with dw.open(drives=URLS[:4], geometry="2+1", create=True) as kernel:
        kernel.containers.create("c")
        bad = drives.drives[URLS[0]]
        bad.calls.clear()
        bad.fault = ("put", fault)
        tried = []
        for number in range(8):
            kernel.put(f"c/{number}", long)
            tried.append(bad.calls.count("put"))
        # By the first put that came to it: a shard, and the journal if that was on its way by then.
        assert set(tried) - {0} in ({1}, {2}), "it is not trusted again"
        assert kernel.pool.status().drives[0].state != "ok"
        assert all(kernel[f"c/{number}"] == long for number in range(8))


@pytest.mark.parametrize("answer", [b"x" * 100_000_000, "text", None, 7], ids=type)
def test_a_drive_that_answers_nonsense_is_a_failed_one(
    drives: DictDrives, answer: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = os.urandom(500_000)
    with dw.open(drives=URLS[:3], geometry="2+1", create=True) as kernel:
        kernel.containers.create("c")
        kernel.put("c/long", long)
        bad = drives.drives[URLS[0]]
        monkeypatch.setattr(bad, "read", lambda *_: answer)
        assert kernel["c/long"] == long


def test_schemes_that_are_built_in_or_none_are_not_given_away(tmp_path: Path) -> None:
    made = DictDrives()
    for scheme in ("file", "memory", "", "Dict", "1x", "a b", "a/b"):
        assert code_of(lambda name=scheme: _native.register_drives(name, made.open)) == "drive.url"  # type: ignore[misc]
    assert not _native.unregister_drives("dict")
    assert code_of(lambda: dw.open(drives=["dict://1"], create=True)) == "drive.url"
    _native.register_drives("dict", made.open)
    dw.open(tmp_path / "store", drives=["dict://1"], create=True).close()
    assert _native.unregister_drives("dict")
    assert code_of(lambda: dw.open(tmp_path / "store")) in {"drive.url", "drives.too_many_lost"}


def test_threads_use_a_store_on_drives_in_python_without_deadlock(drives: DictDrives) -> None:
    with dw.open(drives=URLS[:3], geometry="2+1", create=True) as kernel:
        kernel.containers.create("c")

        def work(number: int) -> None:
            for turn in range(20):
                key = f"c/{number}-{turn}"
                kernel.put(key, bytes(100 * turn))
                assert len(kernel[key]) == 100 * turn

        threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
        assert len(list(kernel)) == 320
    assert drives.drives
