"""What is closed at the end of a `with`."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Closing", "Companions"]


class Closing(ABC):
    """A context manager that closes at its end, however that comes."""

    @abstractmethod
    def close(self) -> None:
        """End it."""

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()


class Companions:
    """What works for an owner in the background, and is closed before it."""

    def __init__(self) -> None:
        """Begin with none."""
        self._members: list[Companion] = []

    def add(self, companion: Companion) -> None:
        """Close it before the owner, unless it has ended by then."""
        self._members = [one for one in self._members if not one.closed] + [companion]

    def close(self, timeout: float | None) -> list[str]:
        """Close all; return the names of those that were not done in time."""
        members, self._members = self._members, []
        end = None if timeout is None else time.monotonic() + timeout
        for one in members:
            one.stop(timeout)
        late = []
        for one in members:
            try:
                one.close(None if end is None else max(0.0, end - time.monotonic()))
            except TimeoutError:
                late.append(one.name)
        return late


class Companion(Protocol):
    """What `Companions` closes."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def closed(self) -> bool:
        """Whether it has ended."""

    def stop(self, timeout: float | None) -> None:
        """Begin to close."""

    def close(self, timeout: float | None) -> None:
        """Close it; raises a `TimeoutError` if something is still under way."""
