"""What a server's or a connection's failure means to who called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redis import exceptions

from dwkernel import errors

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LOST", "TIMEOUT", "failed", "is_unknown_script", "lost", "refusal", "will_pass"]

# A connection ended, or nobody answered in time.
LOST = (exceptions.ConnectionError, exceptions.TimeoutError, OSError)
TIMEOUT = exceptions.TimeoutError

# Answers to a call that was not begun, and that may be begun a moment later.
_PASSING = (
    "BUSY ",  # somebody's script runs for long
    "LOADING ",
    "MASTERDOWN ",
    "READONLY ",  # the server became a replica
    "TRYAGAIN ",
    "CLUSTERDOWN ",
    "NOREPLICAS ",
    "MAXCLIENTS ",
)
_PASSING_CLASSES = (
    exceptions.BusyLoadingError,
    exceptions.ReadOnlyError,
)


def will_pass(error: BaseException) -> bool:
    """Return whether the same call may be answered a moment later, and was not begun."""
    return isinstance(error, _PASSING_CLASSES) or _text(error).startswith(_PASSING)


def is_unknown_script(error: BaseException) -> bool:
    """Return whether the server does not have the script."""
    return isinstance(error, exceptions.NoScriptError)


def lost(what: str, *, sent: bool, cause: BaseException | None = None) -> errors.DwError:
    """Make `broker.lost`; with `sent` the call may have been done, or be done yet."""
    details: Mapping[str, str] = {"outcome": "unknown"} if sent else {}
    reason = "" if cause is None else f": {cause or type(cause).__name__}"
    return errors.new("broker.lost", f"{what}{reason}", **details)


def refusal(error: BaseException) -> errors.DwError:
    """Make the error that a server's answer is."""
    text = _text(error)
    if "OOM command not allowed" in text or isinstance(error, exceptions.OutOfMemoryError):
        return errors.new("stream.full", f"the server's memory is full: {text}")
    denied = (exceptions.AuthenticationError, exceptions.NoPermissionError)
    if isinstance(error, denied) or text.startswith(("WRONGPASS", "NOAUTH", "NOPERM")):
        return errors.new("broker.denied", text)
    if text.startswith("MOVED ") or isinstance(error, exceptions.MovedError):
        why = f"another server of the cluster has this stream: connect to that one ({text})"
        return errors.new("broker.unsupported", why)
    return errors.new("broker.failed", text)


def failed(code: str, about: str, answer: list[bytes]) -> errors.DwError:
    """Make the error that a script's answer is."""
    why = f": it is full at {answer[1].decode()}" if len(answer) > 1 else ""
    return errors.new(code, about + why)


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
