"""A sink that posts messages to a web address, signed."""

from __future__ import annotations

import hashlib
import http
import ipaddress
import re
import ssl
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from dwkernel import errors
from dwkernel.sinks import cloudevents
from dwkernel.sinks.connection import Answer, Line, PrivateAddressError, is_public
from dwkernel.sinks.outcome import Outcome
from dwkernel.sinks.signing import keys_of, sign
from dwkernel.sinks.sink import Sink
from dwkernel.units import parse_duration

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from dwkernel._native import Message
    from dwkernel.sinks.signing import Secret
    from dwkernel.units import Duration

__all__ = ["Webhook"]

_BATCH_MAX = 1000
_TIMEOUT_MAX_S = 300.0
# On top of what a request may take: looking names up, and ending.
_GRACE_S = 30.0
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# What a request says by itself.
_OURS = {"host", "content-length", "transfer-encoding", "connection", "content-type"}
_AGAIN = {408, 425, 429}
_GONE = 410
_REASON_LETTERS = 120


class Webhook(Sink):
    """Posts messages to a URL, signed by the Standard Webhooks specification (version 1.0.0).

    2xx means taken; 408, 425, 429, 5xx, redirects and broken connections mean again; 410 means
    gone; any other 4xx means refused: the message becomes a dead letter. `Retry-After` (RFC 9110,
    10.2.3) is honoured, up to an hour. Redirects are not followed, certificates are verified, and
    of an answer 64 KiB are read at most. The deadline is one for the whole of a request.

    A receiver drops duplicates by the header `webhook-id`, which stays the same when a message is
    sent again. With several messages in a request it should do so by the `id` of each: what is sent
    again may come in other company.
    """

    in_flight = 4
    batch_bytes = 1 << 20

    def __init__(  # noqa: PLR0913 - each option stands alone
        self,
        url: str,
        *,
        secret: Secret | Sequence[Secret] | None,
        headers: Mapping[str, str] | None = None,
        timeout: Duration = "10s",
        format: Literal["cloudevents", "raw"] = "cloudevents",  # noqa: A002 - the field's word
        batch: int = 1,
        source: str | None = None,
        allow_private: bool = False,
        ca_file: str | os.PathLike[str] | None = None,
    ) -> None:
        """Connect to nothing yet.

        Args:
            url: `https://…` or `http://…`; only its host is ever shown, the rest may be secret.
            secret: `"whsec_…"`, or a key of 24 to 64 bytes; several sign side by side; None does
                not sign.
            headers: more headers, such as an `Authorization`; never shown.
            timeout: for a whole request, up to five minutes.
            format: `"cloudevents"`: CloudEvents 1.0.2, in binary mode (attributes are headers, the
                body is the data), and with `batch` above 1 as `application/cloudevents-batch+json`;
                `"raw"`: the body is the data, and `dwkernel-…` headers say the rest.
            batch: messages in a request, at most; 1 to 1,000.
            source: CloudEvents' `source`; by default `/dwkernel/streams/` and the stream's name.
            allow_private: connect to addresses of this machine and of private networks too. What
                counts is the address that a name means at each connection.
            ca_file: certificates of authorities to trust in place of the system's.

        Raises:
            Invalid: `sink.option`, `unit.invalid`

        """
        self.batch = _number("batch", batch, _BATCH_MAX)
        if format not in ("cloudevents", "raw"):
            text = f'format={format!r} is neither "cloudevents" nor "raw"'
            raise errors.new("sink.option", text)
        if format == "raw" and batch > 1:
            raise errors.new("sink.option", 'a batch needs format="cloudevents"')
        timeout_s = parse_duration(timeout)
        if not 0 < timeout_s <= _TIMEOUT_MAX_S:
            raise errors.new(
                "sink.option", "timeout is more than nothing, and five minutes at most"
            )
        # One that is refused in a batch is looked for with more requests.
        self.timeout_s = _GRACE_S + timeout_s * (2 if batch == 1 else 2 + 2 * batch.bit_length())
        self._keys = None if secret is None else keys_of(secret)
        self._headers = _headers(headers or {})
        self._format = format
        self._source = source
        self._stream_source = "/dwkernel/streams"
        self._place, self._target, line = _parts(url, allow_private=allow_private)
        self._line = Line(
            line["host"],
            line["port"],
            context=_context(ca_file) if line["is_secure"] else None,
            timeout_s=timeout_s,
            allow_private=allow_private,
        )

    def attached(self, stream: str) -> None:
        """Name the stream in `source`."""
        self._stream_source = f"/dwkernel/streams/{cloudevents.encoded(stream)}"

    def deliver(self, messages: Sequence[Message]) -> list[Outcome]:
        """Post messages in one request; a batch that is refused in halves: one is wrong."""
        count = len(messages)
        middle = self.batch
        if count <= self.batch:
            outcome = self._post(messages)
            if outcome.kind != "refused" or count == 1:
                return [outcome] * count
            middle = count // 2
        first = self.deliver(messages[:middle])
        if any(one.kind in ("failed", "gone") for one in first):
            # It is not well any more: the others come again with a fresh start.
            return first + [Outcome.failed(first[-1].reason)] * (count - len(first))
        return first + self.deliver(messages[middle:])

    def _post(self, messages: Sequence[Message]) -> Outcome:
        body, headers = self._request(messages)
        try:
            answer = self._line.post(self._target, body, headers)
        except PrivateAddressError:
            text = "means a private address; allow_private=True if that is meant"
            return Outcome.failed(f"{self._place} {text}")
        except Exception as error:  # noqa: BLE001 - libraries' errors are many, and quote the URL
            return Outcome.failed(f"{self._place}: {_reason(error)}")
        return self._outcome(answer)

    def _request(self, messages: Sequence[Message]) -> tuple[bytes, dict[str, str]]:
        first = messages[0]
        source = self._source or self._stream_source
        if self.batch > 1:
            lines = ",".join(cloudevents.to_json(message, source) for message in messages)
            body = f"[{lines}]".encode()
            headers = {"content-type": "application/cloudevents-batch+json; charset=utf-8"}
        elif self._format == "cloudevents":
            body, headers = first.data, cloudevents.to_http(first, source)
        else:
            body, headers = first.data, _raw_headers(first)
        webhook_id = _webhook_id([message.id for message in messages])
        headers["webhook-id"] = webhook_id
        headers["user-agent"] = "dwkernel"
        timestamp = int(time.time())
        headers["webhook-timestamp"] = str(timestamp)
        if self._keys is not None:
            headers["webhook-signature"] = sign(self._keys, webhook_id, timestamp, body)
        return body, {**headers, **self._headers}

    def _outcome(self, answer: Answer) -> Outcome:
        status = answer.status
        if 200 <= status < 300:  # noqa: PLR2004 - RFC 9110, 15.3
            return Outcome.taken()
        text = f"{self._place} answered {status} {_phrase(status)}".rstrip()
        if status == _GONE:
            return Outcome.gone(text)
        if 300 <= status < 400:  # noqa: PLR2004 - RFC 9110, 15.4
            return Outcome.failed(f"{text}: redirects are not followed, give the new address")
        if 400 <= status < 500 and status not in _AGAIN:  # noqa: PLR2004 - RFC 9110, 15.5
            return Outcome.refused(text)
        return Outcome("failed", text, _retry_after_s(answer.headers.get("retry-after")))

    def close(self) -> None:
        """Close connections."""
        self._line.close()

    def __repr__(self) -> str:
        """Name the host, and nothing that may be secret."""
        return f"<Webhook to {self._place}>"


