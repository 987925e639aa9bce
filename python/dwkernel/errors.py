"""Every error that dwkernel raises, by what the caller can do about it.

Each class is also the builtin that Python programs expect: `NotFound` is a `FileNotFoundError` with
`errno.ENOENT`, `Timeout` a `TimeoutError`. The finer word is the stable `.code`; docs/errors.md
lists them all with what to do.

>>> import dwkernel as dw
>>> try:
...     dw.hashing.blake3(b"abc", key=b"too short")
... except ValueError as error:
...     error.code, error.retryable
('hash.key', False)
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Self

from dwkernel import _native

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "Conflict",
    "Corrupt",
    "Denied",
    "DwError",
    "ErrorCode",
    "Exists",
    "Full",
    "Internal",
    "Invalid",
    "NotFound",
    "State",
    "Timeout",
    "Unavailable",
    "Unsupported",
    "registry",
]


class ErrorCode(NamedTuple):
    """One entry of the registry; a code is never re-used and never changes its meaning."""

    name: str
    kind: str
    retryable: bool
    advice: str


class DwError(Exception):
    """Any error of dwkernel.

    Attributes:
        code: stable name from the registry, such as `object.not_found`.
        retryable: True if the same call can succeed later without a change by the caller.
        details: named details as strings.
        correlation_id: 32 hexadecimal digits that tie the error to its operation.

    """

    kind: ClassVar[str] = ""
    # What programs look for in the builtin that the class is, too; None if that has none.
    _errno: ClassVar[int | None] = None

    code: str
    retryable: bool
    details: dict[str, str]
    correlation_id: str | None

    def __init__(
        self,
        message: str,
        code: str,
        details: Mapping[str, str] | None = None,
        correlation_id: str | None = None,
    ) -> None:
        """Make an error with a code of the registry and a complete sentence."""
        super().__init__(message)
        self.code = code
        self.retryable = registry()[code].retryable
        self.details = dict(details or {})
        self.correlation_id = correlation_id
        if self._errno is not None:
            setattr(self, "errno", self._errno)  # noqa: B010 - only what is an OSError has it

    def __str__(self) -> str:
        """Return what happened, what to do, and the code."""
        return str(self.args[0])

    def __reduce__(
        self,
    ) -> tuple[Callable[..., Self], tuple[str, str, dict[str, str], str | None]]:
        """Cross a process boundary whole."""
        return type(self), (str(self), self.code, self.details, self.correlation_id)


class Invalid(DwError, ValueError):
    """The request is wrong: mend it."""

    kind = "invalid"


class NotFound(DwError, FileNotFoundError):
    """What was named is not there."""

    kind = "not_found"
    _errno = errno.ENOENT


class Exists(DwError, FileExistsError):
    """What was to be made is there already."""

    kind = "exists"
    _errno = errno.EEXIST


class Denied(DwError, PermissionError):
    """Not allowed."""

    kind = "denied"
    _errno = errno.EACCES


class Conflict(DwError):
    """Another change came first: read again and decide."""

    kind = "conflict"


class Unavailable(DwError, ConnectionError):
    """A drive, a lock or a service cannot be had now."""

    kind = "unavailable"


class Corrupt(DwError):
    """Stored bytes are wrong and could not be made right."""

    kind = "corrupt"


class Full(DwError, OSError):
    """No room is left; `errno` is `ENOSPC`."""

    kind = "full"
    _errno = errno.ENOSPC


class Timeout(DwError, TimeoutError):
    """The deadline passed."""

    kind = "timeout"
    _errno = errno.ETIMEDOUT


class Unsupported(DwError, NotImplementedError):  # the builtin that programs catch for it
    """This build, platform or format version cannot do it."""

    kind = "unsupported"


class State(DwError):
    """The object was used in a state that forbids it: closed, read-only, forked."""

    kind = "state"


class Internal(DwError, RuntimeError):
    """A bug in dwkernel."""

    kind = "internal"


_registry: dict[str, ErrorCode] = {}


def registry() -> dict[str, ErrorCode]:
    """Return every error code by its name, sorted."""
    if not _registry:
        # In one step: another thread, or who comes after a Ctrl-C in here, sees all or nothing.
        _registry.update({entry[0]: ErrorCode(*entry) for entry in _native.error_registry()})
    return _registry


def class_of(kind: str) -> type[DwError]:
    """Return the class of a kind; an unknown kind is a `DwError` and nothing finer."""
    return next((c for c in DwError.__subclasses__() if c.kind == kind), DwError)


def new(code: str, message: str, **details: object) -> DwError:
    """Make the error of `code`; `message` says what happened, the registry adds what to do."""
    entry = registry()[code]
    message = message.rstrip(".")
    # "did you mean x?" has an end of its own.
    end = "" if message.endswith("?") else "."
    text = f"{message}{end} {entry.advice} [{code}]"
    texts = {name: str(value) for name, value in details.items()}
    return class_of(entry.kind)(text, code, texts, _correlation())


def _correlation() -> str:
    """Draw an id for what is refused before it became an operation."""
    return os.urandom(16).hex()


def _from_native(
    code: str, text: str, details: Mapping[str, str], correlation_id: str | None
) -> DwError:
    """Make the exception of a native error; `text` has advice and code already."""
    correlation_id = correlation_id or _correlation()
    return class_of(registry()[code].kind)(text, code, details, correlation_id)
