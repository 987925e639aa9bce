"""The system call filter, run by a small interpreter of its own: no kernel is asked."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from dwkernel.plugins.confined import filter as seccomp
from dwkernel.plugins.confined.syscalls import AUDIT_ARCHES, KNOWN_MAX, numbers

PID = 4711
CLOSED = seccomp.Rights(network=False, subprocess=False, signals_scoped=True)
OPEN = seccomp.Rights(network=True, subprocess=True, signals_scoped=True)
ARCHES = list(AUDIT_ARCHES)


def verdict(program: bytes, arch: int, number: int, *arguments: int) -> int:
    """Run a program as the kernel would, with its checks; return what it says."""
    data = struct.pack("<iIQ6Q", number, arch, 0, *(arguments + (0,) * 6)[:6])
    steps = list(struct.iter_unpack("=HBBI", program))
    at = accumulator = 0
    while True:
        operation, yes, no, value = steps[at]
        at += 1
        if operation == seccomp.LOAD:
            assert value % 4 == 0
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif operation == seccomp.AND:
            accumulator &= value
        elif operation == seccomp.EQUAL:
            at += yes if accumulator == value else no
        elif operation == seccomp.GREATER:
            at += yes if accumulator > value else no
        elif operation == seccomp.ANY_BIT:
            at += yes if accumulator & value else no
        else:
            assert operation == seccomp.RETURN
            return int(value)


class Filter:
    """A program, asked by name."""

    def __init__(self, machine: str, rights: seccomp.Rights) -> None:
        self.arch = AUDIT_ARCHES[machine]
        self.table = numbers(machine)
        self.program = seccomp.program(machine, PID, rights)

    def __call__(self, name: str, *arguments: int) -> int:
        return verdict(self.program, self.arch, self.table[name], *arguments)


@pytest.fixture(params=ARCHES)
def closed(request: pytest.FixtureRequest) -> Filter:
    return Filter(request.param, CLOSED)


@pytest.fixture(params=ARCHES)
def granted(request: pytest.FixtureRequest) -> Filter:
    return Filter(request.param, OPEN)


@pytest.mark.parametrize("machine", ARCHES)
@pytest.mark.parametrize("rights", [CLOSED, OPEN])
def test_every_step_of_the_program_leads_to_another_and_every_path_to_an_end(
    machine: str, rights: seccomp.Rights
) -> None:
    steps = list(struct.iter_unpack("=HBBI", seccomp.program(machine, PID, rights)))
    assert len(steps) <= 4096  # what the kernel takes
    for at, (operation, yes, no, _value) in enumerate(steps):
        if operation != seccomp.RETURN:
            assert at + 1 + max(yes, no) < len(steps)
    assert steps[-1][0] == seccomp.RETURN


def test_another_architecture_ends_the_process_and_a_young_call_is_unknown(closed: Filter) -> None:
    assert verdict(closed.program, 0x4000_0003, 1) == seccomp.KILL  # i386
    for number in (KNOWN_MAX + 1, 0x4000_0000 + 59, 0x7FFF_FFFF):
        assert verdict(closed.program, closed.arch, number) == seccomp.UNKNOWN


ALWAYS_REFUSED = """
    ptrace process_vm_readv process_vm_writev mount umount2 pivot_root chroot bpf
    kexec_load init_module finit_module perf_event_open keyctl add_key unshare setns userfaultfd
    io_uring_setup io_uring_enter open_by_handle_at pidfd_getfd memfd_create shmget shmat msgget
    semget mq_open fchmod fchmodat fchmodat2 fchown fchownat utimensat setxattr fsetxattr truncate
    mknodat inotify_add_watch fanotify_init setpgid setsid setresuid capset setpriority tkill
    rt_sigqueueinfo rt_tgsigqueueinfo personality reboot syslog seccomp
