"""What plugins are given in cases: requests, messages, a small store, the context of a job."""

from __future__ import annotations

import contextlib
import itertools
import logging
import random
import tempfile
from typing import TYPE_CHECKING, Any

from dwkernel.jobs.context import Stop
from dwkernel.jobs.record import (
    CHECKPOINT_BYTES_MAX,
    OPTIONS_BYTES_MAX,
    Submitter,
    plain_data,
)
from dwkernel.plugins.kinds.policy import Finished, Request

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dwkernel.jobs.context import StopReason
    from dwkernel.kernel import Kernel
    from dwkernel.metrics import Snapshot

__all__ = ["JobContext", "Stopped", "finished", "kernel", "messages", "requests", "snapshot"]

_OPERATIONS = ("object.put", "object.get", "object.delete", "container.create", "stream.publish")
_WORDS = ("c/a", "", "c/Ünïcode/日本", "x" * 1024, "c/with space\n", "c/\u202eodd", "C", "a/b/c/d")
_ACCESS = ("read", "write", "administer")
_RESOURCES = ("object", "container", "containers", "stream", "bus", "records", "pool")


def requests(count: int, *, seed: int) -> list[Request]:
    """Return requests of all sorts, the same for one seed."""
    chance = random.Random(seed)  # noqa: S311 - it chooses test data
    return [
        Request(
            operation=chance.choice(_OPERATIONS),
            key=chance.choice(_WORDS) + str(number),
            access=chance.choice(_ACCESS),
            resource=chance.choice(_RESOURCES),
            principal=chance.choice(("", "ann", "Ünal", "svc:backup")),
            tenant=chance.choice(("", "acme")),
            correlation_id=f"{number:032x}",
        )
        for number in range(count)
    ]


def finished(given: Sequence[Request]) -> list[Finished]:
    """Return how these ended: well or not, with and without notes."""
    codes = itertools.cycle((None, "object.not_found", "policy.refused"))
    return [
        Finished(one, code, 0.001 * number, {"note": "1"} if number % 2 else {})
        for number, (one, code) in enumerate(zip(given, codes, strict=False))
    ]


@contextlib.contextmanager
def kernel() -> Iterator[Kernel]:
    """Open a small store, with one object."""
    import dwkernel as dw  # noqa: PLC0415 - who needs a store pays for it

    # Not in memory: drives there stay until the process ends.
    with (
        tempfile.TemporaryDirectory(prefix="dwk-conformance-") as folder,
        dw.open(folder, drives=1, create=True) as opened,
    ):
        opened.containers.create("c")
        opened.put("c/a", b"some words")
        yield opened


def messages(count: int, *, seed: int) -> list[Any]:
    """Return messages as a stream gives them: with and without headers, of any content."""
    chance = random.Random(seed)  # noqa: S311 - it chooses test data
    with kernel() as opened:
        stream = opened.bus.stream("conformance", subjects=["conformance.>"], create=True)
        for number in range(count):
            content = chance.choice((b"", b"{}", b'{"id": 1}', b"\x00\xff" * 40, b"x" * 70_000))
            headers = chance.choice(({}, {"unit": "C"}, {"a": "Ünïcode", "b": ""}))
            stream.publish(f"conformance.{number}", content, headers=headers)
        return list(stream.replay())


def snapshot() -> Snapshot:
    """Return the figures of a small store."""
    with kernel() as opened:
        return opened.metrics()


class Stopped(Stop):
    """Raised in a job that is to end early."""


class JobContext:
    """What a job sees, as `dwkernel.jobs.JobContext`; here it keeps what it is told.

    Attributes:
        id: of the job.
        kind: its name.
        options: as the kind validated them.
        checkpoint: what was saved last.
        attempt: the first.
        submitter: nobody in particular.
        deadline_s: none.
        kernel: a small store, if one was given.
        log: a logger.
        saved: all that was saved.
        told: all progress, as `(done, total)`.

    """

    def __init__(
        self,
        options: Mapping[str, Any],
        checkpoint: Any = None,
        *,
        kernel: Kernel | None = None,
        stop_after: int | None = None,
    ) -> None:
        """Begin; with `stop_after` the job is to end at so many looks at `check`."""
        self.options: dict[str, Any] = plain_data(dict(options), "options", OPTIONS_BYTES_MAX)
        self.checkpoint = checkpoint
        self.saved: list[Any] = []
        self.told: list[tuple[int, int | None]] = []
        self.looks = 0
        self.id = "conformance"
        self.kind = "conformance"
        self.attempt = 1
        self.submitter = Submitter(principal="conformance")
        self.deadline_s: float | None = None
        self.kernel: Any = kernel
        self.log = logging.getLogger("dwkernel.conformance.job")
        self._stop_after = stop_after

    @property
    def should_stop(self) -> bool:
        """Whether it is to end now."""
        self.looks += 1
        return self._stop_after is not None and self.looks > self._stop_after

    @property
    def why_stop(self) -> StopReason | None:
        """Why it is to end, or None."""
        return "cancel" if self.should_stop else None

    def check(self) -> None:
        """Raise `Stopped` if it is to end now."""
        if self.should_stop:
            raise Stopped("cancel")

    def look(self) -> None:
        """Raise as `check`, for who looks in the job's stead."""
        self.check()

    def progress(
        self, done: int, total: int | None = None, text: str = "", *, unit: str = ""
    ) -> None:
        """Hear how far it is."""
        del text, unit
        self.told.append((done, total))

    def save(self, checkpoint: Any, *, now: bool = False) -> bool:
        """Keep a checkpoint as the store would, and look whether it is to end."""
        self.checkpoint = plain_data(checkpoint, "the checkpoint", CHECKPOINT_BYTES_MAX)
        self.saved.append(self.checkpoint)
        self.check()
        return now
