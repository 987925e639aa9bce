"""Operating modes: named sets of defaults, as data.

Only what a part of the kernel acts on is set, each with the reason.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

__all__ = ["MODES", "Default", "Mode", "defaults_of"]

Mode = Literal["workstation", "nas", "server", "regulated", "hyperscale"]


class Default(NamedTuple):
    """What a mode sets, and why."""

    path: str
    value: Any
    why: str


MODES: dict[str, tuple[str, tuple[Default, ...]]] = {
    "workstation": ("one program, one user; nothing is limited", ()),
    "nas": (
        "a few large disks in one box, many clients",
        (
            Default("pool.drive_timeout", "1min", "a disk that sleeps takes seconds to spin up"),
            Default("limits.operations", 256, "clients queue rather than wear out the memory"),
        ),
    ),
    "server": (
        "one service with many callers",
        (
            Default("limits.timeout", "5min", "a caller that waits longer has gone"),
            Default("limits.operations", 1024, "a crowd is told to come later, and early"),
        ),
    ),
    "regulated": (
        "as server, until auditing and sealing have settings",
        (
            Default("limits.timeout", "5min", "a caller that waits longer has gone"),
            Default("limits.operations", 1024, "a crowd is told to come later, and early"),
        ),
    ),
    "hyperscale": (
        "many machines behind something that asks another one",
        (
            Default("limits.timeout", "30s", "asking another machine is faster than waiting"),
            Default("limits.operations", 4096, "a crowd is told to come later, and early"),
            Default("pool.drive_timeout", "10s", "a slow drive is replaced, not waited for"),
        ),
    ),
}
"""Each mode with what it is for, and what it sets."""


def defaults_of(mode: str) -> tuple[Default, ...]:
    """Return what a mode sets; nothing for one that is unknown."""
    return MODES[mode][1] if mode in MODES else ()
