"""Fields of messages, checked as a store's own streams check them."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel._messages import padded
from dwkernel.brokers.subjects import check_subject
from dwkernel.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from typing_extensions import Buffer

__all__ = ["BATCH_MAX", "Outgoing", "batch_of", "data_of"]

DATA_BYTES_MAX = 1 << 20
BATCH_MAX = 1024
_HEADERS_BYTES_MAX = 64 << 10
_HEADERS_MAX = 1024
_TEXT_BYTES_MAX = 1024
_MESSAGE_ID_BYTES_MAX = 255
_PRIORITY_MAX = 255
_CORRELATION = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message on its way to a broker, its fields checked.

    Attributes:
        subject: what it is about.
        data: its content.
        headers: names and values.
        id: its identity, drawn for it.
        key: or None, as are schema, correlation_id and message_id.
        schema: how the data is to be read.
        priority: 0 to 255.
        correlation_id: ties it to an operation.
        message_id: the identity under which a stream takes it once.

    """

    subject: str
    data: bytes
    headers: dict[str, str]
    id: str
    key: str | None = None
    schema: str | None = None
    priority: int = 0
    correlation_id: str | None = None
    message_id: str | None = None

    @classmethod
    def of(  # noqa: PLR0913, PLR0917 - each field of a message is one
        cls,
        subject: str,
        data: Buffer,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        schema: str | None = None,
        priority: int = 0,
        correlation_id: str | None = None,
        message_id: str | None = None,
    ) -> Outgoing:
        """Check the fields of a message.

        Raises:
            Invalid: `bus.subject`, `bus.message_size`, `buffer.type`, `stream.option`

        """
        check_subject(subject)
        if not 0 <= priority <= _PRIORITY_MAX:
            raise errors.new("stream.option", f"priority: {priority}, not 0 to 255")
        if correlation_id is not None and not _CORRELATION.fullmatch(correlation_id):
            raise errors.new("stream.option", "correlation_id: give 32 hexadecimal digits")
        for name, text in (("key", key), ("schema", schema)):
            if text is not None:
                _fits(f"the message's {name}", len(text.encode()), _TEXT_BYTES_MAX)
        if message_id is not None:
            size = len(message_id.encode())
            if not 1 <= size <= _MESSAGE_ID_BYTES_MAX:
                raise errors.new("stream.option", f"message_id: {size} bytes, not 1 to 255")
        return cls(
            subject,
            data_of(data),
            _headers_of(headers),
            str(uuid.uuid4()),
            key,
            schema,
            priority,
            correlation_id,
            message_id,
        )


def data_of(data: Buffer) -> bytes:
    """Return the content of a message.

    Raises:
        Invalid: `buffer.type`, `bus.message_size`

    """
    try:
        view = memoryview(data)
        if not view.c_contiguous:
            text = "the buffer is not contiguous"
            raise errors.new("buffer.type", text)
    except TypeError as error:
        text = f"{type(data).__name__} gives no buffer"
        raise errors.new("buffer.type", text) from error
    _fits("the message's data", view.nbytes, DATA_BYTES_MAX)
    return data if type(data) is bytes else view.tobytes()


def batch_of(messages: Iterable[Sequence[Any]]) -> list[Outgoing]:
    """Return messages that are published together, as `publish_many` takes them.

    Raises:
        Invalid: as `Outgoing.of`; `stream.option` if they are too many

    """
    batch = [Outgoing.of(*padded(message)) for message in messages]
    if len(batch) > BATCH_MAX:
        raise errors.new("stream.option", f"{len(batch)} messages at a time, not up to {BATCH_MAX}")
    return batch


def _headers_of(headers: Mapping[str, str] | None) -> dict[str, str]:
    found = {} if headers is None else dict(headers)
    size = 0
    for name, value in found.items():
        given: object = (type(name), type(value))  # callers without a type checker give anything
        if given != (str, str):
            message = f"a header's name and value are text, not {given}"
            raise TypeError(message)
        size += len(name.encode()) + len(value.encode())
    _fits("the message's headers", size, _HEADERS_BYTES_MAX)
    if len(found) > _HEADERS_MAX:
        raise errors.new("bus.message_size", f"{len(found)} headers, more than {_HEADERS_MAX}")
    return found


def _fits(what: str, size: int, limit: int) -> None:
    if size > limit:
        text = f"{what}: {format_size(size)}, more than {format_size(limit)}"
        raise errors.new("bus.message_size", text)
