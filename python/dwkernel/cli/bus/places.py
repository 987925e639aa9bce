"""Where streams are: a store on this machine, or a broker."""

from __future__ import annotations

import contextlib
import importlib
import re
import time
from typing import TYPE_CHECKING

import typer

import dwkernel as dw
from dwkernel import errors
from dwkernel.cli.output import locked_by

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dwkernel.bus import Bus
    from dwkernel.cli.output import Output
    from dwkernel.kernel import Kernel

__all__ = ["bus_at", "is_broker", "looks", "store_at"]

# A command that has the store open is done soon, and a reader may be: it is worth a moment.
_PATIENCE_S = 2.0
_AGAIN_S = 0.05
_COMMANDS = frozenset({"dwkernel", "dw"})
_HELD = (
    "a store has one writer or many readers at a time: ask again when that process has ended, or "
    "ask inside it, "
)


def is_broker(place: str) -> bool:
    """Return whether `place` is a URL: a broker's, where others publish and read meanwhile."""
    return re.match(r"[a-z][a-z0-9+.-]*://", place) is not None


@contextlib.contextmanager
def bus_at(
    place: str,
    out: Output,
    *,
    writes: bool = False,
    force: bool = False,
    stopped: str = "stopped",
) -> Iterator[Bus]:
    """Open the bus at `place` for one command, with errors told."""
    with out.errors_told(stopped), _holders_told(out):
        if is_broker(place):
            with _broker(place) as bus:
                yield bus
            return
        with _store(place, writes=writes, force=force) as kernel:
            yield kernel.bus


@contextlib.contextmanager
def store_at(
    place: str,
    out: Output,
    *,
    inside: str,
    writes: bool = False,
    force: bool = False,
    stopped: str = "stopped",
) -> Iterator[Kernel]:
    """Open the store at `place` for one command, with errors told.

    `inside` is what a program that holds the store asks instead.
    """
    with (
        out.errors_told(stopped),
        _holders_told(out, inside),
        _store(place, writes=writes, force=force) as kernel,
    ):
        yield kernel


def looks(place: str, out: Output, *, every_s: float, force: bool) -> Iterator[Bus]:
    """Yield the bus at `place` again and again, for ever.

    A store is open during each look only, so that others get at it in between; while somebody
    writes to it, that is said once and waited for. Errors are the caller's to tell.
    """
    if is_broker(place):
        with _broker(place) as bus:
            while True:
                yield bus
                time.sleep(every_s)
    told = ""
    while True:
        try:
            with _store(place, writes=False, force=force) as kernel:
                told = ""
                yield kernel.bus
        except errors.Unavailable as error:
            if error.code != "store.locked":
                raise
            who = locked_by(error.details) or "another process has the store open. "
            if who != told:
                out.note(f"{who}Waiting until it lets go")
                told = who
        time.sleep(every_s)


def _broker(url: str) -> contextlib.AbstractContextManager[Bus]:
    connected: contextlib.AbstractContextManager[Bus] = importlib.import_module(
        "dwkernel.brokers"
    ).connect(url)
    return connected


def _store(place: str, *, writes: bool, force: bool) -> Kernel:
    end = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return dw.open(place, read_only=not writes, force=force)
        except errors.Unavailable as error:
            if not _is_soon_over(error) or time.monotonic() >= end:
                raise
            time.sleep(_AGAIN_S)


def _is_soon_over(error: errors.DwError) -> bool:
    if error.code != "store.locked":
        return False
    # Only who writes says since when, and what it is: who reads may be a command like this one, or
    # somebody who has it for this moment.
    return "since" not in error.details or error.details.get("program") in _COMMANDS


@contextlib.contextmanager
def _holders_told(out: Output, inside: str = "kernel.bus") -> Iterator[None]:
    try:
        yield
    except errors.Unavailable as error:
        if error.code != "store.locked":
            raise
        status = out.tell(error)
        out.note(_HELD + inside)
        raise typer.Exit(status) from None
