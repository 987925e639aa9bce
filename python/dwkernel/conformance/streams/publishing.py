"""Cases of publishing, reading and letting go."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from dwkernel.conformance.streams.checks import (
    PATIENCE_S,
    Factory,
    check,
    codes,
    equal,
    fresh,
    numbers,
    take,
    until,
)

if TYPE_CHECKING:
    from dwkernel import errors
    from dwkernel.bus import ports


def _stream(bus: ports.Bus, **options: Any) -> ports.Stream:
    """Make a stream with a name, and subjects below it, of its own."""
    name = fresh()
    return bus.stream(name, create=True, **{"subjects": [f"{name}.>"], **options})


def _data(stream: ports.Stream, **options: Any) -> list[bytes]:
    return [message.data for message in stream.replay(**options)]


def messages_are_kept_as_they_were_sent(factory: Factory) -> None:
    """Every field of a message comes back, whatever the broker has places for."""
    before = time.time()
    odd = {
        "a": "b",
        "Key": "1",
        "key": "2",
        "ä": " ö\r\n ",
        "": "",
        "x:y": "z",
        "Nats-Msg-Id": "no",
    }
    with factory() as bus:
        stream = _stream(bus)
        subject = f"{stream.name}.eu.new"
        fields: dict[str, Any] = {
            "headers": odd,
            "key": "kä y",
            "schema": "s/1",
            "priority": 7,
            "correlation_id": "f" * 32,
        }
        equal(stream.publish(subject, b"\0\xff1", **fields), 1)
        equal(stream.publish(f"{stream.name}.ä", bytearray(b"2"), message_id="m ü\r\n"), 2)
        equal(stream.publish(f"{stream.name}.empty"), 3)
    with factory() as bus:
        one, two, three = bus.stream(stream.name).replay()
    equal((one.sequence, one.subject, one.data), (1, subject, b"\0\xff1"))
    equal(one.headers, odd)
    equal((one.key, one.schema, one.priority), ("kä y", "s/1", 7))
    equal(one.correlation_id, "f" * 32)
    equal((two.subject, two.data, two.headers), (f"{stream.name}.ä", b"2", {}))
    equal((three.data, three.key, three.schema, three.priority), (b"", None, None, 0))
    check(len({one.id, two.id, three.id}) == 3, "identities differ")  # noqa: PLR2004 - of three
    check(before - 5 < one.published_at.timestamp() < time.time() + 5, "the time is right")
    equal(one.published_at.tzinfo, UTC)
    equal((one.deliveries, one.reply_to), (None, None))
    codes("stream.ack", one.ack)


def numbers_rise_by_one_also_from_many_threads(factory: Factory) -> None:
    """Sequence numbers are dense, and each thread's messages keep their order."""
    with factory() as bus:
        stream = _stream(bus)
        given: list[list[int | None]] = [[] for _ in range(8)]

        def publish(who: int) -> None:
            for count in range(20):
                subject = f"{stream.name}.{who}"
                given[who].append(stream.publish(subject, str(count).encode()))

        threads = [threading.Thread(target=publish, args=(who,)) for who in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        everything = sorted(number or 0 for mine in given for number in mine)
        equal(everything, list(range(1, 161)))
        for who, mine in enumerate(given):
            equal(mine, sorted(mine, key=lambda number: number or 0))
            subject = f"{stream.name}.{who}"
            data = [int(one.data) for one in stream.replay() if one.subject == subject]
            equal(data, list(range(20)))
        status = stream.status()
        equal((status.first_sequence, status.last_sequence, status.messages), (1, 160, 160))
        check(status.bytes > 0, "it takes bytes")


def a_replay_begins_anywhere(factory: Factory) -> None:
    """From the first, a number, or a time."""
    with factory() as bus:
        stream = _stream(bus)
        for number in range(5):
            stream.publish(f"{stream.name}.a", str(number).encode())
        time.sleep(0.05)
        moment = datetime.now(UTC)
        time.sleep(0.05)
        stream.publish(f"{stream.name}.a", b"late")
        equal(numbers(stream.replay()), [1, 2, 3, 4, 5, 6])
        equal(numbers(stream.replay(4)), [4, 5, 6])
        equal(numbers(stream.replay(from_sequence=100)), [])
        if bus.promises.replay_from_time:
            equal(_data(stream, from_time=moment), [b"late"])
        else:
            codes("broker.unsupported", lambda: list(stream.replay(from_time=moment)))


def a_long_replay_is_complete_and_in_order(factory: Factory) -> None:
    """More than any page."""
    with factory() as bus:
        stream = _stream(bus)
        subject = f"{stream.name}.a"

        async def publish() -> None:
            for first in range(0, 2500, 100):
                many = range(first, first + 100)
                await asyncio.gather(*(stream.apublish(subject, b"%d" % one) for one in many))

        asyncio.run(publish())
        equal(numbers(stream.replay()), list(range(1, 2501)))
        equal(sorted(int(one) for one in _data(stream)), list(range(2500)))


def who_follows_gets_what_comes_later(factory: Factory) -> None:
    """`follow` goes on, `idle` ends it."""
    with factory() as bus:
        stream = _stream(bus)
        stream.publish(f"{stream.name}.a", b"0")
        taken: list[bytes] = []

        def follow() -> None:
            taken.extend(one.data for one in stream.replay(follow=True, idle=2))

        thread = threading.Thread(target=follow)
        thread.start()
        for number in range(1, 4):
            _until_there_are(taken, number)
            stream.publish(f"{stream.name}.a", str(number).encode())
        thread.join(PATIENCE_S)
        check(not thread.is_alive(), "`idle` ends a replay")
        equal(taken, [b"0", b"1", b"2", b"3"])


def _until_there_are(taken: list[bytes], count: int) -> None:
    until(lambda: len(taken) == count, "what is there is read")


def an_identity_is_taken_once_within_its_window(factory: Factory) -> None:
    """The first one's number is returned; another connection knows it too."""
    with factory() as bus:
        stream = _stream(bus, duplicate_window="1min")
        subject = f"{stream.name}.a"
        if not bus.promises.exactly_once_window:
            codes("broker.unsupported", lambda: stream.publish(subject, message_id="a"))
            return
        again = [stream.publish(subject, b"1", message_id="a") for _ in range(3)]
        equal(again, [1, 1, 1])
        equal(stream.publish(subject, b"2", message_id="b"), 2)
    with factory() as bus:
        stream = bus.stream(stream.name)
        equal(stream.publish(subject, b"3", message_id="a"), 1)
        equal(stream.publish(subject, b"3"), 3)
        equal(_data(stream), [b"1", b"2", b"3"])


def many_messages_are_committed_together_or_refused(factory: Factory) -> None:
    """`publish_many` is whole or not there."""
    with factory() as bus:
        stream = _stream(bus)
        subject = f"{stream.name}.a"
        batch = [(subject, b"1"), (subject, b"2", {"c": "d"}), (subject, b"3", {}, "id")]
        if not bus.promises.atomic_batches:
            codes("broker.unsupported", lambda: stream.publish_many(batch))
            equal(stream.status().messages, 0, "nothing is half done")
            return
        equal(list(stream.publish_many(batch)), [1, 2, 3])
        equal([(one.data, one.headers) for one in stream.replay()][1], (b"2", {"c": "d"}))
        wrong = [(subject, b"4"), (f"{fresh()}.a", b"5")]
        codes("stream.subject", lambda: stream.publish_many(wrong))
        codes("stream.option", lambda: stream.publish_many([(subject, b"")] * 1025))
        equal(_data(stream), [b"1", b"2", b"3"])


def a_batch_that_does_not_fit_is_refused_whole(factory: Factory) -> None:
    """At a limit that refuses what is new, no part of a batch is taken."""
    with factory() as bus:
        if not (bus.promises.atomic_batches and bus.promises.discard_new):
            return
        stream = _stream(bus, max_messages=4, discard="new")
        subject = f"{stream.name}.a"
        stream.publish_many([(subject, b"1"), (subject, b"2"), (subject, b"3")])
        codes("stream.full", lambda: stream.publish_many([(subject, b"4"), (subject, b"5")]))
        equal(_data(stream), [b"1", b"2", b"3"])
        equal(stream.publish(subject, b"4"), 4)


def a_group_is_committed_whole_or_refused(factory: Factory) -> None:
    """Several streams in one commit."""
    with factory() as bus:
        one, two = _stream(bus), _stream(bus)

        def to_both() -> ports.Group:
            with bus.group() as group:
                group.publish(f"{one.name}.a", b"1")
                group.publish(f"{two.name}.a", b"2", headers={"to": "x"})
            return group

        if not bus.promises.atomic_groups:
            # At once, or when it is seen to be for two.
            codes("broker.unsupported", to_both)
            equal((_data(one), _data(two)), ([], []), "nothing is half done")
            return
        group = to_both()
        found = [(routed.stream, routed.sequence) for routed in group.published]
        equal(found, [(one.name, 1), (two.name, 1)])

        def to_nobody() -> None:
            with bus.group() as group:
                group.publish(f"{one.name}.a", b"3")
                group.publish(f"{fresh()}.a", b"4")

        codes("stream.subject", to_nobody)
        equal((_data(one), _data(two)), ([b"1"], [b"2"]))


def a_delayed_message_comes_when_it_is_due_or_is_refused(factory: Factory) -> None:
    """It is not in the stream before."""
    with factory() as bus:
        stream = _stream(bus)
        subject = f"{stream.name}.a"
        if not bus.promises.delayed:
            codes("broker.unsupported", lambda: stream.publish(subject, b"later", delay="1s"))
            now = datetime.now(UTC)
            codes("broker.unsupported", lambda: stream.publish(subject, b"later", at=now))
            equal(stream.status().messages, 0, "nothing is half done")
            return
        equal(stream.publish(subject, b"later", delay="500ms"), None)
        due = datetime.now(UTC) + timedelta(seconds=1)
        equal(stream.publish(subject, b"at last", at=due), None)
        codes("stream.option", lambda: stream.publish(subject, at=due.replace(tzinfo=None)))
        codes("stream.option", lambda: stream.publish(subject, at=due, delay="1s"))
        stream.publish(subject, b"now")
        equal(_data(stream), [b"now"])
        consumer = stream.consumer("c", create=True)
        data = [one.data for one in take(consumer, 3, ack=True)]
        equal(data, [b"now", b"later", b"at last"])


def limits_let_the_oldest_go_or_refuse_the_new(factory: Factory) -> None:
    """By count, bytes and age; nothing wraps around."""
    with factory() as bus:
        kept = bus.promises
        if kept.max_messages:
            old = _stream(bus, max_messages=3)
            for number in range(10):
                old.publish(f"{old.name}.a", str(number).encode())
            until(lambda: numbers(old.replay()) == [8, 9, 10], "the oldest go")
        if kept.discard_new and kept.max_messages:
            new = _stream(bus, max_messages=2, discard="new")
            for number in range(2):
                new.publish(f"{new.name}.a", str(number).encode())
            codes("stream.full", lambda: new.publish(f"{new.name}.a", b"2"))
            equal(new.purge(), 2)
            equal(new.publish(f"{new.name}.a", b"3"), 3)
            equal(new.status().first_sequence, 3)
        if kept.max_bytes:
            small = _stream(bus, max_bytes="16 KiB")
            for _ in range(40):
                small.publish(f"{small.name}.a", b"x" * 1024)
            until(lambda: small.status().messages < 20, "bytes are limited")  # noqa: PLR2004
            equal(small.status().last_sequence, 40)
        if kept.max_age:
            brief = _stream(bus, max_age="1s", duplicate_window="1s")
            brief.publish(f"{brief.name}.a", b"1")
            until(lambda: not _data(brief), "what is old goes")
            equal(brief.publish(f"{brief.name}.a", b"2"), 2)


def an_option_that_is_not_promised_is_refused(factory: Factory) -> None:
    """Never left out in silence: the error names the option."""
    with factory() as bus:
        kept, name = bus.promises, fresh()
        asked: list[tuple[bool, str, object]] = [
            (bool(kept.max_age), "max_age", "1h"),
            (bool(kept.max_bytes), "max_bytes", 1 << 20),
            (bool(kept.max_messages), "max_messages", 9),
            (bool(kept.discard_new and kept.max_messages), "discard", "new"),
            (bool(kept.interest), "retention", "interest"),
            (bool(kept.work_queue), "retention", "work_queue"),
            (bool(kept.compaction_by_key), "keep_last_per_key", True),
        ]
        for is_kept, option, value in asked:
            if not is_kept:
                options: dict[str, Any] = {"subjects": [f"{name}.>"], option: value}
                error = _refused(bus, name, options)
                equal(error.details.get("option"), option)
        codes("stream.not_found", lambda: bus.stream(name))


def _refused(bus: ports.Bus, name: str, options: dict[str, Any]) -> errors.DwError:
    return codes("broker.unsupported", lambda: bus.stream(name, create=True, **options))


def older_messages_of_a_key_go(factory: Factory) -> None:
    """`keep_last_per_key`, where it is promised."""
    with factory() as bus:
        if not bus.promises.compaction_by_key:
            return
        stream = _stream(bus, keep_last_per_key=True)
        large = bytes(min(512 << 10, bus.promises.message_bytes_max))
        for number in range(24):
            stream.publish(f"{stream.name}.a", large, key=f"k{number % 2}")
        until(lambda: stream.status().messages < 16, "older ones of the same key go")  # noqa: PLR2004
        equal(list(numbers(stream.replay()))[-2:], [23, 24], "the last of each key stays")


def what_is_purged_is_gone_and_its_numbers_too(factory: Factory) -> None:
    """All, up to a number, by subject."""
    with factory() as bus:
        stream = _stream(bus)
        for number in range(6):
            stream.publish(f"{stream.name}.{'ab'[number % 2]}", str(number).encode())
        equal(stream.purge(0), 0)
        equal(stream.purge(2), 2)
        equal(numbers(stream.replay()), [3, 4, 5, 6])
        subject = f"{stream.name}.a"
        codes("stream.option", lambda: stream.purge(1, subject=subject))
        if bus.promises.purge_by_subject:
            codes("bus.pattern", lambda: stream.purge(subject="a..b"))
            equal(stream.purge(subject=subject), 2)
            equal(numbers(stream.replay()), [4, 6])
        else:
            codes("broker.unsupported", lambda: stream.purge(subject=subject))
        check(stream.purge() > 0, "the rest goes")
        equal(numbers(stream.replay()), [])
        equal(stream.publish(subject, b"7"), 7)


def streams_are_made_found_listed_and_deleted(factory: Factory) -> None:
    """`create` says which; what was deleted is not found."""
    with factory() as bus:
        name, other = fresh(), fresh()
        codes("stream.not_found", lambda: bus.stream(name))
        made = bus.stream(name, subjects=[name], create="if_missing")
        equal(bus.stream(name, subjects=[name], create="if_missing").name, name)
        codes("stream.exists", lambda: bus.stream(name, subjects=[name], create=True))
        bus.stream(other, subjects=[f"{other}.*", f"{other}.x.>"], create=True)
        found = {one.name: sorted(one.subjects) for one in bus.streams()}
        equal(found[name], [name])
        equal(found[other], [f"{other}.*", f"{other}.x.>"])
        listed = [one.name for one in bus.streams()]
        equal(listed, sorted(listed))
        made.consumer("c", create=True)
        bus.delete_stream(name)
        codes("stream.not_found", lambda: made.publish(name))
        codes("stream.not_found", lambda: bus.delete_stream(name))
        codes("stream.not_found", lambda: list(made.replay()))
        check(name not in [one.name for one in bus.streams()], "it is not listed")
        again = bus.stream(name, subjects=[name], create=True)
        equal([one.name for one in again.consumers()], [])
        equal(again.publish(name), 1)
        bus.delete_stream(other)


def wrong_input_gets_a_code(factory: Factory) -> None:
    """Names, subjects, patterns, options, sizes."""
    with factory() as bus:
        for name in ("", "a b", "x" * 129, "ä", "a.b", "a*", "a/b"):
            _wrong("stream.name", bus, name, {"subjects": ["s"]})
        wrong: list[dict[str, Any]] = [
            {"subjects": []},
            {"discard": "some"},
            {"retention": "ever"},
            {"max_messages": 0},
            {"duplicate_window": "25h"},
        ]
        for options in wrong:
            _wrong("stream.option", bus, fresh(), {"subjects": [fresh()], **options})
        codes("bus.pattern", lambda: _stream(bus, subjects=["a..b"]))
        codes("unit.invalid", lambda: _stream(bus, max_age="soon"))
        stream = _stream(bus, subjects=[fresh("t") + ".*"])
        subject = stream.subjects[0].replace("*", "a")
        codes("stream.subject", lambda: stream.publish(fresh()))
        codes("stream.subject", lambda: stream.publish(f"{subject}.b"))
        for one in ("", f"{subject}.", "a b", "a.*", "x" * 256):
            _wrong_subject(stream, one)
        large = b"x" * ((1 << 20) + 1)
        codes("bus.message_size", lambda: stream.publish(subject, large))
        codes("bus.message_size", lambda: stream.publish(subject, headers={"x": "y" * 70_000}))
        codes("stream.option", lambda: stream.publish(subject, message_id="x" * 256))
        codes("buffer.type", lambda: stream.publish(subject, "text"))  # type: ignore[arg-type]
        equal(stream.status().messages, 0)
        largest = b"x" * bus.promises.message_bytes_max
        equal(stream.publish(subject, largest), 1)
        equal(_data(stream), [largest])


def _wrong(code: str, bus: ports.Bus, name: str, options: dict[str, Any]) -> None:
    codes(code, lambda: bus.stream(name, create=True, **options))


def _wrong_subject(stream: ports.Stream, subject: str) -> None:
    codes("bus.subject", lambda: stream.publish(subject))


def tasks_publish(factory: Factory) -> None:
    """`apublish` is the twin of `publish`."""

    async def main() -> None:
        with factory() as bus:
            stream = _stream(bus)
            subject = f"{stream.name}.a"
            equal(await stream.apublish(subject, b"0", key="k"), 1)
            many = await asyncio.gather(*(stream.apublish(subject, b"x") for _ in range(20)))
            equal(sorted(number or 0 for number in many), list(range(2, 22)))
            try:
                await stream.apublish("")
            except ValueError:
                return
            check(holds=False, says="a wrong subject is refused")

    asyncio.run(main())


def a_closed_bus_takes_nothing(factory: Factory) -> None:
    """Whatever was made with it says so."""
    with factory() as bus:
        stream = _stream(bus)
        consumer = stream.consumer("c", create=True)
        stream.publish(f"{stream.name}.a", b"1")
        (message,) = take(consumer, 1)
    closed = {"bus.closed", "store.closed"}
    codes(closed, lambda: stream.publish(f"{stream.name}.a"))
    codes(closed, lambda: bus.stream(stream.name))
    codes(closed, lambda: list(stream.replay()))
    codes(closed, lambda: consumer.fetch(1, timeout=0))
    codes(closed, message.ack)
    codes(closed, lambda: bus.publish("a"))
    codes(closed, lambda: bus.subscribe("a"))


CASES = [
    messages_are_kept_as_they_were_sent,
    numbers_rise_by_one_also_from_many_threads,
    a_replay_begins_anywhere,
    a_long_replay_is_complete_and_in_order,
    who_follows_gets_what_comes_later,
    an_identity_is_taken_once_within_its_window,
    many_messages_are_committed_together_or_refused,
    a_batch_that_does_not_fit_is_refused_whole,
    a_group_is_committed_whole_or_refused,
    a_delayed_message_comes_when_it_is_due_or_is_refused,
    limits_let_the_oldest_go_or_refuse_the_new,
    an_option_that_is_not_promised_is_refused,
    older_messages_of_a_key_go,
    what_is_purged_is_gone_and_its_numbers_too,
    streams_are_made_found_listed_and_deleted,
    wrong_input_gets_a_code,
    tasks_publish,
    a_closed_bus_takes_nothing,
]
