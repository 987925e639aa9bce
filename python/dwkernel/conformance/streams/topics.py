"""Cases of topics: publish, subscribe, ask."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel.conformance.streams.checks import (
    PATIENCE_S,
    Factory,
    check,
    codes,
    equal,
    fresh,
    until,
)

if TYPE_CHECKING:
    from dwkernel.bus import ports


def patterns_choose_what_comes(factory: Factory) -> None:
    """`*` is one token, a last `>` one and more; a handler gets them in order."""
    with factory() as bus:
        root = fresh("t")
        one = bus.subscribe(f"{root}.*.temp")
        rest = bus.subscribe(f"{root}.>")
        exact = bus.subscribe(f"{root}.a.temp")
        handled: list[bytes] = []
        served = bus.subscribe(f"{root}.>", lambda message: handled.append(message.data))
        subjects = [f"{root}.a.temp", f"{root}.b.temp", f"{root}.a", f"{root}.a.b.temp", root]
        for number, subject in enumerate(subjects):
            bus.publish(subject, str(number).encode())
        bus.publish_many([(f"{root}.a.temp", b"5"), (f"{root}.x", b"6", {"a": "b"})])
        equal(_pull(one, 3), [b"0", b"1", b"5"])
        equal(_pull(rest, 6), [b"0", b"1", b"2", b"3", b"5", b"6"])
        equal(_pull(exact, 2), [b"0", b"5"])
        until(lambda: len(handled) == 6, "the handler gets them")  # noqa: PLR2004
        equal(handled, [b"0", b"1", b"2", b"3", b"5", b"6"])
        served.close()
        bus.publish(f"{root}.a", b"7")
        equal(_pull(rest, 1), [b"7"])
        equal(len(handled), 6, "who closed gets nothing more")
        for wrong in ("", "a..b", "a b", ">.a"):
            _wrong_pattern(bus, wrong)
        codes("bus.subject", lambda: bus.publish("a.*"))
        codes("bus.message_size", lambda: bus.publish("a", b"x" * ((1 << 20) + 1)))
        codes("queue.capacity", lambda: bus.subscribe("a", limit=0))


def _wrong_pattern(bus: ports.Bus, pattern: str) -> None:
    codes("bus.pattern", lambda: bus.subscribe(pattern))


def _pull(subscription: ports.Subscription, count: int) -> list[bytes]:
    """Take `count` messages, and see that no more come at once."""
    found: list[bytes] = []
    end = time.monotonic() + PATIENCE_S
    while len(found) < count and time.monotonic() < end:
        found += [one.data for one in subscription.fetch(100, timeout=0.1)]
    return found + [one.data for one in subscription.fetch(100, timeout=0.05)]


def a_message_crosses_the_bus_as_it_was_sent(factory: Factory) -> None:
    """Every field."""
    with factory() as bus:
        subject = fresh("t")
        subscription = bus.subscribe(subject)
        odd = {"a": "b", "ä": " ö\n", "Key": "x", "key": "y"}
        correlation = "0" * 31 + "1"
        fields: dict[str, Any] = {"key": "k", "schema": "s", "priority": 9}
        bus.publish(subject, b"\0x", headers=odd, correlation_id=correlation, **fields)
        found = subscription.next(PATIENCE_S)
        check(found is not None, "it comes")
        if found is not None:
            equal((found.subject, found.data, found.headers), (subject, b"\0x", odd))
            equal((found.key, found.schema, found.priority), ("k", "s", 9))
            equal(
                (found.correlation_id, found.sequence, found.deliveries), (correlation, None, None)
            )
            check(abs(found.published_at.timestamp() - time.time()) < 60, "when")  # noqa: PLR2004
            check(not found.reply(b""), "it was no question")
            codes("stream.ack", found.ack)


def one_of_a_group_gets_each_message(factory: Factory) -> None:
    """And somebody outside of it gets all; or groups are refused."""
    with factory() as bus:
        subject = fresh("t")
        if not bus.promises.groups:
            codes("broker.unsupported", lambda: bus.subscribe(subject, group="g"))
            return
        taken: list[list[bytes]] = [[], []]
        for mine in taken:
            _subscribe_in_group(bus, subject, mine)
        everything = bus.subscribe(subject)
        for number in range(40):
            bus.publish(subject, str(number).encode())
        until(lambda: len(taken[0]) + len(taken[1]) == 40, "each message comes")  # noqa: PLR2004
        equal(len(set(taken[0]) | set(taken[1])), 40, "each once")
        equal(len(_pull(everything, 40)), 40)


def _subscribe_in_group(bus: ports.Bus, subject: str, taken: list[bytes]) -> None:
    bus.subscribe(subject, lambda message: taken.append(message.data), group="g")


def who_asks_gets_an_answer(factory: Factory) -> None:
    """From a handler that returns it, sync or async, or by `reply`."""
    with factory() as bus:
        root = fresh("t")

        async def later(message: ports.Message) -> bytes:
            await asyncio.sleep(0.01)
            return message.data[::-1]

        def late(message: ports.Message) -> None:
            check(message.reply_to, "somebody asks")
            check(message.reply(b"by reply"), "the answer is taken")

        bus.subscribe(f"{root}.sync", lambda message: message.data.upper())
        bus.subscribe(f"{root}.async", later)
        bus.subscribe(f"{root}.reply", late)
        bus.subscribe(f"{root}.raises", lambda message: 1 // len(message.data), on_error=_ignore)
        bus.subscribe(f"{root}.silent", lambda _: None)
        equal(bus.request(f"{root}.sync", b"ab", timeout=PATIENCE_S).data, b"AB")
        equal(bus.request(f"{root}.async", b"ab", timeout=PATIENCE_S).data, b"ba")
        equal(bus.request(f"{root}.reply", timeout=PATIENCE_S).data, b"by reply")
        codes("bus.timeout", lambda: bus.request(f"{root}.silent", timeout="300ms"))
        raises = lambda: bus.request(f"{root}.raises", timeout="2s")  # noqa: E731
        codes({"bus.handler", "bus.timeout"}, raises)
        nobody = lambda: bus.request(f"{root}.nobody", timeout="2s")  # noqa: E731
        start = time.monotonic()
        codes("bus.no_responder" if bus.promises.no_responder else "bus.timeout", nobody)
        if bus.promises.no_responder:
            check(time.monotonic() - start < 1.5, "at once")  # noqa: PLR2004

        async def ask() -> bytes:
            answer = await bus.arequest(f"{root}.sync", b"cd", timeout=PATIENCE_S)
            await bus.apublish(f"{root}.sync", b"no question")
            return answer.data

        equal(asyncio.run(ask()), b"CD")


def _ignore(_message: object, _error: object) -> None:
    pass


def a_handler_that_raises_hurts_its_subscription_only(factory: Factory) -> None:
    """It is told, and gets the next message."""
    with factory() as bus:
        subject = fresh("t")
        failed: list[tuple[bytes, str]] = []
        handled: list[int] = []
        bus.subscribe(
            subject,
            lambda message: handled.append(1 // int(message.data)),
            on_error=lambda message, error: failed.append((message.data, type(error).__name__)),
        )
        for data in (b"0", b"1"):
            bus.publish(subject, data)
        until(lambda: handled == [1], "the next one is handled")
        equal(failed, [(b"0", "ZeroDivisionError")])


def closing_handles_what_waits(factory: Factory) -> None:
    """And a pulled subscription ends."""
    with factory() as bus:
        subject = fresh("t")
        handled: list[bytes] = []

        def slowly(message: ports.Message) -> None:
            time.sleep(0.02)
            handled.append(message.data)

        served, pulled = bus.subscribe(subject, slowly), bus.subscribe(subject)
        for number in range(10):
            bus.publish(subject, str(number).encode())
        equal(len(_pull(pulled, 10)), 10)
        served.close("20s")
        equal(len(handled), 10)
        waiting = threading.Thread(target=lambda: list(pulled))
        waiting.start()
    waiting.join(PATIENCE_S)
    check(not waiting.is_alive(), "closing the bus ends who waits")
    codes("bus.closed", lambda: pulled.next(0))


def tasks_pull(factory: Factory) -> None:
    """`anext` and `async for`; a cancelled one takes nothing."""

    async def main() -> None:
        with factory() as bus:
            subject = fresh("t")
            subscription = bus.subscribe(subject)
            waiting = asyncio.create_task(subscription.anext())
            await asyncio.sleep(0.05)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await bus.apublish(subject, b"1")
            found = await asyncio.wait_for(subscription.anext(), PATIENCE_S)
            equal(found.data, b"1")
            subscription.close()
            try:
                await subscription.anext()
            except errors.State as error:
                equal(error.code, "bus.closed")
                return
            check(holds=False, says="a closed one ends")

    asyncio.run(main())


CASES = [
    patterns_choose_what_comes,
    a_message_crosses_the_bus_as_it_was_sent,
    one_of_a_group_gets_each_message,
    who_asks_gets_an_answer,
    a_handler_that_raises_hurts_its_subscription_only,
    closing_handles_what_waits,
    tasks_pull,
]
