"""A bus and streams on Redis: everything that must be one step is one script on the server.

`dwkernel.brokers.connect("redis://…")` makes it. docs/decisions/0012-redis.md says how a stream
lies in Redis, and what Redis cannot promise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dwkernel.brokers.redis.broker import RedisBroker

if TYPE_CHECKING:
    from dwkernel.brokers.options import ConnectOptions

__all__ = ["RedisBroker", "connect"]


def connect(url: str, options: ConnectOptions) -> RedisBroker:
    """Connect to a server; see `dwkernel.brokers.connect`."""
    return RedisBroker(url, options)
