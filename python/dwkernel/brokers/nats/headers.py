"""Fields of a message as NATS headers, and back.

What NATS has a header for is there under its name. Names and values that a NATS header cannot
hold as they are (not printable ASCII, blanks around, names that differ only in case) ride together
in `Dw-Headers`, as JSON.
"""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from dwkernel.brokers.message import Message

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dwkernel.brokers.fields import Outgoing
    from dwkernel.brokers.options import ConnectOptions

__all__ = ["MESSAGE_ID", "headers_of", "message_of", "size_of"]

# https://docs.nats.io/nats-concepts/jetstream/headers
MESSAGE_ID = "Nats-Msg-Id"
_OURS = ("dw-", "nats-", "status", "description")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
_PLAIN_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")
# What stays readable in a field; `%` makes it unambiguous.
_SAFE = "!#$&'()*+,/:;=?@[]^_`{|}~"


def headers_of(one: Outgoing, options: ConnectOptions) -> dict[str, str]:
    """Return the headers of a message on its way."""
    headers = {"Dw-Id": one.id, "Dw-Time": str(time.time_ns())}
    texts = (
        ("Dw-Key", one.key),
        ("Dw-Schema", one.schema),
        ("Dw-Principal", options.principal),
        ("Dw-Tenant", options.tenant),
        (MESSAGE_ID, one.message_id),
    )
    headers |= {name: quote(text, _SAFE) for name, text in texts if text is not None}
    if one.priority:
        headers["Dw-Priority"] = str(one.priority)
    if one.correlation_id:
        headers["Dw-Correlation"] = one.correlation_id
    if one.headers:
        headers |= _plain(one.headers)
    return headers


def size_of(headers: Mapping[str, str]) -> int:
    """Return how many bytes the headers take on the wire."""
    return 12 + sum(len(name) + len(value.encode()) + 4 for name, value in headers.items()) + 2


def message_of(
    subject: str, data: bytes, headers: Mapping[str, str] | None, published_ns: int | None = None
) -> Message:
    """Return the message that came; one of another program has fewer fields."""
    found = headers or {}
    odd = found.get("Dw-Headers")
    plain = {name: value for name, value in found.items() if not name.lower().startswith(_OURS)} | (
        _odd(odd) if odd else {}
    )
    sent = found.get("Dw-Time", "")
    return Message(
        subject=subject,
        data=bytes(data),
        headers=plain,
        id=found.get("Dw-Id") or found.get(MESSAGE_ID) or "",
        published_ns=published_ns or (int(sent) if sent.isdecimal() else time.time_ns()),
        correlation_id=found.get("Dw-Correlation"),
        principal=_text(found.get("Dw-Principal")),
        tenant=_text(found.get("Dw-Tenant")),
        key=_text(found.get("Dw-Key")),
        schema=_text(found.get("Dw-Schema")),
        priority=_number(found.get("Dw-Priority", "0")),
    )


def _plain(headers: Mapping[str, str]) -> dict[str, str]:
    lower = [name.lower() for name in headers]
    is_plain = len(set(lower)) == len(lower) and all(
        _PLAIN_NAME.fullmatch(name)
        and not name.lower().startswith(_OURS)
        and _PLAIN_VALUE.fullmatch(value)
        for name, value in headers.items()
    )
    if is_plain:
        return dict(headers)
    return {"Dw-Headers": json.dumps(headers, separators=(",", ":"))}


def _odd(text: str) -> dict[str, str]:
    try:
        found = json.loads(text)
    except ValueError:
        return {"Dw-Headers": text}
    if not isinstance(found, dict):
        return {"Dw-Headers": text}
    return {str(name): str(value) for name, value in found.items()}


def _text(value: str | None) -> str | None:
    return None if value is None else unquote(value)


def _number(text: str) -> int:
    return min(int(text), 255) if text.isdecimal() else 0
