"""The kernel's own drives, sinks and stages, registered as plugins are."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, NamedTuple

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from dwkernel.plugins.discovery import Found
from dwkernel.plugins.manifest import API_VERSION, Manifest

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PRIORITY", "builtins"]

# Whoever brings the same is asked first.
PRIORITY = -100


class NativeDrives:
    """Drives that the data plane has itself: it opens them without coming back to Python."""

    is_native = True

    def __init__(self, scheme: str) -> None:
        """Stand for a scheme of URLs."""
        self.scheme = scheme

    def open(self, location: str, make: bool) -> Any:  # noqa: ARG002 - as its kind has it
        """Return the location as it is: the pool opens it."""
        return location


class BuiltinSink:
    """A sink of `dwkernel.sinks`; `make` makes one with its options, the others are by messages."""

    is_native = True

    def __init__(self, name: str) -> None:
        """Stand for a class of `dwkernel.sinks`."""
        self.name = name

    def make(self, *arguments: Any, **options: Any) -> Any:
        """Return a sink of that kind; raises `sink.option`."""
        from dwkernel import errors, sinks  # noqa: PLC0415 - who sends pays for it

        made = getattr(sinks, self.name)
        try:
            inspect.signature(made).bind(*arguments, **options)
        except TypeError as error:
            raise errors.new("sink.option", f"{self.name}: {error}") from None
        return made(*arguments, **options)

    def deliver(self, messages: Any) -> Any:
        """Refuse: it is made first, with what it needs to know."""
        from dwkernel.sinks import Outcome  # noqa: PLC0415 - as above

        return [Outcome.refused(f"make a {self.name} first, and attach that") for _ in messages]

    def close(self) -> None:
        """Hold nothing."""


class _Builtin(NamedTuple):
    id: str
    kind: str
    capability: str
    make: Callable[[], Any]
    summary: str


_ALL = (
    _Builtin("kernel.drive.file", "drive", "file", lambda: NativeDrives("file"), "local folders"),
    _Builtin("kernel.drive.memory", "drive", "memory", lambda: NativeDrives("memory"), "memory"),
    _Builtin("kernel.sink.files", "sink", "files", lambda: BuiltinSink("Files"), "files of lines"),
    _Builtin("kernel.sink.webhook", "sink", "webhook", lambda: BuiltinSink("Webhook"), "HTTP"),
    _Builtin("kernel.sink.forward", "sink", "forward", lambda: BuiltinSink("Forward"), "streams"),
    _Builtin("kernel.sink.call", "sink", "call", lambda: BuiltinSink("Call"), "functions"),
)


def builtins() -> list[tuple[Found, Callable[[], Any]]]:
    """Return the kernel's own plugins, each with what makes it."""
    return [(Found(_manifest(one), None, "kernel", "the kernel itself"), one.make) for one in _ALL]


def _manifest(one: _Builtin) -> Manifest:
    from dwkernel import __version__  # noqa: PLC0415 - it is the package's

    return Manifest(
        id=one.id,
        version=Version(__version__),
        kinds=(one.kind,),
        entry="kernel:builtin",
        kernel=SpecifierSet(f"=={API_VERSION}"),
        capabilities={one.kind: (one.capability,)},
        summary=one.summary,
    )
