"""The kinds of jobs that every store has: scrub, rebuild, pack.

They do what the verbs of `kernel.pool` do. One of them runs at a time, as the store has it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, field_validator

from dwkernel import errors
from dwkernel.units import parse_size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dwkernel.jobs.context import JobContext
    from dwkernel.jobs.kinds import JobKind
    from dwkernel.reports import Progress

__all__ = ["Pack", "Rebuild", "Scrub", "builtin_kinds"]

_TIMEOUT_S = 30 * 24 * 3600.0
# Who has worked for so long is not what ends its process; a checkpoint says so.
_PROVED_S = 60.0
_BEGUN = {"begun": True}


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Rated(_Options):
    rate: str | int | None = None

    @field_validator("rate")
    @classmethod
    def _size(cls, rate: str | int | None) -> str | int | None:
        if rate is not None:
            try:
                parse_size(rate)
            except errors.Invalid:
                raise ValueError("write a size such as '50 MiB', for each second") from None  # noqa: TRY003 - it is shown as it is
        return rate


class ScrubOptions(_Rated):
    """`restart`: begin at the beginning; `rate`: at most so many bytes per second."""

    restart: bool = False


class RebuildOptions(_Rated):
    """`drive`: only this one; `rate`: at most so many bytes per second."""

    drive: str | None = None


class _OfPool:
    """What the kinds here have in common."""

    group = "pool"
    # Somebody may be at it by hand: `pool.repairing`.
    max_attempts = 5
    backoff = ("10s", "1min", "10min")
    options: ClassVar[type[_Options]] = _Options

    def validate(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Check options against the model."""
        return self.options.model_validate(dict(options)).model_dump(exclude_defaults=True)


class Scrub(_OfPool):
    """Reads and verifies everything and repairs what is wrong; see `Pool.scrub`.

    The store itself remembers how far one is, so that also one that was killed goes on.
    """

    name = "scrub"
    options = ScrubOptions

    def run(self, context: JobContext) -> Any:
        """Scrub; only its first attempt begins anew, if that is wanted."""
        wanted = ScrubOptions.model_validate(context.options)
        restart = wanted.restart and context.checkpoint is None
        if restart:
            context.save(_BEGUN, now=True)
        return context.kernel.pool.scrub(
            restart=restart, rate=wanted.rate, progress=_Telling(context), timeout=_TIMEOUT_S
        )


class Rebuild(_OfPool):
    """Restores what is missing; see `Pool.rebuild`. What is restored is not missing any more."""

    name = "rebuild"
    options = RebuildOptions

    def run(self, context: JobContext) -> Any:
        """Rebuild."""
        wanted = RebuildOptions.model_validate(context.options)
        return context.kernel.pool.rebuild(
            wanted.drive, rate=wanted.rate, progress=_Telling(context), timeout=_TIMEOUT_S
        )


class Pack(_OfPool):
    """Gives back the room of what was deleted, and packs what is half empty; see `Pool.pack`.

    The keeper does that by itself when it is worth it; this does all that can be done, now. What is
    done when it is stopped stays done, so that it goes on there.
    """

    name = "pack"

    def run(self, context: JobContext) -> Any:
        """Pack."""
        return context.kernel.pool.pack(progress=_Telling(context), timeout=_TIMEOUT_S)


class _Telling:
    """Takes a verb's progress for a job's; what it raises goes through the verb, and stops it."""

    def __init__(self, context: JobContext) -> None:
        self._context = context
        self._proved_s = time.monotonic() + _PROVED_S
        # Also where there is no progress.
        self.look = context.look

    def __call__(self, progress: Progress) -> None:
        self._context.progress(progress.done, progress.total, unit=progress.unit)
        if time.monotonic() >= self._proved_s:
            self._proved_s += _PROVED_S
            self._context.save(_BEGUN)
        self._context.check()


def builtin_kinds() -> list[JobKind]:
    """Return them."""
    return [Scrub(), Rebuild(), Pack()]
