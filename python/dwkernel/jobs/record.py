"""One job as it is kept: a frozen record, its bytes, and what may stand in it.

The bytes are JSON; docs/format/jobs.md lists the fields.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Literal, get_args

from dwkernel import errors

__all__ = ["FINISHED", "Fault", "JobRecord", "Submitter", "plain_data"]

VERSION = 1
# Together with everything else they fit into one record, 64 KiB.
OPTIONS_BYTES_MAX = 12 << 10
CHECKPOINT_BYTES_MAX = 20 << 10
RESULT_BYTES_MAX = 16 << 10
_DETAILS_BYTES_MAX = 1 << 10
_FAULT_TEXT_MAX = 1000

State = Literal["waiting", "running", "interrupted", "done", "failed", "cancelled"]
_PROGRESS = frozenset(("done", "total", "unit", "text", "at"))
FINISHED: Final = ("done", "failed", "cancelled")


def plain_data(value: object, what: str, bytes_max: int) -> Any:
    """Return `value` as it comes back from the store: as JSON has it.

    Raises:
        Invalid: `job.option`: it is no plain data, or too much

    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise errors.new("job.option", f"{what} is no plain data: {error}") from None
    if size > bytes_max:
        text = f"{what} takes {size:,} bytes, {bytes_max:,} at most"
        raise errors.new("job.option", text)
    return json.loads(text)


