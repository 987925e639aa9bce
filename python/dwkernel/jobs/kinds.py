"""What kinds of jobs there are: who can do a job."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from dwkernel import errors
from dwkernel.jobs.options import policy
from dwkernel.jobs.record import OPTIONS_BYTES_MAX, plain_data
from dwkernel.jobs.settings import JobsSection

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dwkernel.jobs.context import JobContext

__all__ = ["JobKind", "Kinds"]

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@runtime_checkable
class JobKind(Protocol):
    """Something that can be done as a job.

    Attributes that it may have besides, which submitting overrides: `max_attempts` (1 to 1,000),
    `backoff` (waits between attempts), `timeout` (of each attempt); and `group`: of all jobs of one
    group, whatever their kinds, one runs at a time.
    """

    @property
    def name(self) -> str:
        """1 to 64 of a-z, 0-9, `.`, `-` and `_`."""

    def validate(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the options as `run` wants them, plain data; raise a `ValueError` if it can't."""

    def run(self, context: JobContext) -> Any:
        """Do it; return its result, plain data or something with `to_dict`.

        It is called again after a crash or a retry, with the checkpoint that it saved last: what it
        does between two checkpoints may be done twice. It looks at `context.check()` often.
        """


class Kinds:
    """The kinds that are there, by name."""

    def __init__(self) -> None:
        """Begin with none."""
        self._kinds: dict[str, JobKind] = {}
        self._lock = threading.Lock()

    def add(self, kind: JobKind, *, replace: bool) -> None:
        """Take a kind in.

        Raises:
            Invalid: `job.option`: it lacks what a kind has, or its name is taken

        """
        given: object = kind
        if not isinstance(given, JobKind):
            text = f"{given!r} is no kind of job: it has name, validate(options) and run(context)"
            raise errors.new("job.option", text)
        name: object = kind.name
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            text = f"{name!r} names no kind: 1 to 64 of a-z, 0-9, '.', '-' and '_'"
            raise errors.new("job.option", text)
        _check_wishes(kind)
        with self._lock:
            if kind.name in self._kinds and not replace:
                raise errors.new("job.option", f"there is a kind {kind.name} already")
            self._kinds[kind.name] = kind

    def remove(self, kind: JobKind) -> bool:
        """Let a kind go; False if another one has its name by now."""
        with self._lock:
            if self._kinds.get(kind.name) is not kind:
                return False
            del self._kinds[kind.name]
            return True

    def get(self, name: str) -> JobKind | None:
        """Return a kind, or None."""
        return self._kinds.get(name)

    def named(self, name: str) -> JobKind:
        """Return a kind.

        Raises:
            NotFound: `job.kind`

        """
        found = self._kinds.get(name)
        if found is None:
            known = ", ".join(sorted(self._kinds)) or "none"
            raise errors.new("job.kind", f"no kind of job {name!r}, there are: {known}", kind=name)
        return found

    def names(self) -> list[str]:
        """Return the names of all kinds, sorted."""
        return sorted(self._kinds)


def _check_wishes(kind: JobKind) -> None:
    """Refuse a kind that wants what no job can have: who submits one would be told instead."""
    try:
        policy(kind, dict.fromkeys(("timeout", "max_attempts", "backoff")), JobsSection())
        group = getattr(kind, "group", None)
    except Exception as error:
        text = f"the kind {kind.name} cannot be: {reason(error)}"
        raise errors.new("job.option", text, kind=kind.name) from error
    if not isinstance(group, str | None):
        text = f"the kind {kind.name} cannot be: its group is a name, not {group!r}"
        raise errors.new("job.option", text, kind=kind.name)


def validated(kind: JobKind, options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return options as the kind takes them.

    Raises:
        Invalid: `job.option`
        State, Timeout, Unavailable: `plugin.…`: the plugin whose kind it is cannot be asked

    """
    try:
        taken = kind.validate(dict(options or {}))
        return dict(plain_data(dict(taken), f"options of {kind.name}", OPTIONS_BYTES_MAX))
    except errors.DwError as error:
        if error.code == "job.option" or error.code.startswith("plugin."):
            raise
        raise errors.new("job.option", f"{kind.name}: {error}", kind=kind.name) from error
    except Exception as error:
        text = f"{kind.name}: {reason(error)}"
        raise errors.new("job.option", text, kind=kind.name) from error


def _said(mistake: dict[str, Any]) -> str:
    """Return pydantic's words, where people have no better ones."""
    if mistake.get("type") == "extra_forbidden":
        return "there is no such option"
    return str(mistake["msg"]).removeprefix("Value error, ")


def reason(error: Exception) -> str:
    """Return what is wrong with options, in one line; models of pydantic say it field by field."""
    details: Callable[[], list[dict[str, Any]]] | None = getattr(error, "errors", None)
    if callable(details):
        try:
            found = [
                f"{'.'.join(map(str, one['loc'])) or 'options'}: {_said(one)}" for one in details()
            ]
            return "; ".join(found)
        except (TypeError, KeyError):
            pass
    return f"{type(error).__name__}: {error}"
