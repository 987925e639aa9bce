"""The scripts, and how one is run."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from importlib import resources

__all__ = ["Script", "script"]

# What is put in front: streams only, or consumers too.
_OF_STREAMS = {"publish", "read", "stream_create", "stream_delete", "stream_status"}


@dataclass(frozen=True)
class Script:
    """A script.

    Attributes:
        source: its text.
        sha: its name on the server, the SHA-1 of the text.

    """

    source: bytes
    sha: str


@functools.cache
def script(name: str) -> Script:
    """Return the script of that name."""
    place = resources.files("dwkernel.brokers.redis") / "lua"
    parts = ["stream"] if name in _OF_STREAMS else ["stream", "consumer"]
    source = b"\n".join((place / f"{part}.lua").read_bytes() for part in [*parts, name])
    return Script(source, hashlib.sha1(source, usedforsecurity=False).hexdigest())
