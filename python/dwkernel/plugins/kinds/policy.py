"""The kind `policy`: asked before operations, told after them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from dwkernel import errors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Finished", "Policy", "Request", "Verdict"]

_REASON_LETTERS = 500


@dataclass(frozen=True, slots=True)
class Request:
    """An operation that wants to begin.

    Attributes:
        operation: its stable name, such as `"object.put"`.
        key: `container/name`, the container, the stream, or empty where none is meant.
        access: what it does: `"read"`, `"write"` or `"administer"`.
        resource: what `key` names: `"object"`, `"container"`, `"containers"`, `"stream"`, `"bus"`,
            `"records"` or `"pool"`.
        principal: who asks.
        tenant: for whom.
        correlation_id: 32 hexadecimal digits that tie everything about it together.

    """

    operation: str
    key: str = ""
    access: str = "write"
    resource: str = "object"
    principal: str = ""
    tenant: str = ""
    correlation_id: str = ""

    @property
    def verb(self) -> str:
        """The operation's last word, such as `"put"`."""
        return self.operation.rpartition(".")[2]


@dataclass(frozen=True, slots=True)
class Finished:
    """An operation that ended.

    Attributes:
        request: what it was.
        code: the code of its error; None if it went well.
        seconds: how long it took, without the question.
        annotations: what policies said of it before.

    """

    request: Request
    code: str | None = None
    seconds: float = 0.0
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a policy says of a request; made by `allow`, `refuse` and `annotate`."""

    kind: Literal["allow", "refuse"]
    reason: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def allow() -> Verdict:
        """Return that the operation may go on."""
        return _ALLOW

    @staticmethod
    def refuse(reason: str) -> Verdict:
        """Return that it may not: `policy.refused`, with a sentence for people."""
        return Verdict("refuse", str(reason)[:_REASON_LETTERS])

    @staticmethod
    def annotate(notes: Mapping[str, str]) -> Verdict:
        """Return that it may go on, with notes for the audit and for those who are told after.

        Raises:
            Invalid: `plugin.option`: names or values are no text

        """
        given = dict(notes)
        if not all(isinstance(text, str) for pair in given.items() for text in pair):
            raise errors.new("plugin.option", f"annotations are text by name, not {notes!r}")
        return Verdict("allow", annotations=given)


_ALLOW = Verdict("allow")


class Policy(Protocol):
    """Looks at operations, many at a time.

    Both may be called from several threads at once. They have a time limit of their own
    (`timeout_s` if the object has such an attribute once it is started, in seconds, else
    `plugins.limits.call`) and should return in microseconds: operations wait for `before`. An error
    or a time-out of `before` refuses the operation, unless the object has `on_failure = "allow"`;
    so does whatever is no verdict.
    """

    def before(self, requests: Sequence[Request]) -> Sequence[Verdict]:
        """Return a verdict for each request, in their order."""

    def after(self, finished: Sequence[Finished]) -> None:
        """Hear how operations ended. What it raises is counted and changes nothing."""
