"""The section `plugins` of the configuration.

All of it is live but for `watch` and `stage`: `Plugins.apply` does as it says now, and what a
plugin was started with counts until it is reloaded.
"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - pydantic reads it
from typing import Annotated, Any

from pydantic import AfterValidator

from dwkernel.config.section import Section, setting
from dwkernel.config.values import NoneWord, Seconds, Table
from dwkernel.plugins.health import Rules
from dwkernel.plugins.life import Limits

__all__ = ["HealthSection", "LimitsSection", "PluginsSection", "TenantSection"]

_DAY_S = 86_400.0

Options = Annotated[dict[str, dict[str, Any]], AfterValidator(Table)]
"""Options of plugins: `{"audit": {"level": 3}}`."""


def _limit(default: str, about: str) -> Any:
    return setting(default, about, live=True, gt=0, le=_DAY_S)


class LimitsSection(Section):
    """How long a plugin may take for each step of its life."""

    load: Seconds = _limit("30s", "to be imported and made")
    start: Seconds = _limit("10s", "for the handshake and for starting, each")
    pause: Seconds = _limit("5s", "to pause and to resume, each")
    state: Seconds = _limit("10s", "to export and to import its state, each")
    health: Seconds = _limit("5s", "to say how it does")
    drain: Seconds = _limit("30s", "until those who use it are done")
    stop: Seconds = _limit("10s", "to stop")
    freeze: Seconds = _limit("1s", "for how long calls wait for its state to be kept")
    call: Seconds = _limit("10s", "for a call, if the plugin has no limit of its own")

    def limits(self) -> Limits:
        """Return them as the life cycle takes them."""
        names = (name for name in type(self).model_fields if name != "call")
        return Limits(**{name: float(getattr(self, name)) for name in names})


class HealthSection(Section):
    """How plugins are looked after, and when one that fails is not asked any more."""

    every: Seconds = _limit("30s", "how often a plugin is asked whether it is well")
    failures_in_row: int = setting(5, "after so many it is left alone a while", live=True, ge=1)
    pauses: tuple[Seconds, ...] = setting(("1s", "5s", "30s"), "how long", live=True, min_length=1)
    failures_max: int = setting(20, "after so many within `window`: quarantine", live=True, ge=1)
    window: Seconds = _limit("1min", "how far back failures count")
    quarantines: tuple[Seconds, ...] = setting(
        ("1min", "10min", "1h"), "how long, the first time and so on", live=True, min_length=1
    )

    def rules(self) -> Rules:
        """Return them as health takes them."""
        return Rules(
            self.failures_in_row,
            tuple(map(float, self.pauses)),
            self.failures_max,
            float(self.window),
            tuple(map(float, self.quarantines)),
        )


class TenantSection(Section):
    """What differs for a tenant."""

    enabled: tuple[str, ...] = setting((), "plugins that serve it, too", live=True)
    disabled: tuple[str, ...] = setting((), "plugins that do not serve it", live=True)


class PluginsSection(Section):
    """Which plugins there are, which of them run, and what they may do."""

    folders: tuple[Path, ...] = setting((), "folders of plugins", live=True)
    installed: bool = setting(
        default=True, about="look for entry points of installed packages", live=True
    )
    enabled: tuple[str, ...] = setting((), "plugins that start; `*` means all", live=True)
    disabled: tuple[str, ...] = setting((), "plugins that do not, whoever asks", live=True)
    priority: dict[str, int] = setting({}, "by id; of several the highest serves", live=True)
    priority_by_mode: dict[str, dict[str, int]] = setting(
        {}, "the same for an operating mode; it counts before `priority`", live=True
    )
    tenants: dict[str, TenantSection] = setting({}, "what differs for a tenant", live=True)
    require_hash: bool = setting(
        default=False, about="load only what `plugins.lock` lists", live=True
    )
    trusted_keys: tuple[str, ...] = setting(
        (), "Ed25519 keys in base64; if there are any, one has to have signed", live=True
    )
    grant: dict[str, tuple[str, ...]] = setting(
        {}, "by id, the permissions that it gets; `*` means what it asks for", live=True
    )
    limits: LimitsSection = setting(LimitsSection(), "how long steps may take", live=True)
    health: HealthSection = setting(HealthSection(), "when it is not asked any more", live=True)
    metrics_every: Seconds = _limit("15s", "how often figures are handed to exporters")
    watch: bool = setting(default=False, about="reload a plugin when its files change (developers)")
    stage: Annotated[Path | None, NoneWord] = setting(
        None, "where copies run from; must allow programs"
    )
    config: Options = setting(Table(), "by id, its own configuration", live=True)
