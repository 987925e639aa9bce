"""Whether a plugin is asked at all: a breaker for failures in a row, quarantine for many."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dwkernel import errors
from dwkernel.sinks.breaker import Backoff, Breaker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Health", "HealthReport", "Rules"]

_ERROR_LETTERS = 500


@dataclass(frozen=True)
class Rules:
    """When a plugin is not asked.

    Attributes:
        failures_in_row: after so many it is left alone for a while.
        pauses_s: for how long, the first, the second time and so on; then one call tries.
        failures_max: after so many within `window_s` it is in quarantine.
        window_s: how far back failures count.
        quarantines_s: for how long, the first, the second time and so on.

    """

    failures_in_row: int = 5
    pauses_s: Sequence[float] = (1.0, 5.0, 30.0)
    failures_max: int = 20
    window_s: float = 60.0
    quarantines_s: Sequence[float] = (60.0, 600.0, 3600.0)


@dataclass(frozen=True)
class HealthReport:
    """How a plugin does.

    Attributes:
        state: `"well"`, `"failing"` (left alone for a while) or `"quarantined"`.
        calls: how often it was asked.
        failures: how often it failed, or took too long.
        failures_in_row: since it last did well.
        quarantines: how often it was in quarantine.
        wait_s: for how long it is not asked, in seconds.
        last_error: what went wrong last.

    """

    state: str
    calls: int
    failures: int
    failures_in_row: int
    quarantines: int
    wait_s: float
    last_error: str | None


class Health:
    """Counts what a plugin does well and badly. Safe from any thread."""

    def __init__(
        self,
        plugin_id: str,
        rules: Rules | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_quarantine: Callable[[float], None] = lambda _: None,
    ) -> None:
        """Begin well. `on_quarantine` hears for how long, under no lock."""
        self._id = plugin_id
        self._rules = rules or Rules()
        self._clock = clock
        self._tell = on_quarantine
        self._lock = threading.Lock()
        self._breaker = Breaker(self._rules.failures_in_row, Backoff(self._rules.pauses_s))
        self._waits = Backoff(self._rules.quarantines_s)
        self._failed_at: deque[float] = deque(maxlen=self._rules.failures_max)
        self._until = 0.0
        self._quarantines = self._calls = self._failures = 0
        self._last_error: str | None = None

    def go_by(self, rules: Rules) -> None:
        """Take other rules from now on; what was counted by the old ones is forgotten."""
        with self._lock:
            if rules == self._rules:
                return
            self._rules = rules
            self._breaker = Breaker(rules.failures_in_row, Backoff(rules.pauses_s))
            self._waits = Backoff(rules.quarantines_s)
            self._failed_at = deque(maxlen=rules.failures_max)

    def admit(self) -> None:
        """Let a call through.

        Raises:
            Unavailable: `plugin.quarantined`, with the detail `retry_after_s`

        """
        with self._lock:
            now = self._clock()
            wait_s = self._until - now
            breaker_s = self._breaker.wait_s(now)
            if wait_s <= 0 and breaker_s == 0:
                self._calls += 1
                self._breaker.sent()
                return
            left = max(wait_s, 0.0 if breaker_s is None else breaker_s)
            last = self._last_error
        text = f"{self._id} failed too often, and is not asked for {left:.3g} s"
        raise errors.new(
            "plugin.quarantined", text, id=self._id, retry_after_s=f"{left:.3f}", last_error=last
        )

    def succeeded(self) -> None:
        """Hear that a call went well."""
        with self._lock:
            self._breaker.succeeded()

    def answered(self) -> None:
        """Hear that a call ended in a way that says nothing of the plugin's health."""
        with self._lock:
            self._breaker.answered()

    def failed(self, error: object) -> None:
        """Hear that a call failed, or took too long."""
        with self._lock:
            now = self._clock()
            self._failures += 1
            self._last_error = str(error)[:_ERROR_LETTERS]
            self._breaker.failed(now)
            self._failed_at.append(now)
            full = len(self._failed_at) == self._rules.failures_max
            is_much = full and now - self._failed_at[0] <= self._rules.window_s
            if not is_much or now < self._until:
                return
            self._quarantines += 1
            wait_s = self._waits.delay_s(self._quarantines)
            self._until = now + wait_s
            self._failed_at.clear()
        self._tell(wait_s)

    def reset(self) -> None:
        """Forget all failures: it was mended, or somebody says that it was."""
        with self._lock:
            self._breaker.reset()
            self._failed_at.clear()
            self._until = 0.0
            self._quarantines = 0

    def report(self) -> HealthReport:
        """Return how it does."""
        with self._lock:
            now = self._clock()
            wait_s = max(0.0, self._until - now)
            state = "quarantined" if wait_s else "failing" if self._breaker.is_open else "well"
            return HealthReport(
                state=state,
                calls=self._calls,
                failures=self._failures,
                failures_in_row=self._breaker.failures,
                quarantines=self._quarantines,
                wait_s=max(wait_s, self._breaker.wait_s(now) or 0.0),
                last_error=self._last_error,
            )
