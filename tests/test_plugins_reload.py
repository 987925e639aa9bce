"""Plugins are exchanged while they are used: no call fails, and nothing is lost."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import plugin_maker
from dwkernel import errors
from dwkernel.plugins import Plugins, Request, vouching
from expect import code_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE_S = 30.0

# A counter whose state is carried over.
COUNTER = """
import threading
def __init__(self):
    self.lock = self.threading.Lock()
    self.count = 0
    self.is_mute = False

def add(self):
    with self.lock:
        self.count += 1
        return NUMBER

def export_state(self):
    with self.lock:
        if self.is_mute:
            raise ValueError("no")
        return {"count": self.count}

def import_state(self, state, from_version):
    self.count = state["count"]
"""
KEEPS = {"state_version": 1, "keep_state": True}

# How a version fails, by the step at which it does.
FAILURES = {
    "load": "raise ImportError('no')",
    "handshake": "def handshake(self, context): raise ValueError('no')",
    "start": "def start(self): raise SystemExit(1)",
    "import": "def import_state(self, state, from_version): raise KeyError('no')",
    "health": "def health(self): return False",
}


def counter(home: Path, number: int, body: str = "", **fields: Any) -> Path:
    code = COUNTER.replace("NUMBER", str(number))
    return plugin_maker.write(home, f"{code}\n{body}", **{**KEEPS, **fields})


@pytest.fixture
def opened() -> Iterator[Plugins]:
    with plugin_maker.plugins() as opened:
        yield opened


def reloading_fails(opened: Plugins, source: Path, **options: Any) -> errors.DwError:
    with pytest.raises(errors.Conflict) as caught:
        opened.reload("p", source, **options)
    assert caught.value.code == "plugin.reload"
    assert caught.value.__cause__ is not None
    return caught.value


def namespaces() -> set[str]:
    return {name.partition(".")[0] for name in sys.modules if name.startswith("dwkernel_plugin_")}


# --- Reloads ---


def test_a_new_version_takes_over_with_the_state_of_the_old(
    opened: Plugins, tmp_path: Path
) -> None:
    opened.load(counter(tmp_path / "p", 1))
    handle = opened.get("policy")
    assert [handle.call("add") for _ in range(5)] == [1] * 5
    before = namespaces()
    report = opened.reload("p", counter(tmp_path / "next", 2, version="1.1"))
    assert (report.before, report.after, report.state) == ("1.0", "1.1", True)
    assert (report.is_unloaded, report.alive, report.leaked, report.wrong) == (True, [], [], [])
    assert list(report.seconds) == [
        "load", "handshake", "start", "freeze", "export", "import", "health", "swap",
        "drain", "stop", "unload",
    ]  # fmt: skip
    assert handle.call("add") == 2
    with handle.use() as instance:
        assert instance.count == 6
    del instance
    assert len(namespaces()) == 1
    assert not namespaces() & before
    assert opened.info("p").reloads == 1
    # From now on it is where it came from last.
    counter(tmp_path / "next", 3, version="1.2")
    assert opened.reload("p").after == "1.2"
    assert handle.call("add") == 3


@pytest.mark.parametrize("step", FAILURES)
@pytest.mark.parametrize("keeps", [True, False])
def test_a_version_that_fails_leaves_the_old_one_running(
    step: str, keeps: bool, opened: Plugins, tmp_path: Path
) -> None:
    opened.load(counter(tmp_path / "p", 1, keep_state=keeps))
    handle = opened.get("policy")
    handle.call("add")
    before = namespaces()
    bad = counter(tmp_path / "bad", 2, FAILURES[step], version="2.0", keep_state=keeps)
    error = reloading_fails(opened, bad)
    assert error.details["step"] == step
    assert f"at the step {step}" in str(error)
    assert handle.call("add") == 1
    assert namespaces() == before
    assert handle.slot.held.is_open
    info = opened.info("p")
    assert (info.state, info.version, info.reloads) == ("started", "1.0", 0)
    assert f"at the step {step}" in str(info.error)
    assert opened.reload("p", counter(tmp_path / "good", 3, version="2.0", keep_state=keeps)).state
    assert handle.call("add") == 3
    with handle.use() as instance:
        assert instance.count == 3


def test_an_export_that_fails_leaves_the_old_one_running(opened: Plugins, tmp_path: Path) -> None:
    body = "def export_state(self): return {'it': self}"
    opened.load(counter(tmp_path / "p", 1, body))
    error = reloading_fails(opened, counter(tmp_path / "next", 2))
    assert (error.details["step"], error.details["cause"]) == ("export", "plugin.option")
    assert "there is a Plugin, which is no plain data" in str(error)
    assert opened.get("policy").call("add") == 1


@pytest.mark.parametrize("place", ["Life.export_state", "Life.health", "Slot.freeze"])
def test_a_reload_that_is_interrupted_lets_calls_go_on(
    place: str, opened: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened.load(counter(tmp_path / "p", 1))
    before = namespaces()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if place == "Slot.freeze":
            patched.setattr("dwkernel.plugins.swap._drained", interrupted)
        else:
            patched.setattr(f"dwkernel.plugins.life.{place}", interrupted)
        with pytest.raises(KeyboardInterrupt):
            opened.reload("p", counter(tmp_path / "next", 2))
    handle = opened.get("policy")
    assert handle.slot.held.is_open
    assert (handle.call("add"), namespaces()) == (1, before)
    assert opened.reload("p", tmp_path / "next").state


def test_steps_that_hang_are_left_alone_after_their_time(tmp_path: Path) -> None:
    hang = "import time\ndef {}: self.time.sleep({})"
    with plugin_maker.plugins(limits={"start": 0.1, "freeze": 0.2}) as opened:
        opened.load(counter(tmp_path / "p", 1))
        for call in ("start(self)", "import_state(self, state, version)"):
            bad = counter(tmp_path / "bad", 2, hang.format(call, PATIENCE_S))
            error = reloading_fails(opened, bad)
            assert error.details["cause"] == "plugin.timeout"
        assert opened.info("p").stuck == 2
        assert opened.get("policy").call("add") == 1


def test_calls_that_do_not_end_in_time_keep_the_old_one(tmp_path: Path) -> None:
    with plugin_maker.plugins(limits={"freeze": 0.5, "drain": 0.5}) as opened:
        opened.load(counter(tmp_path / "p", 1))
        handle = opened.get("policy")
        with handle.use():
            error = reloading_fails(opened, counter(tmp_path / "next", 2))
        assert (error.details["step"], error.details["cause"]) == ("freeze", "plugin.timeout")
        assert handle.call("add") == 1
        # Without keep_state the new one takes over, and who still uses the old one is told.
        opened.reload("p", counter(tmp_path / "next", 3, keep_state=False))
        with handle.use() as old:
            report = opened.reload("p", counter(tmp_path / "last", 4, keep_state=False))
            assert not report.unused
            assert "still used after 0.5 s by MainThread" in report.wrong[0]
            assert (old.add(), handle.call("add")) == (3, 4)
        assert not report.is_unloaded


def test_what_goes_wrong_in_the_end_of_the_old_one_is_told(opened: Plugins, tmp_path: Path) -> None:
    ends = """
