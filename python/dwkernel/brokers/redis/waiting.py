"""Waiting for news of a stream, on the server."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from dwkernel.brokers.redis import faults

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dwkernel.brokers.redis.client import Client

__all__ = ["wait_for"]

# A wait looks again so often: a stream that is deleted wakes nobody.
_SLICE_MS = 2000
# A server that does not answer at the end of a wait is given so long.
_GRACE_S = 5.0


def wait_for(client: Client, places: Sequence[tuple[str, int]], due_ms: int, left_s: float) -> None:
    """Return when something is behind one of `places`, something is due, or the time is over.

    Args:
        client: whose.
        places: keys of streams, each with a number.
        due_ms: until something is due; -1: nothing is.
        left_s: the caller's patience.

    Raises:
        Unavailable: `broker.lost`
        State: `bus.closed`, `bus.forked`

    """
    longest_ms = _SLICE_MS if left_s > _SLICE_MS / 1000 else max(1, int(left_s * 1000))
    block_ms = min(longest_ms, due_ms) if due_ms >= 0 else longest_ms
    keys = [key for key, _ in places]
    numbers = [f"{number}-0" for _, number in places]
    command: tuple[Any, ...] = (
        *("XREAD", "COUNT", 1, "BLOCK", max(1, block_ms), "STREAMS"),
        *keys,
        *numbers,
    )
    grace_s = client.options.timeout_s
    if left_s < math.inf:
        grace_s = min(_GRACE_S, grace_s)
    (answer,) = client.nodes.ask(keys[0], [command], grace_s, patience_s=block_ms / 1000)
    if isinstance(answer, BaseException):
        raise faults.refusal(answer) from answer
