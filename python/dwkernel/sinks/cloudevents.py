"""Messages as CloudEvents 1.0.2: in HTTP's binary mode, and as JSON.

`id` is the message's id, `type` its subject, `subject` its key (an object's key, in a store's
events), `source` the stream. Extensions: `sequence` (twenty digits, so that they sort as text),
`partitionkey`, and those of the message's headers whose names can be extensions'.
"""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from dwkernel._native import Message

__all__ = ["attributes", "content_type", "embedded", "encoded", "to_http", "to_json"]

_EXTENSION = re.compile(r"[a-z0-9]{1,20}")
_DEFINED = {"data", "datacontenttype", "dataschema", "id", "partitionkey", "schemaname", "sequence"}
_DEFINED |= {"source", "specversion", "subject", "time", "type"}
_EVENT_SCHEMA = "dwkernel.event."
_JSON = "application/json"
# What stays as it is in a header: printable ASCII but blank, `"` and `%` (HTTP binding, 3.1.3.2).
_PLAIN = "!#$&'()*+,/:;<=>?@[\\]^`{|}~"


def content_type(message: Message) -> str:
    """Return what a message's data is: what its header says, JSON for a store's event, or bytes."""
    for name, value in message.headers.items():
        if name.lower() == "content-type" and value.isascii() and value.isprintable():
            return value
    if (message.schema or "").startswith(_EVENT_SCHEMA):
        return _JSON
    return "application/octet-stream"


def is_json(kind: str) -> bool:
    """Return whether a content type is JSON (RFC 6839: `+json` too)."""
    essence = kind.partition(";")[0].strip().lower()
    return essence in (_JSON, "text/json") or essence.endswith("+json")


def embedded(data: bytes) -> str | None:
    """Return JSON data as it can stand in a line: unchanged; None if it is no JSON."""
    try:
        text = data.decode()
        json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    # Between tokens line ends are blanks, and within strings they can't be.
    return text.replace("\n", " ").replace("\r", " ")


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


def attributes(message: Message, source: str) -> dict[str, str]:
    """Return the attributes and extensions of a message, without those about its data."""
    found = {
        "specversion": "1.0",
        "id": message.id,
        "sequence": f"{message.sequence or 0:020d}",
        "source": source,
        "type": message.subject,
        "time": message.published_at.isoformat().replace("+00:00", "Z"),
    }
    if message.key:
        found["subject"] = found["partitionkey"] = message.key
    if message.schema:
        absolute = re.match(r"[a-z][a-z0-9+.-]*:\S+$", message.schema)
        found["dataschema" if absolute else "schemaname"] = message.schema
    for name, value in message.headers.items():
        if _EXTENSION.fullmatch(name) and name not in _DEFINED and value:
            found.setdefault(name, value)
    return found


def to_json(message: Message, source: str) -> str:
    """Return a message in the JSON format, on one line."""
    kind = content_type(message)
    head = {**attributes(message, source), "datacontenttype": kind}
    data = embedded(message.data) if is_json(kind) else None
    if data is not None:
        tail = f'"data":{data}'
    elif not message.data:
        return json.dumps(head, separators=(",", ":"))
    else:
        tail = f'"data_base64":"{base64.b64encode(message.data).decode()}"'
    return f"{json.dumps(head, separators=(',', ':'))[:-1]},{tail}}}"


def to_http(message: Message, source: str) -> dict[str, str]:
    """Return the headers of binary mode; the body is the data."""
    found = {f"ce-{name}": encoded(value) for name, value in attributes(message, source).items()}
    return {**found, "content-type": content_type(message)}


def encoded(value: str) -> str:
    """Return text as it can stand in a header."""
    return quote(value, safe=_PLAIN, errors="replace")