@dataclass(frozen=True, slots=True)
class Submitter:
    """Who wanted a job, and under which operation: the context that it runs in."""

    principal: str = ""
    tenant: str | None = None
    roles: tuple[str, ...] = ()
    correlation_id: str = ""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a job failed, or why its last attempt did."""

    code: str
    text: str
    details: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, error: BaseException) -> Fault:
        """Return what is kept of an exception."""
        code, text, details = "job.failed", _told(error), {}
        if isinstance(error, errors.DwError):
            code, text = str(error.code), str(error)
            details = {str(name): str(value) for name, value in error.details.items()}
        if len(json.dumps(details)) > _DETAILS_BYTES_MAX:
            details = {}
        return cls(code, text[:_FAULT_TEXT_MAX].encode(errors="replace").decode(), details)

    def error(self, job_id: str, kind: str) -> errors.DwError:
        """Return the exception for who waits for the job."""
        if self.code in errors.registry() and self.code != "job.failed":
            found = errors.class_of(errors.registry()[self.code].kind)
            return found(self.text, self.code, {**self.details, "job": job_id})
        return errors.new("job.failed", f"the job {kind} {job_id}: {self.text}", job=job_id)


def _told(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - an exception may be broken itself
        text = "(it cannot say what)"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@dataclass(frozen=True, slots=True)
class JobRecord:
    """What is kept of a job. Times are milliseconds since 1970; lengths of time are seconds."""

    id: str
    kind: str
    options: dict[str, Any]
    priority: int = 0
    state: State = "waiting"
    submitted_ms: int = 0
    due_ms: int = 0
    submitter: Submitter = field(default_factory=Submitter)
    parent: str | None = None
    schedule: str | None = None
    unique: str | None = None
    timeout_s: float | None = None
    max_attempts: int = 1
    backoff_s: tuple[float, ...] = ()
    attempts: int = 0
    # How often in a row its process ended while it ran, with no checkpoint in between.
    interruptions: int = 0
    # The opening of the store that runs it.
    owner: str | None = None
    # It is to be cancelled: kept, so that it does not go on after a crash.
    cancel: bool = False
    started_ms: int | None = None
    ended_ms: int | None = None
    progress: dict[str, Any] | None = None
    checkpoint: Any = None
    result: Any = None
    error: Fault | None = None

    @property
    def is_finished(self) -> bool:
        """Whether nothing happens to it any more."""
        return self.state in FINISHED

    @property
    def key(self) -> str:
        """The key of the row that it lies in."""
        return f"{'done' if self.is_finished else 'live'}/{self.id}"

    def to_bytes(self) -> bytes:
        """Return the value of its row; fields at their default are left out."""
        told: dict[str, Any] = {"v": VERSION}
        for name in _FIELDS:
            value = getattr(self, name)
            if value != _DEFAULTS.get(name, _DEFAULTS):
                told[name] = value
        told["submitter"] = _plain(self.submitter)
        if self.error is not None:
            told["error"] = _plain(self.error)
        return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> JobRecord:
        """Return the record of a row's value.

        Raises:
            Unsupported: `format.newer`
            Corrupt: `format.damaged`

        """
        told = versioned(data, VERSION)
        try:
            known = {name: told[name] for name in _FIELDS if name in told}
            known["submitter"] = Submitter(**_some(Submitter, told.get("submitter", {})))
            known["submitter"] = replace(known["submitter"], roles=tuple(known["submitter"].roles))
            if known.get("error") is not None:
                known["error"] = Fault(**_some(Fault, known["error"]))
            known["backoff_s"] = tuple(known.get("backoff_s", ()))
            record = cls(**known)
            check_types(record, record.submitter, record.error)
            record.check_words()
        except (TypeError, AttributeError, KeyError, ValueError) as error:
            raise errors.new("format.damaged", f"no record of a job: {error}") from error
        return record

    def check_words(self) -> None:
        """Refuse a state that there is not, and progress that `JobContext.progress` did not make.

        Raises:
            ValueError

        """
        if self.state not in get_args(State):
            raise ValueError(self.state)
        if self.progress is not None and not set(self.progress) >= _PROGRESS:
            raise ValueError(self.progress)

    def ended(self, state: State, now_ms: int, **changes: Any) -> JobRecord:
        """Return the record of the job at its end; nothing is kept that only goes on needs."""
        return replace(self, state=state, ended_ms=now_ms, owner=None, checkpoint=None, **changes)


def versioned(data: bytes, version: int) -> dict[str, Any]:
    """Return the JSON object of a row, which says its version.

    Raises:
        Unsupported: `format.newer`
        Corrupt: `format.damaged`

    """
    try:
        told = json.loads(data)
        found = told["v"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise errors.new("format.damaged", "a record of jobs is no JSON with a version") from error
    if not isinstance(found, int) or found > version:
        raise errors.new("format.newer", f"a record of jobs has version {found}", version=found)
    return dict(told)


# What a field of such a type may hold, as it comes out of JSON.
_HELD: Final[dict[str, tuple[type, ...]]] = {
    "str": (str,),
    "str | None": (str, type(None)),
    "int": (int,),
    "int | None": (int, type(None)),
    "bool": (bool,),
    "float | None": (int, float, type(None)),
    "dict[str, Any]": (dict,),
    "dict[str, Any] | None": (dict, type(None)),
    "tuple[float, ...]": (tuple,),
    "tuple[float, ...] | None": (tuple, type(None)),
}
# The last millisecond that people can be shown as a date.
_LAST_MS = 253_402_300_799_999


def check_types(*records: Any) -> None:
    """Refuse what holds something else than its fields say: a row may have been damaged, or made.

    Raises:
        TypeError
        ValueError

    """
    for record in records:
        cls: Any = type(record)
        for name, held in () if record is None else _held_by(cls):
            value: Any = getattr(record, name)
            is_held = isinstance(value, held)
            if not is_held:
                text = f"{name} is {value!r:.100}"
                raise TypeError(text)
            if name.endswith("_ms") and not 0 <= (value or 0) <= _LAST_MS:
                text = f"{name} is {value}"
                raise ValueError(text)
            for one in value if isinstance(value, tuple) else ():
                if not isinstance(one, str if name == "roles" else int | float):
                    text = f"{name} has {one!r:.100}"
                    raise TypeError(text)


@functools.cache
def _held_by(cls: Any) -> list[tuple[str, tuple[type, ...]]]:
    return [(part.name, _HELD.get(str(part.type), (object,))) for part in fields(cls)]


_FIELDS: Final = tuple(part.name for part in fields(JobRecord))
_DEFAULTS: Final = {
    name: value
    for name, value in ((part.name, part.default) for part in fields(JobRecord))
    if isinstance(value, str | int | tuple | None)
}


def _plain(value: Submitter | Fault) -> dict[str, Any]:
    return {part.name: getattr(value, part.name) for part in fields(value)}


def _some(cls: type[Submitter | Fault], told: dict[str, Any]) -> dict[str, Any]:
    return {part.name: told[part.name] for part in fields(cls) if part.name in told}
