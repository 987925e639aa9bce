"""Cases of consumers: each message until it is acknowledged."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

from dwkernel.conformance.streams.checks import (
    PATIENCE_S,
    Factory,
    check,
    codes,
    counted,
    equal,
    fresh,
    numbers,
    take,
    until,
)

if TYPE_CHECKING:
    from dwkernel.bus import ports


def _stream(bus: ports.Bus, count: int = 0, **options: Any) -> ports.Stream:
    """Make a stream of its own with `count` messages, about `.0` and `.1` by turns."""
    name = fresh()
    stream = bus.stream(name, create=True, **{"subjects": [f"{name}.>"], **options})
    _fill(stream, count)
    return stream


def _fill(stream: ports.Stream, count: int) -> None:
    for number in range(count):
        stream.publish(f"{stream.name}.{number % 2}", str(number).encode())


def messages_come_until_they_are_acknowledged(factory: Factory) -> None:
    """Once `ack_wait` is over they come again, counted; an acknowledgement is said in time."""
    with factory() as bus:
        stream = _stream(bus, 6)
        consumer = stream.consumer("c", ack_wait="1s", create=True)
        messages = take(consumer, 4)
        found = [(one.sequence, one.data, one.deliveries) for one in messages[:2]]
        equal(found, [(1, b"0", 1), (2, b"1", 1)])
        messages[0].ack()
        messages[1].ack(durable=True)
        for verb in (messages[0].ack, messages[0].nak, messages[1].term):
            codes("stream.ack", verb)
        equal(numbers(take(consumer, 2, ack=True)), [5, 6])
        again = take(consumer, 2)
        equal(sorted(numbers(again)), [3, 4])
        for one in again:
            counted(bus, one, 2)
        # Its time was over, and it is delivered again.
        codes("stream.ack", messages[2].ack)
        for one in again:
            one.ack(durable=True)
        equal(len(consumer.fetch(9, timeout=1.5)), 0, "everything is done")
        until(lambda: consumer.status().floor_sequence == 6, "all is done")  # noqa: PLR2004
        status = consumer.status()
        equal((status.name, status.stream, status.lag), ("c", stream.name, 0))
        equal((status.pending + status.scheduled, status.delivered_sequence), (0, 6))
        equal(status.to_dict()["lag"], 0)


def a_message_that_is_given_back_comes_after_its_delay(factory: Factory) -> None:
    """`nak(delay)`: not before, and the others meanwhile."""
    with factory() as bus:
        stream = _stream(bus, 3)
        consumer = stream.consumer("c", backoff=["10s"], create=True)
        one, two = take(consumer, 2)
        start = time.monotonic()
        one.nak("1s")
        two.nak(0)
        found: dict[int | None, ports.Message] = {}
        while 1 not in found:
            found |= {one.sequence: one for one in take(consumer, 1, ack=True)}
        check(time.monotonic() - start > 0.9, "not before its delay")  # noqa: PLR2004
        check(time.monotonic() - start < 8, "not by the backoff")  # noqa: PLR2004
        equal(sorted(found, key=lambda number: number or 0), [1, 2, 3])
        counted(bus, found[1], 2)
        counted(bus, found[2], 2)
        codes("stream.option", lambda: one.nak("31d"))


def without_a_delay_it_comes_after_the_backoff(factory: Factory) -> None:
    """The first redelivery waits the first of them, the last one repeats."""
    with factory() as bus:
        stream = _stream(bus, 1)
        stream.consumer("c", backoff=["300ms", "1s"], create=True)
    with factory() as bus:
        consumer = bus.stream(stream.name).consumer("c")
        for least in (0.25, 0.9, 0.9):
            (message,) = take(consumer, 1)
            start = time.monotonic()
            message.nak()
            (message,) = take(consumer, 1)
            waited = time.monotonic() - start
            check(waited > least, f"delivery {message.deliveries} came after {waited:.2f} s")
            message.nak(0)


def what_takes_longer_says_so(factory: Factory) -> None:
    """`in_progress` begins `ack_wait` anew."""
    with factory() as bus:
        stream = _stream(bus, 1)
        consumer = stream.consumer("c", ack_wait="2s", create=True)
        (message,) = take(consumer, 1)
        for _ in range(4):
            time.sleep(0.8)
            message.in_progress()
        equal(consumer.fetch(1, timeout=0.2), [], "it is still out")
        message.ack(durable=True)
        equal(consumer.fetch(1, timeout=2.5), [], "it is done")


def who_waits_gets_what_is_published_or_given_back(factory: Factory) -> None:
    """A fetch that waits is woken."""
    with factory() as bus:
        stream = _stream(bus)
        consumer = stream.consumer("c", create=True)
        taken: list[ports.Message] = []

        def wait() -> None:
            taken.extend(consumer.fetch(5, PATIENCE_S))

        def waited(action: Any) -> float:
            thread = threading.Thread(target=wait)
            thread.start()
            time.sleep(0.1)
            start = time.monotonic()
            action()
            thread.join(PATIENCE_S)
            check(not thread.is_alive(), "it is woken")
            return time.monotonic() - start

        equal(consumer.fetch(5, timeout=0), [])
        first = waited(lambda: stream.publish(f"{stream.name}.a", b"1"))
        stream.publish(f"{stream.name}.a", b"2")
        (message,) = take(consumer, 1)
        second = waited(message.nak)
        equal(numbers(taken), [1, 2])
        counted(bus, taken[0], 1)
        counted(bus, taken[1], 2)
        check(max(first, second) < 5, "it is woken soon")  # noqa: PLR2004


def each_message_goes_to_one_of_those_who_fetch(factory: Factory) -> None:
    """Several threads of one consumer."""
    with factory() as bus:
        stream = _stream(bus, 60)
        consumer = stream.consumer("c", create=True)
        taken: list[int | None] = []

        def work() -> None:
            while len(taken) < 60:  # noqa: PLR2004 - all of them
                for one in consumer.fetch(3, timeout=0.2):
                    taken.append(one.sequence)
                    one.ack()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        equal(sorted(number or 0 for number in taken), list(range(1, 61)))


def so_many_are_out_at_a_time(factory: Factory) -> None:
    """`max_ack_pending` holds back what is new until something is done."""
    with factory() as bus:
        stream = _stream(bus, 5)
        consumer = stream.consumer("c", max_ack_pending=2, create=True)
        messages = take(consumer, 2)
        equal(consumer.fetch(9, timeout=0.3), [])
        messages[0].ack()
        equal(numbers(take(consumer, 1)), [3])
        equal(consumer.fetch(9, timeout=0.3), [])


def what_fails_too_often_is_a_dead_letter_and_is_driven_again(factory: Factory) -> None:
    """With its reason and history; its count begins anew."""
    with factory() as bus:
        stream = _stream(bus, 1)
        kept = bus.promises.dead_letters
        consumer = stream.consumer("c", max_deliver=2, dead_letters=bool(kept), create=True)
        for count in (1, 2):
            (message,) = take(consumer, 1)
            equal((message.sequence, message.deliveries), (1, count))
            message.nak()
        for number in range(1, 4):
            stream.publish(f"{stream.name}.{number % 2}", str(number).encode())
        (given_up,) = take(consumer, 1)
        given_up.term("no such ç")
        codes("stream.ack", given_up.ack)
        if not kept:
            return
        letters = list(stream.dead_letters())
        found = [(one.consumer, one.sequence, one.deliveries, one.reason) for one in letters]
        equal(found, [("c", 1, 2, None), ("c", 2, 1, "no such ç")])
        equal([one.history[-1][1] for one in letters], ["returned", "terminated"])
        check(time.time() - 60 < letters[0].history[-1][0] / 1000 < time.time() + 5, "when")
        buried = letters[0].message
        check(buried is not None, "the message is there")
        if buried is not None:
            equal((buried.data, buried.subject), (b"0", f"{stream.name}.0"))
            codes("stream.ack", buried.ack)
    with factory() as bus:
        stream = bus.stream(stream.name)
        consumer = stream.consumer("c")
        equal(len(list(consumer.dead_letters())), 2)
        equal(consumer.redrive(2), 1)
        equal(consumer.redrive(2), 0)
        equal(stream.redrive(), 1)
        equal(list(stream.dead_letters()), [])
        again = take(consumer, 4)
        counts = sorted((one.sequence or 0, one.deliveries or 0) for one in again)
        equal(counts, [(1, 1), (2, 1), (3, 1), (4, 1)])
        for one in again:
            one.term(f"again {one.sequence}")
        equal([one.reason for one in consumer.dead_letters()], [f"again {n}" for n in (1, 2, 3, 4)])


def what_expires_too_often_is_a_dead_letter(factory: Factory) -> None:
    """Also if nobody gives it back."""
    with factory() as bus:
        if not bus.promises.dead_letters:
            return
        stream = _stream(bus, 1)
        consumer = stream.consumer("c", max_deliver=2, ack_wait="300ms", create=True)
        equal([one.deliveries for one in take(consumer, 2)], [1, 2])
        until(
            lambda: not consumer.fetch(1, 0.1) and list(consumer.dead_letters()), "it is given up"
        )
        (letter,) = consumer.dead_letters()
        equal((letter.sequence, letter.deliveries, letter.reason), (1, 2, None))
        equal(letter.history[-1][1], "expired")
        equal(consumer.fetch(1, timeout=0.5), [], "it comes no more")


def without_dead_letters_it_is_dropped(factory: Factory) -> None:
    """`dead_letters=False`."""
    with factory() as bus:
        stream = _stream(bus, 2)
        consumer = stream.consumer("c", max_deliver=1, dead_letters=False, create=True)
        one, two = take(consumer, 2)
        one.term("gone")
        two.nak()
        equal(list(consumer.dead_letters()), [])
        equal(consumer.redrive(), 0)
        equal(consumer.fetch(1, timeout=0.5), [], "they come no more")


def a_new_consumer_begins_where_it_is_told(factory: Factory) -> None:
    """First, last, new, a number, a moment."""
    with factory() as bus:
        stream = _stream(bus, 5)
        time.sleep(0.05)
        moment = _now()
        time.sleep(0.05)
        stream.publish(f"{stream.name}.0", b"5")
        for start, expected in (("first", [1, 2, 3]), ("last", [6]), (4, [4, 5, 6]), (0, [1])):
            consumer = stream.consumer(fresh("c"), start=start, create=True)  # type: ignore[arg-type]
            equal(numbers(take(consumer, len(expected))), expected, f"start={start!r}")
        new = stream.consumer("new", start="new", create=True)
        equal(new.fetch(9, timeout=0.1), [])
        if bus.promises.replay_from_time:
            late = stream.consumer("late", start=moment, create=True)
            equal(numbers(take(late, 1)), [6])
        else:
            call = lambda: stream.consumer("late", start=moment, create=True)  # noqa: E731
            codes("broker.unsupported", call)
        stream.publish(f"{stream.name}.0", b"6")
        equal(numbers(take(new, 1)), [7])


def _now() -> Any:
    from datetime import UTC, datetime  # noqa: PLC0415 - one case

    return datetime.now(UTC)


def only_what_is_wanted_comes(factory: Factory) -> None:
    """By subject; by several and by expressions where that is promised."""
    with factory() as bus:
        stream = _stream(bus, 6)
        one, two = f"{stream.name}.1", f"{stream.name}.0"
        some = stream.consumer("some", subjects=[one], create=True)
        equal(numbers(take(some, 3, ack=True)), [2, 4, 6])
        equal(some.fetch(9, timeout=0.1), [])
        asked: list[tuple[bool, str, dict[str, Any], list[int]]] = [
            (bool(bus.promises.several_subjects), "subjects", {"subjects": [one, two]}, [1, 2, 3]),
            (bool(bus.promises.filters), "filter", {"filter": f"subject == '{one}'"}, [2, 4, 6]),
            (bool(bus.promises.priority), "priority_window", {"priority_window": 10}, [1, 2, 3]),
            (bool(bus.promises.inactive_after), "inactive_after", {"inactive_after": "1h"}, [1, 2]),
        ]
        for is_kept, option, options, expected in asked:
            name = fresh("c")
            if is_kept:
                consumer = stream.consumer(name, create=True, **options)
                equal(numbers(take(consumer, len(expected))), expected)
            else:
                call = lambda: stream.consumer(name, create=True, **options)  # noqa: B023, E731
                error = codes("broker.unsupported", call)
                equal(error.details.get("option"), option)
                codes("stream.consumer_not_found", lambda: stream.consumer(name))  # noqa: B023


def the_most_urgent_comes_first(factory: Factory) -> None:
    """Of those that wait, within the window, where that is promised."""
    with factory() as bus:
        if not bus.promises.priority:
            return
        stream = _stream(bus)
        for priority in (0, 5, 0, 9):
            stream.publish(f"{stream.name}.p", priority=priority)
        urgent = stream.consumer("urgent", priority_window=10, create=True)
        equal([one.priority for one in take(urgent, 4)], [9, 5, 0, 0])


def an_acknowledgement_may_cover_more_or_none_be_needed(factory: Factory) -> None:
    """`ack="all"` and `ack="none"`."""
    with factory() as bus:
        stream = _stream(bus, 6)
        if bus.promises.ack_all:
            every = stream.consumer("all", ack="all", ack_wait="1s", create=True)
            messages = take(every, 4)
            messages[2].ack(durable=True)
            again = take(every, 1, patience_s=PATIENCE_S)
            while numbers(again)[-1] != 4:  # noqa: PLR2004 - the one behind the acknowledgement
                again += take(every, 1)
            check(not set(numbers(again)) & {1, 2, 3}, "what is covered comes no more")
        else:
            call = lambda: stream.consumer("all", ack="all", create=True)  # noqa: E731
            codes("broker.unsupported", call)
        if bus.promises.ack_none:
            none = stream.consumer("none", ack="none", ack_wait="200ms", create=True)
            equal(numbers(take(none, 6)), [1, 2, 3, 4, 5, 6])
            equal(none.fetch(9, timeout=0.6), [], "at most once")
        else:
            call = lambda: stream.consumer("none", ack="none", create=True)  # noqa: E731
            codes("broker.unsupported", call)


def a_paused_consumer_hands_nothing_out(factory: Factory) -> None:
    """Until `resume`; or it is refused."""
    with factory() as bus:
        stream = _stream(bus, 2)
        consumer = stream.consumer("c", create=True)
        if not bus.promises.pause:
            codes("broker.unsupported", consumer.pause)
            equal(numbers(take(consumer, 1)), [1])
            return
        consumer.pause()
        check(consumer.status().is_paused, "it says so")
        equal(consumer.fetch(1, timeout=0.1), [])
    with factory() as bus:
        consumer = bus.stream(stream.name).consumer("c")
        equal(consumer.fetch(1, timeout=0.1), [])
        consumer.resume()
        equal(numbers(take(consumer, 1)), [1])


def what_is_done_goes_where_that_is_promised(factory: Factory) -> None:
    """`work_queue` and `interest`."""
    with factory() as bus:
        if bus.promises.work_queue:
            stream = _stream(bus, retention="work_queue")
            consumer = stream.consumer("c", create=True)
            _fill(stream, 4)
            take(consumer, 3, ack=True)
            consumer.flush()
            until(lambda: numbers(stream.replay()) == [4], "what is done goes")
        if bus.promises.interest:
            stream = _stream(bus, retention="interest")
            first = stream.consumer("first", create=True)
            second = stream.consumer("second", create=True)
            _fill(stream, 2)
            take(first, 2, ack=True)
            first.flush()
            equal(numbers(stream.replay()), [1, 2])
            take(second, 1, ack=True)
            second.flush()
            until(lambda: numbers(stream.replay()) == [2], "what all have done goes")


def consumers_are_made_found_listed_and_deleted(factory: Factory) -> None:
    """`create` says which; what was deleted is not found."""
    with factory() as bus:
        stream = _stream(bus, 1)
        codes("stream.consumer_not_found", lambda: stream.consumer("c"))
        made = stream.consumer("c", create="if_missing")
        equal(stream.consumer("c", create="if_missing").name, "c")
        codes("stream.consumer_exists", lambda: stream.consumer("c", create=True))
        stream.consumer("b", create=True)
        equal([one.name for one in stream.consumers()], ["b", "c"])
        take(made, 1)[0].term("x")
        stream.delete_consumer("c")
        codes("stream.consumer_not_found", lambda: made.fetch(1, timeout=0))
        codes("stream.consumer_not_found", lambda: stream.delete_consumer("c"))
        equal([one.name for one in stream.consumers()], ["b"])
        equal(list(stream.dead_letters()), [], "its dead letters are gone with it")
        again = stream.consumer("c", create=True)
        equal([(one.sequence, one.deliveries) for one in take(again, 1)], [(1, 1)])
        wrong: list[dict[str, Any]] = [
            {"max_deliver": 0},
            {"ack_wait": "1us"},
            {"ack": "maybe"},
            {"start": "soon"},
            {"max_ack_pending": 0},
            {"backoff": ["31d"]},
        ]
        for options in wrong:
            name = fresh("c")
            call = lambda: stream.consumer(name, create=True, **options)  # noqa: B023, E731
            codes("stream.option", call)
        codes("stream.option", lambda: stream.consumer("a b", create=True))
        codes("bus.pattern", lambda: stream.consumer("x", subjects=["a..b"], create=True))


def tasks_fetch_and_a_cancelled_one_takes_nothing(factory: Factory) -> None:
    """`afetch` is the twin of `fetch`."""

    async def main() -> None:
        with factory() as bus:
            stream = _stream(bus)
            subject = f"{stream.name}.a"
            consumer = stream.consumer("c", create=True)
            equal(list(await consumer.afetch(5, timeout=0)), [])
            waiting = asyncio.create_task(consumer.afetch(5))
            await asyncio.sleep(0.1)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            check(waiting.cancelled(), "it is cancelled")
            equal(await stream.apublish(subject, b"1", message_id="a"), 1)
            # Less than `ack_wait`: nobody holds it.
            messages = await consumer.afetch(5, timeout=10)
            equal(numbers(messages), [1])
            messages[0].ack()
            waiting = asyncio.create_task(consumer.afetch(5))
            await asyncio.sleep(0.1)
            await stream.apublish(subject, b"2")
            found = await asyncio.wait_for(waiting, PATIENCE_S)
            equal([one.data for one in found], [b"2"])

    asyncio.run(main())


def closing_ends_a_fetch_that_waits(factory: Factory) -> None:
    """Without the patience of who waits."""
    with factory() as bus:
        consumer = _stream(bus).consumer("c", create=True)
        ended: list[str] = []
        call = lambda: consumer.fetch(1)  # noqa: E731
        allowed = ("store.closed", "bus.closed")
        thread = threading.Thread(target=lambda: ended.append(codes(allowed, call).code))
        thread.start()
        time.sleep(0.1)
    thread.join(PATIENCE_S)
    equal(len(ended), 1, "the fetch ended")


CASES = [
    messages_come_until_they_are_acknowledged,
    a_message_that_is_given_back_comes_after_its_delay,
    without_a_delay_it_comes_after_the_backoff,
    what_takes_longer_says_so,
    who_waits_gets_what_is_published_or_given_back,
    each_message_goes_to_one_of_those_who_fetch,
    so_many_are_out_at_a_time,
    what_fails_too_often_is_a_dead_letter_and_is_driven_again,
    what_expires_too_often_is_a_dead_letter,
    without_dead_letters_it_is_dropped,
    a_new_consumer_begins_where_it_is_told,
    only_what_is_wanted_comes,
    the_most_urgent_comes_first,
    an_acknowledgement_may_cover_more_or_none_be_needed,
    a_paused_consumer_hands_nothing_out,
    what_is_done_goes_where_that_is_promised,
    consumers_are_made_found_listed_and_deleted,
    tasks_fetch_and_a_cancelled_one_takes_nothing,
    closing_ends_a_fetch_that_waits,
]
