"""Pumps: they carry the messages of a consumer to a sink until they are closed.

>>> import dwkernel as dw
>>> drives = [f"memory://doc-pump-{n}" for n in range(3)]
>>> with dw.open(drives=drives, geometry="2+1", create=True) as kernel:
...     stream = kernel.bus.stream("orders", subjects=["orders.>"], create=True)
...     _ = stream.publish("orders.eu", b"1")
...     sink = dw.sinks.Call(lambda message: print(message.subject, message.data))
...     with dw.sinks.attach(stream, sink, name="printer") as pump:
...         pump.flush("10s")
orders.eu b'1'
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel._closing import Closing
from dwkernel.sinks.breaker import Backoff
from dwkernel.sinks.core import HELD_MAX, Core, Plan
from dwkernel.sinks.status import PumpStatus
from dwkernel.sinks.threads import CLOSE_S, keep, work
from dwkernel.units import parse_duration

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from dwkernel.bus import Consumer, Stream
    from dwkernel.sinks.sink import Order, Sink
    from dwkernel.sinks.status import State
    from dwkernel.units import Duration

__all__ = ["Pump", "attach"]

BACKOFF = ("1s", "10s", "1min", "10min")
_BATCH_MAX = 4096
_IN_FLIGHT_MAX = 64
_COUNT_MAX = 1 << 31
# A consumer hears three times within its `ack_wait` that a message is in hand.
_BEATS = 3
# At the interpreter's exit all pumps together get so long.
_EXIT_S = 10.0
_FLUSH_LOOK_S = 0.02
_TIDY_S = 5.0


class Pump(Closing):
    """Carries messages of a consumer to a sink, on threads of its own. Made by `attach`.

    At least once: a message is acknowledged after the sink has confirmed it, so a crash between the
    two sends it once more, with the same `message.id`. What a `flush` returned for is never sent
    again. It closes with its kernel and at the interpreter's exit: what is under way may end, and
    what was not sent is given back. It does not cross a fork.
    """

    def __init__(self, consumer: Any, sink: Sink, plan: Plan) -> None:
        """Made by `attach`."""
        self._core = Core(consumer, sink, plan)
        self._pid = os.getpid()
        before = consumer.status()
        self._stream: str = before.stream
        if before.is_paused:
            self._core.phase = "paused"
        tell = getattr(sink, "attached", None)
        if tell is not None:
            tell(before.stream)
        name = f"dwk-sink-{plan.name}"
        self._keeper = threading.Thread(
            target=keep, args=(self._core,), name=f"{name}-keeper", daemon=True
        )
        self._workers = [
            threading.Thread(target=work, args=(self._core,), name=f"{name}-{n}", daemon=True)
            for n in range(plan.in_flight)
        ]
        for thread in (self._keeper, *self._workers):
            thread.start()

    @property
    def name(self) -> str:
        """The consumer's name."""
        return self._core.plan.name

    @property
    def closed(self) -> bool:
        """Whether it has ended, by itself too: its store was closed, or its stream deleted."""
        return self._core.phase == "closed"

    def status(self) -> PumpStatus:
        """Return how it stands.

        Raises:
            State: `bus.forked`

        """
        self._check()
        core = self._core
        lag = pending = None
        is_paused = False
        if not self.closed:
            with contextlib.suppress(Exception):  # a broker may be away; the rest is known here
                figures = core.consumer.status()
                lag, pending = figures.lag, figures.pending + figures.scheduled
                is_paused = figures.is_paused
        with core.change:
            now = time.monotonic()
            counts = core.counts
            return PumpStatus(
                name=self.name,
                stream=self._stream,
                sink=repr(core.sink),
                state=self._state(now, is_paused=is_paused),
                delivered=counts.delivered,
                failed=counts.failed,
                refused=counts.refused,
                timed_out=counts.timed_out,
                stuck=core.stuck,
                in_hand=len(core.desk),
                failures_in_row=core.breaker.failures,
                wait_s=max(0.0, core.breaker.until - now),
                last_error=counts.last_error,
                last_error_at=counts.last_error_at,
                lag=lag,
                pending=pending,
            )

    def _state(self, now: float, *, is_paused: bool) -> State:
        core = self._core
        if core.phase in ("closing", "closed"):
            return "closed"
        if core.phase == "gone":
            return "gone"
        if core.phase == "paused" or is_paused:
            return "paused"
        stands = core.breaker.wait_s(now) != 0 or core.stuck >= core.plan.in_flight
        return "waiting" if stands or (not core.desk.is_open and len(core.desk)) else "running"

    def flush(self, timeout: Duration | None = "30s") -> None:
        """Wait until all that is in the stream now was taken or refused, and that is durable.

        Args:
            timeout: how long to wait; None waits for ever.

        Raises:
            Timeout: `bus.timeout`: something is still to be delivered
            State: `sink.gone`: the receiver wants nothing any more; `bus.closed`, `bus.forked`

        """
        self._check()
        core = self._core
        end = None if timeout is None else time.monotonic() + parse_duration(timeout)
        first = core.consumer.status()
        last = first.delivered_sequence + first.lag
        while True:
            if core.phase == "gone":
                raise errors.new("sink.gone", f"{core.sink!r}: {core.counts.last_error}")
            if core.phase in ("closing", "closed"):
                raise errors.new("bus.closed", f"the sink {self.name} is closed")
            figures = core.consumer.status()
            undone = figures.pending + figures.scheduled
            is_done = figures.floor_sequence >= last or figures.lag + undone == 0
            if is_done and not core.is_settling(last):
                core.consumer.flush()
                return
            if end is not None and time.monotonic() >= end:
                text = f"{figures.lag + undone} messages of {self.name} are still to be delivered"
                raise errors.new("bus.timeout", text, last_error=core.counts.last_error)
            time.sleep(_FLUSH_LOOK_S)

    def pause(self) -> None:
        """Send nothing until `resume`, also after a restart; what is under way goes on.

        Raises:
            State: `bus.forked`, `bus.closed`

        """
        self._steer("paused")

    def resume(self) -> None:
        """Send again, at once: failures are forgotten, and so is that the receiver was gone.

        Raises:
            State: `bus.forked`, `bus.closed`

        """
        self._steer("running")

    def _steer(self, phase: Any) -> None:
        self._check()
        core = self._core
        with core.change:
            if core.phase in ("closing", "closed"):
                raise errors.new("bus.closed", f"the sink {self.name} is closed")
            core.phase, core.must_pause = phase, False
            if phase == "running":
                core.breaker.reset()
            core.change.notify_all()
        with contextlib.suppress(errors.Unsupported):  # brokers that can't: paused here only
            core.consumer.pause() if phase == "paused" else core.consumer.resume()

    def stop(self, timeout: Duration | None = CLOSE_S) -> None:
        """Begin to close, and don't wait for it."""
        if self._pid != os.getpid():
            return
        core = self._core
        with core.change:
            if core.phase not in ("closing", "closed"):
                seconds = None if timeout is None else parse_duration(timeout)
                core.close_by = float("inf") if seconds is None else time.monotonic() + seconds
                core.phase = "closing"
            core.change.notify_all()

    def close(self, timeout: Duration | None = CLOSE_S) -> None:
        """Send nothing more, wait for what is under way, give back what was not sent.

        Acknowledgements are durable on return. The sink is closed, too. In a forked child it does
        nothing.

        Args:
            timeout: how long to wait for calls that are under way; they are then left to
                themselves, and their messages come again.

        Raises:
            Timeout: `bus.timeout` if calls are still under way; it is closed all the same.

        """
        if self._pid != os.getpid():
            return
        self.stop(timeout)
        me = threading.current_thread()
        if me in self._workers or me is self._keeper:
            return  # the sink itself closes it, or the kernel: it ends after this call
        end = None if timeout is None else time.monotonic() + parse_duration(timeout)
        # It waits for workers, gives up those that hang, and tidies up behind them.
        self._keeper.join(None if end is None else max(0.0, end - time.monotonic()) + _TIDY_S)
        soon = time.monotonic() + _TIDY_S
        for thread in self._workers:
            thread.join(max(0.0, min(soon, soon if end is None else end) - time.monotonic()))
        _LIVE.discard(self)
        late = sum(thread.is_alive() for thread in self._workers)
        if late:
            raise errors.new("bus.timeout", f"{late} calls of {self._core.sink!r} are under way")

    def _check(self) -> None:
        if self._pid != os.getpid():
            raise errors.new("bus.forked", f"the sink {self.name} works in the parent process")

    def __repr__(self) -> str:
        """Return what it carries where."""
        return f"<Pump {self.name!r} from {self._stream!r} to {self._core.sink!r}>"


