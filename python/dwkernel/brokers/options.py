"""How to connect to a broker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dwkernel.units import Duration, parse_duration

if TYPE_CHECKING:
    import os
    import ssl

__all__ = ["ConnectOptions"]


@dataclass(frozen=True)
class ConnectOptions:
    """What `dwkernel.brokers.connect` was told.

    Attributes:
        principal: who publishes, as messages say.
        tenant: in whose namespace.
        timeout_s: the deadline of an operation that has none of its own.
        connect_timeout_s: how long connecting may take.
        credentials: a file with them.
        tls: how to speak TLS.
        replicas: see `connect`.

    """

    principal: str | None = None
    tenant: str | None = None
    timeout_s: float = 30.0
    connect_timeout_s: float = 5.0
    credentials: str | os.PathLike[str] | None = None
    tls: ssl.SSLContext | None = None
    replicas: int = 1

    def limit(self, timeout: Duration | None) -> float:
        """Return the seconds that an operation may take."""
        return self.timeout_s if timeout is None else parse_duration(timeout)
