"""What a server's or a connection's failure means to who called."""

from __future__ import annotations

from redis import exceptions

from dwkernel import errors

__all__ = ["TIMEOUT", "failed", "is_lost", "is_unknown_script", "lost", "refusal", "will_pass"]

TIMEOUT = exceptions.TimeoutError

# Answers to a call that was not begun, and that may be begun a moment later. Of some the client
# library makes classes and takes the first word off.
_PASSING = (
    "BUSY ",  # somebody's script runs for long
    "NOREPLICAS ",
)
_PASSING_CLASSES = (
    exceptions.BusyLoadingError,
    exceptions.ReadOnlyError,  # the server became a replica
    exceptions.MasterDownError,
    exceptions.TryAgainError,  # half of the slot has moved
    exceptions.ClusterDownError,
)


def will_pass(error: BaseException) -> bool:
    """Return whether the same call may be answered a moment later, and was not begun."""
    return isinstance(error, _PASSING_CLASSES) or _text(error).startswith(_PASSING)


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
