"""Signatures of webhooks, by the Standard Webhooks specification, version 1.0.0.

What is signed is `{id}.{timestamp}.{body}`; a signature is `v1,` and the base64 of the HMAC-SHA256
under the shared secret. A header may have several, separated by blanks, so that secrets can be
changed without a gap: sign with the new and the old one until every receiver knows the new one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel.units import parse_duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dwkernel.units import Duration

__all__ = ["Secret", "keys_of", "sign", "verify"]

Secret = str | bytes
"""`"whsec_"` and base64 (with or without the prefix), or the key itself as bytes."""

_PREFIX = "whsec_"
# The specification asks for 24 to 64 bytes; a longer key than 64 would only be hashed.
_KEY_BYTES = (24, 64)
# A header from anybody: so many signatures are looked at, and no more.
_SIGNATURES_MAX = 16
_HEADER_LETTERS_MAX = 2048
_ID_LETTERS_MAX = 512
_TIMESTAMP_DIGITS_MAX = 16


def keys_of(secrets: Secret | Sequence[Secret]) -> list[bytes]:
    """Return the keys of one or more secrets.

    Raises:
        Invalid: `sink.option`; the secret is not in the message

    """
    given: object = secrets  # callers without a type checker give anything
    several = list(given) if isinstance(given, list | tuple) else [given]
    if not several:
        raise errors.new("sink.option", "secret=[] holds no secret; None means unsigned")
    return [_key(secret) for secret in several]


def _key(secret: Any) -> bytes:
    if isinstance(secret, str):
        text = secret.removeprefix(_PREFIX)
        try:
            key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        except (binascii.Error, ValueError):
            text = f'a secret is "{_PREFIX}" and base64, or bytes; this one is not base64'
            # Neither the secret nor an error that quotes it goes on from here.
            raise errors.new("sink.option", text) from None
    elif isinstance(secret, bytes):
        key = secret
    else:
        raise errors.new("sink.option", f"a secret is text or bytes, not {type(secret).__name__}")
    low, high = _KEY_BYTES
    if not low <= len(key) <= high:
        text = f"a secret has {low} to {high} bytes, this one has {len(key)}"
        raise errors.new("sink.option", text)
    return key


def sign(keys: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """Return the signatures under each key, as the header `webhook-signature` has them."""
    signed = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
    return " ".join("v1," + base64.b64encode(_mac(key, signed)).decode() for key in keys)


def verify(
    secret: Secret | Sequence[Secret],
    headers: Mapping[str, str],
    body: bytes,
    tolerance: Duration = "5min",
) -> bool:
    """Return whether a request comes from who knows the secret, and not long ago.

    For receivers, before anything else is done with the body. Drop duplicates by `webhook-id`.

    >>> import time
    >>> key, now = bytes(32), int(time.time())
    >>> signature = sign([key], "message-1", now, b"{}")
    >>> headers = {
    ...     "Webhook-Id": "message-1",
    ...     "Webhook-Timestamp": str(now),
    ...     "Webhook-Signature": signature,
    ... }
    >>> verify(key, headers, b"{}"), verify(key, headers, b"{ }")
    (True, False)

    Args:
        secret: the secret; or several, of which any may have signed.
        headers: of the request; case does not matter.
        body: as it came, byte by byte.
        tolerance: how far its time may be from now, to either side.

    Returns:
        Whether a signature fits and the time is near; False for anything that is missing or no
        header at all. Signatures are compared in constant time.

    Raises:
        Invalid: `sink.option` if the secret is none; `unit.invalid`

    """
    keys = keys_of(secret)
    tolerance_s = parse_duration(tolerance)
    found = {str(name).lower(): str(value) for name, value in headers.items()}
    message_id = found.get("webhook-id", "")
    timestamp = found.get("webhook-timestamp", "")
    header = found.get("webhook-signature", "")
    digits = timestamp.isascii() and timestamp.isdigit()
    if not message_id or not digits or len(timestamp) > _TIMESTAMP_DIGITS_MAX:
        return False
    if len(message_id) > _ID_LETTERS_MAX or len(header) > _HEADER_LETTERS_MAX:
        return False
    if abs(time.time() - int(timestamp)) > tolerance_s:
        return False
    signed = f"{message_id}.{timestamp}.".encode("utf-8", "surrogateescape") + bytes(body)
    expected = [_mac(key, signed) for key in keys]
    fits = False
    for one in header.split(" ")[:_SIGNATURES_MAX]:
        given = _signature(one)
        for mac in expected:
            # No early end: all are compared, whichever fits.
            fits |= hmac.compare_digest(mac, given)
    return fits


def _mac(key: bytes, signed: bytes) -> bytes:
    return hmac.new(key, signed, hashlib.sha256).digest()


def _signature(text: str) -> bytes:
    version, _, encoded = text.partition(",")
    if version != "v1":
        return b""
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return b""
