"""Shuts the door behind the process: limits, Landlock, seccomp. There is no way back.

It runs once, while the process has one thread (Landlock binds the calling thread and those that it
starts), after the interpreter is up and before a line of the plugin is imported. By ctypes, because
the child must not load the kernel's native module, with all that is in it, for eight calls.

Sources: landlock(7), landlock_create_ruleset(2), seccomp(2), prctl(2), capabilities(7).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import stat
import struct
import sys
import threading
from typing import Any

# The same numbers on every architecture that Linux got since 2019.
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 1 << 1, 1 << 2, 1 << 3
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_READ = _READ_FILE | _READ_DIR
# What each version of Landlock can handle: 13 rights at first, then moving between folders,
# truncating, and ioctl on devices.
_FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
# Devices, sockets and pipes with names are nobody's business in a folder that others look into.
_MAKE_SPECIAL = (1 << 6) | (1 << 9) | (1 << 10) | (1 << 11)
_NETWORK_ABI, _SCOPE_ABI = 4, 6
_BIND_TCP, _CONNECT_TCP = 1, 2
_SCOPE_ABSTRACT_UNIX_SOCKET, _SCOPE_SIGNAL = 1, 2

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP = 1, 4, 22
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 24, 38, 47
_CAP_AMBIENT_CLEAR_ALL = 4
_SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION_3 = 0x2008_0522
_CAPABILITIES_MAX = 64
_SIGKILL = 9
# M_ARENA_MAX: an arena of its own for each thread counts as 64 MiB of memory at once.
# M_TRIM_THRESHOLD, M_MMAP_THRESHOLD: the memory of one long message serves for the next.
_MALLOC = {-8: 2, -1: 16 << 20, -3: 16 << 20}
# What a thread of the plugin has for its stack; the default of 8 MiB counts as memory at once.
_STACK_BYTES = 2 << 20


class CannotConfineError(Exception):
    """The system lacks what the setting says that it must have."""


def enter(plan: dict[str, Any]) -> dict[str, Any]:
    """Confine this process, and return what of it this system has.

    Args:
        plan: `parent` (pid), `required`, `limits`, `read`, `write`, `execute` (paths), `network`,
            `program` (BPF, empty where the architecture is unknown), `abi_max`.

    Returns:
        `landlock` (version, 0 without), `seccomp`, `missing` (what this system cannot do).

    Raises:
        CannotConfineError: something is missing that is required
        OSError: the system has it, and refuses

    """
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in _MALLOC.items():
        libc.mallopt(option, value)
    threading.stack_size(_STACK_BYTES)
    _limit(plan["limits"])
    # If the machine runs out of memory, a plugin goes first.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123 - `pathlib` costs 2 ms
        file.write("500")
    _prctl(libc, _PR_SET_NO_NEW_PRIVS, 1)
    _drop_capabilities(libc)
    abi = min(_landlock_abi(libc), plan["abi_max"])
    missing = _missing(abi, plan)
    if missing and plan["required"]:
        raise CannotConfineError("; ".join(missing))
    if abi > 0:
        _landlock(libc, abi, plan)
    # Others of the same user may not look into its memory, nor trace it.
    _prctl(libc, _PR_SET_DUMPABLE, 0)
    _prctl(libc, _PR_SET_PDEATHSIG, _SIGKILL)
    if os.getppid() != plan["parent"]:
        os._exit(0)  # it died before it could be asked to say so
    if plan["program"]:
        _seccomp(libc, plan["program"])
    return {"landlock": abi, "seccomp": bool(plan["program"]), "missing": missing}


def _missing(abi: int, plan: dict[str, Any]) -> list[str]:
    missing = []
    if abi < 1:
        missing.append("this kernel has no Landlock, which keeps a plugin from files")
    if not plan["program"]:
        missing.append("there is no system call filter for this architecture")
    return missing


def _call(what: str, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _prctl(libc: ctypes.CDLL, option: int, value: int) -> None:
    # prctl reads unsigned longs: a bare Python int would be passed as an int.
    arguments = [ctypes.c_ulong(number) for number in (value, 0, 0, 0)]
    _call(f"prctl {option}", libc.prctl(option, *arguments))


def _limit(limits: dict[str, int]) -> None:
    for name, most in limits.items():
        which = getattr(resource, name)
        hard = resource.getrlimit(which)[1]
        value = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(which, (value, value))


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    """Be nobody special, also where the kernel's process is root."""
    zero = ctypes.c_ulong(0)
    libc.prctl(_PR_CAP_AMBIENT, ctypes.c_ulong(_CAP_AMBIENT_CLEAR_ALL), zero, zero, zero)
    for capability in range(_CAPABILITIES_MAX):
        # Only who has a capability to drop others may; who has none has nothing to drop.
        libc.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(capability), zero, zero, zero)
    header = struct.pack("<Ii", _CAPABILITY_VERSION_3, 0)
    _call("capset", libc.capset(header, bytes(24)))


def _landlock_abi(libc: ctypes.CDLL) -> int:
    found: int = libc.syscall(
        ctypes.c_long(_LANDLOCK_CREATE_RULESET),
        None,
        ctypes.c_size_t(0),
        ctypes.c_uint32(_CREATE_RULESET_VERSION),
    )
    return max(0, found)


def _landlock(libc: ctypes.CDLL, abi: int, plan: dict[str, Any]) -> None:
    rights = max(mask for version, mask in _FILE_RIGHTS.items() if version <= abi)
    fields = [rights]
    if abi >= _NETWORK_ABI:
        fields.append(0 if plan["network"] else _BIND_TCP | _CONNECT_TCP)
    if abi >= _SCOPE_ABI:
        fields.append(_SCOPE_ABSTRACT_UNIX_SOCKET | _SCOPE_SIGNAL)
    attributes = struct.pack(f"<{len(fields)}Q", *fields)
    ruleset = _call(
        "landlock_create_ruleset",
        libc.syscall(
            ctypes.c_long(_LANDLOCK_CREATE_RULESET),
            attributes,
            ctypes.c_size_t(len(attributes)),
            ctypes.c_uint32(0),
        ),
    )
    try:
        write = rights & ~(_MAKE_SPECIAL | _EXECUTE | _IOCTL_DEV)
        execute = rights & (_READ | _EXECUTE)
        # Where the interpreter finds the standard library, it knows best itself.
        for paths, allowed in (
            ([*sys.path, *plan["read"]], rights & _READ),
            (plan["write"], write),
            (plan["execute"], execute),
        ):
            for path in paths:
                _allow(libc, ruleset, path, allowed)
        restrict = libc.syscall(
            ctypes.c_long(_LANDLOCK_RESTRICT_SELF), ctypes.c_int(ruleset), ctypes.c_uint32(0)
        )
        _call("landlock_restrict_self", restrict)
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, allowed: int) -> None:
    try:
        there = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there needs no permission, and gets none later
    try:
        if not stat.S_ISDIR(os.fstat(there).st_mode):
            allowed &= _ON_FILES
        added = libc.syscall(
            ctypes.c_long(_LANDLOCK_ADD_RULE),
            ctypes.c_int(ruleset),
            ctypes.c_int(_RULE_PATH_BENEATH),
            struct.pack("<Qi", allowed, there),
            ctypes.c_uint32(0),
        )
        _call(f"landlock_add_rule {path}", added)
    finally:
        os.close(there)


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def _seccomp(libc: ctypes.CDLL, program: bytes) -> None:
    given = _Program(len(program) // 8, program)
    zero = ctypes.c_ulong(0)
    done = libc.prctl(
        _PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), ctypes.byref(given), zero, zero
    )
    _call("seccomp", done)
