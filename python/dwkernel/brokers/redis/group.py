"""Messages for several streams, in one step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from dwkernel import errors
from dwkernel.brokers.fields import BATCH_MAX, Outgoing
from dwkernel.brokers.redis.stream import publish_to
from dwkernel.brokers.settings import refuse
from dwkernel.bus.stream import Routed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from typing_extensions import Buffer

    from dwkernel.brokers.redis.client import Client
    from dwkernel.brokers.redis.stream import RedisStream
    from dwkernel.units import Duration

__all__ = ["RedisGroup"]


class RedisGroup:
    """Messages for any streams, taken in together when the `with` ends: all of them or none.

    If the block raises, nothing is.

    Attributes:
        published: what became of each in each stream that took it, after the end.

    """

    def __init__(
        self,
        client: Client,
        streams: Callable[[], list[RedisStream]],
        timeout: Duration | None,
    ) -> None:
        """Made by `RedisBroker.group`."""
        self._client = client
        self._streams = streams
        self._timeout = timeout
        self._messages: list[Outgoing] = []
        self.published: list[Routed] = []

    def publish(  # noqa: PLR0913 - each field of a message is one
        self,
        subject: str,
        data: Buffer = b"",
        *,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        schema: str | None = None,
        priority: int = 0,
        correlation_id: str | None = None,
        message_id: str | None = None,
    ) -> None:
        """Add a message, for every stream that takes its subject; as `RedisStream.publish`."""
        self._messages.append(
            Outgoing.of(subject, data, headers, key, schema, priority, correlation_id, message_id)
        )

    def __enter__(self) -> Self:
        """Return the group."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take in what was added, unless the block raised.

        Raises:
            Invalid: `stream.subject` if no stream takes one of them, `stream.option` if they are
                too many; nothing is taken
            Unsupported: `broker.unsupported`: on a cluster, for several streams
            Full, Unavailable, State: as `RedisStream.publish`

        """
        if kind is not None or not self._messages:
            return
        if len(self._messages) > BATCH_MAX:
            text = f"{len(self._messages)} messages in a group, not up to {BATCH_MAX}"
            raise errors.new("stream.option", text)
        known = self._streams()
        wanted = [[one for one in known if one.takes(m.subject)] for m in self._messages]
        for message, takers in zip(self._messages, wanted, strict=True):
            if not takers:
                raise errors.new("stream.subject", f"no stream takes {message.subject}")
        names = {one.name for takers in wanted for one in takers}
        streams = [one for one in known if one.name in names]
        if len(streams) > 1:
            refuse(self._client.promises.atomic_groups, "group")
        places = {one.name: str(at) for at, one in enumerate(streams, 1)}
        targets = [",".join(places[one.name] for one in takers) for takers in wanted]
        messages = list(zip(self._messages, targets, strict=True))
        told = publish_to(self._client, streams, messages, -1, self._timeout)
        routes = [one.name for takers in wanted for one in takers]
        self.published = [
            Routed(name, sequence, again)
            for name, (sequence, again) in zip(routes, told, strict=True)
        ]
