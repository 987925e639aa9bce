"""The section `plugins` of the configuration.

All of it is live but for `watch` and `stage`: `Plugins.apply` does as it says now, and what a
plugin was started with counts until it is reloaded.
"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - pydantic reads it
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from dwkernel.plugins.health import Rules
from dwkernel.plugins.life import Limits
from dwkernel.units import parse_duration

__all__ = ["HealthSection", "LimitsSection", "PluginsSection", "TenantSection"]

_DAY_S = 86_400.0
Seconds = Annotated[float, BeforeValidator(parse_duration), Field(gt=0, le=_DAY_S)]


def _live(default: Any, description: str) -> Any:
    return Field(default=default, description=description, json_schema_extra={"live": True})


def _restart(default: Any, description: str) -> Any:
    return Field(default=default, description=description, json_schema_extra={"live": False})


class _Section(BaseModel):
    """What all parts have: they don't change, and know their names."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class LimitsSection(_Section):
    """How long a plugin may take for each step of its life."""

    load: Seconds = Field(default=30.0, description="To be imported and made.")
    start: Seconds = Field(default=10.0, description="For the handshake and for starting, each.")
    pause: Seconds = Field(default=5.0, description="To pause and to resume, each.")
    state: Seconds = Field(default=10.0, description="To export and to import its state, each.")
    health: Seconds = Field(default=5.0, description="To say how it does.")
    drain: Seconds = Field(default=30.0, description="Until those who use it are done.")
    stop: Seconds = Field(default=10.0, description="To stop.")
    freeze: Seconds = Field(
        default=1.0, description="For how long calls wait for its state to be kept."
    )
    call: Seconds = Field(
        default=10.0, description="For a call, if the plugin has no limit of its own."
    )

    def limits(self) -> Limits:
        """Return them as the life cycle takes them."""
        return Limits(**self.model_dump(exclude={"call"}))


class HealthSection(_Section):
    """When a plugin that fails is not asked any more."""

    failures_in_row: int = Field(
        default=5, ge=1, description="After so many it is left alone a while."
    )
    pauses: tuple[Seconds, ...] = Field(
        default=(1.0, 5.0, 30.0), min_length=1, description="How long."
    )
    failures_max: int = Field(
        default=20, ge=1, description="After so many within `window`: quarantine."
    )
    window: Seconds = Field(default=60.0, description="How far back failures count.")
    quarantines: tuple[Seconds, ...] = Field(
        default=(60.0, 600.0, 3600.0),
        min_length=1,
        description="How long, the first time and so on.",
    )

    def rules(self) -> Rules:
        """Return them as health takes them."""
        return Rules(
            self.failures_in_row, self.pauses, self.failures_max, self.window, self.quarantines
        )


class TenantSection(_Section):
    """What differs for a tenant."""

    enabled: tuple[str, ...] = Field(default=(), description="Plugins that serve it, too.")
    disabled: tuple[str, ...] = Field(default=(), description="Plugins that do not serve it.")


class PluginsSection(_Section):
    """Which plugins there are, which of them run, and what they may do."""

    folders: tuple[Path, ...] = _live(default=(), description="Folders of plugins.")
    installed: bool = _live(
        default=True, description="Look for entry points of installed packages."
    )
    enabled: tuple[str, ...] = _live(default=(), description="Plugins that start; `*` means all.")
    disabled: tuple[str, ...] = _live(default=(), description="Plugins that do not, whoever asks.")
    priority: dict[str, int] = _live(
        default={}, description="By id; of several the highest serves."
    )
    priority_by_mode: dict[str, dict[str, int]] = _live(
        default={}, description="The same for an operating mode; it counts before `priority`."
    )
    tenants: dict[str, TenantSection] = _live(default={}, description="What differs for a tenant.")
    require_hash: bool = _live(default=False, description="Load only what `plugins.lock` lists.")
    trusted_keys: tuple[str, ...] = _live(
        default=(), description="Ed25519 keys in base64; if there are any, one has to have signed."
    )
    grant: dict[str, tuple[str, ...]] = _live(
        default={}, description="By id, the permissions that it gets; `*` means what it asks for."
    )
    limits: LimitsSection = _live(default=LimitsSection(), description="How long steps may take.")
    health: HealthSection = _live(
        default=HealthSection(), description="When it is not asked any more."
    )
    watch: bool = _restart(
        default=False, description="Reload a plugin when its files change (developers)."
    )
    stage: Path | None = _restart(
        default=None, description="Where copies run from; must allow programs."
    )
    config: dict[str, dict[str, Any]] = _live(
        default={}, description="By id, its own configuration."
    )
