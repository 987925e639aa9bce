"""What a server's or a connection's failure means to who called."""

from __future__ import annotations

from typing import NamedTuple

from redis import exceptions

from dwkernel import errors

__all__ = [
    "TIMEOUT",
    "Elsewhere",
    "elsewhere",
    "failed",
    "is_lost",
    "is_unknown_script",
    "lost",
    "refusal",
    "will_pass",
]

TIMEOUT = exceptions.TimeoutError

# Answers to a call that was not begun, and that may be begun a moment later. Of some the client
# library makes classes and takes the first word off; of which depends on its version.
_PASSING = (
    "BUSY ",  # somebody's script runs for long
    "NOREPLICAS ",
    "MASTERDOWN ",
    "TRYAGAIN ",  # half of the slot has moved
    "CLUSTERDOWN ",
)
_PASSING_CLASSES = (
    exceptions.BusyLoadingError,
    exceptions.ReadOnlyError,  # the server became a replica
    exceptions.MasterDownError,
    exceptions.TryAgainError,
    exceptions.ClusterDownError,
)


def will_pass(error: BaseException) -> bool:
    """Return whether the same call may be answered a moment later, and was not begun."""
    return isinstance(error, _PASSING_CLASSES) or _text(error).startswith(_PASSING)


class Elsewhere(NamedTuple):
    """Where a key is; `is_moving` if only this call is to go there."""

    host: str
    port: int
    is_moving: bool


def elsewhere(answer: object) -> Elsewhere | None:
    """Return where an answer says that the key is; None if it says nothing of the kind."""
    if not isinstance(answer, exceptions.ResponseError):
        return None
    text = _text(answer)
    is_moved = isinstance(answer, exceptions.MovedError) or text.startswith("MOVED ")
    is_moving = isinstance(answer, exceptions.AskError) or text.startswith("ASK ")
    if not is_moved and not is_moving:
        return None
    host, _, port = text.split()[-1].rpartition(":")
    return Elsewhere(host, int(port), not is_moved)


def is_unknown_script(error: BaseException) -> bool:
    """Return whether the server does not have the script."""
    return isinstance(error, exceptions.NoScriptError)


def is_lost(error: BaseException) -> bool:
    """Return whether a connection ended or could not be made, or nobody answered in time."""
    if isinstance(error, exceptions.AuthenticationError):
        return False
    return isinstance(error, exceptions.ConnectionError | exceptions.TimeoutError | OSError)


def lost(where: str, why: BaseException | None, *, sent: bool) -> errors.DwError:
    """Make `broker.lost`; with `sent` the call may have been done, or be done yet."""
    details = {"outcome": "unknown"} if sent else {}
    reason = "" if why is None else f": {_text(why)}"
    return errors.new("broker.lost", f"{where} did not answer in time{reason}", **details)


def refusal(error: BaseException) -> errors.DwError:
    """Make the error that a server's answer is."""
    text = _text(error)
    if "command not allowed when used memory" in text:
        return errors.new("stream.full", f"the server's memory is full: {text}")
    denied = (exceptions.AuthenticationError, exceptions.NoPermissionError)
    if isinstance(error, denied) or text.startswith(("WRONGPASS", "NOAUTH", "NOPERM")):
        return errors.new("broker.denied", text)
    if elsewhere(error) is not None:
        why = f"another server of the cluster has this stream: connect to that one ({text})"
        return errors.new("broker.unsupported", why)
    return errors.new("broker.failed", text)


def failed(code: str, about: str, answer: list[bytes]) -> errors.DwError:
    """Make the error that a script's answer is."""
    why = f": it is full at {answer[1].decode()}" if len(answer) > 1 else ""
    return errors.new(code, about + why)


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
