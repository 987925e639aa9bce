"""Buses and streams on brokers, for programs on several machines: NATS JetStream, Redis.

`connect` returns what `kernel.bus` is, `dwkernel.bus.ports.Bus`, kept by a broker:

    from dwkernel import brokers

    with brokers.connect("nats://localhost:4222") as bus:
        stream = bus.stream("orders", subjects=["orders.>"], create="if_missing")
        stream.publish("orders.eu", b"1", message_id="42")
        for message in stream.consumer("billing", create="if_missing").fetch(100, timeout="1s"):
            message.ack()
        print(bus.promises.table())

What a broker cannot promise is refused where it is asked for (`broker.unsupported`).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Protocol, cast
from urllib.parse import urlsplit

from dwkernel import errors
from dwkernel.brokers.message import Message
from dwkernel.brokers.options import ConnectOptions
from dwkernel.units import Duration, parse_duration

if TYPE_CHECKING:
    import os
    import ssl

    from dwkernel.brokers.broker import Broker

__all__ = ["ConnectOptions", "Message", "connect"]

# By scheme: the module with `connect(url, options)`, and the distribution that it needs.
_ADAPTERS = {
    "nats": ("dwkernel.brokers.nats", "nats"),
    "tls": ("dwkernel.brokers.nats", "nats"),
    "redis": ("dwkernel.brokers.redis", "redis"),
    "rediss": ("dwkernel.brokers.redis", "redis"),
}


class _Adapter(Protocol):
    def connect(self, url: str, options: ConnectOptions) -> Broker: ...


def connect(  # noqa: PLR0913 - each option stands alone
    url: str,
    *,
    principal: str | None = None,
    tenant: str | None = None,
    timeout: Duration = "30s",
    connect_timeout: Duration = "5s",
    credentials: str | os.PathLike[str] | None = None,
    tls: ssl.SSLContext | None = None,
    replicas: int = 1,
) -> Broker:
    """Connect to a broker.

    Args:
        url: `nats://[user[:password]@]host[:port]` (`tls://` with TLS), or
            `redis://[user[:password]@]host[:port][/database]` (`rediss://`).
        principal: who publishes, as messages say. The broker does not check that.
        tenant: in whose namespace, as messages say; on Redis also a part of every key. Brokers keep
            tenants apart by accounts and rights, not by this.
        timeout: the deadline of an operation that has none of its own.
        connect_timeout: how long connecting may take, at first and again.
        credentials: a file with them (NATS: `.creds`).
        tls: how to speak TLS; by default with the system's authorities, where the scheme wants it.
        replicas: on how many servers, the first one included: new streams are kept (NATS), or each
            message is in memory before it is confirmed (Redis).

    Returns:
        The broker: a `dwkernel.bus.ports.Bus`, and a context manager that closes at the end.

    Raises:
        Invalid: `broker.url`, `unit.invalid`
        Unsupported: `broker.missing`: the client library is not installed
        Unavailable: `broker.lost`: nobody answers
        Denied: `broker.denied`: the credentials are refused

    """
    scheme = _scheme_of(url)
    module, distribution = _ADAPTERS[scheme]
    options = ConnectOptions(
        principal=principal,
        tenant=tenant,
        timeout_s=parse_duration(timeout),
        connect_timeout_s=parse_duration(connect_timeout),
        credentials=credentials,
        tls=tls,
        replicas=replicas,
    )
    try:
        adapter = cast("_Adapter", importlib.import_module(module))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != distribution:
            raise
        raise errors.new("broker.missing", f"the module {error.name} is not there") from error
    return adapter.connect(url, options)


def _scheme_of(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise errors.new("broker.url", f"not the address of a broker: {error}") from None
    scheme = parts.scheme.lower()
    if scheme not in _ADAPTERS or not parts.hostname or port == 0:
        # Without what may be a password.
        shown = f"{scheme}://{parts.hostname or ''}"
        raise errors.new("broker.url", f"not the address of a broker: {shown}")
    return scheme
