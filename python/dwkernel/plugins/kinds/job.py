"""The kind `job`: long work that is kept over restarts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["JobKind"]


class JobKind(Protocol):
    """A kind of job. `run` is called on a worker's thread, several at once for several jobs.

    While the plugin is reloaded, paused or stopped, running jobs are told to end at their next
    `context.check()`; they go on from their checkpoint with the version that is there then.

    Attributes:
        name: what it is submitted by, 1 to 64 of `a-z 0-9 . - _`.

    """

    name: str

    def validate(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the options with their defaults; raises `ValueError` or `job.option`."""

    def run(self, context: Any) -> Any:
        """Do it, and return plain data. `context` has its options, checkpoint and progress.

        It looks at `context.check()` now and then, and goes on from `context.checkpoint`.
        """
