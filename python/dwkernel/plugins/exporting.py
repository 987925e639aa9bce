"""Hands a kernel's figures to the plugins that carry them away, every few seconds."""

from __future__ import annotations

import logging
import threading
import weakref
from typing import TYPE_CHECKING

from dwkernel import errors
from dwkernel._latch import Latch

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwkernel.metrics import Snapshot
    from dwkernel.plugins.registry import Registry
    from dwkernel.plugins.settings import PluginsSection

__all__ = ["Exporting"]

_logger = logging.getLogger("dwkernel.plugins")


class Exporting:
    """Exports while there is somebody who exports. Safe from any thread.

    One thread asks all exporters, one after the other, each with the time limit of calls. Who is
    late, or fails, has missed the figures of that moment.
    """

    def __init__(
        self,
        registry: Registry,
        figures: Callable[[], Snapshot | None],
        section: Callable[[], PluginsSection],
    ) -> None:
        """Export nothing yet.

        Args:
            registry: whose exporters.
            figures: returns the figures of a moment; None once there are none any more.
            section: says how often.

        """
        self._registry = registry
        self._figures = figures
        self._section = section
        self._lock = threading.Lock()
        self._end: Latch | None = None

    def renew(self) -> None:
        """Export if there is somebody who does, else not; call it when plugins come or go."""
        with self._lock:
            is_wanted = bool(self._registry.find("metrics_exporter"))
            if is_wanted and self._end is None:
                self._end = Latch()
                given = (weakref.ref(self), self._end, self.every_s)
                thread = threading.Thread(target=_work, args=given, name="dwk-figures", daemon=True)
                thread.start()
            elif not is_wanted and self._end is not None:
                self._end.open()
                self._end = None

    @property
    def every_s(self) -> float:
        """How often, in seconds."""
        return float(self._section().metrics_every)

    def export(self) -> bool:
        """Hand the figures of now to all; False if there are none any more."""
        try:
            figures = self._figures()
        except errors.State:
            return False
        except errors.DwError as error:
            _logger.warning("figures can't be had now: %s", error)
            return True
        if figures is None:
            return False
        for handle in self._registry.find("metrics_exporter"):
            try:
                limit_s = handle.limit_s or float(self._section().limits.call)
                handle.call("export", figures, limit_s=limit_s)
            except errors.DwError:
                continue  # counted, and in the plugin's log
        return True


def _work(exporting: weakref.ref[Exporting], end: Latch, every_s: float) -> None:
    """Export until the end. While it waits it keeps no store alive."""
    while not end.wait(every_s):
        there = exporting()
        if there is None or not there.export():
            return
        every_s = there.every_s
        del there
