"""What NATS answers, as errors with codes.

The numbers are JetStream's own, server/errors.json of nats-server.
"""

from __future__ import annotations

from typing import Any

from dwkernel import errors

__all__ = ["denied", "failure_of", "lost"]

_STREAM_NOT_FOUND = 10059
_STREAM_EXISTS = 10058
_STREAM_MISMATCH = 10060
_CONSUMER_NOT_FOUND = 10014
_CONSUMER_EXISTS = {10013, 10105, 10148}
_OVERLAP = 10065
_FULL = {10047, 10023, 10028}
_STORE_FAILED = 10077
_TOO_LARGE = 10054
_ONE_CONSUMER = {10099, 10100, 10101}
_NOT_HERE = {10008, 10035, 10039, 10076}


def failure_of(error: dict[str, Any], what: str) -> errors.DwError:
    """Return the error for an answer of JetStream.

    Args:
        error: its `code`, `err_code` and `description`.
        what: what was asked.

    """
    number = int(error.get("err_code", 0))
    says = str(error.get("description", error))
    text = f"{what}: {says}"
    by_number = {
        _STREAM_NOT_FOUND: "stream.not_found",
        # A stream of another name took its subjects meanwhile.
        _STREAM_MISMATCH: "stream.not_found",
        _STREAM_EXISTS: "stream.exists",
        _CONSUMER_NOT_FOUND: "stream.consumer_not_found",
        _TOO_LARGE: "bus.message_size",
        **dict.fromkeys(_CONSUMER_EXISTS, "stream.consumer_exists"),
    }
    if number in by_number:
        return errors.new(by_number[number], text)
    if number in _FULL or (number == _STORE_FAILED and "exceeded" in says):
        return errors.new("stream.full", text)
    if number == _OVERLAP:
        text = f"subjects: on NATS one stream takes a subject, and another has one of these: {says}"
        return errors.new("broker.unsupported", text, option="subjects")
    if number in _ONE_CONSUMER:
        text = f"retention: a work queue of NATS has one consumer for each subject: {says}"
        return errors.new("broker.unsupported", text, option="retention")
    if number in _NOT_HERE:
        text = f"the server has no JetStream for this user (nats-server -js): {says}"
        return errors.new("broker.unsupported", text)
    return errors.new("broker.failed", f"{text} ({number})", number=number)


def lost(what: str, *, sent: bool = False) -> errors.DwError:
    """Return the error for a server that does not answer.

    Args:
        what: what was asked.
        sent: whether it may have been done all the same.

    """
    details = {"outcome": "unknown"} if sent else {}
    return errors.new("broker.lost", f"{what}: no answer from NATS", **details)


def denied(why: str) -> errors.DwError:
    """Return the error for what the server does not let this user do."""
    return errors.new("broker.denied", f"NATS refuses it: {why.strip()}")
