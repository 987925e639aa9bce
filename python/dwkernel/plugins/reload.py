"""Reloading a plugin while it is used: the new version beside the old, then in its place.

Steps: resolve (and verify, in loading), load, handshake, start, freeze, export, import, open (what
callers have open, such as drives), health, swap, drain, stop, unload. Up to the swap any failure
leaves the old version as it was, with those who use it noticing nothing. After the swap there is no
way back, as calls have reached the new version: what goes wrong in the end of the old one is told
in the report.
"""

from __future__ import annotations

import functools
import math
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel.plugins.watchdog import bare, said, told

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dwkernel.plugins.discovery import Found
    from dwkernel.plugins.life import Limits
    from dwkernel.plugins.output import Log
    from dwkernel.plugins.swap import Held, Slot
    from dwkernel.plugins.version import Version, Workshop
    from dwkernel.plugins.watchdog import Watchdog

__all__ = ["Reload", "ReloadReport"]

# How long it may take until nothing of the old version is left.
_PROOF_S = 2.0
# What is left for a plugin to finish, when those who use it took all the time.
_LEAST_S = 0.1


@dataclass(frozen=True)
class ReloadReport:
    """How a reload went.

    Attributes:
        id: the plugin's.
        before: the version that was there; None if none was.
        after: the version that is there.
        seconds: how long each step took.
        paused_s: for how long calls waited; 0 unless the manifest says `keep_state`.
        state: whether state was carried over.
        unused: whether all who used the old version were done in time.
        is_unloaded: whether nothing of the old version is left, proved by weak references.
        alive: what of it is still there, and who holds it.
        leaked: threads that still run its code.
        wrong: what went wrong after the swap, for people.

    """

    id: str
    before: str | None
    after: str
    seconds: dict[str, float] = field(default_factory=dict)
    paused_s: float = 0.0
    state: bool = False
    unused: bool = True
    is_unloaded: bool = True
    alive: list[str] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return everything by name."""
        return asdict(self)

    def __str__(self) -> str:
        """Say it in a line or two."""
        text = (
            f"{self.id} {self.before or '-'} -> {self.after} in {sum(self.seconds.values()):.3f} s"
        )
        if self.paused_s:
            text += f", calls waited {self.paused_s * 1000:.1f} ms"
        for one in (*self.wrong, *self.alive):
            text += f"\n  {one}"
        return text


class Reload:
    """One reload. It is run once, by one thread."""

    def __init__(  # noqa: PLR0913, PLR0917 - a record, made in one place
        self,
        old: Version,
        found: Found,
        slot: Slot[Any],
        workshop: Workshop,
        watchdog: Watchdog,
        log: Log,
        limits: Limits,
        needs: Mapping[str, Slot[Any]],
    ) -> None:
        """Take what it works on."""
        self._old = old
        self._found = found
        self._slot = slot
        self._workshop = workshop
        self._watchdog = watchdog
        self._log = log
        self._limits = limits
        self._needs = needs
        self._new: Version | None = None
        self._kept: dict[Any, Any] = {}
        # What is in the slot until the swap.
        self._held: Held[Any] | None = slot.held
        self._step = ""
        self._began = 0.0
        self._frozen_at: float | None = None
        self._paused_s = 0.0
        self._has_state = False
        self.has_taken_over = False
        self.seconds: dict[str, float] = {}

    def take_over(self, settle: Callable[[Version], object]) -> None:
        """Go up to the swap, and have `settle` make everybody know the new version.

        After Ctrl-C in a bad moment `settle` is called twice.

        Raises:
            Conflict: `plugin.reload`, with the details `step` and `cause`; the old version runs
                on, and nothing is left of the new one

        """
        try:
            self._up_to_swap()
            settle(self._taken())
        except BaseException as error:
            if self._slot.held is not self._held:
                # Ctrl-C, on the thread of who reloads: the swap itself was done by then.
                settle(self._taken())
                raise
            self._slot.thaw()
            self._held = None
            if not isinstance(error, Exception):
                self._discard()
                raise
            cause = bare(error) if isinstance(error, errors.DwError) else _unforeseen(error)
        else:
            return
        finally:
            self._end_step()
        if cause.code in ("plugin.hash", "plugin.signature"):
            self._step = "verify"  # a part of loading: what is verified is the copy that runs
        wrong = self._discard()
        where = f"{self._found.id} {self._found.manifest.version}"
        text = f"{where} could not take over at the step {self._step}: {said(cause)}"
        details: dict[str, object] = {
            "id": self._found.id,
            "step": self._step,
            "cause": cause.code,
            "wrong": "\n".join(wrong),
        }
        raise errors.new("plugin.reload", text, **details) from cause

    def _taken(self) -> Version:
        assert self._new is not None  # noqa: S101 - it is in the slot
        self.has_taken_over = True
        return self._new

    def _up_to_swap(self) -> None:
        self._begin_step("load")
        new = self._new = self._workshop.make(self._found, self._log, self._watchdog)
        self._begin_step("handshake")
        context = self._workshop.context(new, self._log, self._watchdog, self._needs)
        new.life.handshake(context)
        self._begin_step("start")
        new.life.start()
        # While calls may wait nobody looks what each step does to the process, but at the end.
        with self._watchdog.looking("carrying over"):
            self._carry_over(new)
            self._open(new)
            self._begin_step("health")
            new.life.health(min(self._limits.health, self._left()))
            self._begin_step("swap")
            self._slot.swap(new.instance, self._kept)
            if self._frozen_at is not None:
                self._paused_s = time.monotonic() - self._frozen_at

    def _carry_over(self, new: Version) -> None:
        old_life = self._old.life
        if not old_life.has_state:
            return
        manifest = self._old.found.manifest
        if manifest.keep_state or self._found.manifest.keep_state:
            self._begin_step("freeze")
            began = time.monotonic()
            if not self._slot.freeze(self._limits.freeze):
                text = f"calls of {self._found.id} did not end in {self._limits.freeze:g} s"
                raise errors.new("plugin.timeout", text, id=self._found.id)
            self._frozen_at = began
        self._begin_step("export")
        state = old_life.export_state(self._left())
        self._begin_step("import")
        new.life.import_state(state, manifest.state_version, self._left())
        self._has_state = True

    def _open(self, new: Version) -> None:
        """Open what callers have open, so that a version which can't does not take over."""
        for maker, made in list(self._slot.held.kept.items()):
            self._begin_step("open")
            renew = functools.partial(maker.renewed, new.instance, made)
            renewed = self._watchdog.call("open", renew, min(self._limits.start, self._left()))
            if renewed is not None:
                self._kept[maker] = renewed

    def _left(self) -> float:
        """Return how long a step may take: calls that wait don't do so for longer than they may."""
        if self._frozen_at is None:
            return math.inf
        return max(0.001, self._frozen_at + self._limits.freeze - time.monotonic())

    def _discard(self) -> list[str]:
        new, self._new, self._kept = self._new, None, {}
        if new is None:
            return []
        wrong: list[str] = []
        try:
            if new.life.state != "loaded":
                wrong = new.end()
        finally:
            quick = bool(new.leaked() or self._watchdog.stuck)
            alive = new.vanish(self._watchdog, 0.0 if quick else _PROOF_S)
        return [*wrong, *(f"still there: {one}" for one in alive)]

    def finish(self) -> ReloadReport:
        """End the old version, after `take_over`; call it again if it was interrupted."""
        wrong: list[str] = []
        end = time.monotonic() + self._limits.drain
        self._begin_step("drain")
        names = [] if self._held is None else self._slot.drain(self._held, self._limits.drain)
        self._held = None
        if names:
            wrong.append(f"still used after {self._limits.drain:g} s by {', '.join(names)}")
        old = self._old
        try:
            if old.life.state in ("started", "paused"):
                old.life.drain(max(_LEAST_S, end - time.monotonic()))
        except errors.DwError as error:
            wrong.append(str(bare(error)))
        self._begin_step("stop")
        wrong += old.end()
        self._begin_step("unload")
        leaked = old.leaked()
        before = str(old.found.manifest.version)
        quick = bool(names or leaked or self._watchdog.stuck)
        alive = old.vanish(self._watchdog, 0.0 if quick else _PROOF_S)
        self._end_step()
        for text in (*wrong, *(f"still there: {one}" for one in alive)):
            self._log.notice(f"after the reload: {text}")
        return ReloadReport(
            id=self._found.id,
            before=before,
            after=str(self._found.manifest.version),
            seconds=self.seconds,
            paused_s=self._paused_s,
            state=self._has_state,
            unused=not names,
            is_unloaded=not alive,
            alive=alive,
            leaked=leaked,
            wrong=wrong,
        )

    def _begin_step(self, name: str) -> None:
        self._end_step()
        self._step = name
        self._began = time.perf_counter()

    def _end_step(self) -> None:
        if self._step and self._step not in self.seconds:
            self.seconds[self._step] = time.perf_counter() - self._began


def _unforeseen(error: Exception) -> errors.DwError:
    """Return an error that is none of ours, such as a lack of threads or memory, as one of ours."""
    raised = told(error)
    found = errors.new("plugin.failed", f"the kernel met {raised}", traceback=raised.trace)
    found.__cause__ = raised
    return found
