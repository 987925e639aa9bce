"""The plugin: a policy with state."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

from dwkernel.plugins import Verdict
from dwkernel_example_plugin import rules

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dwkernel.plugins import Context, Finished, Request


class OperationCounter:
    """Counts the operations of each verb, and those that failed."""

    def __init__(self) -> None:
        """Begin with nothing: the configuration comes with the handshake."""
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._failures = 0
        self._prefix = ""

    def handshake(self, context: Context) -> None:
        """Take the configuration, with the defaults of the manifest."""
        self._prefix = context.config["refuse_below"]
        context.log(f"refuses writing below {self._prefix!r}")

    def before(self, requests: Sequence[Request]) -> list[Verdict]:
        """Count requests, and refuse some."""
        with self._lock:
            self._counts.update(request.verb for request in requests)
        return [self._verdict(request) for request in requests]

    def after(self, finished: Sequence[Finished]) -> None:
        """Count what failed."""
        with self._lock:
            self._failures += sum(one.code is not None for one in finished)

    def counts(self) -> dict[str, int]:
        """Return how many operations of each verb there were."""
        with self._lock:
            return dict(self._counts)

    def export_state(self) -> dict[str, Any]:
        """Return what the next version has to know: plain data."""
        with self._lock:
            return {"counts": dict(self._counts), "failures": self._failures}

    def import_state(self, state: dict[str, Any], from_version: int) -> None:
        """Go on where the version before ended."""
        if from_version != 1:
            message = f"state of version {from_version} is not known"
            raise ValueError(message)
        with self._lock:
            self._counts = Counter(state["counts"])
            self._failures = state["failures"]

    def _verdict(self, request: Request) -> Verdict:
        if rules.is_refused(request.verb, request.key, self._prefix):
            return Verdict.refuse(f"nothing below {self._prefix} may be changed")
        return Verdict.allow()
