"""A sink that calls a function."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from dwkernel import errors
from dwkernel.sinks.outcome import Outcome, outcome_of
from dwkernel.sinks.sink import Sink

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dwkernel._native import Message

__all__ = ["Call"]


class Call(Sink):
    """Calls a function with each message.

    What it returns does not matter, unless it is an `Outcome`: the message is taken. If it raises,
    the message failed and comes again; `sink.refused` and `sink.gone` mean what they say. A call
    cannot be stopped: one that hangs keeps its thread.
    """

    def __init__(self, function: Callable[[Message], object], *, in_flight: int = 1) -> None:
        """Call `function`, from `in_flight` threads at a time.

        Raises:
            Invalid: `sink.option`: it can't be called, or is a coroutine function

        """
        given: object = function  # callers without a type checker give anything
        if not callable(given) or inspect.iscoroutinefunction(given):
            text = f"{function!r} is no function; hand a coroutine to its loop inside of one"
            raise errors.new("sink.option", text)
        self._function = function
        self.in_flight = in_flight

    def deliver(self, messages: Sequence[Message]) -> list[Outcome]:
        """Call the function with each."""
        return [self._call(message) for message in messages]

    def _call(self, message: Message) -> Outcome:
        try:
            answer = self._function(message)
        except Exception as error:  # noqa: BLE001 - whatever it raises is its own
            return outcome_of(error)
        return answer if isinstance(answer, Outcome) else Outcome.taken()

    def __repr__(self) -> str:
        """Name the function."""
        return f"<Call {getattr(self._function, '__qualname__', type(self._function).__name__)}>"
