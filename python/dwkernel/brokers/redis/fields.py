"""Messages as fields of a stream's entries, readable with XRANGE, and as bytes of a channel."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from dwkernel.brokers.message import Message

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwkernel.brokers.fields import Outgoing
    from dwkernel.brokers.message import Delivery

__all__ = ["fields_of", "message_of", "packed", "unpacked"]

_TEXTS = ("key", "schema", "correlation_id", "message_id")


def fields_of(message: Outgoing, principal: str | None) -> list[str | bytes]:
    """Return the names and values of an entry; `time` is the server's to add."""
    fields: list[str | bytes] = ["id", message.id, "subject", message.subject, "data", message.data]
    if message.headers:
        fields += ["headers", json.dumps(message.headers, ensure_ascii=False)]
    if message.priority:
        fields += ["priority", str(message.priority)]
    for name in _TEXTS:
        text = getattr(message, name)
        if text is not None:
            fields += [name, text]
    if principal is not None:
        fields += ["principal", principal]
    return fields


def message_of(
    fields: list[bytes],
    tenant: str | None,
    sequence: int,
    deliveries: int | None = None,
    delivery: Delivery | None = None,
) -> Message:
    """Return the message that an entry is."""
    found = dict(zip(fields[::2], fields[1::2], strict=True))

    def text(name: bytes) -> str | None:
        value = found.get(name)
        return None if value is None else value.decode()

    return Message(
        subject=found[b"subject"].decode(),
        data=found[b"data"],
        headers=json.loads(found.get(b"headers", b"{}")),
        id=found[b"id"].decode(),
        published_ns=int(found.get(b"time", b"0")) * 1000,
        correlation_id=text(b"correlation_id"),
        principal=text(b"principal"),
        tenant=tenant,
        sequence=sequence,
        key=text(b"key"),
        schema=text(b"schema"),
        priority=int(found.get(b"priority", b"0")),
        deliveries=deliveries,
        delivery=delivery,
    )


def packed(
    message: Outgoing,
    principal: str | None,
    reply_to: str | None = None,
    answers: str | None = None,
) -> bytes:
    """Return a message for a channel: a line of JSON, then the data."""
    about: dict[str, Any] = {"id": message.id, "time_ns": time.time_ns()}
    if message.headers:
        about["headers"] = message.headers
    if message.priority:
        about["priority"] = message.priority
    texts = {"principal": principal, "reply_to": reply_to, "answers": answers}
    texts |= {name: getattr(message, name) for name in ("key", "schema", "correlation_id")}
    about |= {name: text for name, text in texts.items() if text is not None}
    return json.dumps(about, ensure_ascii=False).encode() + b"\n" + message.data


def unpacked(
    payload: bytes, subject: str, tenant: str | None, answer: Callable[[str, bytes], bool]
) -> tuple[Message, str | None]:
    """Return the message that came over a channel, and which question it answers.

    Raises:
        ValueError, KeyError: it is none of ours

    """
    line, _, data = payload.partition(b"\n")
    about = json.loads(line)
    reply_to = about.get("reply_to")
    message = Message(
        subject=subject,
        data=data,
        headers=about.get("headers", {}),
        id=about["id"],
        published_ns=about["time_ns"],
        correlation_id=about.get("correlation_id"),
        principal=about.get("principal"),
        tenant=tenant,
        key=about.get("key"),
        schema=about.get("schema"),
        priority=about.get("priority", 0),
        reply_to=reply_to,
        answer=None if reply_to is None else lambda content: answer(reply_to, content),
    )
    return message, about.get("answers")
