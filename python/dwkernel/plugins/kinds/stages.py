"""Kinds on the way of bytes: codec stages, sources of keys, stages of an index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from typing_extensions import Buffer

__all__ = ["Codec", "IndexStage", "KeySource"]


class Codec(Protocol):
    """A stage of the pipeline: bytes to other bytes and back. Called from many threads.

    Attributes:
        name: 1 to 32 of `a-z 0-9 -`; it is stored with what it encoded, so it never changes its
            meaning: a codec that encodes otherwise has another name.

    `decode(encode(data)) == data` for all data of up to 16 MiB, in all later versions too.
    """

    name: str

    def encode(self, data: Buffer) -> bytes:
        """Return `data` as it is stored."""

    def decode(self, data: Buffer, length: int) -> bytes:
        """Return what was encoded, `length` bytes; anything raised means damage, and is tried on
        another copy.
        """  # noqa: D205 - one sentence


class KeySource(Protocol):
    """Holds keys of encryption, and secrets. Called seldom, from any thread; may take seconds.

    The configuration asks for what it names as `plugin:SOURCE:NAME`, SOURCE being a capability or
    the plugin's id; such bytes are UTF-8 text.
    """

    def get(self, name: str) -> bytes:
        """Return the 32 bytes of a key, or a secret; anything raised means that there is none."""


class IndexStage(Protocol):
    """Draws what can be searched for out of objects, in the background. One call at a time."""

    def index(self, objects: Iterable[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        """Return plain fields for each object (`key`, `version`, `content`: a binary file)."""

    def forget(self, keys: Sequence[str]) -> None:
        """Drop what is known of deleted objects."""
