"""Options of streams and consumers, checked as a store checks them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from dwkernel import errors
from dwkernel.brokers.subjects import check_pattern
from dwkernel.units import Duration, Size, parse_duration, parse_size

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dwkernel.bus.promises import Promise, Promises

__all__ = ["ConsumerSettings", "StreamSettings", "check_name", "refuse"]

_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
_SUBJECTS_MAX = 256
_WINDOW_MAX_S = 86_400.0
_DELAY_MAX_S = 30 * 86_400.0
_DELAY_MIN_S = 0.001
_ACK_PENDING_MAX = 65_536
_BACKOFF_MAX = 64
_PRIORITY_WINDOW_MAX = 256

Start = Literal["first", "last", "new"] | int | datetime


def check_name(name: str, code: str = "stream.name") -> str:
    """Return `name` if a stream (with `stream.option`: a consumer) can have it.

    Raises:
        Invalid: `stream.name` or `stream.option`

    """
    if not _NAME.fullmatch(name):
        text = f"name: {name!r} is not 1 to 128 characters from a-z, A-Z, 0-9, '-' and '_'"
        raise errors.new(code, text, option="name")
    return name


def refuse(promise: Promise, option: str) -> None:
    """Refuse an option that was asked for unless the broker keeps that promise.

    Raises:
        Unsupported: `broker.unsupported`, with the detail `option`

    """
    if not promise:
        raise errors.new("broker.unsupported", f"{option}: {promise.says}", option=option)


@dataclass(frozen=True)
class StreamSettings:
    """What a new stream is to do, as `dwkernel.bus.Bus.stream` takes it.

    Attributes:
        name: its name.
        subjects: patterns, at least one.
        max_age_s: None is without limit, as for the two below.
        max_bytes: the oldest go when they are more.
        max_messages: the oldest go when they are more.
        discard: what goes at a limit.
        retention: what else lets messages go.
        keep_last_per_key: older messages of the same key go.
        duplicate_window_s: for so long a message id is taken once.

    """

    name: str
    subjects: tuple[str, ...]
    max_age_s: float | None
    max_bytes: int | None
    max_messages: int | None
    discard: Literal["old", "new"]
    retention: Literal["limits", "interest", "work_queue"]
    keep_last_per_key: bool
    duplicate_window_s: float

    @classmethod
    def of(  # noqa: PLR0913 - each option stands alone
        cls,
        name: str,
        *,
        subjects: Iterable[str],
        max_age: Duration | None,
        max_bytes: Size | None,
        max_messages: int | None,
        discard: Literal["old", "new"],
        retention: Literal["limits", "interest", "work_queue"],
        keep_last_per_key: bool,
        duplicate_window: Duration,
    ) -> StreamSettings:
        """Check the options.

        Raises:
            Invalid: `stream.name`, `stream.option`, `bus.pattern`, `unit.invalid`

        """
        patterns = tuple(check_pattern(one) for one in subjects)
        window_s = parse_duration(duplicate_window)
        age_s = None if max_age is None else parse_duration(max_age)
        size = None if max_bytes is None else parse_size(max_bytes)
        _check(1 <= len(patterns) <= _SUBJECTS_MAX, "subjects", "give 1 to 256 patterns")
        _check(window_s <= _WINDOW_MAX_S, "duplicate_window", "give at most a day")
        _check(age_s is None or age_s > 0, "max_age", "give more than nothing")
        _check(size is None or size > 0, "max_bytes", "give more than nothing")
        _check(max_messages is None or max_messages > 0, "max_messages", "give at least 1")
        _check(discard in {"old", "new"}, "discard", "give 'old' or 'new'")
        kinds = {"limits", "interest", "work_queue"}
        _check(retention in kinds, "retention", "give 'limits', 'interest' or 'work_queue'")
        return cls(
            check_name(name),
            patterns,
            age_s,
            size,
            max_messages,
            discard,
            retention,
            keep_last_per_key,
            window_s,
        )

    def refuse_beyond(self, promises: Promises) -> None:
        """Refuse what the broker does not promise.

        Raises:
            Unsupported: `broker.unsupported`, with the detail `option`

        """
        asked = [
            (self.max_age_s is not None, promises.max_age, "max_age"),
            (self.max_bytes is not None, promises.max_bytes, "max_bytes"),
            (self.max_messages is not None, promises.max_messages, "max_messages"),
            (self.discard == "new", promises.discard_new, "discard"),
            (self.retention == "interest", promises.interest, "retention"),
            (self.retention == "work_queue", promises.work_queue, "retention"),
            (self.keep_last_per_key, promises.compaction_by_key, "keep_last_per_key"),
        ]
        _refuse_all(asked)


@dataclass(frozen=True)
class ConsumerSettings:
    """What a new consumer is to do, as `dwkernel.bus.Stream.consumer` takes it.

    Attributes:
        name: its name.
        ack: what is done.
        ack_wait_s: after so long without an acknowledgement a message is delivered again.
        max_deliver: how often at most; None is without limit.
        backoff_s: how long each redelivery waits; the last one repeats.
        max_ack_pending: so many may be out at a time.
        filter: an expression.
        subjects: patterns; empty for all.
        start: where it begins.
        priority_window: of so many that wait the most urgent goes first.
        dead_letters: whether what is given up is kept.
        inactive_after_s: it is removed when nobody uses it for so long.

    """

    name: str
    ack: Literal["explicit", "none", "all"]
    ack_wait_s: float
    max_deliver: int | None
    backoff_s: tuple[float, ...]
    max_ack_pending: int
    filter: str | None
    subjects: tuple[str, ...]
    start: Start
    priority_window: int
    dead_letters: bool
    inactive_after_s: float | None

    @classmethod
    def of(  # noqa: PLR0913 - each option stands alone
        cls,
        name: str,
        *,
        ack: Literal["explicit", "none", "all"],
        ack_wait: Duration,
        max_deliver: int | None,
        backoff: Iterable[Duration],
        max_ack_pending: int,
        filter: str | None,  # noqa: A002 - the field's word
        subjects: Iterable[str],
        start: Start,
        priority_window: int,
        dead_letters: bool,
        inactive_after: Duration | None,
    ) -> ConsumerSettings:
        """Check the options.

        Raises:
            Invalid: `stream.option`, `bus.pattern`, `unit.invalid`

        """
        wait_s = parse_duration(ack_wait)
        delays = tuple(parse_duration(one) for one in backoff)
        patterns = tuple(check_pattern(one) for one in subjects)
        _check(ack in {"explicit", "none", "all"}, "ack", "give 'explicit', 'none' or 'all'")
        _check(_DELAY_MIN_S <= wait_s <= _DELAY_MAX_S, "ack_wait", "give 1 ms to 30 days")
        _check(max_deliver is None or max_deliver >= 1, "max_deliver", "give at least 1")
        fit = len(delays) <= _BACKOFF_MAX and all(one <= _DELAY_MAX_S for one in delays)
        _check(fit, "backoff", "give at most 64 delays of at most 30 days")
        _check(1 <= max_ack_pending <= _ACK_PENDING_MAX, "max_ack_pending", "give 1 to 65536")
        _check(len(patterns) <= _SUBJECTS_MAX, "subjects", "give at most 256 patterns")
        known = not isinstance(start, str) or start in {"first", "last", "new"}
        _check(known, "start", "give 'first', 'last', 'new', a number or a moment")
        _check(not isinstance(start, int) or start >= 0, "start", "give a number from 0 on")
        fit = 0 <= priority_window <= _PRIORITY_WINDOW_MAX
        _check(fit, "priority_window", "give 0 to 256")
        return cls(
            check_name(name, "stream.option"),
            ack,
            wait_s,
            max_deliver,
            delays,
            max_ack_pending,
            filter,
            patterns,
            start,
            priority_window,
            dead_letters,
            None if inactive_after is None else parse_duration(inactive_after),
        )

    def refuse_beyond(self, promises: Promises) -> None:
        """Refuse what the broker does not promise.

        Raises:
            Unsupported: `broker.unsupported`, with the detail `option`

        """
        asked = [
            (self.ack == "all", promises.ack_all, "ack"),
            (self.ack == "none", promises.ack_none, "ack"),
            (self.filter is not None, promises.filters, "filter"),
            (len(self.subjects) > 1, promises.several_subjects, "subjects"),
            (isinstance(self.start, datetime), promises.replay_from_time, "start"),
            (self.priority_window > 0, promises.priority, "priority_window"),
            (self.inactive_after_s is not None, promises.inactive_after, "inactive_after"),
        ]
        _refuse_all(asked)


def _check(holds: bool, option: str, advice: str) -> None:
    if not holds:
        raise errors.new("stream.option", f"{option}: {advice}", option=option)


def _refuse_all(asked: list[tuple[bool, Promise, str]]) -> None:
    for is_asked, promise, option in asked:
        if is_asked:
            refuse(promise, option)
