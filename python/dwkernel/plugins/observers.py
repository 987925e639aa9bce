"""Those who want to hear what happens to plugins."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Observers"]

_logger = logging.getLogger("dwkernel.plugins")


class Observers:
    """Tells everybody, one after the other; what they raise is logged and changes nothing."""

    def __init__(self, announce: Callable[[str, dict[str, Any]], object] | None) -> None:
        """Begin with the kernel's own observer, if there is one."""
        self._lock = threading.Lock()
        self._observers: list[Callable[[str, dict[str, Any]], object]] = []
        if announce is not None:
            self._observers.append(announce)

    def add(self, observer: Callable[[str, dict[str, Any]], object]) -> Callable[[], None]:
        """Tell somebody from now on; return what ends it."""
        with self._lock:
            self._observers = [*self._observers, observer]

        def remove() -> None:
            with self._lock:
                self._observers = [one for one in self._observers if one is not observer]

        return remove

    def tell(self, subject: str, **data: Any) -> None:
        """Tell all."""
        for observer in self._observers:
            try:
                observer(subject, dict(data))
            except Exception:
                _logger.exception("an observer of %s failed", subject)
