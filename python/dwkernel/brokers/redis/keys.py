"""Where things lie: all keys of a stream have one hash tag, so a cluster keeps them together."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

__all__ = ["Keys"]

# In the order in which scripts expect them, behind the stream's own.
_OF_STREAM = (
    "info",
    "messages",
    "ids",
    "expiries",
    "later",
    "due",
    "calls",
    "callers",
    "consumers",
    "bell",
    "keys",
)
_OF_CONSUMER = ("info", "held", "times", "state", "letters", "dead")


@dataclass(frozen=True)
class Keys:
    """The names of a tenant's keys and channels.

    Attributes:
        tenant: whose they are, with what could be mistaken for a part of a key escaped.

    """

    tenant: str

    @classmethod
    def of(cls, tenant: str | None) -> Keys:
        """Return those of a tenant."""
        return cls(quote(tenant or "", safe=""))

    @property
    def streams(self) -> str:
        """The set of the streams' names. In another slot: it may know one that is not there."""
        return f"dwk:{self.tenant}:streams"

    def stream(self, name: str) -> list[str]:
        """Return the keys of a stream."""
        return [f"{{dwk:{self.tenant}:{name}}}:{part}" for part in _OF_STREAM]

    def consumer(self, stream: str, name: str) -> list[str]:
        """Return the keys of a consumer."""
        tag = f"{{dwk:{self.tenant}:{stream}}}"
        return [f"{tag}:consumer:{name}:{part}" for part in _OF_CONSUMER]

    def channel(self, subject: str) -> str:
        """Return the channel of a subject."""
        return f"dwk:{self.tenant}:{subject}"

    def inbox(self, name: str) -> str:
        """Return the channel of an answer; no pattern of subjects stands for it."""
        return f"dwk-inbox:{self.tenant}:{name}"
