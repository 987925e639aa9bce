"""What of the configuration the data plane enforces.

Limits are handed over as one atomic swap, so no operation sees half of a change; what stays until
the next opening is handed over with that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dwkernel.config.following import follow

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwkernel._native import Caller, Store
    from dwkernel.config.manager import Configuration
    from dwkernel.config.sections import Config, Limits

__all__ = ["enforce", "opening_of", "settings_of"]

# It changes a pointer, and is held up by no operation.
_SWAP_S = 30.0


def settings_of(limits: Limits) -> dict[str, Any]:
    """Return limits as the native store takes them; None is no limit."""
    size = limits.object_size
    return {
        "operations": limits.operations,
        "rate": limits.rate,
        "burst": limits.burst,
        "object_size": None if size is None else int(size),
    }


def enforce(config: Configuration, store: Store, caller: Caller) -> Callable[[], None]:
    """Give a store its limits, now and after each change; returns what ends that."""

    def swap(limits: Limits) -> None:
        store.configure(caller, _SWAP_S, settings_of(limits))

    return follow(config, "limits", swap)


def opening_of(config: Config) -> dict[str, Any]:
    """Return what of `pool` and `streams` an opening takes."""
    pool, streams = config.pool, config.streams
    return {
        "drive_timeout_s": float(pool.drive_timeout),
        "merge_bytes": int(streams.merge_bytes),
        "merge_frames": streams.merge_frames,
        "delayed_max": streams.delayed_max,
        "keys_max": streams.keys_max,
    }
