"""How jobs are run: the section `jobs` of a configuration."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from dwkernel.units import parse_duration

__all__ = ["JobsSection", "ScheduleSection"]

STEPS_MAX = 16
ATTEMPTS_MAX = 1000


def _duration(text: str | float) -> str | float:
    parse_duration(text)
    return text


Length = Annotated[str | float, AfterValidator(_duration)]
"""Seconds, or text such as `"30s"`."""


def _live(default: Any, about: str, **limits: Any) -> Any:
    """Return a field whose change counts at once."""
    return Field(default, description=about, json_schema_extra={"live": True}, **limits)


class ScheduleSection(BaseModel):
    """A schedule of the configuration: `[jobs.schedules.NAME]`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    cron: str | None = None
    every: Length | None = None
    zone: str = "UTC"
    options: dict[str, Any] = Field(default_factory=dict)
    priority: int = Field(default=0, ge=0, le=255)
    timeout: Length | None = None
    max_attempts: int | None = Field(default=None, ge=1, le=ATTEMPTS_MAX)
    catch_up: bool = False
    overlap: Literal["skip", "queue"] = "skip"

    @model_validator(mode="after")
    def _either(self) -> ScheduleSection:
        from dwkernel.jobs.timing import timing_of  # noqa: PLC0415 - only who has schedules

        timing_of(self.cron, self.every, self.zone, 0)
        return self


class JobsSection(BaseModel):
    """How jobs are run. All of it may change while the kernel runs: `kernel.jobs.apply`.

    Attributes:
        workers: so many jobs run at a time, 1 to 64.
        keep_count: so many finished jobs are remembered, 0 to 100,000.
        keep_age: and none for longer than this.
        history_page: so many `history()` returns unless it is told otherwise.
        waiting_max: more unfinished jobs than this are not taken, 1 to 1,000,000.
        max_attempts: how often a job is tried, unless it or its kind says otherwise.
        backoff: waits between attempts; the last repeats.
        stop_timeout: how long closing waits for running jobs.
        schedules: by name; one that is taken out of the configuration is removed.

    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    workers: int = _live(2, "so many jobs run at a time", ge=1, le=64)
    keep_count: int = _live(1000, "so many finished jobs are remembered", ge=0, le=100_000)
    keep_age: Length = _live("30d", "none is remembered for longer")
    history_page: int = _live(50, "so many a history shows by itself", ge=1, le=10_000)
    waiting_max: int = _live(100_000, "so many may be unfinished", ge=1, le=1_000_000)
    max_attempts: int = _live(1, "how often a job is tried", ge=1, le=ATTEMPTS_MAX)
    backoff: tuple[Length, ...] = _live(
        ("10s", "1min", "10min"),
        "waits between attempts; the last repeats",
        min_length=1,
        max_length=STEPS_MAX,
    )
    stop_timeout: Length = _live("30s", "how long closing waits for running jobs")
    schedules: dict[str, ScheduleSection] = _live({}, "what is submitted again and again")