def _number(option: str, given: Any, limit: int) -> int:
    if not isinstance(given, int) or isinstance(given, bool) or not 1 <= given <= limit:
        raise errors.new("sink.option", f"{option}={given!r} is no number from 1 to {limit:,}")
    return given


def _parts(url: str, *, allow_private: bool) -> tuple[str, str, dict[str, Any]]:
    """Return what of a URL may be shown, what a request names, and where to connect to."""
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode() if parts.hostname else ""
    except (ValueError, AttributeError, TypeError):
        # The error would quote it.
        raise errors.new("sink.option", "the url can't be read") from None
    if parts.scheme not in ("http", "https") or not host:
        raise errors.new("sink.option", "the url is https://host/path or http://host/path")
    if parts.username is not None or parts.password is not None:
        text = "no user and password in the url: give headers={'Authorization': …}"
        raise errors.new("sink.option", text)
    target = parts.path or "/"
    target += f"?{parts.query}" if parts.query else ""
    if not target.isascii() or not target.isprintable() or " " in target:
        raise errors.new("sink.option", "path and query of the url have to be percent-encoded")
    shown = f"[{host}]" if ":" in host else host
    place = f"{parts.scheme}://{shown}" + (f":{port}" if port else "")
    if not allow_private and _is_private(host):
        text = f"{place} is a private address; allow_private=True if that is meant"
        raise errors.new("sink.option", text)
    where = {"host": host, "port": port, "is_secure": parts.scheme == "https"}
    return place, target, where


def _is_private(host: str) -> bool:
    """Return whether a host is private as it is written; what names mean shows at connecting."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return not is_public(host)


def _context(ca_file: str | os.PathLike[str] | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise errors.new("sink.option", f"ca_file={ca_file!r} can't be read") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _headers(given: Mapping[Any, Any]) -> dict[str, str]:
    """Return headers that can be sent as they are; errors name them and don't quote them."""
    found = {}
    for name, value in dict(given).items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise errors.new("sink.option", f"{name!r} is no name of a header")
        if name.lower() in _OURS or name.lower().startswith(("webhook-", "ce-")):
            raise errors.new("sink.option", f"the header {name} is the webhook's own")
        if not isinstance(value, str) or not (value.isascii() and value.isprintable()):
            text = f"the header {name} is not plain ASCII on one line"
            raise errors.new("sink.option", text)
        found[name.lower()] = value
    return found


def _raw_headers(message: Message) -> dict[str, str]:
    fields = {
        "subject": message.subject,
        "sequence": str(message.sequence or 0),
        "time": message.published_at.isoformat().replace("+00:00", "Z"),
        "key": message.key,
        "schema": message.schema,
        **{f"header-{name}": value for name, value in message.headers.items()},
    }
    found = {
        f"dwkernel-{name}".lower(): cloudevents.encoded(value)
        for name, value in fields.items()
        if value and _NAME.fullmatch(name)
    }
    return {**found, "content-type": cloudevents.content_type(message)}


def _webhook_id(ids: Sequence[str]) -> str:
    """Return the same id for the same messages, without the dot that signatures part fields by."""
    if len(ids) == 1 and "." not in ids[0] and ids[0].isascii():
        return ids[0]
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()[:32]


def _phrase(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return ""


def _reason(error: BaseException) -> str:
    """Return the kind of an error and the system's word for it, without what it quotes."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return f"certificate not accepted: {seen.verify_message}"[:_REASON_LETTERS]
        if isinstance(seen, TimeoutError):
            return "no answer in time"
        if isinstance(seen, OSError) and seen.strerror:
            return f"{type(seen).__name__}: {seen.strerror}"[:_REASON_LETTERS]
        seen = seen.__cause__ or seen.__context__
    return type(error).__name__


def _retry_after_s(value: str | None) -> float | None:
    """Return what Retry-After says (RFC 9110, 10.2.3: seconds, or a date), if it is one."""
    if not value:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