def drain(self, deadline_s): raise ValueError("drain")
def stop(self): raise SystemExit("stop")
"""
    opened.load(counter(tmp_path / "p", 1, ends))
    report = opened.reload("p", counter(tmp_path / "next", 2))
    assert [word in text for word, text in zip(("drain", "stop"), report.wrong, strict=True)] == [
        True
    ] * 2
    assert report.is_unloaded
    assert opened.get("policy").call("add") == 2


def test_a_thread_that_the_old_one_left_is_named_after_it(opened: Plugins, tmp_path: Path) -> None:
    leaks = """
import threading
END = threading.Event()
def start(self):
    self.threading.Thread(target=self.END.wait, args=(30,), name="quiet", daemon=True).start()
    self.threading.Thread(target=self.work, name="worker", daemon=True).start()
def work(self):
    self.END.wait(30)
"""
    opened.load(counter(tmp_path / "p", 1, leaks))
    with opened.get("policy").use() as instance:
        end = instance.END
    del instance
    report = opened.reload("p", counter(tmp_path / "next", 2))
    end.set()
    assert report.leaked == ["plugin:p/worker"]
    assert not report.is_unloaded


@pytest.mark.parametrize(
    ("fields", "options", "says"),
    [
        ({"version": "0.9"}, {}, "0.9 is older than 1.0"),
        (
            {"version": "2.0", "state_version": 2, "state_reads": [2]},
            {},
            "reads state of the versions 2",
        ),
        ({"version": "2.0", "state_version": 0}, {}, "reads state of the versions none"),
        ({"version": "2.0", "requires": {"nowhere": ">=1"}}, {}, "no nowhere is there"),
        ({"version": "2.0", "kernel": ">=9"}, {}, "kernel's API"),
        ({"version": "3.0"}, {}, "needy 1.0 needs p <3, and this is 3.0"),
        ({"plugin_id": "q"}, {}, "holds q, and not p"),
    ],
)
def test_a_version_that_does_not_fit_is_refused_before_it_is_loaded(
    fields: dict[str, Any], options: dict[str, Any], says: str, opened: Plugins, tmp_path: Path
) -> None:
    opened.load(counter(tmp_path / "p", 1))
    opened.load(plugin_maker.write(tmp_path / "needy", plugin_id="needy", requires={"p": "<3"}))
    bad = counter(tmp_path / "bad", 2, **fields)
    error = reloading_fails(opened, bad, **options)
    assert error.details["step"] == "resolve"
    assert says in str(error)
    assert opened.info("p").version == "1.0"


def test_files_that_nobody_vouches_for_do_not_take_over(tmp_path: Path) -> None:
    home = counter(tmp_path / "p", 1)
    with plugin_maker.plugins(trusted_keys=[vouching.sign(home, os.urandom(32))]) as opened:
        opened.load(home)
        error = reloading_fails(opened, counter(tmp_path / "next", 2))
        assert (error.details["step"], error.details["cause"]) == ("verify", "plugin.signature")
        assert opened.get("policy").call("add") == 1


def test_calls_that_began_before_a_pause_lose_nothing_in_a_reload(tmp_path: Path) -> None:
    with plugin_maker.plugins() as opened:
        opened.load(counter(tmp_path / "p", 1))
        handle = opened.get("policy")
        inside, leave = threading.Event(), threading.Event()

        def user() -> None:
            with handle.use() as instance:
                inside.set()
                leave.wait(PATIENCE_S)
                instance.add()

        thread = threading.Thread(target=user)
        thread.start()
        assert inside.wait(PATIENCE_S)
        opened.pause("p")
        threading.Timer(0.1, leave.set).start()
        opened.reload("p", counter(tmp_path / "next", 2))
        thread.join()
        opened.resume("p")
        with handle.use() as instance:
            assert instance.count == 1
        del instance


def test_an_older_version_may_follow_where_that_is_meant(opened: Plugins, tmp_path: Path) -> None:
    opened.load(counter(tmp_path / "p", 1))
    assert (
        opened.reload("p", counter(tmp_path / "a", 2, version="0.9"), downgrade=True).after == "0.9"
    )
    older = counter(tmp_path / "b", 3, version="0.8", downgrades=True)
    assert opened.reload("p", older).after == "0.8"


def test_those_who_need_a_plugin_have_its_new_version(opened: Plugins, tmp_path: Path) -> None:
    opened.load(counter(tmp_path / "p", 1))
    needy = """
