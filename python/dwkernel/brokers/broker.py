"""What `connect` returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

from dwkernel.bus import ports

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Broker"]


class Broker(ports.Bus, Protocol):
    """A bus that a broker keeps; a context manager that closes at the end."""

    @property
    def url(self) -> str:
        """Where it is, without credentials."""

    @property
    def is_connected(self) -> bool:
        """Whether the broker answers at this moment, as far as is known."""

    def __enter__(self) -> Self:
        """Return it."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
