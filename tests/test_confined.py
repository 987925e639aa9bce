"""A confined plugin that behaves: calls, times, errors, the beginning and the end."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from confining import Room, gone, needs_filter, needs_landlock, room
from dwkernel import errors
from dwkernel.plugins import confined
from expect import code_of, until

__all__ = ["room"]
pytestmark = [needs_landlock, needs_filter]


def test_a_call_takes_plain_data_and_returns_it_with_its_types(room: Room) -> None:
    process = room.start()
    value = {"a": [None, True, 1, -(2**63), 0.5, "ä", b"\0\xff"], "b": {}}
    assert process.call("echo", value) == value
    assert [type(one) for one in process.call("echo", value)["a"]] == [
        type(one) for one in value["a"]
    ]
    assert process.call("echo", (1, 2)) == [1, 2]


def test_a_plugin_gets_its_configuration(room: Room) -> None:
    process = room.start("def told(self): return self.config", config={"size": 3, "name": "x"})
    assert process.call("told") == {"size": 3, "name": "x"}


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 1 << 20, 7_000_001])
def test_long_messages_arrive_whole(size: int, room: Room) -> None:
    data = os.urandom(size)
    assert room.start().call("echo", data) == data


def test_many_threads_call_at_once_and_each_gets_its_own_answer(room: Room) -> None:
    process = room.start()

    def ask(number: int) -> bool:
        data = str(number).encode() * (number % 3 * 30_000 + 1)
        return bool(process.call("echo", data) == data)

    with ThreadPoolExecutor(20) as pool:
        assert all(pool.map(ask, range(1000)))
    status = process.status()
    assert (status.calls, status.failures, status.open_calls) == (1000, 0, 0)


def test_a_slow_call_holds_no_other_up(room: Room) -> None:
    process = room.start(
        """
        go = threading.Event()
        def wait(self): return self.go.wait(60)
        def free(self): self.go.set()
        """
    )
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(process.call, "wait")
        until(lambda: process.status().open_calls == 1)
        assert [process.call("echo", n) for n in range(100)] == list(range(100))
        assert not slow.done()
        process.call("free")
        assert slow.result(60) is True


def test_more_calls_than_may_be_at_once_wait_for_a_place(room: Room) -> None:
    process = room.start(
        """
        running, most = 0, 0
        lock = threading.Lock()
        def work(self):
            with self.lock:
                self.running += 1
                self.most = max(self.most, self.running)
            time.sleep(0.02)
            with self.lock:
                self.running -= 1
        def seen(self): return self.most
        """,
        calls=3,
    )
    with ThreadPoolExecutor(12) as pool:
        for done in [pool.submit(process.call, "work") for _ in range(24)]:
            done.result(60)
    assert process.call("seen") == 3


def test_what_a_plugin_raises_comes_back_with_type_text_and_traceback(room: Room) -> None:
    process = room.start("def bad(self): return {}['missing']")
    with pytest.raises(errors.Internal) as caught:
        process.call("bad")
    error = caught.value
    assert error.code == "plugin.failed"
    assert error.details["type"] == "KeyError"
    assert error.details["text"] == "'missing'"
    assert "plugin.py" in error.details["traceback"]
    assert process.call("echo", 1) == 1
    assert process.status().failures == 1
    assert "KeyError" in str(process.status().last_error)


@pytest.mark.parametrize("raised", ["SystemExit(3)", "KeyboardInterrupt()", "Wicked()"])
def test_whatever_is_raised_is_an_answer(raised: str, room: Room) -> None:
    wicked = """
    class Wicked(BaseException):
        def __str__(self): raise ValueError
    """
    process = room.start(f"def bad(self): raise {raised}", before=wicked)
    assert code_of(lambda: process.call("bad")) == "plugin.failed"
    assert process.call("echo", 1) == 1


def test_what_is_not_plain_is_refused_on_either_side(room: Room) -> None:
    process = room.start("def thing(self): return object()")
    assert code_of(lambda: process.call("echo", object())) == "plugin.option"
    assert code_of(lambda: process.call("echo", bytes(9 << 20))) == "plugin.option"
    assert code_of(lambda: process.call("thing")) == "plugin.failed"
    assert process.call("echo", 1) == 1


@pytest.mark.parametrize("method", ["_hidden", "__init__", "a.b", "", "no such", 3])
def test_only_public_methods_can_be_called(method: Any, room: Room) -> None:
    process = room.start("def _hidden(self): return 1")
    assert code_of(lambda: process.call(method)) == "plugin.option"


def test_a_method_that_is_missing_is_said_to_be(room: Room) -> None:
    process = room.start()
    with pytest.raises(errors.Internal, match="no method nothing"):
        process.call("nothing")


def test_nothing_is_lost_or_mixed_up_under_random_delays_and_timeouts(room: Room) -> None:
    process = room.start(
        """
        def late(self, value, wait_s):
            time.sleep(wait_s)
            return value
        """,
        calls=6,
    )

    def ask(seed: int) -> int:
        chance, right = random.Random(seed), 0
        for number in range(100):
            value = [seed, number, bytes(chance.choice([0, 10, 1000, 100_000]))]
            wait_s = chance.choice([0, 0, 0.001, 0.01])
            try:
                got = process.call(
                    "late", value, wait_s, timeout_s=chance.choice([None, 30, 0.005, 0.02])
                )
            except errors.Timeout:
                continue
            assert got == value
            right += 1
        return right

    with ThreadPoolExecutor(12) as pool:
        assert min(pool.map(ask, range(12))) > 10
    until(lambda: process.status().open_calls == 0)
    assert process.call("echo", 1) == 1


# --- time -----------------------------------------------------------------------------------------


def test_a_caller_that_waits_no_longer_leaves_the_plugin_running(room: Room) -> None:
    process = room.start(
        """
        def work(self):
            from dwkernel_inside import cancelled
            while not cancelled():
                time.sleep(0.001)
            self.noticed = True
        def seen(self): return getattr(self, 'noticed', False)
        """
    )
    assert code_of(lambda: process.call("work", timeout_s=0.05)) == "plugin.timeout"
    until(lambda: process.call("seen"))
    until(lambda: process.status().open_calls == 0)


def test_a_call_that_never_ends_ends_the_process_and_says_which_it_was(room: Room) -> None:
    ended: list[str] = []
    process = room.start(wall_s=0.3, callbacks={"on_exit": ended.append})
    assert code_of(lambda: process.call("hang")) == "plugin.timeout"
    until(lambda: ended)
    assert "hang() did not end within 0.3 s" in ended[0]
    assert not process.alive
    assert code_of(lambda: process.call("echo", 1)) == "plugin.died"


def test_other_calls_that_a_killed_process_had_are_told_that_it_died(room: Room) -> None:
    process = room.start("def spin(self):\n    while True: pass", cpu_s=0.3)
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(process.call, "spin"), pool.submit(process.call, "hang")]
        codes = [code_of(lambda one=one: one.result(60)) for one in calls]  # type: ignore[misc]
    # Either may be the one that used more of the processor, by a tick's measure.
    assert sorted(codes) == ["plugin.died", "plugin.timeout"]


def test_a_plugin_that_imports_slowly_is_given_up(room: Room) -> None:
    room.write(before="time.sleep(60)")
    begun = time.monotonic()
    assert code_of(lambda: confined.start(room.spec(start_s=0.2))) == "plugin.timeout"
    assert time.monotonic() - begun < 30


# --- beginnings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "entry", "says"),
    [
        ("import nowhere_to_be_found", "plugin:Plugin", "nowhere_to_be_found"),
        ("if", "plugin:Plugin", "SyntaxError"),
        ("sys.exit(4)", "plugin:Plugin", "SystemExit"),
        ("", "plugin:Missing", "Missing"),
        ("", "missing:Plugin", "missing"),
    ],
)
def test_what_cannot_be_imported_says_why(before: str, entry: str, says: str, room: Room) -> None:
    room.write(before=before)
    with pytest.raises(errors.Invalid, match=says) as caught:
        confined.start(room.spec(entry=entry))
    assert caught.value.code == "plugin.load"


@pytest.mark.parametrize(
    ("name", "value"), [("platform", "darwin"), ("executable", ""), ("executable", None)]
)
def test_where_no_process_can_be_had_it_is_refused(
    name: str, value: str | None, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.write()
    monkeypatch.setattr(sys, name, value)
    assert code_of(lambda: confined.start(room.spec(confinement="best"))) == "plugin.sandbox"


def test_a_system_that_can_start_no_process_is_said_to_and_may_be_asked_again(
    room: Room, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    room.write()

    def full(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "no more processes")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(subprocess, "Popen", full)
    with pytest.raises(errors.Unavailable, match="no more processes") as caught:
        confined.start(room.spec())
    assert caught.value.code == "plugin.died"
    assert [path.name for path in tmp_path.iterdir()] == ["plugin"]


def test_a_process_that_ends_while_it_starts_says_how_and_what_it_printed(room: Room) -> None:
    room.write(before="print('farewell', flush=True); os._exit(7)")
    with pytest.raises(errors.Unavailable, match="status 7") as caught:
        confined.start(room.spec())
    assert caught.value.code == "plugin.died"
    assert "farewell" in caught.value.details["printed"]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"entry": "plugin"}, "plugin.manifest"),
        ({"entry": "../plugin:Plugin"}, "plugin.manifest"),
        ({"folder": Path("/nowhere/at/all")}, "plugin.load"),
        ({"folder": Path("/")}, "plugin.manifest"),
        ({"memory_bytes": 1}, "plugin.manifest"),
        ({"calls": 0}, "plugin.manifest"),
        ({"calls": True}, "plugin.manifest"),
        ({"wall_s": float("nan")}, "plugin.manifest"),
        ({"wall_s": "1"}, "plugin.manifest"),
        ({"read": ("relative",)}, "plugin.manifest"),
        ({"read": "/etc"}, "plugin.manifest"),
        ({"confinement": "maybe"}, "plugin.manifest"),
        pytest.param({"config": {"a": object()}}, "plugin.option", id="an object"),
    ],
    ids=str,
)
def test_a_wrong_specification_is_refused(options: dict[str, Any], code: str, room: Room) -> None:
    room.write()
    assert code_of(lambda: confined.start(room.spec(**options))) == code


def test_a_start_leaves_no_process_and_no_folder_behind_when_it_fails(
    room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    room.write(before="sys.exit(1)")
    before = {path.name for path in Path("/proc/self/fd").iterdir()}
    assert code_of(lambda: confined.start(room.spec())) == "plugin.load"
    assert [path.name for path in tmp_path.iterdir()] == ["plugin"]
    assert {path.name for path in Path("/proc/self/fd").iterdir()} == before


# --- ends -----------------------------------------------------------------------------------------


def test_stop_lets_calls_under_way_end_and_takes_no_more(room: Room) -> None:
    process = room.start("def slow(self):\n    time.sleep(0.2)\n    return 'done'")
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(process.call, "slow")
        until(lambda: process.status().open_calls == 1)
        stopping = pool.submit(process.stop)
        until(lambda: not process.alive)
        assert code_of(lambda: process.call("echo", 1)) == "plugin.state"
        assert slow.result(60) == "done"
        stopping.result(60)
    process.stop()
    status = process.status()
    assert (status.state, status.pid, status.failures) == ("ended", None, 0)


def test_stop_cuts_off_what_is_not_done_by_its_deadline(room: Room) -> None:
    process = room.start()
    pid = process.call("pid")
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(process.call, "hang")
        until(lambda: process.status().open_calls == 1)
        process.stop(0.1)
        assert code_of(lambda: hanging.result(60)) == "plugin.died"
    assert gone(pid)


def test_the_scratch_folder_is_the_working_folder_and_goes_with_the_process(room: Room) -> None:
    process = room.start(
        """
        def work(self):
            import tempfile
            with tempfile.NamedTemporaryFile(delete=False) as file:
                file.write(b'x')
            open('own', 'w').close()
            return os.getcwd(), file.name, oct(os.stat('own').st_mode & 0o777)
        """
    )
    here, file, mode = process.call("work")
    assert file.startswith(here)
    assert mode == "0o600"
    assert Path(here).is_dir()
    process.stop()
    assert not Path(here).exists()


def test_what_it_tells_and_why_it_ended_are_heard_in_order(room: Room) -> None:
    heard: list[Any] = []
    process = room.start(
        """
        def tell(self):
            from dwkernel_inside import emit, log
            for number in range(10):
                emit('number', number)
            log('a line', 'warning')
        def leave(self): os._exit(9)
        """,
        callbacks={"on_event": heard.append, "on_exit": heard.append},
    )
    process.call("tell")
    until(lambda: len(heard) == 11)
    assert code_of(lambda: process.call("leave")) == "plugin.died"
    until(lambda: len(heard) == 12)
    assert heard[:10] == [("number", number) for number in range(10)]
    assert heard[10:] == [
        ("log", {"level": "warning", "text": "a line"}),
        "it ended with status 9",
    ]


def test_callbacks_that_hang_or_raise_hold_nothing_up(room: Room) -> None:
    held = threading.Event()

    def hang(_event: object) -> None:
        held.wait(60)
        raise ValueError

    process = room.start(
        "def tell(self):\n    from dwkernel_inside import emit\n    emit('x')\n    return 1",
        wall_s=0.3,
        callbacks={"on_event": hang},
    )
    assert process.call("tell") == 1
    assert code_of(lambda: process.call("hang")) == "plugin.timeout"
    until(lambda: not process.alive)
    held.set()


def test_a_process_that_was_killed_says_by_which_signal(room: Room) -> None:
    process = room.start()
    os.kill(process.call("pid"), signal.SIGKILL)
    until(lambda: not process.alive)
    assert "SIGKILL" in str(process.status().last_error)


def test_prints_are_kept_to_the_last_lines(room: Room) -> None:
    process = room.start(
        """
        def talk(self):
            for number in range(1000):
                print('line', number)
            print('x' * 100_000)
            sys.stderr.write('no end')
            sys.stdout.flush()
            sys.stderr.flush()
        """
    )
    process.call("talk")
    until(lambda: process.status().last_lines[-1:] == ("no end",))
    lines = process.status().last_lines
    assert len(lines) <= 101
    assert "line 999" in lines
    assert max(map(len, lines)) <= 1000


def test_the_status_tells_pid_memory_and_confinement(room: Room) -> None:
    process = room.start(version="1.2")
    pid = process.call("pid")
    until(lambda: process.status().rss_bytes > 0)
    status = process.status()
    assert (status.pid, status.version, status.state) == (pid, "1.2", "running")
    assert 1 << 20 < status.rss_bytes < 200 << 20
    assert status.confinement is not None
    assert status.confinement.landlock >= 1
    assert status.confinement.network == "denied"
    assert status.confinement.missing == ()


def test_the_thread_that_started_a_plugin_may_end(room: Room) -> None:
    made: list[confined.Process] = []
    thread = threading.Thread(target=lambda: made.append(room.start()))
    thread.start()
    thread.join()
    # The death signal would come with the end of the thread that forked.
    assert made[0].call("echo", 1) == 1
    assert made[0].alive


# --- this process ends, forks ---------------------------------------------------------------------


def test_a_forked_child_cannot_use_it_and_does_not_hold_it(room: Room) -> None:
    process = room.start()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            process.call("echo", 1)
        except errors.State as error:
            os.write(writing, error.code.encode())
        os.write(writing, str(process.alive).encode())
        launched = process._keeper._launched
        os.write(writing, str(launched and launched.sock.fileno()).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 100) == b"plugin.stateFalse-1"
    os.close(reading)
    os.close(writing)
    assert process.call("echo", 1) == 1


PROGRAM = """
import os, sys, time
from pathlib import Path
from dwkernel.plugins import confined
process = confined.start(confined.Spec(
    "tested", Path(sys.argv[1]), "plugin:Plugin",
    permissions=confined.Permissions(write=(sys.argv[1],)),
))
print(process.call("pid"), process.call("where"), flush=True)
"""


def program(room: Room, end: str) -> subprocess.Popen[str]:
    if not (room.folder / "plugin.py").exists():
        room.write("def where(self): return os.getcwd()")
    code = PROGRAM + textwrap.dedent(end)
    return subprocess.Popen(
        [sys.executable, "-c", code, str(room.folder)], stdout=subprocess.PIPE, text=True
    )


def first_line(running: subprocess.Popen[str]) -> list[str]:
    assert running.stdout is not None
    return running.stdout.readline().split()


def test_a_program_that_just_ends_takes_it_along_with_its_folder(room: Room) -> None:
    with program(room, "") as running:
        pid, where = first_line(running)
        assert running.wait(60) == 0
    assert gone(int(pid))
    assert not Path(where).exists()


def test_a_forked_child_that_ends_takes_nothing_along(room: Room) -> None:
    end = """
    if os.fork() == 0:
        sys.exit(0)  # with all that a program does at its end
    os.wait()
    print(process.call("echo", "alive"), Path(process.call("where")).is_dir(), flush=True)
    """
    with program(room, end) as running:
        first_line(running)
        assert first_line(running) == ["alive", "True"]
        assert running.wait(60) == 0


def test_a_program_that_is_killed_takes_it_along(room: Room) -> None:
    with program(room, "time.sleep(60)") as running:
        pid, where = first_line(running)
        running.kill()
        running.wait(60)
        until(lambda: gone(int(pid)))
    Path(where).rmdir()


def test_it_dies_with_its_program_also_where_it_hears_nothing(room: Room) -> None:
    # Inside C it holds its interpreter's lock: it sees no line that ends.
    end = """
    import threading
    threading.Thread(target=process.call, args=("spin",), daemon=True).start()
    while not Path(sys.argv[1], "spins").exists():
        time.sleep(0.01)
    time.sleep(60)
    """
    room.write(
        """
        def where(self): return os.getcwd()
        def spin(self):
            os.open(os.path.join(os.path.dirname(__file__), 'spins'), os.O_CREAT)
            pow(3, 10**9, 10**400_000)
        """
    )
    with program(room, end) as running:
        pid, where = first_line(running)
        until((room.folder / "spins").exists)
        time.sleep(0.2)
        assert not gone(int(pid))
        running.kill()
        running.wait(60)
        until(lambda: gone(int(pid)))
    Path(where).rmdir()


def test_it_dies_with_its_program_also_where_a_fork_of_that_lives_on(room: Room) -> None:
    end = """
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    print(child, flush=True)
    os.kill(os.getpid(), 9)
    """
    with program(room, end) as running:
        pid, where = first_line(running)
        fork = int(first_line(running)[0])
        running.wait(60)
        until(lambda: gone(int(pid)))
        assert not gone(fork)
        os.kill(fork, signal.SIGKILL)
    Path(where).rmdir()


def test_importing_it_costs_the_kernel_nothing_until_then() -> None:
    code = "import sys, dwkernel; print(any('plugins' in name for name in sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
