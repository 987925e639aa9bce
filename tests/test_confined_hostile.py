"""Confined plugins that try to get out: each is refused, and the kernel's process goes on."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

import dwkernel as dw
from confining import Room, gone, needs_filter, needs_landlock, room
from dwkernel.plugins.confined import filter as seccomp
from dwkernel.plugins.confined import launch
from dwkernel.plugins.confined.syscalls import numbers
from expect import code_of, until

__all__ = ["room"]
pytestmark = [needs_landlock, needs_filter]

NO = ("EACCES", "EPERM")


# --- files ----------------------------------------------------------------------------------------


def test_it_reads_its_own_files_and_no_others(room: Room, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hidden", encoding="utf-8")
    link = room.folder / "link"
    link.symlink_to(secret)
    (room.folder / "own").write_text("mine", encoding="utf-8")
    process = room.start(
        """
        def read(self, path): return refused(lambda: open(path).read())
        def list(self, path): return refused(os.listdir, path)
        """
    )
    assert process.call("read", str(room.folder / "own")) == "mine"
    relative = os.path.relpath(secret, room.folder)
    for path in (secret, link, "/etc/passwd", room.folder / relative, f"{room.folder}/../secret"):
        assert process.call("read", str(path)) in NO
    for path in (tmp_path, Path("/"), Path("/etc"), Path.home(), "/tmp", "/proc", "/dev"):  # noqa: S108 - looked at, not used
        assert process.call("list", str(path)) in NO


def test_it_reads_and_writes_what_is_granted(room: Room, tmp_path: Path) -> None:
    shown, own = tmp_path / "shown", tmp_path / "own"
    shown.mkdir()
    own.mkdir()
    (shown / "file").write_text("seen", encoding="utf-8")
    process = room.start(
        """
        def read(self, path): return refused(lambda: open(path).read())
        def write(self, path): return refused(lambda: open(path, 'w').write('x'))
        def remove(self, path): return refused(os.remove, path)
        """,
        read=(str(shown), str(tmp_path / "absent")),
        write=(str(own),),
    )
    assert process.call("read", str(shown / "file")) == "seen"
    assert process.call("write", str(shown / "file")) in NO
    assert process.call("remove", str(shown / "file")) in NO
    assert process.call("write", str(own / "new")) == "1"
    assert process.call("read", str(own / "new")) == "x"
    assert process.call("remove", str(own / "new")) == "None"


OUTSIDE = {
    "create": "open(path + '/new', 'w')",
    "change": "open(path + '/file', 'r+')",
    "truncate": "os.truncate(path + '/file', 0)",
    "remove": "os.remove(path + '/file')",
    "rename": "os.rename(path + '/file', path + '/other')",
    "take": "os.rename(path + '/file', 'here')",
    "link": "os.link(path + '/file', 'here')",
    "mkdir": "os.mkdir(path + '/new')",
    "symlink": "os.symlink('/', path + '/new')",
    "mkfifo": "os.mkfifo(path + '/new')",
    "chmod": "os.chmod(path + '/file', 0o777)",
    "chmod folder": "os.chmod(path, 0)",
    "chown": "os.chown(path + '/file', 1, 1)",
    "utime": "os.utime(path + '/file', (0, 0))",
    "setxattr": "os.setxattr(path + '/file', 'user.x', b'y')",
    "chroot": "os.chroot(path)",
}


def test_it_changes_nothing_outside_not_even_modes_and_times(room: Room, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / "file").write_text("kept", encoding="utf-8")
    before = [place.stat(), (place / "file").stat()]
    methods = "\n".join(
        f"def m{at}(self, path): return refused(lambda: {code})"
        for at, code in enumerate(OUTSIDE.values())
    )
    process = room.start(methods)
    said = {name: process.call(f"m{at}", str(place)) for at, name in enumerate(OUTSIDE)}
    # EXDEV: moving between folders needs a right on both, and says so in its own way.
    assert {name: word for name, word in said.items() if word not in (*NO, "EXDEV")} == {}
    after = [place.stat(), (place / "file").stat()]
    assert [(s.st_mode, s.st_uid, s.st_mtime_ns, s.st_size) for s in after] == [
        (s.st_mode, s.st_uid, s.st_mtime_ns, s.st_size) for s in before
    ]


def test_what_it_may_read_it_can_neither_lease_nor_mark_nor_watch(room: Room) -> None:
    process = room.start(
        """
        def do(self, command, value):
            import fcntl
            with open(__file__) as file:
                return refused(fcntl.fcntl, file, command, value)
        def flags(self, request):
            import fcntl
            with open(__file__) as file:
                return refused(fcntl.ioctl, file, request, bytes(128))
        """
    )
    assert process.call("do", 1024, 0) == "EPERM"  # F_SETLEASE, F_RDLCK
    assert process.call("do", 1026, 1) == "EPERM"  # F_NOTIFY
    assert process.call("do", 8, os.getpid()) == "EPERM"  # F_SETOWN
    for request in (0x40086602, 0x40806685):  # FS_IOC_SETFLAGS, FS_IOC_ENABLE_VERITY
        assert process.call("flags", request) == "EPERM"


def test_its_own_files_are_not_its_to_change(room: Room) -> None:
    process = room.start("def write(self, path): return refused(lambda: open(path, 'w'))")
    assert process.call("write", str(room.folder / "plugin.py")) in NO
    assert process.call("write", str(room.folder / "new.py")) in NO


def test_the_drives_of_an_open_store_are_out_of_its_reach(room: Room, tmp_path: Path) -> None:
    with dw.open(tmp_path / "store", drives=3, create=True) as kernel:
        kernel.containers.create("docs")
        kernel.put("docs/a", b"precious")
        # What is written just now goes away by itself.
        found = (path for path in (tmp_path / "store").rglob("*") if path.is_file())
        files = [str(path) for path in found if path.parent.name != "tmp"]
        process = room.start(
            """
            def look(self, path): return refused(lambda: open(path, 'rb').read(10))
            def break_(self, path): return refused(lambda: open(path, 'r+b').write(b'x'))
            """
        )
        assert files
        for path in files:
            assert process.call("look", path) in NO
            assert process.call("break_", path) in NO
        assert kernel["docs/a"] == b"precious"


def test_no_descriptor_of_the_kernels_process_is_open_in_it(room: Room, tmp_path: Path) -> None:
    with (tmp_path / "open").open("w", encoding="utf-8") as file:
        os.set_inheritable(file.fileno(), True)  # noqa: FBT003 - it has no name for it
        process = room.start(
            """
            def open_ones(self):
                found = {}
                for number in range(64):
                    with contextlib.suppress(OSError):
                        found[str(number)] = oct(os.fstat(number).st_mode >> 12)
                return found
            """
        )
        kinds = sorted(process.call("open_ones").values())
    # stdin is /dev/null, stdout and stderr one pipe, and the socket.
    assert kinds == ["0o1", "0o1", "0o14", "0o2"]


# --- other processes ------------------------------------------------------------------------------


def test_the_environment_is_empty_but_for_what_is_named(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DWKERNEL_TEST_SECRET", "s3cret")
    monkeypatch.setenv("DWKERNEL_TEST_SHOWN", "shown")
    process = room.start(
        "def see(self): return dict(os.environ)", environment=("DWKERNEL_TEST_SHOWN", "ABSENT")
    )
    seen = process.call("see")
    seen.pop("LC_CTYPE", None)  # Python's own, where the locale is C (PEP 538)
    assert seen == {"DWKERNEL_TEST_SHOWN": "shown"}


@pytest.mark.parametrize("file", ["environ", "mem", "maps", "cmdline", "fd", "cwd/x", "root/etc"])
def test_the_kernels_process_cannot_be_looked_into(file: str, room: Room) -> None:
    process = room.start(
        """
        def look(self, path):
            if os.path.basename(path) in ('fd', 'etc'):
                return refused(os.listdir, path)
            return refused(lambda: open(path, 'rb').read(1))
        """
    )
    for pid in (os.getpid(), 1):
        assert process.call("look", f"/proc/{pid}/{file}") in (*NO, "ENOENT")


REACHING = {
    "ptrace": (16,),  # PTRACE_ATTACH
    "process_vm_readv": (),
    "process_vm_writev": (),
    "pidfd_open": (),
    "kcmp": (),
    "prlimit64": (),
    "sched_setaffinity": (),
}


@pytest.mark.parametrize("name", REACHING)
def test_the_kernels_process_cannot_be_traced_or_touched(name: str, room: Room) -> None:
    number = numbers(seccomp.here())[name]
    process = room.start("def do(self, *numbers): return syscall(*numbers)")
    arguments = (*REACHING[name], os.getpid(), 0, 0, 0, 0)
    assert process.call("do", number, *arguments) == "EPERM"


def test_signals_reach_nobody_but_itself(room: Room) -> None:
    process = room.start(
        """
        def send(self, pid): return refused(os.kill, pid, 0)
        def thread(self, pid): return syscall(234, pid, pid, 0)
        """
    )
    for pid in (os.getpid(), os.getppid(), 1, -1, -os.getpid()):
        assert process.call("send", pid) == "EPERM"
    assert process.call("send", process.call("pid")) == "None"


@pytest.mark.parametrize(
    "code",
    [
        "os.fork()",
        "os.execv('/bin/true', ['true'])",
        "os.posix_spawn('/bin/true', ['true'], {})",
        "__import__('subprocess').run(['/bin/true'])",
        "os.system('true') and os.listdir('/')",
        "__import__('multiprocessing').get_context('fork').Process(target=print).start()",
    ],
)
def test_it_starts_no_processes(code: str, room: Room) -> None:
    process = room.start(f"def do(self): return refused(lambda: {code})")
    assert process.call("do") in NO
    assert process.call("echo", 1) == 1


def test_with_the_permission_it_starts_programs_which_are_confined_as_it_is(
    room: Room, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("hidden", encoding="utf-8")
    process = room.start(
        """
        def run(self, *words):
            import subprocess
            done = subprocess.run(words, capture_output=True, text=True)
            return done.returncode, done.stdout + done.stderr
        """,
        subprocess=True,
        memory_bytes=1 << 30,
    )
    assert process.call("run", "/bin/echo", "hello") == [0, "hello\n"]
    status, said = process.call("run", "/bin/cat", str(tmp_path / "secret"))
    assert status != 0
    assert "hidden" not in said
    status, said = process.call("run", "/bin/sh", "-c", f"kill -9 {os.getpid()}; echo $?")
    assert "Operation not permitted" in said


def test_what_it_leaves_behind_ends_with_it(room: Room) -> None:
    process = room.start(
        """
        def leave(self):
            if os.fork():
                return os.wait()[0]
            if os.fork():
                os._exit(0)
            refused(os.setsid)
            refused(os.setpgid, 0, 0)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            open('pid', 'w').write(str(os.getpid()))
            os.rename('pid', 'ready')
            while True:
                time.sleep(60)
        def where(self): return os.getcwd()
        """,
        subprocess=True,
    )
    ready = Path(process.call("where")) / "ready"
    process.call("leave")
    until(ready.exists)
    orphan = int(ready.read_text(encoding="utf-8"))
    assert not gone(orphan)
    process.stop()
    until(lambda: gone(orphan))


def test_a_fork_bomb_is_ended_with_all_its_parts(room: Room) -> None:
    process = room.start(
        """
        def bomb(self):
            while True:
                with contextlib.suppress(OSError):
                    if os.fork() == 0:
                        time.sleep(60)
        """,
        subprocess=True,
        processes=30,
        memory_bytes=1 << 40,  # each counts what they share
    )
    pid = process.call("pid")
    assert code_of(lambda: process.call("bomb")) == "plugin.died"
    assert "30 threads and processes" in str(process.status().last_error)
    until(lambda: not _group(pid))


def _group(pid: int) -> list[int]:
    from dwkernel.plugins.confined.watch import _members

    return _members(pid)


# --- the network ----------------------------------------------------------------------------------


@pytest.fixture
def listener() -> Any:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


CONNECT = """
def connect(self, port):
    def attempt():
        with socket.create_connection(('127.0.0.1', port), 10) as made:
            made.sendall(b'hello')
    return refused(attempt)
