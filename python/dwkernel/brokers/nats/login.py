"""How a client of NATS is told to connect."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

if TYPE_CHECKING:
    from dwkernel.brokers.options import ConnectOptions

__all__ = ["AGAIN_S", "is_refusal", "settings_of"]

# A server that hangs is noticed after three of these.
_PING_S = 4
# Between one attempt to connect and the next.
AGAIN_S = 0.1


def settings_of(user: str | None, password: str | None, options: ConnectOptions) -> dict[str, Any]:
    """Return what `nats.connect` takes, beside the address and what it calls.

    Args:
        user: as the address has it, or None; alone it is a token.
        password: as the address has it.
        options: what `connect` was told.

    """
    settings: dict[str, Any] = {
        "name": "dwkernel",
        "connect_timeout": max(1, int(options.connect_timeout_s)),
        "reconnect_time_wait": AGAIN_S,
        "max_reconnect_attempts": -1,
        "ping_interval": _PING_S,
        "max_outstanding_pings": 2,
    }
    if user is not None and password is not None:
        settings |= {"user": unquote(user), "password": unquote(password)}
    elif user is not None:
        settings["token"] = unquote(user)
    if options.tls is not None:
        settings["tls"] = options.tls
    if options.credentials is not None:
        settings["user_credentials"] = os.fspath(options.credentials)
    return settings


def is_refusal(error: BaseException) -> bool:
    """Return whether the server does not let this user in."""
    why = str(error).lower()
    return "authorization" in why or "authentication" in why
