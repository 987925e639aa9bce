"""What a confined plugin is, what it may, and how much of everything it gets."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from dwkernel import errors

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Limits", "Permissions", "Spec"]

Strictness = Literal["required", "best"]

_ENTRY = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Permissions:
    """What a plugin may reach beyond its own files, its scratch folder and the standard library.

    All paths are absolute. A path that is not there when the process starts is left out.
    """

    read: tuple[str, ...] = ()
    """Files, and folders with all that is in them. A file that is replaced by another of its name
    is another file: grant its folder where that happens."""
    write: tuple[str, ...] = ()
    """The same, to read and to change."""
    libraries: tuple[str, ...] = ()
    """Folders to import from besides, such as a site-packages."""
    network: bool = False
    """TCP and UDP over IP, with names resolved."""
    environment: tuple[str, ...] = ()
    """Names of variables of this process that it sees. It sees no others."""
    subprocess: bool = False
    """Start the system's programs, its own copies included; they are confined as it is."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            Invalid: `plugin.manifest`

        """
        for name in ("read", "write", "libraries", "environment"):
            value: object = getattr(self, name)
            if not isinstance(value, tuple) or not all(isinstance(one, str) for one in value):
                _refuse(f"permissions.{name}={value!r} is no tuple of texts")
        for path in (*self.read, *self.write, *self.libraries):
            if not Path(path).is_absolute() or "\0" in path:
                _refuse(f"the path {path!r} in permissions is not absolute")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a plugin's process may use; past a limit it is refused more, or killed."""

    memory_bytes: int = 512 * _MIB
    """Address space of a process, and memory of all of its processes together. From 64 MiB."""
    cpu_s: float = 30.0
    """Of processors during one call (calls at once share what is used)."""
    wall_s: float = 60.0
    """From a call to its answer."""
    start_s: float = 30.0
    """From the start to the end of the import."""
    open_files: int = 64
    processes: int = 64
    """Threads and processes together, those that answer calls included."""
    disk_bytes: int = 64 * _MIB
    """Of one file that it writes, and of its scratch folder."""
    message_bytes: int = 8 * _MIB
    """Of a call's arguments, and of an answer. From 128 KiB."""
    calls: int = 8
    """Calls at once; others wait. 1 to 64."""
    heartbeat_s: float = 5.0
    """How often a silent process is asked whether it lives."""

    def __post_init__(self) -> None:
        """Refuse what no process can live with.

        Raises:
            Invalid: `plugin.manifest`

        """
        for name, least, most in _RANGES:
            value: object = getattr(self, name)
            right = int if isinstance(least, int) else (int, float)
            if (
                isinstance(value, bool)
                or not isinstance(value, right)
                or not least <= value <= most
            ):
                _refuse(f"limits.{name}={value!r} is not within {least} and {most}")


# An int as the least means an int.
_RANGES: tuple[tuple[str, int | float, int | float], ...] = (
    ("memory_bytes", 64 * _MIB, 1 << 50),
    ("cpu_s", 0.01, 1e6),
    ("wall_s", 0.01, 1e6),
    ("start_s", 0.01, 1e6),
    ("open_files", 16, 1 << 20),
    ("processes", 8, 1 << 20),
    ("disk_bytes", 0, 1 << 50),
    ("message_bytes", 128 << 10, 1 << 30),
    ("calls", 1, 64),
    ("heartbeat_s", 0.05, 1e6),
)


@dataclass(frozen=True, slots=True)
class Spec:
    """One plugin to be run in a process of its own."""

    id: str
    folder: Path
    """Of its files; it may read them and import from there."""
    entry: str
    """`module:attribute`: called with `config` it returns the plugin; what is no callable is it."""
    version: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Plain data."""
    permissions: Permissions = Permissions()
    limits: Limits = Limits()
    package: bool = False
    """Whether it can import `dwkernel`: the Python of it, without its native half."""
    confinement: Strictness = "required"
    """`"best"` also runs it where the system cannot keep it in, and says so in the status."""

    def __post_init__(self) -> None:
        """Refuse what cannot be started.

        Raises:
            Invalid: `plugin.manifest`, `plugin.load` (there is no such folder)

        """
        if not _ENTRY.fullmatch(self.entry):
            _refuse(f'entry={self.entry!r} is not as "module:attribute"')
        if self.confinement not in get_args(Strictness):
            _refuse(f'confinement={self.confinement!r} is neither "required" nor "best"')
        # Bound once: what is granted must not follow a link that is changed later.
        object.__setattr__(self, "folder", Path(os.path.realpath(self.folder)))
        if self.folder == self.folder.parent:
            _refuse(f"the folder of the plugin {self.id} is the root: it would see everything")
        if not self.folder.is_dir():
            text = f"the plugin {self.id} has no folder {self.folder}"
            raise errors.new("plugin.load", text, plugin=self.id)


def _refuse(text: str) -> None:
    raise errors.new("plugin.manifest", text)
