"""What a kernel keeps of a plugin, over all its versions."""

from __future__ import annotations

import math
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel.plugins import builtin
from dwkernel.plugins.handle import Handle
from dwkernel.plugins.health import Health
from dwkernel.plugins.output import Log
from dwkernel.plugins.registry import Entry
from dwkernel.plugins.report import PluginInfo
from dwkernel.plugins.swap import Slot
from dwkernel.plugins.watchdog import Watchdog, bare

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dwkernel.plugins.discovery import Found
    from dwkernel.plugins.life import Life
    from dwkernel.plugins.settings import PluginsSection
    from dwkernel.plugins.version import Version

__all__ = ["Record"]

_PROOF_S = 2.0
# What is left for a plugin to finish, when those who use it took all the time.
_LEAST_S = 0.1


class Record:
    """A plugin: what was found, what runs, how it does."""

    def __init__(
        self,
        found: Found,
        section: PluginsSection,
        *,
        on_quarantine: Callable[[float], None] = lambda _: None,
        on_lift: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin with what was found.

        Args:
            found: the plugin.
            section: what the configuration says of plugins.
            on_quarantine: called when it has failed too often, with the seconds that it is to be
                kept out.
            on_lift: called when that is over.

        """
        self.found = found
        self.log = Log(found.id)
        self.watchdog = Watchdog(found.id, self.log)
        self.health = Health(found.id, section.health.rules(), on_quarantine=on_quarantine)
        self.slot: Slot[Any] = Slot(None)
        self.slot.refuse(_refusal(found.id, "does not run"))
        self.handle = Handle(found.id, self.slot, self.health, self.watchdog)
        self.on_lift = on_lift
        self.version: Version | None = None
        self.error: str | None = None
        self.reloads = 0
        self.has_failed = False
        # What it said when it was asked last.
        self.is_well = True
        self._ended = False
        self._timer: threading.Timer | None = None

    @property
    def id(self) -> str:
        """Its id."""
        return self.found.id

    @property
    def home(self) -> Path | None:
        """Where its files are."""
        return self.found.home

    @property
    def life(self) -> Life:
        """The life of the version that runs.

        Raises:
            State: `plugin.state`: none does

        """
        if self.version is None:
            raise errors.new("plugin.state", f"{self.id} does not run", id=self.id)
        return self.version.life

    def again(self, found: Found) -> None:
        """Forget what was, and be ready to begin anew."""
        self.found = found
        self.error = None
        self.has_failed = False
        self.health.reset()

    def began(self, version: Version) -> None:
        """Let callers at a version that has started."""
        self.version = version
        self.error = None
        self.handle.is_required = version.is_required
        self.slot.swap(version.instance)
        self.slot.refuse(None)

    def took_over(self, version: Version) -> None:
        """Note that a version is in the place of another; to note it again changes nothing."""
        self.reloads += version is not self.version
        self.version = version
        self.found = version.found
        self.handle.is_required = version.is_required
        self.error = None

    def refuse(self) -> None:
        """Let callers fail: it is paused."""
        self.slot.refuse(_refusal(self.id, "is paused"))

    def lift(self) -> None:
        """Let callers in again, if it is started; one that is paused is just that again."""
        self._cancel()
        state = None if self.version is None else self.version.life.state
        if state == "started":
            self.slot.refuse(None)
        elif state == "paused":
            self.refuse()

    def _cancel(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def quarantine(self, wait_s: float) -> None:
        """Let callers fail for a while."""
        text = f"{self.id} failed too often, and is kept out for {wait_s:.3g} s"
        name, details = "plugin.quarantined", {"id": self.id, "retry_after_s": f"{wait_s:.3f}"}
        self.slot.refuse(lambda: errors.new(name, text, **details))
        self.log.notice(text)
        # The timer must not keep alive what is gone by then.
        own = weakref.ref(self)

        def end() -> None:
            record = own()
            if record is not None:
                record.lift()
                record.on_lift()

        self._timer = threading.Timer(wait_s, end)
        self._timer.daemon = True
        self._timer.start()

    def end(self, drain_s: float, deadline: float = math.inf) -> list[str]:
        """Drain, stop and unload what runs; return what went wrong, for people.

        Args:
            drain_s: for how long those who use it may go on.
            deadline: by the monotonic clock, when all of it is to be over.

        """
        version = self.version
        if version is None:
            return []
        self._cancel()
        self.slot.refuse(_refusal(self.id, "is stopped"))
        wrong = []
        until = time.monotonic() + drain_s
        held = self.slot.swap(None)
        names = self.slot.drain(held, drain_s)
        del held
        if names:
            wrong.append(f"still used after {drain_s:.3g} s by {', '.join(names)}")
        try:
            if version.life.state in ("started", "paused"):
                version.life.drain(max(_LEAST_S, until - time.monotonic()))
        except errors.DwError as error:
            wrong.append(str(bare(error)))
        stop_s = min(version.life.limits.stop, max(_LEAST_S, deadline - time.monotonic()))
        wrong += version.end(stop_s)
        leaked = version.leaked()
        wrong += [f"it left the thread {name} behind" for name in leaked]
        self.version = None
        self._ended = True
        quick = bool(names or leaked or self.watchdog.stuck)
        left_s = max(0.0, deadline - time.monotonic())
        alive = version.vanish(self.watchdog, 0.0 if quick else min(left_s, _PROOF_S))
        wrong += [f"still there: {one}" for one in alive]
        for text in wrong:
            self.log.notice(f"at its end: {text}")
        return wrong

    def told(self) -> dict[str, str]:
        """Return what observers hear of it."""
        return {"id": self.id, "version": str(self.found.manifest.version)}

    def entry(self, section: PluginsSection, before: Entry | None) -> Entry:
        """Return how it serves: as the section says, and as somebody said since."""
        tenants = {}
        for tenant, part in section.tenants.items():
            if self.id in part.enabled or self.id in part.disabled:
                tenants[tenant] = self.id not in part.disabled
        is_own = self.found.source == "kernel"
        modes = section.priority_by_mode.items()
        return Entry(
            manifest=self.found.manifest,
            handle=self.handle,
            is_enabled=before.is_enabled if before else True,
            tenants=tenants,
            told=before.told if before else {},
            priority=section.priority.get(self.id, builtin.PRIORITY if is_own else 0),
            by_mode={mode: ids[self.id] for mode, ids in modes if self.id in ids},
        )

    def info(self, entry: Entry | None) -> PluginInfo:
        """Return what is known of it."""
        said = self.found.manifest
        health = self.health.report()
        return PluginInfo(
            id=said.id,
            version=str(said.version),
            kinds=said.kinds,
            capabilities=dict(said.capabilities),
            state=self._state(health.state),
            is_enabled=entry.is_enabled if entry else False,
            tenants={**entry.tenants, **entry.told} if entry else {},
            source=self.found.source,
            place=self.found.place,
            summary=said.summary,
            hash=self.version.hash if self.version else "",
            in_flight=self.slot.in_flight,
            stuck=self.watchdog.stuck,
            reloads=self.reloads,
            error=self.error,
            health=health if self.version else None,
            effects=list(self.watchdog.effects),
            lines=self.log.lines,
            process=self._process(),
        )

    def _process(self) -> dict[str, Any] | None:
        version = self.version
        if version is None or version.stage is None:
            return None
        status = version.instance.guest_status()
        kept = status.confinement
        return {**status._asdict(), "confinement": kept._asdict() if kept else None}

    def _state(self, health: str) -> str:
        if self.version is None:
            return "failed" if self.has_failed else "stopped" if self._ended else "discovered"
        return "quarantined" if health == "quarantined" else self.version.life.state


def _refusal(plugin_id: str, text: str) -> Callable[[], errors.DwError]:
    return lambda: errors.new("plugin.state", f"{plugin_id} {text}", id=plugin_id)
