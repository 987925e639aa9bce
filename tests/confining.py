"""What tests of confined plugins share: a room that writes plugins, runs them and ends them."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import pytest

from dwkernel.plugins import confined
from dwkernel.plugins.confined import filter as seccomp
from dwkernel.plugins.confined import launch, syscalls

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

needs_landlock = pytest.mark.skipif(
    launch.landlock_abi() < 1, reason="this kernel has no Landlock: nothing keeps files away here"
)
needs_filter = pytest.mark.skipif(
    not syscalls.numbers(seccomp.here()), reason="no system call filter for this architecture"
)

_HEAD = """
import contextlib, ctypes, errno, os, resource, signal, socket, struct, sys, threading, time

def refused(call, *arguments, **named):
    '''Say how a call is refused, or what it returns.'''
    try:
        return str(call(*arguments, **named))
    except OSError as error:
        return errno.errorcode[error.errno]

def line():
    '''Find the socket to the kernel.'''
    for descriptor in range(3, 64):
        with contextlib.suppress(OSError):
            return socket.socket(fileno=os.dup(descriptor))

def syscall(number, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
    return errno.errorcode[ctypes.get_errno()] if result < 0 else str(result)

class Plugin:
    def __init__(self, config):
        self.config = config
    def echo(self, value):
        return value
    def pid(self):
        return os.getpid()
    def hang(self):
        while True:
            time.sleep(60)
"""


class Room:
    """Writes plugins and runs them; all are ended with it."""

    def __init__(self, place: Path) -> None:
        self.folder = place / "plugin"
        self.folder.mkdir()
        self._running: list[confined.Process | confined.Supervisor] = []

    def write(self, methods: str = "", before: str = "") -> None:
        """Write a plugin with these methods besides `echo`, `pid` and `hang`."""
        body = textwrap.indent(textwrap.dedent(methods), "    ")
        text = _HEAD + body + "\n" + textwrap.dedent(before)
        (self.folder / "plugin.py").write_text(text, encoding="utf-8")

    def spec(self, **options: Any) -> confined.Spec:
        parts: dict[str, Any] = {"limits": confined.Limits, "permissions": confined.Permissions}
        taken = {
            part: {name: options.pop(name) for name in kind.__dataclass_fields__ if name in options}
            for part, kind in parts.items()
        }
        return confined.Spec(
            "tested",
            options.pop("folder", self.folder),
            options.pop("entry", "plugin:Plugin"),
            limits=confined.Limits(**taken["limits"]),
            permissions=confined.Permissions(**taken["permissions"]),
            **options,
        )

    def start(
        self, methods: str = "", before: str = "", callbacks: Any = None, **options: Any
    ) -> confined.Process:
        self.write(methods, before)
        process = confined.start(self.spec(**options), **(callbacks or {}))
        self._running.append(process)
        return process

    def supervise(
        self, methods: str = "", supervision: Any = None, **options: Any
    ) -> confined.Supervisor:
        self.write(methods)
        supervisor = confined.Supervisor(self.spec(**options), **(supervision or {}))
        self._running.append(supervisor)
        return supervisor

    def close(self) -> None:
        for one in self._running:
            one.kill()


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    one = Room(tmp_path)
    yield one
    one.close()


def gone(pid: int) -> bool:
    """Say whether a process is no more, or only its name is left."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:  # noqa: PTH123 - one line
            return file.read().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True
    except ProcessLookupError:
        return True
