"""A sink that a plugin is, for `dwkernel.sinks.attach`."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel.sinks.sink import Sink

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dwkernel._native import Message
    from dwkernel.plugins.handle import Handle
    from dwkernel.plugins.registry import Registry
    from dwkernel.plugins.swap import Held
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
        # The version that was told of the stream; telling is one at a time.
        self._told: weakref.ref[Held[Any]] | None = None
        self._telling = threading.Lock()
        with handle.use() as instance:
            for wish in _WISHES:
                value = getattr(instance, wish, None)
                if value is not None:
                    setattr(self, wish, value)

    def deliver(self, messages: Sequence[Message]) -> Iterable[Outcome]:
        """Carry messages away."""
        self._tell()
        # Read in there: a generator is at work until its end.
        outcomes: list[Outcome] = self._handle.call("deliver", messages, read=list)
        return outcomes

    def attached(self, stream: str) -> None:
        """Tell the version that is there, if it wants to know; and each that follows it."""
        self._stream, self._told = stream, None
        self._tell()

    def _tell(self) -> None:
        if self._stream is None or self._is_told():
            return
        with self._telling:
            if self._is_told():
                return
            use = self._handle.use()
            with use as instance:
                held, hears = use.held, hasattr(instance, "attached")
            del instance
            if hears:
                self._handle.call("attached", self._stream)
            self._told = weakref.ref(held)

    def _is_told(self) -> bool:
        return self._told is not None and self._told() is self._handle.slot.held

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
