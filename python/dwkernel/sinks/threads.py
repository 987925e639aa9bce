"""The threads of a pump: one keeper, and workers."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from dwkernel import errors
from dwkernel.sinks.outcome import Outcome, outcome_of

if TYPE_CHECKING:
    from dwkernel.sinks.core import Batch, Core

__all__ = ["keep", "work"]

# A keeper that waits looks up as often: for who closes it, and for what is in hand.
_SLICE_S = 0.2
# After a consumer that raises: how long until it is asked again, at first and at most.
_TROUBLE_S, _TROUBLE_MAX_S = 0.5, 30.0
CLOSE_S = 30.0


def work(core: Core) -> None:
    """Call the sink with one batch after the other."""
    while (batch := core.next_batch()) is not None:
        core.settle(batch, _deliver(core, batch))
    if core.left():
        _close_sink(core)


def _deliver(core: Core, batch: Batch) -> list[Outcome]:
    count = len(batch.items)
    try:
        outcomes = list(core.sink.deliver([item.message for item in batch.items]))
    except BaseException as error:  # noqa: BLE001 - whatever a sink raises hurts only itself
        return [outcome_of(error)] * count
    if len(outcomes) != count or not all(isinstance(one, Outcome) for one in outcomes):
        text = f"the sink returned {len(outcomes)} outcomes for {count} messages"
        return [Outcome.failed(text)] * count
    return outcomes


def keep(core: Core) -> None:
    """Fetch, keep alive what is in hand, and put everything in order at the end."""
    trouble_s = 0.0
    try:
        while core.phase not in ("closing", "closed"):
            try:
                _round(core)
                trouble_s = 0.0
            except (errors.State, errors.NotFound) as error:
                # The store or the stream is closed or gone, and with it what is in hand.
                core.trouble(error)
                return
            except Exception as error:  # noqa: BLE001 - brokers' consumers may raise anything
                core.trouble(error)
                trouble_s = min(_TROUBLE_MAX_S, max(_TROUBLE_S, trouble_s * 2))
                _wait(core, trouble_s)
    finally:
        _end(core)


def _round(core: Core) -> None:
    core.beat()
    core.expire()
    core.forget_lost()
    if core.must_pause:
        pause(core)
    room = core.room()
    if not core.desk.is_open and room:
        missing = _missing(core)
        if missing == 0:
            with core.change:
                core.desk.open()
                core.change.notify_all()
            return
        room = min(room, missing)
    if room == 0:
        with core.change:
            if core.room() == 0 and core.phase not in ("closing", "closed"):
                core.change.wait(_SLICE_S)
        return
    messages = core.consumer.fetch(room, _SLICE_S)
    for message in core.took(messages):
        with contextlib.suppress(errors.DwError):
            message.ack()
    if not messages and core.is_dirty:
        core.flush()


def _missing(core: Core) -> int:
    """Return how many messages of an earlier run are still to come back."""
    status = core.consumer.status()
    undone: int = status.pending + status.scheduled
    return max(0, undone - len(core.desk))


def _wait(core: Core, seconds: float) -> None:
    """Wait, but keep alive what is in hand."""
    end = time.monotonic() + seconds
    while core.phase not in ("closing", "closed") and time.monotonic() < end:
        core.beat()
        core.expire()
        with core.change:
            core.change.wait(min(_SLICE_S, max(0.0, end - time.monotonic())))


def pause(core: Core) -> None:
    """Pause the consumer, so that the next run knows; brokers that can't are paused here only."""
    with contextlib.suppress(errors.Unsupported):
        core.consumer.pause()
        if core.phase == "running":
            core.consumer.resume()  # somebody resumed it meanwhile
    core.must_pause = False


def _end(core: Core) -> None:
    """Wait for workers, give back what was not sent, make acknowledgements durable."""
    with core.change:
        core.phase = "closing"
        core.change.notify_all()
        end = core.close_by or time.monotonic() + CLOSE_S
    while time.monotonic() < end:
        core.beat()
        core.expire()
        with core.change:
            if core.working <= core.stuck:
                break
            core.change.wait(_SLICE_S)
    if core.must_pause:
        with contextlib.suppress(Exception):
            pause(core)
    for item in core.left_over():
        with contextlib.suppress(Exception):
            item.message.nak(0)
    try:
        core.consumer.flush()
    except Exception as error:  # noqa: BLE001 - the store is closed, or the broker away
        if getattr(error, "code", None) not in ("store.closed", "bus.closed"):
            core.trouble(error)
    with core.change:
        core.phase = "closed"
        core.change.notify_all()
        last = core.working == 0
    if last:
        _close_sink(core)


def _close_sink(core: Core) -> None:
    try:
        core.sink.close()
    except Exception as error:  # noqa: BLE001 - it is closed, and its error told
        core.trouble(error)
