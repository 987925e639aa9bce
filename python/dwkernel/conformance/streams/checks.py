"""What the cases of the suite share: assertions that stay on, conditions with a deadline."""

from __future__ import annotations

import itertools
import time
import uuid
from typing import TYPE_CHECKING, Any, TypeAlias

from dwkernel import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractContextManager

    from dwkernel.bus import ports

__all__ = [
    "PATIENCE_S",
    "Case",
    "Factory",
    "check",
    "codes",
    "counted",
    "equal",
    "fresh",
    "numbers",
    "take",
    "until",
]

# An adapter's bus, closed at the end. It is entered several times, one after the other, and finds
# the same streams each time.
Factory: TypeAlias = "Callable[[], AbstractContextManager[ports.Bus]]"
Case: TypeAlias = "Callable[[Factory], None]"

PATIENCE_S = 30.0
_POLL_S = 0.01

_numbers = itertools.count(1)
_run = uuid.uuid4().hex[:8]


def check(holds: object, says: str) -> None:
    """Fail unless something holds.

    Raises:
        AssertionError: with what should have held

    """
    if not holds:
        raise AssertionError(says)


def equal(found: object, expected: object, says: str = "") -> None:
    """Fail unless both are the same.

    Raises:
        AssertionError: with both

    """
    if found != expected:
        message = f"{says or 'not as promised'}: {found!r} instead of {expected!r}"
        raise AssertionError(message)


def codes(expected: str | Iterable[str], call: Callable[[], object]) -> errors.DwError:
    """Fail unless `call` raises an error with this code, or one of these; return it.

    Raises:
        AssertionError: it raised nothing, or something else

    """
    wanted = {expected} if isinstance(expected, str) else set(expected)
    try:
        found = call()
    except errors.DwError as error:
        if error.code not in wanted:
            message = f"{error.code} instead of {' or '.join(sorted(wanted))}: {error}"
            raise AssertionError(message) from error
        return error
    message = f"it returned {found!r} instead of raising {' or '.join(sorted(wanted))}"
    raise AssertionError(message)


def until(condition: Callable[[], object], says: str) -> None:
    """Wait until something holds.

    Raises:
        AssertionError: it did not within `PATIENCE_S`

    """
    end = time.monotonic() + PATIENCE_S
    while not condition():
        check(time.monotonic() < end, f"it did not happen within {PATIENCE_S:g} s: {says}")
        time.sleep(_POLL_S)


def fresh(prefix: str = "s") -> str:
    """Return a name that no other case uses, nor another run on the same broker."""
    return f"{prefix}-{_run}-{next(_numbers)}"


def take(
    consumer: ports.Consumer, count: int, *, ack: bool = False, patience_s: float = PATIENCE_S
) -> list[ports.Message]:
    """Fetch until there are `count` messages.

    Raises:
        AssertionError: they do not come within `patience_s`

    """
    messages: list[ports.Message] = []
    end = time.monotonic() + patience_s
    while len(messages) < count:
        left = end - time.monotonic()
        check(left > 0, f"{len(messages)} of {count} messages came: {numbers(messages)}")
        for message in consumer.fetch(count - len(messages), min(left, 0.7)):
            messages.append(message)
            if ack:
                message.ack()
    return messages


def counted(bus: ports.Bus, message: ports.Message, expected: int) -> None:
    """Fail unless a message was delivered so often; or at all, where counts are not exact.

    Raises:
        AssertionError: with both counts

    """
    found = message.deliveries or 0
    is_right = found == expected if bus.promises.exact_deliveries else found >= 1
    check(is_right, f"message {message.sequence} came {found} times instead of {expected}")


def numbers(messages: Iterable[Any]) -> Sequence[int]:
    """Return their sequence numbers."""
    return [message.sequence for message in messages]
