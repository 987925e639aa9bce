"""Confined plugins that break: they crash, eat, flood and lie, and only their own process ends."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from confining import Room, gone, needs_filter, needs_landlock, room
from dwkernel import errors
from dwkernel.plugins import confined
from dwkernel.plugins.confined import line as lines
from expect import code_of, until

__all__ = ["room"]
pytestmark = [needs_landlock, needs_filter]


def answers_or_dies(process: confined.Process, method: str) -> None:
    """Call what the process is ended for, maybe before it answers."""
    with suppress(errors.Unavailable):
        process.call(method)


def ends(room: Room, methods: str, *says: str, **options: Any) -> str:
    """Call `do`, which must end the process; return why it ended."""
    process = room.start(methods, **options)
    pid = process.call("pid")
    code = code_of(lambda: process.call("do"))
    until(lambda: process.status().pid is None)
    assert gone(pid)
    reason = str(process.status().last_error)
    for word in says:
        assert word in reason
    assert code_of(lambda: process.call("echo", 1)) == "plugin.died"
    return code


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("os._exit(5)", "status 5"),
        ("os.abort()", "SIGABRT"),
        ("ctypes.string_at(0)", "SIGSEGV"),
        ("os.kill(os.getpid(), 9)", "SIGKILL"),
        ("os.kill(0, 15)", "SIGTERM"),
    ],
)
def test_a_crash_in_a_call_is_reported_with_how(code: str, says: str, room: Room) -> None:
    assert ends(room, f"def do(self): {code}", says) == "plugin.died"


def test_a_memory_bomb_gets_an_error_and_not_the_machine(room: Room) -> None:
    process = room.start(
        """
        def do(self):
            held = []
            while True:
                held.append(bytearray(1 << 20))
        """,
        memory_bytes=128 << 20,
    )
    with pytest.raises(errors.Internal) as caught:
        process.call("do")
    assert caught.value.details["type"] == "MemoryError"
    assert process.call("echo", 1) == 1


def test_memory_cannot_be_had_by_other_ways(room: Room) -> None:
    process = room.start(
        """
        def mapped(self):
            import mmap
            try:
                return len(mmap.mmap(-1, 256 << 20))
            except OSError as error:
                return errno.errorcode[error.errno]
        def file(self): return refused(os.memfd_create, 'x')
        def shared(self): return syscall(29, 0, 1 << 20, 0o1600)
        """,
        memory_bytes=128 << 20,
    )
    assert process.call("mapped") == "ENOMEM"
    assert process.call("file") == "EPERM"


def test_a_spin_is_ended_by_its_processor_time(room: Room) -> None:
    spin = "def do(self):\n    while True: pass"
    assert ends(room, spin, "do()", "processors", cpu_s=0.2) == "plugin.timeout"


def test_a_spin_in_c_is_ended_by_its_time_too(room: Room) -> None:
    # It holds the interpreter's lock: nothing else of the process runs.
    spin = "def do(self): return pow(3, 10**9, 10**400_000)"
    assert ends(room, spin, "do()", wall_s=0.4) == "plugin.timeout"


def test_a_spin_between_calls_is_ended_as_well(room: Room) -> None:
    process = room.start(
        """
        def leave(self):
            def spin():
                while True: pass
            threading.Thread(target=spin, daemon=True).start()
        """,
        cpu_s=0.2,
    )
    process.call("leave")
    until(lambda: not process.alive)
    assert "without a call" in str(process.status().last_error)


def test_leaked_threads_are_ended_when_they_are_too_many(room: Room) -> None:
    process = room.start(
        """
        def leak(self):
            for _ in range(50):
                threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        """,
        processes=40,
    )
    answers_or_dies(process, "leak")
    until(lambda: not process.alive)
    assert "40 threads" in str(process.status().last_error)


def test_a_full_scratch_folder_ends_it(room: Room) -> None:
    process = room.start(
        """
        def one(self): return refused(lambda: open('big', 'wb').write(bytes(3 << 20)))
        def many(self):
            for number in range(8):
                with open(str(number), 'wb') as file:
                    file.write(bytes(1 << 20))
        """,
        disk_bytes=2 << 20,
    )
    assert process.call("one") == "EFBIG"
    answers_or_dies(process, "many")
    until(lambda: not process.alive)
    assert "scratch folder" in str(process.status().last_error)


def test_a_flood_of_prints_slows_the_plugin_and_not_the_kernel(room: Room) -> None:
    process = room.start(
        """
        def do(self):
            while True:
                os.write(1, b'x' * 4096)
        """,
        wall_s=0.5,
    )
    assert code_of(lambda: process.call("do")) == "plugin.timeout"
    assert sum(map(len, process.status().last_lines)) < 200_000


def test_it_cannot_be_made_to_print_into_the_kernels_own_output(
    room: Room, capfd: pytest.CaptureFixture[str]
) -> None:
    process = room.start(
        """
        def talk(self):
            print('printed')
            os.write(1, b'written')
            os.write(2, b'complained')
            os.write(0, b'x') if refused(os.write, 0, b'x') == '1' else None
        """
    )
    process.call("talk")
    process.stop()
    assert capfd.readouterr() == ("", "")


def test_what_it_changes_in_its_interpreter_it_changes_for_itself_alone(room: Room) -> None:
    import builtins
    import locale

    before = (len, locale.setlocale(locale.LC_ALL))
    process = room.start(
        """
        def change(self):
            import builtins, locale
            os.chdir('/')
            builtins.len = lambda _: 0
            locale.setlocale(locale.LC_ALL, 'C')
            os.umask(0)
            time.sleep = None
            sys.modules.clear()
        """
    )
    process.call("change")
    process.stop()
    assert (builtins.len, locale.setlocale(locale.LC_ALL)) == before


def test_a_plugin_that_ignores_signals_is_ended_all_the_same(room: Room) -> None:
    process = room.start(
        """
        def ignore(self):
            libc = ctypes.CDLL(None)
            libc.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
            for number in range(1, 32):
                libc.signal(number, 1)
        """
    )
    pid = process.call("pid")
    process.call("ignore")
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(process.call, "hang")
        until(lambda: process.status().open_calls == 1)
        process.stop(0.1)
        assert code_of(lambda: hanging.result(60)) == "plugin.died"
    assert gone(pid)


def test_a_plugin_that_is_stopped_by_a_signal_is_ended_for_its_silence(room: Room) -> None:
    # Stopped, not ended: nobody calls, and it says nothing.
    process = room.start(
        "def later(self):\n    threading.Timer(0.1, os.kill, (os.getpid(), 19)).start()",
        heartbeat_s=0.1,
        wall_s=0.2,
    )
    process.call("later")
    until(lambda: not process.alive)
    assert "heartbeat" in str(process.status().last_error)


def test_a_plugin_that_is_silent_for_long_is_well_if_it_answers(room: Room) -> None:
    process = room.start(heartbeat_s=0.05, wall_s=0.1)
    heard = process._keeper.line
    assert heard is not None
    first = heard.last_heard
    until(lambda: heard.last_heard > first + 0.6)
    assert process.call("echo", 1) == 1


# --- the line -------------------------------------------------------------------------------------

BREACHES = {
    "no packet": ("line().send(b'x')", "less than its header"),
    "a packet too long": (
        "line().send(struct.pack('<BBHHI', 2, 0, 0, 1, 1) + bytes(65537))",
        "bytes",
    ),
    "a part of too many": (
        "line().send(struct.pack('<BBHHI', 2, 0, 0, 60000, 1) + bytes(65536))",
        "cannot be",
    ),
    "a kind that is none": ("line().send(struct.pack('<BBHHI', 77, 0, 0, 1, 1))", "kind 77"),
    "a call of its own": ("line().send(struct.pack('<BBHHI', 1, 0, 0, 1, 1))", "kind 1"),
    "an answer to nothing": (
        "line().send(struct.pack('<BBHHI', 2, 0, 0, 1, 99) + b'N')",
        "call 99",
    ),
    "a second greeting": ("line().send(struct.pack('<BBHHI', 8, 0, 0, 1, 0) + b'N')", "kind 8"),
    "garbage as an event": (
        "line().send(struct.pack('<BBHHI', 4, 0, 0, 1, 0) + b'garbage')",
        "protocol",
    ),
    "an event without a name": (
        "line().send(struct.pack('<BBHHI', 4, 0, 0, 1, 0) + b'N')",
        "name and data",
    ),
    "more incomplete ones than calls": (
        "[line().send(struct.pack('<BBHHI', 2, 0, 0, 2, n) + bytes(65536)) for n in range(20)]",
        "incomplete",
    ),
}


@pytest.mark.parametrize("breach", BREACHES)
def test_a_breach_of_the_protocol_ends_the_process(breach: str, room: Room) -> None:
    code, says = BREACHES[breach]
    do = f"def do(self):\n    {code}\n    time.sleep(60)"
    assert ends(room, do, "broke the protocol", says) == "plugin.died"


ANSWERS = {
    "garbage": "b'\\xffgarbage'",
    "nothing": "b''",
    "more than one value": "b'NN'",
    "depth": "(b'l' + struct.pack('<I', 1)) * 10000 + b'N'",
    "a count that is a lie": "b'l' + struct.pack('<I', 0xffffffff)",
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_that_is_no_data_ends_the_process(answer: str, room: Room) -> None:
    # Its own call is the second one: `pid` was the first.
    do = (
        "def do(self):\n"
        f"    line().send(struct.pack('<BBHHI', 2, 0, 0, 1, 2) + {ANSWERS[answer]})\n"
        "    time.sleep(60)"
    )
    assert ends(room, do, "broke the protocol") == "plugin.died"


def test_a_second_answer_ends_the_process(room: Room) -> None:
    do = """
    def do(self):
        line().send(struct.pack('<BBHHI', 2, 0, 0, 1, 2) + b'N')
        return 2
    """
    process = room.start(do)
    process.call("pid")
    assert process.call("do") is None
    until(lambda: not process.alive)
    assert "call 2" in str(process.status().last_error)


def test_a_process_that_closes_its_line_is_ended(room: Room) -> None:
    do = """
    def do(self):
        line().shutdown(socket.SHUT_WR)
        time.sleep(60)
    """
    assert ends(room, do, "closed its line") == "plugin.died"


def test_a_flood_of_events_ends_the_process(room: Room) -> None:
    do = """
    def do(self):
        sock = line()
        event = b'l\\x02\\0\\0\\0' b's\\0\\0\\0\\0' b'N'
        while True:
            sock.send(struct.pack('<BBHHI', 4, 0, 0, 1, 0) + event)
    """
    assert ends(room, do, f"more than {lines.EVENTS_PER_S} events") == "plugin.died"


def test_who_tells_much_is_slowed_down_and_heard(room: Room) -> None:
    heard: list[object] = []
    process = room.start(
        """
        def tell(self):
            from dwkernel_inside import emit
            begun = time.monotonic()
            for number in range(1000):
                emit('x', number)
            return time.monotonic() - begun
        """,
        callbacks={"on_event": lambda event: heard.append(event.data)},
    )
    assert 1.5 < process.call("tell") < 30
    until(lambda: len(heard) == 1000)
    assert heard == list(range(1000))
    assert process.alive


GREETINGS = {
    "ready before it is": "line().send(struct.pack('<BBHHI', 8, 0, 0, 1, 0) + b'N')",
    "an error that is none": "line().send(struct.pack('<BBHHI', 3, 0, 0, 1, 0) + b'N')",
    "garbage": "line().send(struct.pack('<BBHHI', 3, 0, 0, 1, 0) + b'garbage')",
    "confined once more": "line().send(struct.pack('<BBHHI', 11, 0, 0, 1, 0) + b'N')",
}


@pytest.mark.parametrize("greeting", GREETINGS)
def test_a_plugin_that_lies_while_it_is_imported_is_ended(greeting: str, room: Room) -> None:
    room.write(before=GREETINGS[greeting] + "\ntime.sleep(0.1)")
    try:
        process = confined.start(room.spec())
    except errors.Unavailable as error:
        assert "protocol" in error.details["reason"]  # noqa: PT017 - or it starts, and ends then
    else:
        until(lambda: not process.alive)
        assert "protocol" in str(process.status().last_error)


def test_its_folder_goes_however_deep_and_closed_it_is(room: Room) -> None:
    process = room.start(
        """
        def dig(self):
            here = os.getcwd()
            for number in range(1500):
                os.mkdir('d')
                os.chdir('d')
                open('file', 'w').close()
            os.chdir(here)
            os.mkdir('closed', 0)
            os.symlink('/', 'link')
            return here
        """
    )
    here = Path(process.call("dig"))
    assert here.is_dir()
    process.kill()
    assert not here.exists()


def test_what_is_hidden_below_a_path_that_is_too_long_counts_as_too_much(room: Room) -> None:
    process = room.start(
        """
        def dig(self):
            for number in range(30):
                os.mkdir('d' * 200)
                os.chdir('d' * 200)
        """
    )
    answers_or_dies(process, "dig")
    until(lambda: not process.alive)
    assert "scratch folder" in str(process.status().last_error)


def test_a_plugin_that_does_not_read_holds_its_callers_up_no_longer_than_it_may(
    room: Room,
) -> None:
    # All that could listen hang in calls that were abandoned, or have been taken away.
    process = room.start(
        """
        def stop(self):
            from threading import Event
            line().shutdown(socket.SHUT_RD)
            Event().wait(60)
        """,
        wall_s=0.5,
    )
    data = bytes(4 << 20)
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(process.call, "stop")]
        calls += [pool.submit(process.call, "echo", data) for _ in range(3)]
        for call in calls:
            assert code_of(lambda one=call: one.result(60)) in ("plugin.died", "plugin.timeout")  # type: ignore[misc]


def test_the_kernel_goes_on_whatever_some_of_its_plugins_do(room: Room) -> None:
    bad = room.start("def do(self, code): exec(code)", wall_s=0.5)
    good = room.start("def do(self, code): exec(code)")
    with ThreadPoolExecutor(8) as pool:
        work = [pool.submit(good.call, "echo", bytes(number)) for number in range(500)]
        broken = [pool.submit(bad.call, "do", "while True: pass") for _ in range(3)]
        assert [len(one.result(60)) for one in work] == list(range(500))
        for one in broken:
            assert code_of(lambda one=one: one.result(60)) in ("plugin.died", "plugin.timeout")  # type: ignore[misc]
    assert good.alive
