"""The kind `authoriser`."""

from __future__ import annotations

from dwkernel.conformance.plugins.asked import verdicts_of

__all__ = ["CASES"]

CASES = verdicts_of("authoriser", "decide")
