"""The system call filter: a BPF program for seccomp, built here and handed to the child.

What a plugin may not do answers `EPERM`, as if a file said no. What is younger than the table
answers `ENOSYS`, as an older kernel would, and libraries fall back. Another architecture's calls
(int 0x80) end the process. A list of what is allowed would have to know every library that a
plugin may bring; this one knows what reaches beyond the process, and Landlock, which is entered
before, allows by list.

Sources: seccomp(2), linux/filter.h, linux/seccomp.h.
"""

from __future__ import annotations

import errno
import platform
import struct
from typing import NamedTuple

from dwkernel.plugins.confined.syscalls import AUDIT_ARCHES, KNOWN_MAX, numbers

__all__ = ["Rights", "program"]

# Operations of classic BPF, as far as seccomp needs them.
LOAD, EQUAL, GREATER, ANY_BIT, AND, RETURN = 0x20, 0x15, 0x25, 0x45, 0x54, 0x06
# Where a call's number, architecture and arguments are; only low halves count, as the arguments
# that are looked at are ints to the kernel, or flags whose high half nothing defines.
NUMBER, ARCH = 0, 4

ALLOW = 0x7FFF_0000
KILL = 0x8000_0000
REFUSE = 0x0005_0000 | errno.EPERM
UNKNOWN = 0x0005_0000 | errno.ENOSYS