def make(self, family, kind): return refused(socket.socket, family, kind)
def local(self, path):
    def attempt():
        with socket.socket(socket.AF_UNIX) as made:
            made.connect(path)
    return refused(attempt)
def datagram(self, path):
    def attempt():
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        one.sendto(b'x', path)
    return refused(attempt)
def resolve(self):
    return socket.getaddrinfo('localhost', 80, socket.AF_INET)[0][4][0]
def pair(self):
    one, other = socket.socketpair()
    one.sendall(b'x')
    return other.recv(1)
"""


def test_without_the_permission_there_is_no_network(room: Room, listener: socket.socket) -> None:
    process = room.start(CONNECT)
    assert process.call("connect", listener.getsockname()[1]) in NO
    for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, 16, 17):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
            assert process.call("make", int(family), int(kind)) in NO
    assert process.call("pair") == b"x"  # asyncio needs it


def test_with_the_permission_it_connects_but_not_to_local_sockets(
    room: Room, listener: socket.socket, tmp_path: Path
) -> None:
    process = room.start(CONNECT, network=True)
    assert process.call("connect", listener.getsockname()[1]) == "None"
    connection, _ = listener.accept()
    with connection:
        assert connection.recv(5) == b"hello"
    path = str(tmp_path / "local")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        assert process.call("local", path) in NO
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(path + "2")
        assert process.call("datagram", path + "2") in NO
    assert process.call("make", int(socket.AF_INET), int(socket.SOCK_RAW)) in NO
    assert process.status().confinement.network == "granted"  # type: ignore[union-attr]
    assert process.call("resolve") == "127.0.0.1"


# --- privileges -----------------------------------------------------------------------------------


def test_it_has_no_privileges_and_cannot_get_any(room: Room) -> None:
    process = room.start(
        """
        def drop(self): return [refused(os.setuid, 0), refused(os.setgroups, [0])]
        def prctl(self, option, value=0):
            libc = ctypes.CDLL(None, use_errno=True)
            found = libc.prctl(option, *map(ctypes.c_ulong, (value, 0, 0, 0)))
            return errno.errorcode[ctypes.get_errno()] if found < 0 else found
        """
    )
    pid = process.call("pid")
    fields = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        if ":\t" in line
    )
    for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(fields[kind], 16) == 0
    assert fields["NoNewPrivs"] == "1"
    assert Path(f"/proc/{pid}/oom_score_adj").read_text(encoding="utf-8") == "500\n"
    assert fields["Seccomp"] == "2"
    assert process.call("drop") == ["EPERM", "EPERM"]
    for option in (1, 4):  # no death signal, dumpable
        assert process.call("prctl", option) == "EPERM"


def test_the_limits_are_there_and_cannot_be_raised(room: Room) -> None:
    process = room.start(
        """
        def limits(self):
            return {name: list(resource.getrlimit(getattr(resource, name)))
                    for name in ('RLIMIT_AS', 'RLIMIT_NOFILE', 'RLIMIT_CORE', 'RLIMIT_FSIZE')}
        def lift(self):
            try:
                resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
            except (ValueError, OSError) as error:
                return type(error).__name__
        def files(self):
            held = []
            try:
                while True:
                    held.append(open('/dev/null'))
            except OSError as error:
                return len(held), errno.errorcode[error.errno]
        """,
        memory_bytes=256 << 20,
        open_files=20,
        disk_bytes=1 << 20,
    )
    assert process.call("limits") == {
        "RLIMIT_AS": [256 << 20] * 2,
        "RLIMIT_NOFILE": [20] * 2,
        "RLIMIT_CORE": [0, 0],
        "RLIMIT_FSIZE": [1 << 20] * 2,
    }
    assert process.call("lift") in ("ValueError", "PermissionError")
    assert process.call("files") == [16, "EMFILE"]


# --- older kernels --------------------------------------------------------------------------------


@pytest.mark.parametrize("abi", range(1, 8))
def test_each_version_of_landlock_keeps_files_network_and_signals_away(
    abi: int, room: Room, monkeypatch: pytest.MonkeyPatch, listener: socket.socket
) -> None:
    if launch.landlock_abi() < abi:
        pytest.skip(f"this kernel has Landlock {launch.landlock_abi()} only")
    _pretend(monkeypatch, abi)
    process = room.start(
        CONNECT
        + """
