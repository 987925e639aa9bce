"""A sink that publishes in another stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel.bus.stream import Stream
from dwkernel.sinks.outcome import Outcome, outcome_of
from dwkernel.sinks.sink import Sink

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dwkernel._native import Message

__all__ = ["Forward"]

# The message itself is wrong for the target, and will be at the next attempt.
_REFUSED = ("stream.subject", "bus.subject", "bus.message_size", "stream.option")


class Forward(Sink):
    """Publishes messages in a stream, of another store or of a broker, as they are.

    The `message_id` is the source's `message.id`: what is sent again within the target's
    `duplicate_window` is there once. Make that window longer than the longest wait of `backoff`.
    What the target refuses for good (its subject, its size) becomes a dead letter; a target that
    was deleted is gone; everything else is tried again.
    """

    batch = 100

    def __init__(self, stream: Any, subject: str | Callable[[Message], str] | None = None) -> None:
        """Publish in `stream`, under the message's own subject unless another is given.

        Args:
            stream: anything with the `publish` of `bus.Stream`.
            subject: a subject, or a function of the message that returns one.

        Raises:
            Invalid: `sink.option`

        """
        if not callable(getattr(stream, "publish", None)):
            raise errors.new("sink.option", f"{type(stream).__name__} is no stream")
        given: object = subject  # callers without a type checker give anything
        if not (given is None or isinstance(given, str) or callable(given)):
            text = f"a subject is text or a function, not {type(subject).__name__}"
            raise errors.new("sink.option", text)
        self._stream = stream
        self._subject = subject

    def deliver(self, messages: Sequence[Message]) -> list[Outcome]:
        """Publish them: in one commit where the target can, else one after the other."""
        if isinstance(self._stream, Stream) and len(messages) > 1:
            try:
                self._together(self._stream, messages)
            except errors.Invalid:
                pass  # one is wrong: which one, they show alone
            except Exception as error:  # noqa: BLE001 - a subject's function may raise anything
                if isinstance(error, errors.DwError):
                    return [self._outcome(error)] * len(messages)
            else:
                return [Outcome.taken()] * len(messages)
        return [self._publish(message) for message in messages]

    def _together(self, stream: Stream, messages: Sequence[Message]) -> None:
        rows = [
            (
                self._subject_of(message),
                message.data,
                message.headers,
                message.key,
                message.schema,
                message.priority,
                message.correlation_id,
                message.id,
            )
            for message in messages
        ]
        stream._native.publish(stream._limit(None), rows)  # noqa: SLF001 - whole rows, one commit

    def _publish(self, message: Message) -> Outcome:
        fields: dict[str, Any] = {
            "headers": message.headers or None,
            "key": message.key,
            "schema": message.schema,
            "priority": message.priority,
            "correlation_id": message.correlation_id,
        }
        given = {name: field for name, field in fields.items() if field}
        try:
            self._stream.publish(
                self._subject_of(message), message.data, message_id=message.id, **given
            )
        except Exception as error:  # noqa: BLE001 - brokers may raise anything
            return self._outcome(error)
        return Outcome.taken()

    def _subject_of(self, message: Message) -> str:
        if callable(self._subject):
            return self._subject(message)
        return self._subject or message.subject

    @staticmethod
    def _outcome(error: Exception) -> Outcome:
        code = getattr(error, "code", None)
        if code in _REFUSED:
            return Outcome.refused(str(error))
        if code == "stream.not_found":
            return Outcome.gone(str(error))
        return outcome_of(error)

    def __repr__(self) -> str:
        """Name the target."""
        return f"<Forward to {self._stream!r}>"
