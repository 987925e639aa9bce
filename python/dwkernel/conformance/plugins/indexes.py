"""The kind `index_stage`."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from dwkernel.conformance.plugins.core import Cases, Subject, hold
from dwkernel.plugins.plain import plain

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CASES"]

CASES = Cases("index_stage")
_CONTENTS = (b"some words", b"", b"\x00\xff\xfe" * 1000, "Ünïcode 日本".encode(), b"x" * 300_000)


def _objects(count: int) -> Iterator[dict[str, Any]]:
    for number in range(count):
        content = io.BytesIO(_CONTENTS[number % len(_CONTENTS)])
        yield {"key": f"c/{number}", "version": number + 1, "content": content}


@CASES.claim("Return fields for each object, also for one that holds nothing of interest: {}.")
def each_object_has_fields(subject: Subject) -> None:
    """Objects come as an iterator, any number of any content; each is answered with fields."""
    with subject.running() as running, running.used() as it:
        for count in (0, 1, 12):
            found = list(it.index(_objects(count)))
            hold(len(found) == count, f"it answered {len(found)} of {count} objects")


@CASES.claim("Return None, bool, int, float, str, bytes, lists and dicts only.")
def fields_are_plain_data(subject: Subject) -> None:
    """Fields can be stored: plain data by name."""
    with subject.running() as running, running.used() as it:
        for fields in it.index(_objects(5)):
            hold(isinstance(fields, dict), f"{fields!r:.80} is no dict")
            plain(dict(fields), what="fields")


@CASES.claim("Ignore keys that you don't know: an object may go before it was looked at.")
def what_was_never_known_can_be_forgotten(subject: Subject) -> None:
    """`forget` takes keys that it knows and others, and none."""
    with subject.running() as running, running.used() as it:
        list(it.index(_objects(3)))
        for keys in (["c/0", "c/none"], [], ["c/0"]):
            it.forget(keys)
