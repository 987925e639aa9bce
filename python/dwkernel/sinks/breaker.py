"""How long to wait after failures, and when to stop trying for a while. No clock, no thread."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from dwkernel import errors
from dwkernel.units import parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dwkernel.units import Duration

__all__ = ["Backoff", "Breaker"]

# What a receiver may ask for with Retry-After; a wrong header must not stop a sink for a year.
HOLD_MAX_S = 3600.0
_STEP_MAX_S = 7 * 24 * 3600.0
# Waits are spread by this part to either side, so that many that failed together part.
_JITTER = 0.2


class Backoff:
    """How long to wait before each further attempt; the last wait repeats."""

    def __init__(
        self,
        steps: Iterable[Duration],
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Take waits of up to a week each.

        Raises:
            Invalid: `sink.option`, `unit.invalid`

        """
        given: object = steps
        if isinstance(given, str | int | float):
            raise errors.new("sink.option", f'backoff={given!r} is one wait: write ["1s", "10s"]')
        self.steps = [parse_duration(step) for step in steps]
        self._chance = chance
        if not self.steps or max(self.steps) > _STEP_MAX_S:
            raise errors.new("sink.option", "backoff needs a wait, and none of more than a week")

    def delay_s(self, failures: int) -> float:
        """Return how long to wait after so many failures, from 1 on."""
        step = self.steps[min(max(failures, 1), len(self.steps)) - 1]
        return step * (1 - _JITTER + 2 * _JITTER * self._chance())


class Breaker:
    """Lets everything through until too much failed in a row; then one probe at a time.

    Times are seconds of one clock that its caller reads.
    """

    def __init__(self, threshold: int, backoff: Backoff) -> None:
        """Open after `threshold` failures in a row."""
        self._threshold = threshold
        self._backoff = backoff
        self._probing = False
        self.failures = 0
        self.until = 0.0

    @property
    def is_open(self) -> bool:
        """Whether only probes go through."""
        return self.failures >= self._threshold

    def wait_s(self, now: float) -> float | None:
        """Return for how long nothing may be sent: 0 to go, None until the probe is answered."""
        if self.is_open and self._probing:
            return None
        return max(0.0, self.until - now)

    def sent(self) -> None:
        """Hear that something is on its way."""
        self._probing = self.is_open

    def succeeded(self) -> None:
        """Hear that the receiver answered as one that is well."""
        self.failures = 0
        self._probing = False

    def failed(self, now: float) -> None:
        """Hear that it did not."""
        self._probing = False
        if self.is_open and now < self.until:
            return  # sent before the breaker opened: it says nothing new
        self.failures += 1
        if self.is_open:
            wait_s = self._backoff.delay_s(self.failures - self._threshold + 1)
            self.until = max(self.until, now + wait_s)

    def answered(self) -> None:
        """Hear that a probe ended in a way that says neither."""
        self._probing = False

    def hold(self, now: float, wait_s: float) -> None:
        """Send nothing for so long: the receiver asked for it."""
        self.until = max(self.until, now + min(wait_s, HOLD_MAX_S))

    def reset(self) -> None:
        """Forget all failures."""
        self.failures, self.until, self._probing = 0, 0.0, False
