"""Which operations are refused."""

from __future__ import annotations

WRITING = frozenset({"put", "append", "delete", "copy"})


def is_refused(verb: str, key: str, prefix: str) -> bool:
    """Return whether an operation would change what lies below a prefix."""
    return bool(prefix) and verb in WRITING and key.startswith(prefix)
