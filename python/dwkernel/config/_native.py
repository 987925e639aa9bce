"""What of the configuration the data plane enforces, handed over as one atomic swap.

The native store takes `limits` in one call and swaps them whole, so no operation sees half of a
change. What a build of it does not take is named, not silently ignored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwkernel.config.manager import Configuration
    from dwkernel.config.sections import Config, Limits

__all__ = ["enforce", "opening_of", "settings_of", "unenforced"]

# What the kernel itself acts on, in Python.
_OWN = ("limits.timeout",)
_AT_OPENING = ("pool", "streams")


def settings_of(limits: Limits) -> dict[str, Any]:
    """Return limits as the native store takes them; None is no limit."""
    size = limits.object_size
    return {
        "operations": limits.operations,
        "rate": limits.rate,
        "burst": limits.burst,
        "object_size": None if size is None else int(size),
    }


def enforce(config: Configuration, store: Any, caller: Any) -> Callable[[], None]:
    """Give a store its limits, now and after each change; returns what ends that."""
    if not hasattr(store, "configure"):
        return lambda: None

    def swap(old: Limits, new: Limits) -> None:
        del old
        store.configure(caller, settings_of(new))

    stop = config.on_change("limits", swap)
    store.configure(caller, settings_of(config.current.limits))
    return stop


def opening_of(config: Config, opens: Any) -> dict[str, Any]:
    """Return what of `pool` and `streams` an opening takes: nothing, in builds that take none."""
    if not _takes_settings(opens):
        return {}
    pool, streams = config.pool, config.streams
    settings = {
        "drive_timeout_s": float(pool.drive_timeout),
        "merge_bytes": int(streams.merge_bytes),
        "merge_frames": streams.merge_frames,
        "delayed_max": streams.delayed_max,
        "keys_max": streams.keys_max,
    }
    return {"settings": settings}


def _takes_settings(opens: Any) -> bool:
    return "settings" in (getattr(opens, "__text_signature__", None) or "")


def unenforced(config: Configuration, store: Any) -> list[str]:
    """Return the paths of values that somebody set and this build of the store does not act on.

    Those of a mode do not count: nobody asked for them by name.
    """
    sections: list[str] = []
    if not hasattr(store, "configure"):
        sections.append("limits")
    if not _takes_settings(type(store).open):
        sections.extend(_AT_OPENING)
    return [
        path
        for path, origin in config.origins.items()
        if path.split(".")[0] in sections
        and path not in _OWN
        and origin.layer not in ("default", "mode")
    ]
