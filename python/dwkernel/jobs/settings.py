"""How jobs are run: the section `jobs` of a configuration."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import field_validator, model_validator

from dwkernel.config.section import Section, setting
from dwkernel.config.values import NoneWord, Seconds, Table

__all__ = ["JobsSection", "ScheduleSection"]

STEPS_MAX = 16
ATTEMPTS_MAX = 1000


def _live(default: Any, about: str, **limits: Any) -> Any:
    """Return a field whose change counts at once."""
    return setting(default, about, live=True, **limits)


class ScheduleSection(Section):
    """A schedule of the configuration: `[jobs.schedules.NAME]`."""

    kind: str = _live(..., "what is submitted")
    cron: Annotated[str | None, NoneWord] = _live(None, "when, as five cron fields")
    every: Annotated[Seconds | None, NoneWord] = _live(None, "or how often")
    zone: str = _live("UTC", "the time zone of the cron fields")
    options: Table = _live(Table(), "of the kind")
    priority: int = _live(0, "higher ones run first", ge=0, le=255)
    timeout: Annotated[Seconds | None, NoneWord] = _live(None, "how long it may take")
    max_attempts: Annotated[int | None, NoneWord] = _live(
        None, "how often it is tried", ge=1, le=ATTEMPTS_MAX
    )
    backoff: Annotated[tuple[Seconds, ...] | None, NoneWord] = _live(
        None, "waits between attempts; the last repeats", min_length=1, max_length=STEPS_MAX
    )
    catch_up: bool = _live(default=False, about="once for what was missed while nothing ran")
    overlap: Literal["skip", "queue"] = _live("skip", "what to do while the last one runs")

    @model_validator(mode="after")
    def _either(self) -> ScheduleSection:
        from dwkernel.jobs.timing import timing_of  # noqa: PLC0415 - only who has schedules

        timing_of(self.cron, self.every, self.zone, 0)
        return self


class JobsSection(Section):
    """How jobs are run. All of it may change while the kernel runs: `kernel.jobs.apply`.

    Attributes:
        workers: so many jobs run at a time, 1 to 64.
        keep_count: so many finished jobs are remembered, 0 to 100,000.
        keep_age: and none for longer than this.
        history_page: so many `history()` returns unless it is told otherwise.
        waiting_max: more unfinished jobs than this are not taken, 1 to 1,000,000.
        max_attempts: how often a job is tried, unless it or its kind says otherwise.
        backoff: waits between attempts; the last repeats.
        stall_after: a job that has neither told nor saved nor looked for so long is said to hang.
        stop_timeout: how long closing waits for running jobs.
        schedules: by name; one that is taken out of the configuration is removed.

    """

    workers: int = _live(2, "so many jobs run at a time", ge=1, le=64)
    keep_count: int = _live(1000, "so many finished jobs are remembered", ge=0, le=100_000)
    keep_age: Seconds = _live("30d", "none is remembered for longer")
    history_page: int = _live(50, "so many a history shows by itself", ge=1, le=10_000)
    waiting_max: int = _live(100_000, "so many may be unfinished", ge=1, le=1_000_000)
    max_attempts: int = _live(1, "how often a job is tried", ge=1, le=ATTEMPTS_MAX)
    backoff: tuple[Seconds, ...] = _live(
        ("10s", "1min", "10min"),
        "waits between attempts; the last repeats",
        min_length=1,
        max_length=STEPS_MAX,
    )
    stall_after: Seconds = _live("10min", "a job that is silent for so long is said to hang")
    stop_timeout: Seconds = _live("30s", "how long closing waits for running jobs")
    schedules: dict[str, ScheduleSection] = _live({}, "what is submitted again and again")

    @field_validator("schedules")
    @classmethod
    def _named(cls, schedules: dict[str, ScheduleSection]) -> dict[str, ScheduleSection]:
        from dwkernel.jobs.schedule import checked_name  # noqa: PLC0415 - only who has schedules

        for name in schedules:
            checked_name(name)
        return schedules