def handshake(self, context):
    self.p = context.plugin("p")
def ask(self):
    with self.p.use() as p:
        return p.add()
"""
    opened.load(plugin_maker.write(tmp_path / "n", needy, plugin_id="n", requires={"p": ">=1"}))
    with opened.find("policy")[0].use() as instance:
        assert instance.ask() == 1
        assert opened.reload("p", counter(tmp_path / "next", 2)).is_unloaded
        assert instance.ask() == 2
    assert code_of(lambda: opened.disable("p")) == "plugin.dependency"


def test_a_paused_plugin_stays_paused_over_a_reload(opened: Plugins, tmp_path: Path) -> None:
    opened.load(counter(tmp_path / "p", 1))
    handle = opened.get("policy")
    opened.pause("p")
    assert code_of(lambda: handle.call("add")) == "plugin.state"
    assert opened.reload("p", counter(tmp_path / "next", 2)).state
    assert code_of(lambda: handle.call("add")) == "plugin.state"
    assert opened.info("p").state == "paused"
    opened.resume("p")
    assert handle.call("add") == 2


def test_one_that_failed_to_start_is_started_by_a_reload(opened: Plugins, tmp_path: Path) -> None:
    home = counter(tmp_path / "p", 1, FAILURES["start"])
    assert code_of(lambda: opened.load(home)) == "plugin.failed"
    assert opened.info("p").state == "failed"
    assert code_of(lambda: opened.reload("p")) == "plugin.failed"
    counter(home, 2)
    assert opened.reload("p").before is None
    assert opened.get("policy").call("add") == 2


def test_observers_hear_before_after_and_of_failures(tmp_path: Path) -> None:
    heard: list[tuple[str, dict[str, Any]]] = []
    told: list[str | None] = []
    with Plugins(announce=lambda subject, data: heard.append((subject, data))) as opened:

        def bad(_: str, data: dict[str, Any]) -> None:
            data.clear()
            raise ValueError

        remove = opened.on(bad)
        opened.on(lambda _, data: told.append(data.get("id")))
        opened.load(counter(tmp_path / "p", 1))
        opened.reload("p", counter(tmp_path / "next", 2, version="1.1"))
        reloading_fails(opened, counter(tmp_path / "bad", 3, FAILURES["start"], version="1.2"))
        remove()
        with pytest.raises(errors.Internal):
            opened.load(plugin_maker.write(tmp_path / "q", "def start(self): 1 / 0", plugin_id="q"))
    assert [(subject, data["id"], data["version"]) for subject, data in heard] == [
        ("plugin.loaded", "p", "1.0"),
        ("plugin.reloading", "p", "1.0"),
        ("plugin.reloaded", "p", "1.1"),
        ("plugin.reloading", "p", "1.1"),
        ("plugin.reload_failed", "p", "1.1"),
        ("plugin.failed", "q", "1.0"),
        ("plugin.stopping", "p", "1.1"),
        ("plugin.stopped", "p", "1.1"),
    ]
    assert told == [data["id"] for _, data in heard]
    assert heard[2][1]["report"]["before"] == "1.0"
    assert heard[4][1]["step"] == "start"


# --- All at once ---

USERS = 64
RELOADS = 100


def hammer(work: Callable[[], object], reload: Callable[[int], None]) -> list[BaseException]:
    """Use from many threads while somebody reloads; return what users met."""
    stop = threading.Event()
    met: list[BaseException] = []

    def user() -> None:
        while not stop.is_set():
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - it is what is looked for
                met.append(error)
                return

    threads = [threading.Thread(target=user) for _ in range(USERS)]
    for thread in threads:
        thread.start()
    try:
        for number in range(RELOADS):
            reload(number)
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE_S)
    assert not any(thread.is_alive() for thread in threads)
    return met


@pytest.mark.slow
@pytest.mark.parametrize("keeps", [True, False])
def test_no_call_fails_in_100_reloads_and_no_count_is_lost(keeps: bool, tmp_path: Path) -> None:
    limits = {"freeze": PATIENCE_S, "drain": PATIENCE_S, "start": PATIENCE_S, "state": PATIENCE_S}
    steps = ["resolve", "load", "handshake", "start", "export", "import", "health"]
    failed: list[str] = []
    done = [0] * USERS
    counted = -1
    with plugin_maker.plugins(limits={**limits, "load": PATIENCE_S}) as opened:
        opened.load(counter(tmp_path / "p", 0, keep_state=keeps))
        handle = opened.get("policy")
        own = threading.local()
        ids = iter(range(USERS))

        def work() -> None:
            if not hasattr(own, "number"):
                own.number = next(ids)
            with handle.use() as instance:
                instance.add()
            done[own.number] += 1
            time.sleep(0.001)

        def failing(source: Path, step: str) -> None:
            """Make the next reload fail at a step."""
            needs = {"nowhere": ">=1"} if step == "resolve" else {}
            body = FAILURES.get(step, "")
            counter(source, -1, body, keep_state=keeps, requires=needs)
            with handle.use() as instance:
                instance.is_mute = step == "export"
            failed.append(reloading_fails(opened, source).details["step"])
            with handle.use() as instance:
                instance.is_mute = False

        def reload(number: int) -> None:
            source = tmp_path / "next"
            if number % 10 == 9:
                failing(source, steps[number // 10 % len(steps)])
                return
            report = opened.reload("p", counter(source, number, keep_state=keeps))
            assert (report.unused, report.is_unloaded, report.wrong) == (True, True, []), report

        assert hammer(work, reload) == []
        assert opened.info("p").reloads == 90
        assert failed == (steps * 2)[:10]
        assert len(namespaces()) == 1
        with handle.use() as instance:
            counted = instance.count
        assert instance.add() == 98
        del instance
    assert all(done)
    if keeps:
        assert counted == sum(done)
    assert namespaces() == set()


def test_the_example_counts_every_operation_over_reloads() -> None:
    with plugin_maker.plugins(config={"operation-counter": {"refuse_below": "no/"}}) as opened:
        opened.load(plugin_maker.EXAMPLE)
        handle = opened.get("policy", "counting")
        requests = [Request("put", "a/b"), Request("put", "no/b"), Request("get", "no/b")]
        for _ in range(10):
            verdicts = handle.call("before", requests)
            assert [one.kind for one in verdicts] == ["allow", "refuse", "allow"]
            assert opened.reload("operation-counter").is_unloaded
        assert handle.call("counts") == {"put": 20, "get": 10}