_LIVE: set[Pump] = set()


def _close_all() -> None:
    """Close what is left at the interpreter's exit, while threads can still run."""
    end = time.monotonic() + _EXIT_S
    pumps = list(_LIVE)
    for pump in pumps:
        pump.stop(_EXIT_S)
    for pump in pumps:
        with contextlib.suppress(Exception):
            pump.close(max(0.0, end - time.monotonic()))


atexit.register(_close_all)


def attach(  # noqa: PLR0913 - each option stands alone
    source: Stream | Consumer | Any,
    sink: Sink,
    *,
    name: str | None = None,
    batch: int | None = None,
    in_flight: int | None = None,
    backoff: Iterable[Duration] = BACKOFF,
    max_deliver: int | None = None,
    ordered: bool = False,
    filter: str | None = None,  # noqa: A002 - the field's word
    start: str | int | datetime | None = None,
    ack_wait: Duration = "30s",
    timeout: Duration | None = None,
    breaker: int = 5,
) -> Pump:
    """Carry messages to a sink from now on, until the pump or its kernel is closed.

    Args:
        source: a stream, of a store or of a broker, or a consumer.
        sink: where to. It belongs to the pump, which closes it.
        name: the consumer of the stream that remembers what was delivered; made if it isn't there.
            One that is there keeps its options. A consumer that is given has its name.
        batch: messages in one call, at most; 1 to 4,096, by default what the sink wishes.
        in_flight: calls that may be under way, 1 to 64; by default what the sink wishes.
        backoff: how long to wait before each further attempt, up to a week, spread by a fifth; the
            last one repeats.
        max_deliver: after so many attempts a message becomes a dead letter; None: never. Attempts
            while the receiver is away count, but those are few: see `breaker`.
        ordered: messages with the same key are sent one after the other, and one that fails holds
            back those behind it. Nobody else may use the consumer then.
        filter: an expression, as `Bus.subscribe` takes it; for a new consumer.
        start: where a new consumer begins, as `Stream.consumer` takes it.
        ack_wait: after a crash what was under way is sent again no later than this. For a
            consumer that is given: its own.
        timeout: a call of the sink that takes longer counts as failed; its thread is stuck until it
            comes back. By default what the sink wishes.
        breaker: after so many calls that failed in a row one message at a time is tried, after each
            wait of `backoff`.

    Returns:
        The pump, which runs already. One whose consumer is paused is paused.

    Raises:
        Invalid: `sink.option`, `unit.invalid`; `stream.name`, `bus.filter`
        State: `store.closed`

    """
    plan = Plan(
        name=_name(source, name),
        order=_order(sink, ordered=ordered),
        batch=_between("batch", batch, getattr(sink, "batch", 1), _BATCH_MAX),
        batch_bytes=getattr(sink, "batch_bytes", 4 << 20),
        in_flight=_between("in_flight", in_flight, getattr(sink, "in_flight", 1), _IN_FLIGHT_MAX),
        max_deliver=_between("max_deliver", max_deliver, None, _COUNT_MAX),
        timeout_s=parse_duration(getattr(sink, "timeout_s", 60.0) if timeout is None else timeout),
        beat_s=parse_duration(ack_wait) / _BEATS,
        backoff=Backoff(backoff),
        threshold=_between("breaker", breaker, None, _COUNT_MAX),
    )
    if plan.in_flight > 1 and plan.order == "stream":
        raise errors.new("sink.option", f"{sink!r} takes the stream in order: in_flight is 1")
    consumer = _consumer(source, plan, filter=filter, start=start, ack_wait=ack_wait)
    pump = Pump(consumer, sink, plan)
    _LIVE.difference_update([one for one in _LIVE if one.closed])
    _LIVE.add(pump)
    companions = getattr(consumer, "_companions", None)
    if companions is not None:
        companions.add(pump)
    return pump


