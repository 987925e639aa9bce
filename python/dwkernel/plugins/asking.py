"""Who answers when the kernel's door asks policies: a thread that takes all questions at a time."""

from __future__ import annotations

import logging
import threading
import weakref
from typing import TYPE_CHECKING, Any

from dwkernel.plugins.kinds.policy import Finished, Request, Verdict
from dwkernel.plugins.serving import Policies

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dwkernel._native import PolicyBatch, PolicyDesk
    from dwkernel.plugins.registry import Registry

__all__ = ["Asking"]

_TAKE = 256
_PATIENCE_S = 1.0
# Each policy has its own limit; the door waits for all of them, and this long for the thread.
_GRACE_S = 1.0

_logger = logging.getLogger("dwkernel.plugins")


class Asking:
    """Serves a kernel's desk while there are policies. Safe from any thread.

    Questions are answered on one thread, policy after policy, each with its time limit; operations
    wait for that as long as all policies may take together, and are refused with `plugin.timeout`
    then. While there is no policy nobody is asked, which costs operations nothing.
    """

    def __init__(self, desk: PolicyDesk, registry: Registry, limit_s: Callable[[], float]) -> None:
        """Ask the policies of a registry.

        Args:
            desk: where questions lie.
            registry: whose policies.
            limit_s: returns how long each may take for a call that has no limit of its own.

        """
        self._desk = desk
        self._registry = registry
        self._limit_s = limit_s
        self._policies = Policies(registry, limit_s())
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def renew(self) -> None:
        """Serve if there are policies, else leave; call it when some come or go."""
        with self._lock:
            limit_s = self._policies.limit_s = self._limit_s()
            policies = self._registry.at_work("policy")
            if not policies:
                self._desk.leave()
                return
            self._desk.serve(sum(one.limit_s or limit_s for one in policies) + _GRACE_S)
            if self._thread is None or not self._thread.is_alive():
                given = (self._desk, weakref.ref(self))
                thread = threading.Thread(
                    target=_serve, args=given, name="dwk-policies", daemon=True
                )
                self._thread = thread
                thread.start()

    def leave(self) -> None:
        """Ask nobody any more; what waits may go on."""
        with self._lock:
            self._desk.leave()

    def answer(self, batch: PolicyBatch) -> None:
        """Answer the questions of a batch, and tell policies what it tells."""
        if self._policies.limit_s != self._limit_s():
            self.renew()  # the configuration changed
        requests = batch.requests
        if requests:
            verdicts = self._policies.before([_request(one) for one in requests])
            batch.answer([_plain(verdict) for verdict in verdicts])
        finished = batch.finished
        if finished:
            self._policies.after([_finished(*one) for one in finished])
        if batch.dropped:
            _logger.warning("policies were not told of %d operations: too many", batch.dropped)


def _serve(desk: PolicyDesk, answering: weakref.ref[Asking]) -> None:
    """Take and answer until the store is closed. While it waits it keeps no store alive."""
    while (batch := desk.take(_TAKE, _PATIENCE_S)) is not None:
        asking = answering()
        if asking is None:
            return
        try:
            asking.answer(batch)
        except Exception:
            # What was not answered is refused as soon as the batch is gone.
            _logger.exception("policies could not be asked")
        del asking, batch


def _request(native: Sequence[Any]) -> Request:
    operation, access, resource, key, principal, tenant, correlation_id = native
    return Request(operation, key, access, resource, principal, tenant or "", correlation_id)


def _plain(verdict: Verdict) -> tuple[str | None, dict[str, str] | None]:
    if verdict.kind == "allow":
        return (None, dict(verdict.annotations) or None)
    return (verdict.reason or "a policy refuses it", None)


def _finished(
    request: Sequence[Any], code: str | None, seconds: float, notes: dict[str, str]
) -> Finished:
    return Finished(_request(request), code, seconds, annotations=notes)
