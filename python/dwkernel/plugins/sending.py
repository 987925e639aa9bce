"""A sink that a plugin is, for `dwkernel.sinks.attach`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel.sinks.sink import Sink

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dwkernel._native import Message
    from dwkernel.plugins.handle import Handle
    from dwkernel.plugins.registry import Registry
    from dwkernel.sinks.outcome import Outcome

__all__ = ["PluginSink", "sink_of"]

# What a sink may wish, besides what it does.
_WISHES = ("batch", "batch_bytes", "in_flight", "order", "timeout_s")


class PluginSink(Sink):
    """Carries messages away by whatever version of a plugin is there.

    While the plugin is paused, in quarantine or stopped, messages wait in their stream and are sent
    later: a pump tries again whatever was raised.
    """

    def __init__(self, handle: Handle) -> None:
        """Take a plugin, with the wishes of the version that is there."""
        self._handle = handle
        self._stream: str | None = None
        with handle.use() as instance:
            for wish in _WISHES:
                value = getattr(instance, wish, None)
                if value is not None:
                    setattr(self, wish, value)

    def deliver(self, messages: Sequence[Message]) -> Iterable[Outcome]:
        """Carry messages away."""
        outcomes: Iterable[Outcome] = self._handle.call("deliver", messages)
        return outcomes

    def attached(self, stream: str) -> None:
        """Tell the version that is there, if it wants to know."""
        with self._handle.use() as instance:
            hears = hasattr(instance, "attached")
        if hears:
            self._handle.call("attached", stream)

    def close(self) -> None:
        """Leave the plugin as it is: it is closed when it stops."""


def sink_of(registry: Registry, name: str, options: dict[str, Any]) -> Sink:
    """Return a sink by the name that a plugin, or the kernel itself, has for it.

    Raises:
        NotFound: `plugin.not_found`
        Invalid: `sink.option`: the sink does not take them; a plugin takes its own from the
            configuration

    """
    handle = registry.get("sink", name)
    with handle.use() as instance:
        make = instance.make if getattr(instance, "is_native", False) else None
    if make is not None:
        made: Sink = make(**options)
        return made
    if options:
        text = f"{handle.id} takes its options from [plugins.config.{handle.id!r}]"
        raise errors.new("sink.option", text, options=", ".join(options))
    return PluginSink(handle)