def read(self, path): return refused(lambda: open(path).read())
def cut(self, path): return refused(os.truncate, path, 0)
def send(self, pid): return refused(os.kill, pid, 0)
def own(self): return refused(lambda: open('file', 'w').write('x'))
"""
    )
    assert process.status().confinement.landlock == abi  # type: ignore[union-attr]
    assert process.call("read", "/etc/passwd") in NO
    assert process.call("cut", str(room.folder / "plugin.py")) in NO
    assert process.call("send", os.getpid()) == "EPERM"
    assert process.call("connect", listener.getsockname()[1]) in NO
    assert process.call("own") == "1"


def _pretend(monkeypatch: pytest.MonkeyPatch, abi: int) -> None:
    real = launch.hello
    monkeypatch.setattr(
        "dwkernel.plugins.confined.keeper.hello",
        lambda spec, pid, scratch: real(spec, pid, scratch, abi_max=abi),
    )


def test_a_system_without_landlock_is_refused_or_says_what_is_missing(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pretend(monkeypatch, 0)
    assert code_of(room.start) == "plugin.sandbox"
    process = room.start(confinement="best")
    confinement = process.status().confinement
    assert confinement is not None
    assert confinement.landlock == 0
    assert "no Landlock" in confinement.missing[0]


def test_an_architecture_without_a_filter_is_refused_or_says_what_is_missing(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dwkernel.plugins.confined.filter.here", lambda: "riscv64")
    assert code_of(room.start) == "plugin.sandbox"
    confinement = room.start(confinement="best").status().confinement
    assert confinement is not None
    assert (confinement.seccomp, confinement.network) == (False, "open")
    assert "filter" in confinement.missing[0]
