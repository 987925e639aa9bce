"""Kinds that carry something out, or let somebody in: exporters, doors, searches, models.

The kind `sink` is `dwkernel.sinks.Sink`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dwkernel.metrics import Snapshot

__all__ = ["AiProvider", "Door", "MetricsExporter", "SearchProvider", "SinkLike"]


class SinkLike(Protocol):
    """What `dwkernel.sinks.attach` needs of a sink; deriving from `dwkernel.sinks.Sink` does."""

    def deliver(self, messages: Sequence[Any]) -> Sequence[Any]:
        """Carry messages away; return an outcome for each."""

    def close(self) -> None:
        """Let go what it holds."""


class MetricsExporter(Protocol):
    """Carries figures away, one call at a time, every `plugins.metrics_every`. A late one is left
    alone.
    """  # noqa: D205 - one paragraph

    def export(self, snapshot: Snapshot) -> None:
        """Take the figures of a moment."""


class SearchProvider(Protocol):
    """Finds objects. Called from several threads; each call has a deadline."""

    def search(self, query: str, limit: int, tenant: str) -> Sequence[Mapping[str, Any]]:
        """Return up to `limit` hits, the best first: `key`, `score` and fields of its own."""


class AiProvider(Protocol):
    """Calls a model. From several threads; each call has a deadline."""

    def complete(self, prompt: str, options: Mapping[str, Any]) -> Iterator[str]:
        """Return an answer, piece by piece."""

    def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """Return a vector for each text, all of one length."""


class Door(Protocol):
    """Lets clients in by a protocol of its own (HTTP, NFS, …). Its threads are its own."""

    def open(self, kernel: Any) -> str:
        """Begin to listen and return at once; the address, for people."""

    def close(self, deadline_s: float) -> None:
        """Take nobody new in, and let those who are in end in so many seconds."""
