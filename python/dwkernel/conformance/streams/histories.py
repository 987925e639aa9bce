"""Random histories, with consumers that crash: nothing is lost, nothing done comes again."""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dwkernel.conformance.streams.checks import PATIENCE_S, Factory, check, equal, fresh

if TYPE_CHECKING:
    from dwkernel.bus import ports

SEEDS = range(6)
_STEPS = 60
_MAX_DELIVER = 6


@dataclass
class History:
    """What happened so far, as whoever publishes and consumes knows it."""

    stream: str
    published: set[int] = field(default_factory=set)
    done: set[int] = field(default_factory=set)
    done_durably: set[int] = field(default_factory=set)
    given_up: set[int] = field(default_factory=set)
    deliveries: Counter[int] = field(default_factory=Counter)
    out: list[ports.Message] = field(default_factory=list)

    def delivered(self, message: ports.Message) -> None:
        """Check a delivery against what was promised."""
        sequence, count = message.sequence or 0, message.deliveries or 0
        check(sequence in self.published, f"{sequence} was published")
        check(sequence not in self.done_durably, f"{sequence} was acknowledged durably")
        check(sequence not in self.given_up, f"{sequence} was given up")
        equal(message.data, b"%d" % sequence, "the content")
        check(1 <= count <= _MAX_DELIVER, f"{sequence} comes at most {_MAX_DELIVER} times")
        self.deliveries[sequence] += 1
        self.out.append(message)


def nothing_is_lost_and_nothing_done_comes_again(factory: Factory) -> None:
    """Over random histories of a program that is closed in the middle of its work."""
    for seed in SEEDS:
        random_history(factory, seed)


def random_history(factory: Factory, seed: int) -> None:
    """One history.

    Raises:
        AssertionError: with the seed

    """
    chance = random.Random(seed)  # noqa: S311 - a history to be repeated, no secret
    history = History(fresh("h"))
    try:
        with factory() as bus:
            stream = bus.stream(history.stream, subjects=[f"{history.stream}.>"], create=True)
            options = {"ack_wait": "500ms", "max_deliver": _MAX_DELIVER, "max_ack_pending": 20}
            stream.consumer("c", create=True, **options)  # type: ignore[arg-type]
        for _ in range(3):
            with factory() as bus:
                _work(history, bus, chance)
            # Whoever had these is gone.
            history.out.clear()
        with factory() as bus:
            _drain(history, bus)
    except AssertionError as error:
        message = f"seed {seed}: {error}"
        raise AssertionError(message) from error


def _work(history: History, bus: ports.Bus, chance: random.Random) -> None:
    stream = bus.stream(history.stream)
    consumer = stream.consumer("c")
    for _ in range(_STEPS // 3):
        action = chance.random()
        if action < 0.4:  # noqa: PLR2004 - a share of the actions, as below
            number = max(history.published, default=0) + 1
            equal(stream.publish(f"{stream.name}.a", b"%d" % number), number)
            history.published.add(number)
        elif action < 0.6:  # noqa: PLR2004
            for message in consumer.fetch(chance.randint(1, 5), timeout=chance.choice((0, 0.05))):
                history.delivered(message)
        elif history.out:
            _end(history, history.out.pop(chance.randrange(len(history.out))), chance)


def _end(history: History, message: ports.Message, chance: random.Random) -> None:
    from dwkernel import errors  # noqa: PLC0415 - only here

    sequence = message.sequence or 0
    how = chance.choice(("ack", "durably", "durably", "nak", "term", "forget"))
    try:
        if how == "ack":
            message.ack()
            history.done.add(sequence)
        elif how == "durably":
            message.ack(durable=True)
            history.done_durably.add(sequence)
        elif how == "nak":
            message.nak(chance.choice((0, 0.1)))
        elif how == "term":
            message.term("no")
            history.given_up.add(sequence)
    except errors.State as error:
        equal(error.code, "stream.ack", "its time may be over")


def _drain(history: History, bus: ports.Bus) -> None:
    """Take everything that is left, and see that nothing is missing."""
    stream = bus.stream(history.stream)
    consumer = stream.consumer("c")
    end = time.monotonic() + PATIENCE_S
    while True:
        for message in consumer.fetch(10, timeout=0.2):
            history.delivered(message)
            message.ack(durable=True)
            history.done_durably.add(message.sequence or 0)
        status = consumer.status()
        letters = {one.sequence for one in stream.dead_letters()}
        ended = history.done | history.done_durably | letters
        if history.published <= ended and not status.pending + status.scheduled + status.lag:
            break
        missing = sorted(history.published - ended)
        check(time.monotonic() < end, f"{missing} are lost; {status}")
    check(history.given_up <= letters, "what was given up is a dead letter")
    check(not history.done_durably & letters, "what is done is no dead letter")
    equal(consumer.fetch(10, timeout=0.7), [], "nothing comes again")


CASES = [nothing_is_lost_and_nothing_done_comes_again]
