"""The kind `drive`: a real store on three of them."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

from dwkernel import _native
from dwkernel.conformance.plugins.core import Broken, Cases, Running, Subject, hold

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CASES"]

CASES = Cases("drive")
_SIZES = (0, 1, 4096, 100_000, 1_500_000)
_TURNS_S = 20.0


@contextlib.contextmanager
def _places(subject: Subject) -> Iterator[tuple[Running, list[str]]]:
    """Three URLs that the pool can open."""
    with subject.running() as running:
        own = subject.found is None
        if own:
            with running.used() as source:
                _native.register_drives(subject.scheme, source.open)
        try:
            yield running, [subject.location(f"s{number}") for number in range(3)]
        finally:
            if own:
                _native.unregister_drives(subject.scheme)


def _content(size: int) -> bytes:
    return bytes(number * 31 % 251 for number in range(min(size, 1000))) * (size // 1000 + 1)


def _contents() -> dict[str, bytes]:
    return {f"c/{size}": _content(size)[:size] for size in _SIZES}


@CASES.claim("Run the cases above first; then look at what the pool says of the drive's state.")
def a_store_lives_on_three_of_them(subject: Subject) -> None:
    """A store of 2+1 puts, gets, deletes, scrubs, and has everything when it is opened again."""
    import dwkernel as dw  # noqa: PLC0415 - only a store needs it

    wanted = _contents()
    with _places(subject) as (_, drives):
        with dw.open(drives=drives, geometry="2+1", create=True) as kernel:
            kernel.containers.create("c")
            for key, content in wanted.items():
                kernel.put(key, content)
            kernel.put("c/gone", b"x" * 200_000)
            del kernel["c/gone"]
        with dw.open(drives=drives) as kernel:
            found = {key: bytes(kernel[key]) for key in wanted}
            hold(found == wanted, "the store holds something else after opening it again")
            names = sorted(map(str, kernel))
            hold(names == sorted(wanted), f"it lists {names}")
            kernel.pool.scrub()
            states = {drive.state for drive in kernel.pool.status().drives}
            hold(states == {"ok"}, f"the drives are {states}")


@CASES.claim("Carry locks over in export_state, and keep nothing else in the plugin's memory.")
def a_reload_under_a_store_loses_nothing(subject: Subject) -> None:
    """While a store is written to, the plugin is reloaded; no operation fails, nothing is lost."""
    import dwkernel as dw  # noqa: PLC0415 - only a store needs it

    with _places(subject) as (running, drives):
        _ = running.plugins
        with dw.open(drives=drives, geometry="2+1", create=True) as kernel:
            kernel.containers.create("c")
            stop, wrong, count = threading.Event(), list[BaseException](), [0]

            def write() -> None:
                try:
                    while not stop.is_set():
                        kernel.put(f"c/{count[0]}", _content(70_000)[:70_000])
                        count[0] += 1
                except BaseException as error:  # noqa: BLE001 - whatever it is, it is told
                    wrong.append(error)

            thread = threading.Thread(target=write, daemon=True)
            thread.start()
            try:
                for _ in range(3):
                    running.reload()
                    _more(count, wrong)
            finally:
                stop.set()
                thread.join()
            if wrong:
                text = f"a put failed in the reload: {wrong[0]}"
                raise Broken(text)
            states = {drive.state for drive in kernel.pool.status().drives}
            hold(states == {"ok"}, f"after the reload the drives are {states}")
        with dw.open(drives=drives) as kernel:
            good = _content(70_000)[:70_000]
            lost = [number for number in range(count[0]) if kernel[f"c/{number}"] != good]
            hold(not lost, f"objects {lost[:5]} are not what was put")


def _more(count: list[int], wrong: list[BaseException]) -> None:
    """Wait until something was put since."""
    end, before = time.monotonic() + _TURNS_S, count[0]
    while count[0] == before and not wrong:
        hold(time.monotonic() < end, "nothing can be put after the reload")
        time.sleep(0.003)
