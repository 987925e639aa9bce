"""What goes to a plugin in another process and comes back: plain data, and what it stands for.

Both sides know which method takes and returns what; so nothing that comes decides what is made of
it. A method that is not named here takes and returns plain data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dwkernel.plugins.kinds.policy import Finished, Request, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dwkernel.metrics import Snapshot

__all__ = ["arguments", "plain_of", "result"]


def plain_of(value: Any) -> Any:
    """Return plain data for a value: objects become dicts of their fields, iterators lists.

    What has no such form is returned as it is: sending it is an error that says what it is.
    """
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain_of(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {name: plain_of(one) for name, one in value.items()}
    if isinstance(value, list | tuple | Iterator):
        return [plain_of(one) for one in value]
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    return value.isoformat() if isinstance(value, datetime) else value


def arguments(method: str, given: Sequence[Any]) -> list[Any]:
    """Return what a method of a kind takes, of the plain data that came for it."""
    take = _TAKEN.get(method)
    return list(given) if take is None or len(given) != 1 else [take(given[0])]


def result(method: str, given: Any) -> Any:
    """Return what a method of a kind returns, of the plain data that came from it.

    It comes from somebody whom nobody trusts: what can't be read stays as it came, and is for the
    caller to refuse.
    """
    make = _RETURNED.get(method)
    return given if make is None else make(given)


def _requests(given: Sequence[Mapping[str, Any]]) -> list[Request]:
    return [Request(**one) for one in given]


def _finished(given: Sequence[Mapping[str, Any]]) -> list[Finished]:
    return [Finished(**{**one, "request": Request(**one["request"])}) for one in given]


def _snapshot(given: Mapping[str, Any]) -> Snapshot:
    from dwkernel import metrics  # noqa: PLC0415 - only exporters pay for it

    families = [
        metrics.Family(**{**one, "samples": [metrics.Sample(*sample) for sample in one["samples"]]})
        for one in given["families"]
    ]
    return metrics.Snapshot(datetime.fromisoformat(given["taken_at"]), given["seconds"], families)


def _verdicts(given: Any) -> Any:
    return [_verdict(one) for one in given] if isinstance(given, list) else given


def _verdict(given: Any) -> Any:
    if not isinstance(given, dict) or given.keys() != _OF_VERDICT:
        return given
    kind, reason, notes = given["kind"], given["reason"], given["annotations"]
    if kind not in ("allow", "refuse") or not isinstance(reason, str):
        return given
    if not isinstance(notes, dict) or not all(isinstance(text, str) for text in notes.values()):
        return given
    # As it would be made: a reason of any length is not for every log.
    return Verdict.annotate(notes) if kind == "allow" else _refusal(reason, notes)


def _refusal(reason: str, notes: Mapping[str, str]) -> Verdict:
    return dataclasses.replace(Verdict.refuse(reason), annotations=notes)


def _pieces(given: Any) -> Any:
    return iter(given) if isinstance(given, list) else given


_OF_VERDICT = {field.name for field in dataclasses.fields(Verdict)}
_TAKEN: dict[str, Callable[[Any], Any]] = {
    "before": _requests,
    "decide": _requests,
    "after": _finished,
    "export": _snapshot,
}
_RETURNED: dict[str, Callable[[Any], Any]] = {
    "before": _verdicts,
    "decide": _verdicts,
    "complete": _pieces,
}
