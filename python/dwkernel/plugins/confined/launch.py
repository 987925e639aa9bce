"""Starts the interpreter that a plugin gets, and tells it what it may."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dwkernel import __version__, errors
from dwkernel.plugins.confined import filter as seccomp
from dwkernel.plugins.confined import scratch
from dwkernel.plugins.confined.dwkernel_inside import wire

if TYPE_CHECKING:
    from dwkernel.plugins.confined.spec import Spec

__all__ = ["Launched", "hello", "launch"]

# Isolated, without site: nothing of the environment or of installed packages runs before we do.
_FLAGS = ("-I", "-S", "-X", "utf8")
_START = (
    "import sys; sys.path.insert(0, sys.argv[2]); from dwkernel_inside import serve;"
    " serve.main(int(sys.argv[1]))"
)
_INSIDE = str(Path(__file__).parent)
_PACKAGE = str(Path(errors.__file__).parent)
_HELLO_BYTES = 64 << 20
_ABI_MAX = 7
# Or what the system lets us have: parts of a long message are under way together.
_SEND_BUFFER_BYTES = 1 << 20

# Shared libraries and what the C library looks up; nobody's secrets are here.
_READ = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/usr/share/zoneinfo",
    "/dev/zero",
    "/dev/random",
    "/dev/urandom",
    "/sys/devices/system/cpu",
)
_READ_FOR_NETWORK = (
    "/etc/hosts",
    "/etc/resolv.conf",
    "/run/systemd/resolve",
    "/etc/nsswitch.conf",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/ssl",
    "/etc/pki",
    "/etc/ca-certificates",
    "/usr/share/ca-certificates",
)
_EXECUTE = ("/bin", "/usr/bin", "/usr/local/bin", "/lib", "/lib64", "/usr/lib", "/usr/lib64")


class Launched(NamedTuple):
    """A process that waits for its hello."""

    process: subprocess.Popen[bytes]
    sock: socket.socket
    scratch: Path


def launch(spec: Spec) -> Launched:
    """Start the interpreter, with nothing of ours but one socket, and a pipe for what it prints.

    The thread that calls it must live as long as the process may: to Linux "the parent died" means
    that thread.

    Raises:
        Unsupported: `plugin.sandbox`

    """
    program = sys.executable
    if not program or not sys.platform.startswith("linux"):
        text = f"the plugin {spec.id} needs a process of its own, of Python on Linux"
        raise errors.new("plugin.sandbox", text, plugin=spec.id)
    folder = scratch.make()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    try:
        process = subprocess.Popen(  # noqa: S603 - this interpreter, and our own words
            [program, *_FLAGS, "-c", _START, str(theirs.fileno()), _INSIDE],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(theirs.fileno(),),
            cwd=folder,
            env=_environment(spec.permissions.environment),
            start_new_session=True,
            umask=0o077,
        )
    except BaseException:
        ours.close()
        scratch.remove(folder)
        raise
    finally:
        theirs.close()
    return Launched(process, ours, folder)


def _environment(names: tuple[str, ...]) -> dict[str, str]:
    return {name: os.environ[name] for name in names if name in os.environ}


def hello(spec: Spec, pid: int, folder: Path, *, abi_max: int = _ABI_MAX) -> bytes:
    """Return what the process is told first: its plan.

    Raises:
        Invalid: `plugin.option`: the configuration is no plain data

    """
    may, limits = spec.permissions, spec.limits
    here = str(spec.folder)
    rights = seccomp.Rights(may.network, may.subprocess, signals_scoped=_scopes_signals(abi_max))
    plan = {
        "entry": spec.entry,
        "folder": here,
        "libraries": list(may.libraries),
        "package": _package() if spec.package else None,
        "config": dict(spec.config),
        "calls": limits.calls,
        "message_bytes": limits.message_bytes,
        "confine": {
            "parent": os.getpid(),
            "required": spec.confinement == "required",
            "limits": _rlimits(spec),
            "read": [
                *_READ,
                *(_READ_FOR_NETWORK if may.network else ()),
                here,
                *([_PACKAGE] if spec.package else ()),
                *may.libraries,
                *may.read,
            ],
            "write": [str(folder), "/dev/null", *may.write],
            "execute": [*_EXECUTE, sys.executable, here] if may.subprocess else [],
            "network": may.network,
            "program": seccomp.program(seccomp.here(), pid, rights),
            "abi_max": abi_max,
        },
    }
    try:
        return wire.encode(plan, _HELLO_BYTES)
    except wire.WireError as error:
        text = f"the configuration of the plugin {spec.id} cannot be sent: {error}"
        raise errors.new("plugin.option", text, plugin=spec.id) from None


def _package() -> dict[str, wire.Plain]:
    codes = [list(code) for code in errors.registry().values()]
    return {"folder": _PACKAGE, "version": __version__, "codes": codes}


def _scopes_signals(abi_max: int) -> bool:
    return min(abi_max, landlock_abi()) >= 6  # noqa: PLR2004 - the version that brought it


def landlock_abi() -> int:
    """Return the version of Landlock that this kernel has; 0 for none."""
    import ctypes  # noqa: PLC0415 - who starts no process needs none

    libc = ctypes.CDLL(None)
    found: int = libc.syscall(ctypes.c_long(444), None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    return max(0, found)


def _rlimits(spec: Spec) -> dict[str, int]:
    limits = spec.limits
    found = {
        "RLIMIT_AS": limits.memory_bytes,
        "RLIMIT_NOFILE": limits.open_files,
        "RLIMIT_FSIZE": limits.disk_bytes,
        "RLIMIT_CORE": 0,
        "RLIMIT_MEMLOCK": 0,
        "RLIMIT_MSGQUEUE": 0,
        "RLIMIT_RTPRIO": 0,
        "RLIMIT_NICE": 0,
    }
    if spec.permissions.subprocess and os.getuid() != 0:
        # Linux counts all tasks of the user, and those of root not at all: the watch counts ours.
        found["RLIMIT_NPROC"] = _tasks_of(os.getuid()) + limits.processes
    return found


def _tasks_of(uid: int) -> int:
    total = 0
    for path in Path("/proc").glob("[0-9]*/status"):
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        # Not by who owns the file: that of a process that is not dumpable is root's.
        fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        if int(fields["Uid"].split()[0]) == uid:
            total += int(fields["Threads"])
    return total
