"""Kinds that say who somebody is, and what they may do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dwkernel.plugins.kinds.policy import Request, Verdict

__all__ = ["Authoriser", "PrincipalSource"]


class Authoriser(Protocol):
    """Decides whether somebody may do something. Called from many threads; answers in
    milliseconds. An error or a time-out refuses.
    """  # noqa: D205 - one sentence of two halves

    def decide(self, requests: Sequence[Request]) -> Sequence[Verdict]:
        """Return a verdict for each request, in their order."""


class PrincipalSource(Protocol):
    """Knows people and programs by what they show. Called from many threads; may take seconds."""

    def authenticate(self, credentials: Mapping[str, str]) -> Mapping[str, str] | None:
        """Return `principal`, `tenant` and `roles` (by commas) of who shows this; None: nobody."""