"""


@pytest.mark.parametrize("name", ALWAYS_REFUSED.split())
def test_what_reaches_beyond_the_process_is_refused_whatever_is_granted(
    name: str, closed: Filter, granted: Filter
) -> None:
    assert closed(name) == granted(name) == seccomp.REFUSE


def test_what_a_program_needs_every_moment_goes(closed: Filter) -> None:
    # read, write, mmap, futex and the like, as they are on the two architectures.
    common = {AUDIT_ARCHES["x86_64"]: [0, 1, 9, 11, 35, 47, 202, 257, 231, 218]}
    common[AUDIT_ARCHES["aarch64"]] = [63, 64, 222, 215, 101, 212, 98, 56, 94, 96]
    for number in common[closed.arch]:
        assert verdict(closed.program, closed.arch, number) == seccomp.ALLOW


def test_signals_go_to_itself_only(closed: Filter) -> None:
    assert closed("kill", PID, 15) == closed("tgkill", PID, PID, 15) == seccomp.ALLOW
    assert closed("kill", 0, 15) == seccomp.ALLOW  # its own group
    for other in (1, PID + 1, 2**32 - 1):
        assert closed("kill", other, 9) == closed("tgkill", other, other, 9) == seccomp.REFUSE


def test_children_may_be_signalled_where_landlock_keeps_signals_in(granted: Filter) -> None:
    assert granted("kill", 1234, 9) == seccomp.ALLOW
    old = Filter("x86_64", OPEN._replace(signals_scoped=False))
    assert old("kill", 1234, 9) == seccomp.REFUSE


def test_limits_and_schedules_of_others_are_not_its_to_set(granted: Filter) -> None:
    for name in ("prlimit64", "sched_setaffinity", "sched_setscheduler", "sched_setattr"):
        assert granted(name, 0) == granted(name, PID) == seccomp.ALLOW
        assert granted(name, 1) == seccomp.REFUSE


THREAD = 0x3D_0F00


def test_threads_go_and_processes_only_where_granted(closed: Filter, granted: Filter) -> None:
    assert closed("clone", THREAD) == granted("clone", THREAD) == seccomp.ALLOW
    for fork in (17, 0x4111):  # fork's and vfork's flags
        assert closed("clone", fork) == seccomp.REFUSE
        assert granted("clone", fork) == seccomp.ALLOW
    assert closed("execve") == closed("execveat") == seccomp.REFUSE
    assert granted("execve") == seccomp.ALLOW
    assert closed("clone3") == granted("clone3") == seccomp.UNKNOWN


@pytest.mark.parametrize("flag", [1 << 17, 1 << 25, 1 << 26, 1 << 27, 1 << 28, 1 << 29, 1 << 30])
def test_no_clone_makes_a_namespace(flag: int, closed: Filter, granted: Filter) -> None:
    for base in (17, THREAD):
        assert closed("clone", base | flag) == granted("clone", base | flag) == seccomp.REFUSE


def test_a_child_cannot_be_made_the_kernels_own(granted: Filter) -> None:
    assert granted("clone", 17 | 0x8000) == seccomp.REFUSE  # CLONE_PARENT


def test_sockets_are_ip_where_granted_and_nothing_else(closed: Filter, granted: Filter) -> None:
    for family in (2, 10):
        for kind in (1, 2, 1 | 0o2000000, 2 | 0o4000):
            assert granted("socket", family, kind) == seccomp.ALLOW
            assert closed("socket", family, kind) == seccomp.REFUSE
        assert granted("socket", family, 3) == seccomp.REFUSE  # raw
    for family in (1, 16, 17, 38, 40, 44):  # local, netlink, packet, crypto, VMs, XDP
        assert granted("socket", family, 1) == seccomp.REFUSE
    for name in ("connect", "bind", "listen"):
        assert (closed(name), granted(name)) == (seccomp.REFUSE, seccomp.ALLOW)


def test_a_pair_of_sockets_cannot_send_to_a_name(closed: Filter) -> None:
    assert closed("socketpair", 1, 1 | 0o2000000) == seccomp.ALLOW
    assert closed("socketpair", 1, 2) == seccomp.REFUSE  # a datagram goes where it is told


def test_descriptors_cannot_be_made_to_signal_and_terminals_not_to_type(granted: Filter) -> None:
    # F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_NOTIFY, F_ADD_SEALS.
    for command in (8, 10, 15, 1024, 1026, 1033):
        assert granted("fcntl", 3, command) == seccomp.REFUSE
    assert granted("fcntl", 3, 1030) == seccomp.ALLOW  # F_DUPFD_CLOEXEC
    # FIOSETOWN, SIOCSPGRP, TIOCSTI, TIOCLINUX, FS_IOC_SETFLAGS, FS_IOC_ENABLE_VERITY, FICLONE,
    # BTRFS_IOC_SNAP_CREATE.
    for request in (0x8901, 0x8902, 0x5412, 0x541C, 0x40086602, 0x40806685, 0x40049409, 0x50009401):
        assert granted("ioctl", 0, request) == seccomp.REFUSE
        # The kernel looks at 32 bits: a bit above them must not open the door.
        assert granted("ioctl", 0, request | 1 << 40) == seccomp.REFUSE
    for request in (0x5401, 0x5421, 0x5451):  # TCGETS, FIONBIO, FIOCLEX
        assert granted("ioctl", 0, request) == seccomp.ALLOW


def test_it_cannot_take_back_what_it_asked_for_at_its_start(granted: Filter) -> None:
    for option in (1, 4, 22, 38, 36, 47):  # death signal, dumpable, seccomp, subreaper, …
        assert granted("prctl", option) == seccomp.REFUSE
    assert granted("prctl", 15) == seccomp.ALLOW  # a thread's name


def test_an_unknown_architecture_has_no_program() -> None:
    assert seccomp.program("riscv64", PID, CLOSED) == b""


HEADERS = {
    "x86_64": ["/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h"],
    "aarch64": ["/usr/include/asm-generic/unistd.h"],
}


@pytest.mark.parametrize("machine", ARCHES)
def test_the_numbers_are_those_of_the_systems_headers(machine: str) -> None:
    header = next((path for path in map(Path, HEADERS[machine]) if path.is_file()), None)
    if header is None:
        pytest.skip("no kernel headers are installed")
    found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text(encoding="utf-8"))
    there = {name: int(number) for name, number in found}
    ours = numbers(machine)
    common = [name for name in ours if name in there]
    assert len(common) > 90
    assert {name: ours[name] for name in common} == {name: there[name] for name in common}
