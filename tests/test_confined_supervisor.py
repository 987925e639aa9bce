"""A confined plugin that dies is there again, and one that dies too often is left alone."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from confining import Room, gone, needs_filter, needs_landlock, room
from dwkernel import errors
from dwkernel.plugins import confined
from dwkernel.plugins.confined import keeper
from dwkernel.plugins.confined.supervisor import Restarts
from expect import code_of, interrupted, until

__all__ = ["room"]
pytestmark = [needs_landlock, needs_filter]

SOON = {"restarts": Restarts(pause_s=0.01, pause_max_s=0.05, most=100)}
DIE = "def die(self): os._exit(3)"


def test_a_plugin_that_died_is_there_again_for_the_next_call(room: Room) -> None:
    supervisor = room.supervise(DIE, supervision=SOON)
    first = supervisor.call("pid")
    assert code_of(lambda: supervisor.call("die")) == "plugin.died"
    second = supervisor.call("pid")
    assert first != second
    status = supervisor.status()
    assert (status.restarts, status.state, status.pid) == (1, "running", second)
    # The calls of both lives: pid, die, pid.
    assert (status.calls, status.failures) == (3, 1)
    assert "status 3" in str(status.last_error)


def test_what_a_death_cut_off_can_be_tried_again_and_says_so(room: Room) -> None:
    supervisor = room.supervise(DIE, supervision=SOON)
    with pytest.raises(errors.Unavailable) as caught:
        supervisor.call("die")
    assert caught.value.retryable
    assert "status 3" in caught.value.details["reason"]


def test_calls_during_a_restart_wait_for_it_or_for_their_time(room: Room) -> None:
    restarts = Restarts(pause_s=0.5, most=100)
    supervisor = room.supervise(DIE, supervision={"restarts": restarts})
    assert code_of(lambda: supervisor.call("die")) == "plugin.died"
    until(lambda: supervisor.status().state == "waiting")
    begun = time.monotonic()
    assert code_of(lambda: supervisor.call("echo", 1, timeout_s=0.01)) == "plugin.died"
    assert time.monotonic() - begun < 0.3
    with ThreadPoolExecutor(5) as pool:
        assert list(pool.map(lambda n: supervisor.call("echo", n), range(5))) == list(range(5))


def test_pauses_grow_up_to_a_limit() -> None:
    restarts = Restarts(pause_s=0.5, pause_max_s=3)
    assert [restarts.pause_after(n) for n in (1, 2, 3, 4, 5, 10_000)] == [0.5, 1, 2, 3, 3, 3]


def test_a_plugin_that_dies_too_often_is_left_alone_until_it_is_restarted(room: Room) -> None:
    restarts = Restarts(pause_s=0.01, most=3)
    supervisor = room.supervise(DIE, supervision={"restarts": restarts})
    for _ in range(3):
        assert code_of(lambda: supervisor.call("die")) == "plugin.died"
    until(lambda: supervisor.status().state == "quarantined")
    assert code_of(lambda: supervisor.call("echo", 1)) == "plugin.quarantined"
    assert not supervisor.alive
    supervisor.restart()
    assert supervisor.call("echo", 1) == 1
    # Its deaths are forgotten: it may die as often as at first.
    assert code_of(lambda: supervisor.call("die")) == "plugin.died"
    assert supervisor.call("echo", 1) == 1


def test_old_deaths_do_not_count(room: Room) -> None:
    restarts = Restarts(pause_s=0.001, most=2, window_s=0.05)
    supervisor = room.supervise(DIE, supervision={"restarts": restarts})
    for _ in range(4):
        assert code_of(lambda: supervisor.call("die")) == "plugin.died"
        begun = time.monotonic()
        assert supervisor.call("echo", 1) == 1
        until(lambda: time.monotonic() - begun > 0.06)  # noqa: B023 - called at once
    assert supervisor.status().restarts == 4


def test_a_plugin_that_does_not_start_again_is_tried_and_left_alone(room: Room) -> None:
    supervisor = room.supervise(DIE, supervision={"restarts": Restarts(pause_s=0.01, most=3)})
    room.write(before="raise ValueError('broken update')")
    assert code_of(lambda: supervisor.call("die")) == "plugin.died"
    until(lambda: supervisor.status().state == "quarantined")
    with pytest.raises(errors.Unavailable, match="broken update") as caught:
        supervisor.call("echo", 1)
    assert caught.value.code == "plugin.quarantined"
    assert code_of(supervisor.restart) == "plugin.load"
    room.write()
    supervisor.restart()
    assert supervisor.call("echo", 1) == 1


def test_a_plugin_that_does_not_start_at_first_is_not_tried_again(room: Room) -> None:
    room.write(before="raise ValueError")
    assert code_of(lambda: confined.Supervisor(room.spec())) == "plugin.load"


def test_state_is_carried_over_by_what_was_exported_before(room: Room) -> None:
    kept: dict[str, Any] = {"state": None}

    def restore(process: confined.Process) -> None:
        if kept["state"] is not None:
            process.call("import_state", kept["state"])

    supervisor = room.supervise(
        """
        count = 0
        def add(self):
            self.count += 1
            return self.count
        def export_state(self): return {'count': self.count}
        def import_state(self, state): self.count = state['count']
        def die(self): os._exit(1)
        """,
        supervision={**SOON, "on_start": restore},
    )
    assert [supervisor.call("add") for _ in range(3)] == [1, 2, 3]
    kept["state"] = supervisor.call("export_state")
    supervisor.call("add")
    assert code_of(lambda: supervisor.call("die")) == "plugin.died"
    assert supervisor.call("add") == 4


def test_what_on_start_raises_is_a_death_like_others(room: Room) -> None:
    begun: list[int] = []

    def fail_once(process: confined.Process) -> None:
        begun.append(process.call("pid"))
        if len(begun) == 2:
            raise ValueError

    supervisor = room.supervise(DIE, supervision={**SOON, "on_start": fail_once})
    assert code_of(lambda: supervisor.call("die")) == "plugin.died"
    assert supervisor.call("pid") == begun[2]
    assert all(map(gone, begun[:2]))


def test_it_hears_of_each_end(room: Room) -> None:
    ended: list[str] = []
    supervisor = room.supervise(DIE, supervision={**SOON, "on_exit": ended.append})
    for count in (1, 2):
        assert code_of(lambda: supervisor.call("die")) == "plugin.died"
        until(lambda: len(ended) == count)  # noqa: B023 - called at once
    assert supervisor.call("echo", 1) == 1
    supervisor.stop()
    until(lambda: len(ended) == 3)
    assert ended == ["it ended with status 3"] * 2 + ["it was stopped"]


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_what_is_stopped_stays_so(how: str, room: Room) -> None:
    supervisor = room.supervise(DIE, supervision=SOON)
    pid = supervisor.call("pid")
    getattr(supervisor, how)()
    getattr(supervisor, how)()
    assert gone(pid)
    assert code_of(lambda: supervisor.call("echo", 1)) == "plugin.state"
    assert code_of(supervisor.restart) == "plugin.state"
    status = supervisor.status()
    assert (status.state, status.pid, status.restarts) == ("ended", None, 0)


def test_a_stop_during_the_pause_starts_nothing(room: Room) -> None:
    supervisor = room.supervise(DIE, supervision={"restarts": Restarts(pause_s=60)})
    assert code_of(lambda: supervisor.call("die")) == "plugin.died"
    until(lambda: supervisor.status().state == "waiting")
    before = threading.active_count()
    supervisor.stop()
    # The thread that waited to start it is gone, too.
    until(lambda: threading.active_count() < before)
    assert supervisor.status().restarts == 0


def test_callers_get_right_answers_or_plugin_died_while_it_is_killed_again_and_again(
    room: Room,
) -> None:
    supervisor = room.supervise(supervision=SOON)
    over = threading.Event()
    right = [0] * 4

    def ask(number: int) -> set[str]:
        codes = set()
        while not over.is_set():
            value = [number, right[number]]
            try:
                assert supervisor.call("echo", value) == value
                right[number] += 1
            except errors.Unavailable as error:
                codes.add(error.code)
        return codes

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, number) for number in range(4)]
        try:
            for life in range(1, 11):
                goal = [count + 10 for count in right]
                until(lambda: all(map(int.__ge__, right, goal)))  # noqa: B023 - called at once
                pid = supervisor.status().pid
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
                until(lambda: supervisor.status().restarts == life)  # noqa: B023 - the same
        finally:
            over.set()
        assert set[str]().union(*(one.result(60) for one in asking)) <= {"plugin.died"}
    assert supervisor.call("echo", 1) == 1


def test_no_folder_thread_or_descriptor_is_left_by_restarts(
    room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "scratch"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    before = set(threading.enumerate()), len(list(Path("/proc/self/fd").iterdir()))
    supervisor = room.supervise(DIE, supervision=SOON)
    for _ in range(5):
        assert code_of(lambda: supervisor.call("die")) == "plugin.died"
        supervisor.call("echo", 1)
    until(lambda: len(list(place.iterdir())) == 1)
    supervisor.stop()
    until(lambda: not list(place.iterdir()))
    until(lambda: set(threading.enumerate()) <= before[0])
    assert len(list(Path("/proc/self/fd").iterdir())) == before[1]


def test_calls_go_through_while_it_is_restarted_and_none_is_lost(room: Room) -> None:
    supervisor = room.supervise(supervision=SOON)
    over = threading.Event()
    right = [0] * 3

    def ask(number: int) -> None:
        while not over.is_set():
            assert supervisor.call("echo", right[number]) == right[number]
            right[number] += 1

    with ThreadPoolExecutor(5) as pool:
        asking = [pool.submit(ask, number) for number in range(3)]
        try:
            # Two at once: one of the two new processes counts, and the other one ends.
            for _ in range(5):
                for one in [pool.submit(supervisor.restart) for _ in range(2)]:
                    one.result(60)
        finally:
            over.set()
        for one in asking:
            one.result(60)
    assert min(right) > 0
    until(lambda: len(keeper._live) == 1)
    assert supervisor.status().state == "running"
    assert supervisor.status().restarts == 10


def test_a_call_that_meets_a_restart_goes_to_the_new_process(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = room.supervise(supervision=SOON)
    found = supervisor._ready
    met: list[confined.Process] = []

    def meet(end: float) -> confined.Process:
        process = found(end)
        if not met:
            supervisor.restart()
        met.append(process)
        return process

    monkeypatch.setattr(supervisor, "_ready", meet)
    assert supervisor.call("echo", 1) == 1
    assert [process.alive for process in met] == [False, True]


def test_a_restart_during_the_pause_takes_its_place(room: Room) -> None:
    supervisor = room.supervise(DIE, supervision={"restarts": Restarts(pause_s=60)})
    assert code_of(lambda: supervisor.call("die")) == "plugin.died"
    until(lambda: supervisor.status().state == "waiting")
    supervisor.restart()
    assert supervisor.call("echo", 1) == 1
    assert supervisor.status().restarts == 1


def test_interrupts_at_any_moment_leave_no_call_hanging_and_the_process_alive(room: Room) -> None:
    supervisor = room.supervise(calls=2)
    pid = supervisor.call("pid")
    over = threading.Event()

    def ask(number: int) -> None:
        while not over.is_set():
            assert supervisor.call("echo", number) == number

    def work() -> None:
        assert supervisor.call("echo", "main") == "main"
        supervisor.status()

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, number) for number in range(4)]
        try:
            interrupted(work, tries=2000, after_s=(5e-5, 4e-4))
        finally:
            over.set()
        for one in asking:
            one.result(60)
    assert supervisor.call("pid") == pid
    assert supervisor.status().restarts == 0