_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
_SOCK_STREAM, _SOCK_DGRAM, _SOCK_SEQPACKET = 1, 2, 5
_SOCK_TYPE_MASK = 0xF
_CLONE_THREAD = 0x0001_0000
# CLONE_NEWTIME (0x80) is for clone3 only, where the low byte is no signal.
_CLONE_NEW_ANY = 0x0002_0000 | 0x0200_0000 | 0x0400_0000 | 0x0800_0000 | 0x1000_0000 | 0x6000_0000
# Untraced, and children of our parent instead of ours: they would be left to the kernel's process.
_CLONE_ODD = 0x0080_0000 | 0x0000_8000
# Both by what is allowed. A descriptor that was opened to read is enough to take a lease on a file
# (others wait for 45 s), to have signals sent, to change its flags, to seal it with verity, or to
# make snapshots, and Landlock sees none of that.
# F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, locks (also of open files), F_GETOWN,
# F_DUPFD_CLOEXEC, F_GETPIPE_SZ, F_GET_SEALS.
_FCNTLS = (0, 1, 2, 3, 4, 5, 6, 7, 9, 36, 37, 38, 1030, 1032, 1034)
# TCGETS, TCGETS2, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX.
_IOCTLS = (0x5401, 0x802C_542A, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
# PR_SET_NAME, PR_GET_NAME, PR_GET_DUMPABLE, PR_GET_PDEATHSIG, PR_CAPBSET_READ, PR_SET_VMA.
_PRCTLS = (15, 16, 3, 2, 23, 0x5356_4D41)

_HANDLED = [
    "socket",
    "socketpair",
    "clone",
    "clone3",
    "fork",
    "vfork",
    "execve",
    "execveat",
    "kill",
    "tgkill",
    "pidfd_open",
    "pidfd_send_signal",
    "prctl",
    "prlimit64",
    "fcntl",
    "ioctl",
    "sched_setaffinity",
    "sched_setscheduler",
    "sched_setparam",
    "sched_setattr",
    "connect",
    "bind",
    "listen",
]


class Rights(NamedTuple):
    """What the filter depends on."""

    network: bool
    subprocess: bool
    signals_scoped: bool
    """Landlock keeps signals inside (ABI 6): then its children may be signalled."""


class _Step(NamedTuple):
    operation: int
    value: int
    yes: int = 0
    no: int = 0


def program(machine: str, pid: int, rights: Rights) -> bytes:
    """Return the program for the process `pid`; empty for an architecture without a table."""
    table = numbers(machine)
    if not table:
        return b""
    steps = [
        _Step(LOAD, ARCH),
        _Step(EQUAL, AUDIT_ARCHES[machine], yes=1),
        _Step(RETURN, KILL),
        _Step(LOAD, NUMBER),
        # Also the numbers of x32, which begin at 2^30.
        _Step(GREATER, KNOWN_MAX, no=1),
        _Step(RETURN, UNKNOWN),
    ]
    for name, block in _judged(pid, rights).items():
        if name in table:
            # A block always returns, so that what follows still has the number loaded.
            steps += [_Step(EQUAL, table[name], no=len(block)), *block]
    refused = [number for name, number in table.items() if name not in _HANDLED]
    for index, number in enumerate(refused):
        steps.append(_Step(EQUAL, number, yes=len(refused) - index))
    steps += [_Step(RETURN, ALLOW), _Step(RETURN, REFUSE)]
    return b"".join(struct.pack("=HBBI", s.operation, s.yes, s.no, s.value) for s in steps)


def here() -> str:
    """Return the architecture of this machine."""
    return platform.machine()


def _judged(pid: int, rights: Rights) -> dict[str, list[_Step]]:
    """Return a block of steps for each call whose arguments or whose permission counts."""
    allow, refuse = [_Step(RETURN, ALLOW)], [_Step(RETURN, REFUSE)]
    itself = _one_of(0, (0, pid))
    signals = allow if rights.subprocess and rights.signals_scoped else itself
    run = allow if rights.subprocess else refuse
    net = allow if rights.network else refuse
    own_pid = _one_of(0, (pid,))
    judged = {
        "socket": _internet() if rights.network else refuse,
        "socketpair": _one_of(1, (_SOCK_STREAM, _SOCK_SEQPACKET), _SOCK_TYPE_MASK),
        "connect": net,
        "bind": net,
        "listen": net,
        "clone": _no_namespaces() if rights.subprocess else _threads_only(),
        # Its flags are behind a pointer: libc falls back to clone.
        "clone3": [_Step(RETURN, UNKNOWN)],
        "kill": signals,
        "tgkill": signals if rights.subprocess else own_pid,
        "pidfd_open": signals,
        "pidfd_send_signal": allow if rights.subprocess and rights.signals_scoped else refuse,
        "prctl": _one_of(0, _PRCTLS),
        "fcntl": _one_of(1, _FCNTLS),
        "ioctl": _one_of(1, _IOCTLS),
    }
    judged |= dict.fromkeys(("fork", "vfork", "execve", "execveat"), run)
    for name in _HANDLED:
        if name.startswith("sched_set") or name == "prlimit64":
            judged[name] = itself
    return judged


def _argument(index: int) -> _Step:
    return _Step(LOAD, 16 + 8 * index)


def _one_of(index: int, values: tuple[int, ...], mask: int | None = None) -> list[_Step]:
    """Allow the call if its argument, as far as the mask shows it, is one of these."""
    masked = [] if mask is None else [_Step(AND, mask)]
    tests = [_Step(EQUAL, value, yes=len(values) - at) for at, value in enumerate(values)]
    return [_argument(index), *masked, *tests, _Step(RETURN, REFUSE), _Step(RETURN, ALLOW)]


def _internet() -> list[_Step]:
    """Allow TCP and UDP over IP: no raw sockets, no local ones, no netlink, nothing else."""
    return [
        _argument(0),
        _Step(EQUAL, _AF_INET, yes=2),
        _Step(EQUAL, _AF_INET6, yes=1),
        _Step(RETURN, REFUSE),
        *_one_of(1, (_SOCK_STREAM, _SOCK_DGRAM), _SOCK_TYPE_MASK),
    ]


def _threads_only() -> list[_Step]:
    return [
        _argument(0),
        _Step(ANY_BIT, _CLONE_NEW_ANY | _CLONE_ODD, yes=1),
        _Step(ANY_BIT, _CLONE_THREAD, yes=1),
        _Step(RETURN, REFUSE),
        _Step(RETURN, ALLOW),
    ]


def _no_namespaces() -> list[_Step]:
    return [
        _argument(0),
        _Step(ANY_BIT, _CLONE_NEW_ANY | _CLONE_ODD, no=1),
        _Step(RETURN, REFUSE),
        _Step(RETURN, ALLOW),
    ]
