"""What is told of plugins."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from dwkernel.plugins.health import HealthReport
    from dwkernel.plugins.resolve import Row

__all__ = ["Check", "PluginInfo"]


@dataclass(frozen=True)
class PluginInfo:
    """What is known of a plugin.

    Attributes:
        id: its id.
        version: the one that runs, or would.
        kinds: what it is.
        capabilities: what it can do, by kind.
        state: `"discovered"`, `"resolved"`, `"loaded"`, `"started"`, `"paused"`, `"draining"`,
            `"stopped"`, `"failed"` or `"quarantined"`.
        is_enabled: whether it serves tenants that say nothing else.
        tenants: whether it serves those that do.
        source: `"folder"`, `"installed"` or `"kernel"`.
        place: the folder or distribution.
        summary: its own words.
        hash: of the files that run.
        in_flight: calls that are under way.
        stuck: calls that took too long and have not come back.
        reloads: how often it was exchanged.
        error: why it does not run, or why its last reload failed.
        health: how it does; None if it never ran.
        effects: what it did to the process and what was put back.
        lines: its last lines of output.
        process: of one that is confined, what is known of its process: `pid`, `restarts`,
            `rss_bytes`, `confinement` and more (`dwkernel.plugins.confined.Status`).

    """

    id: str
    version: str
    kinds: tuple[str, ...]
    capabilities: dict[str, tuple[str, ...]]
    state: str
    is_enabled: bool
    tenants: dict[str, bool]
    source: str
    place: str
    summary: str = ""
    hash: str = ""
    in_flight: int = 0
    stuck: int = 0
    reloads: int = 0
    error: str | None = None
    health: HealthReport | None = None
    effects: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    process: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return everything by name."""
        return asdict(self)

    def __str__(self) -> str:
        """Say the most of it in a line."""
        text = f"{self.id} {self.version} ({', '.join(self.kinds)}) {self.state}"
        return f"{text}: {self.error}" if self.error else text


class Check(NamedTuple):
    """Whether what is there fits together.

    Attributes:
        rows: each plugin and each thing that it needs.
        wrong: what can't be used, and why, by id or place.

    """

    rows: list[Row]
    wrong: dict[str, str]

    @property
    def is_good(self) -> bool:
        """Whether everything fits."""
        return not self.wrong and all(row.is_met for row in self.rows)
