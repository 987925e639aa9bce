"""A little of everything that a kind does: so that a plugin has state, and has shown its habits."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from dwkernel.conformance.plugins import fake

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwkernel.conformance.plugins.core import Running, Subject

__all__ = ["exercise"]


def exercise(running: Running) -> None:
    """Use a plugin as its kind is used, a little."""
    with running.used() as it:
        _BY_KIND[running.subject.kind](it, running.subject)


def _drive(it: Any, subject: Subject) -> None:
    drive = it.open(subject.location("exercise"), True)  # noqa: FBT003 - as the pool calls it
    drive.put("a/b", [b"content"])
    drive.read("a/b", 0, 7)
    drive.list("a", None, 10)
    drive.sync("conformance")


def _policy(it: Any, _: Subject) -> None:
    requests = fake.requests(5, seed=1)
    it.before(requests)
    it.after(fake.finished(requests))


def _codec(it: Any, _: Subject) -> None:
    it.decode(it.encode(b"content"), 7)


def _key_source(it: Any, subject: Subject) -> None:
    for name in subject.samples.keys:
        it.get(name)


def _authoriser(it: Any, _: Subject) -> None:
    it.decide(fake.requests(5, seed=1))


def _principal_source(it: Any, subject: Subject) -> None:
    it.authenticate(dict(subject.samples.credentials))


def _sink(it: Any, _: Subject) -> None:
    list(it.deliver(fake.messages(2, seed=1)))


def _metrics_exporter(it: Any, _: Subject) -> None:
    it.export(fake.snapshot())


def _index_stage(it: Any, _: Subject) -> None:
    one = {"key": "c/a", "version": 1, "content": io.BytesIO(b"some words")}
    list(it.index([one]))
    it.forget(["c/a"])


def _search_provider(it: Any, subject: Subject) -> None:
    list(it.search(subject.samples.query, 3, ""))


def _ai_provider(it: Any, subject: Subject) -> None:
    list(it.complete("hello", dict(subject.samples.options)))
    it.embed(["hello"])


def _door(it: Any, _: Subject) -> None:
    with fake.kernel() as kernel:
        it.open(kernel)
        it.close(5.0)


def _job(it: Any, subject: Subject) -> None:
    options = it.validate(dict(subject.samples.options))
    with fake.kernel() as kernel:
        it.run(fake.JobContext(options, kernel=kernel))


_BY_KIND: dict[str, Callable[[Any, Subject], None]] = {
    "drive": _drive,
    "policy": _policy,
    "codec": _codec,
    "key_source": _key_source,
    "authoriser": _authoriser,
    "principal_source": _principal_source,
    "sink": _sink,
    "metrics_exporter": _metrics_exporter,
    "index_stage": _index_stage,
    "search_provider": _search_provider,
    "ai_provider": _ai_provider,
    "door": _door,
    "job": _job,
}