def _name(source: Any, name: str | None) -> str:
    if hasattr(source, "fetch"):
        if name is not None and name != source.name:
            raise errors.new("sink.option", f"the consumer has a name already: {source.name!r}")
        return str(source.name)
    if not hasattr(source, "consumer"):
        text = f"messages come from a stream or a consumer, not from {type(source).__name__}"
        raise errors.new("sink.option", text)
    if name is None:
        raise errors.new("sink.option", "give name=: it says what was delivered, after a restart")
    return name


def _order(sink: Any, *, ordered: bool) -> Order:
    if not callable(getattr(sink, "deliver", None)):
        raise errors.new("sink.option", f"{type(sink).__name__} is no sink: it has no deliver")
    wish: Order = getattr(sink, "order", "none")
    if wish not in ("none", "key", "stream"):
        raise errors.new("sink.option", f'order={wish!r} is neither "none", "key" nor "stream"')
    return "key" if ordered and wish == "none" else wish


def _between(option: str, given: Any, wish: Any, limit: int) -> Any:
    given = wish if given is None else given
    if given is None and option == "max_deliver":
        return None
    if not isinstance(given, int) or isinstance(given, bool) or not 1 <= given <= limit:
        raise errors.new("sink.option", f"{option}={given!r} is no number from 1 to {limit:,}")
    return given


def _consumer(
    source: Any,
    plan: Plan,
    *,
    filter: str | None,  # noqa: A002 - the field's word
    start: Any,
    ack_wait: Duration,
) -> Any:
    if hasattr(source, "fetch"):
        if filter is not None or start is not None:
            raise errors.new("sink.option", "filter and start are the consumer's, and it is there")
        return source
    options: dict[str, Any] = {"ack_wait": ack_wait}
    if filter is not None:
        options["filter"] = filter
    if start is not None:
        options["start"] = start
    # In order a pump counts attempts itself: what it holds back was delivered, but not tried.
    if plan.order == "none" and plan.max_deliver is not None:
        options["max_deliver"] = plan.max_deliver
    pending_max = max(HELD_MAX, 2 * plan.held_max)
    return source.consumer(
        plan.name, max_ack_pending=min(pending_max, 65_536), create="if_missing", **options
    )
