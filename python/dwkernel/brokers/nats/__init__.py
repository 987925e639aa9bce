"""The bus and its streams on NATS JetStream, by way of `nats-py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dwkernel.brokers.nats.broker import NatsBroker
from dwkernel.brokers.nats.consumer import NatsConsumer
from dwkernel.brokers.nats.stream import NatsStream

if TYPE_CHECKING:
    from dwkernel.brokers.options import ConnectOptions

__all__ = ["NatsBroker", "NatsConsumer", "NatsStream", "connect"]


def connect(url: str, options: ConnectOptions) -> NatsBroker:
    """Connect; see `dwkernel.brokers.connect`."""
    return NatsBroker(url, options)
