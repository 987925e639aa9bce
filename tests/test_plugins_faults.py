"""What plugins may do wrong: it is noticed, undone where it can be, and hurts nobody else."""

from __future__ import annotations

import builtins
import json
import locale
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import plugin_maker
from dwkernel import errors
from dwkernel._latch import Latch
from dwkernel.plugins import Plugins, effects
from dwkernel.plugins.health import Health, Rules
from dwkernel.plugins.output import Log
from dwkernel.plugins.watchdog import Watchdog
from expect import code_of, until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def opened() -> Iterator[Plugins]:
    with plugin_maker.plugins() as opened:
        yield opened


def at_import(home: Path, code: str) -> Path:
    return plugin_maker.write(home, files={"main.py": textwrap.dedent(code) + plugin_maker.POLICY})


def _umask() -> int:
    before = os.umask(0o022)
    os.umask(before)
    return before


# What a plugin does to the process, how that shows, and what is said of it.
EFFECTS = {
    "cwd": ("import os; os.chdir('/')", os.getcwd, "changed the working directory"),
    "locale": (
        "import locale; locale.setlocale(locale.LC_ALL, 'C.UTF-8')",
        lambda: locale.setlocale(locale.LC_ALL),
        "changed the locale",
    ),
    "path": ("import sys; sys.path.insert(0, '/evil')", lambda: list(sys.path), "changed sys.path"),
    "umask": ("import os; os.umask(0o777)", _umask, "changed the umask"),
    "environment": (
        "import os; os.environ['EVIL'] = '1'; os.environ.pop('HOME', None)",
        lambda: dict(os.environ),
        "changed os.environ",
    ),
    "warnings": (
        "import warnings; warnings.simplefilter('ignore')",
        lambda: list(warnings.filters),
        "changed the filters of warnings",
    ),
    "builtins": (
        "import builtins; builtins.len = lambda _: 42",
        lambda: builtins.len,
        "patched builtins.len",
    ),
    "stdlib": (
        "import os, time, json\nos.replace = time.strptime = json.dumps = None",
        lambda: (os.replace, time.strptime, json.dumps),
        "patched time.strptime",
    ),
    "class": (
        "import socket; socket.socket.connect = lambda *_: None",
        lambda: socket.socket.connect,
        "patched socket.socket.connect",
    ),
    "module": (
        "import sys, types; sys.modules['json'] = types.ModuleType('json')",
        lambda: sys.modules["json"],
        "replaced the module json",
    ),
    "hook": (
        "import sys; sys.excepthook = print",
        lambda: sys.excepthook,
        "changed sys.excepthook",
    ),
    "streams": (
        "import io, sys; sys.stdout = io.StringIO(); sys.stdin = None",
        # While the output of a step that hangs is caught, something stands before the stream.
        lambda: [getattr(one, "original", one) for one in (sys.stdout, sys.stdin)],
        "changed the standard streams",
    ),
    "timeout": (
        "import socket; socket.setdefaulttimeout(1)",
        socket.getdefaulttimeout,
        "changed sockets' default timeout",
    ),
    "finders": (
        "class Own: pass\nimport sys; sys.meta_path.insert(0, Own()); sys.path_hooks.clear()",
        lambda: (list(sys.meta_path), list(sys.path_hooks)),
        "changed sys.meta_path",
    ),
    "collector": ("import gc; gc.disable()", lambda: __import__("gc").isenabled(), "the collector"),
}


@pytest.mark.parametrize("name", EFFECTS)
@pytest.mark.parametrize("when", ["import", "start", "stop"])
def test_what_a_plugin_does_to_the_process_is_undone_and_told(
    name: str, when: str, opened: Plugins, tmp_path: Path
) -> None:
    code, look, says = EFFECTS[name]
    before = look()
    if when == "import":
        home = at_import(tmp_path / "p", code)
    else:
        body = f"def {when}(self):\n" + textwrap.indent(code, "    ")
        home = plugin_maker.write(tmp_path / "p", body)
    opened.load(home)
    if when == "stop":
        opened.disable("p")
    assert look() == before
    told = opened.info("p").effects
    assert any(says in one for one in told), told
    assert all(one.startswith("importing" if when == "import" else when) for one in told)
    assert any("the plugin" in line for line in opened.info("p").lines)


def test_what_the_program_did_not_import_is_not_patched_either(tmp_path: Path) -> None:
    patches = "import ssl, subprocess\nssl.SSLContext.wrap_bio = subprocess.run = None"
    home = at_import(tmp_path / "p", patches)
    program = f"""
import sys
from dwkernel.plugins import Plugins, PluginsSection
with Plugins(PluginsSection(installed=False)) as plugins:
    assert "subprocess" not in sys.modules
    plugins.load({str(home)!r})
    print(plugins.info("p").effects, sys.modules["subprocess"].run)
"""
    said = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert said.stdout.startswith("['importing: patched subprocess.run'] <function run")


def test_the_finder_of_a_library_stays_when_a_plugin_imports_that(
    opened: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "library"
    library.mkdir()
    code = "import sys\nclass Finder:\n    find_spec = staticmethod(lambda *_: None)\n"
    (library / "finding_library.py").write_text(code + "sys.meta_path.append(Finder())")
    monkeypatch.syspath_prepend(library)
    monkeypatch.setattr(sys, "meta_path", sys.meta_path)
    opened.load(at_import(tmp_path / "p", "import finding_library"))
    last = sys.meta_path.pop()
    assert type(last).__module__ == "finding_library"
    assert opened.info("p").effects == []


def test_an_effect_that_can_not_be_undone_is_told(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    here = Path.cwd()
    os.chdir(gone)
    try:
        before = effects.look()
        os.chdir("/")
        gone.rmdir()
        told = effects.put_back(before)
    finally:
        os.chdir(here)
    assert told == ["changed the working directory, which can't be put back: FileNotFoundError"]


def test_a_signal_taken_in_the_main_thread_is_given_back() -> None:
    before = effects.look()
    was = signal.signal(signal.SIGUSR1, lambda *_: None)
    assert effects.put_back(before) == ["took the signal SIGUSR1"]
    assert signal.getsignal(signal.SIGUSR1) == was
    assert effects.put_back(before) == []


def test_what_a_plugin_prints_is_in_its_log_and_nowhere_else(
    opened: Plugins, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = at_import(
        tmp_path / "p",
        "import sys\nprint('importing', 1, sep='-')\nsys.stderr.writelines(['ha', 'lf'])",
    )
    text = (home / "main.py").read_text()
    text += "\n    def start(self):\n        sys.stdout.write('started\\n')\n"
    text += "    def later(self):\n        print('later')\n        print('real', file=sys.stdout)\n"
    (home / "main.py").write_text(text)
    opened.load(home)
    opened.get("policy").call("later")
    print("the program")  # noqa: T201 - it is what is looked for
    assert opened.info("p").lines[:3] == ["importing-1", "halfstarted", "later"]
    assert capsys.readouterr() == ("real\nthe program\n", "")


def test_a_plugin_that_calls_exit_leaves_the_input_of_the_program_open(tmp_path: Path) -> None:
    home = plugin_maker.write(tmp_path / "p", "def before(self, requests): quit('bye')")
    program = f"""
import sys
from dwkernel import errors
from dwkernel.plugins import Plugins, PluginsSection
with Plugins(PluginsSection(installed=False)) as plugins:
    plugins.load({str(home)!r})
    try:
        plugins.get("policy").call("before", [])
    except errors.Internal as error:
        print(error.__cause__, sys.stdin.read())
"""
    said = subprocess.run(
        [sys.executable, "-c", program], input="in", check=True, capture_output=True, text=True
    )
    assert said.stdout == "SystemExit: bye in\n"


def test_a_flood_of_output_is_bounded() -> None:
    log = Log("flood")
    for _ in range(2000):
        log.write("x" * 10_000)
        log.write("y\n" * 10)
    assert len(log.lines) <= 501
    assert max(map(len, log.lines)) <= 2000


@pytest.mark.parametrize(
    "how",
    ["raise SystemExit(3)", "raise KeyboardInterrupt", "exit()", "1 / 0", "raise GeneratorExit"],
)
@pytest.mark.parametrize("where", ["import", "__init__", "handshake", "start"])
def test_whatever_a_plugin_raises_stays_with_it(
    how: str, where: str, opened: Plugins, tmp_path: Path
) -> None:
    if where == "import":
        home = at_import(tmp_path / "p", how)
    else:
        arguments = "self, context" if where == "handshake" else "self"
        home = plugin_maker.write(tmp_path / "p", f"def {where}({arguments}): {how}")
    with pytest.raises(errors.DwError) as caught:
        opened.load(home)
    assert caught.value.code == ("plugin.load" if where == "import" else "plugin.failed")
    assert plugin_maker.raised(caught.value).kind in how or how in ("exit()", "1 / 0")
    assert "main.py" in caught.value.details["traceback"] or where == "import"
    assert (opened.info("p").state, opened.find("policy")) == ("failed", [])
    assert not [name for name in sys.modules if name.startswith("dwkernel_plugin_")]


@pytest.mark.parametrize("where", ["import", "start", "health", "stop"])
def test_a_plugin_that_hangs_is_left_alone_and_counted(where: str, tmp_path: Path) -> None:
    hang = "import time\nwhile not __import__('os').path.exists({!r}): time.sleep(0.01)".format(
        str(tmp_path / "end")
    )
    limits = dict.fromkeys(("load", "start", "health", "stop"), 1.0)
    with plugin_maker.plugins(limits=limits) as opened:
        if where == "import":
            home = at_import(tmp_path / "p", hang)
        else:
            home = plugin_maker.write(
                tmp_path / "p", f"def {where}(self):\n" + textwrap.indent(hang, "    ")
            )
        began = time.monotonic()
        if where == "stop":
            opened.load(home)
            opened.disable("p")
        else:
            assert code_of(lambda: opened.load(home)) == "plugin.timeout"
        assert time.monotonic() - began < 20
        assert opened.info("p").stuck == 1
        assert opened.load(plugin_maker.write(tmp_path / "q", plugin_id="q")).state == "started"
        (tmp_path / "end").touch()
        until(lambda: opened.info("p").stuck == 0)
    # What was imported too late is taken out again.
    until(lambda: not [name for name in sys.modules if name.startswith("dwkernel_plugin_p_")])


def test_closing_holds_its_deadline_whatever_a_plugin_does(tmp_path: Path) -> None:
    hang = "import time\n{}\n    self.time.sleep(60)"
    with plugin_maker.plugins() as opened:
        for plugin_id, method in (("p", "def stop(self):"), ("q", "def drain(self, deadline_s):")):
            body = hang.format(method)
            opened.load(plugin_maker.write(tmp_path / plugin_id, body, plugin_id=plugin_id))
        began = time.monotonic()
        opened.close("0.5s")
        assert time.monotonic() - began < 15


def test_a_slow_import_holds_up_nobody_who_calls_others(tmp_path: Path) -> None:
    with plugin_maker.plugins() as opened:
        opened.load(plugin_maker.write(tmp_path / "q", plugin_id="q"))
        handle = opened.get("policy")
        slow = at_import(tmp_path / "p", "import time\ntime.sleep(0.7)")
        loading = threading.Thread(target=opened.load, args=(slow,))
        loading.start()
        calls = 0
        while loading.is_alive():
            handle.call("after", [])
            assert opened.list()
            calls += 1
        assert calls > 10
        assert opened.info("p").state == "started"


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_the_child_of_a_plugin_that_forks_does_not_come_back_into_the_kernel(
    opened: Plugins, tmp_path: Path
) -> None:
    forks = f"""
def start(self):
    import os
    if os.fork() == 0:
        return
    _, status = os.wait()
    with open({str(tmp_path / "status")!r}, "w") as file:
        file.write(str(os.waitstatus_to_exitcode(status)))
"""
    assert opened.load(plugin_maker.write(tmp_path / "p", forks)).state == "started"
    assert (tmp_path / "status").read_text() == "70"


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_plugins_do_not_cross_a_fork(opened: Plugins) -> None:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            opened.list()
        except errors.State as error:
            status = 0 if error.code == "plugin.state" else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def test_threads_that_run_a_plugin_are_found_by_what_they_run(
    opened: Plugins, tmp_path: Path
) -> None:
    leaks = """
import threading
def start(self):
    import concurrent.futures
    self.end = self.threading.Event()
    self.pool = concurrent.futures.ThreadPoolExecutor(1)
    self.pool.submit(self.end.wait, 30)
    threading = self.threading
    class Own(threading.Thread):
        def run(own): self.end.wait(30)
    Own(daemon=True).start()
def stop(self):
    pass
"""
    opened.load(plugin_maker.write(tmp_path / "p", leaks))
    with opened.get("policy").use() as instance:
        end = instance.end
        pool = instance.pool
    del instance
    opened.disable("p")
    lines = opened.info("p").lines
    end.set()
    pool.shutdown()
    assert any("it left the thread plugin:p/" in line for line in lines), lines


# --- Health ---


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_failures_in_a_row_leave_a_plugin_alone_and_one_call_tries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("random.random", lambda: 0.5)
    clock = Clock()
    health = Health("p", Rules(failures_in_row=3, pauses_s=(1.0, 4.0)), clock)
    for _ in range(3):
        health.admit()
        health.failed("no")
    assert health.report().state == "failing"
    assert code_of(health.admit) == "plugin.quarantined"
    clock.now += 1.3
    health.admit()
    assert code_of(health.admit) == "plugin.quarantined"  # the one that tries is under way
    health.succeeded()
    health.admit()
    health.succeeded()
    assert (health.report().state, health.report().calls, health.report().failures) == (
        "well",
        5,
        3,
    )


def test_many_failures_in_a_while_are_quarantine_for_growing_times() -> None:
    clock = Clock()
    told: list[float] = []
    rules = Rules(100, (1.0,), failures_max=4, window_s=10.0, quarantines_s=(100.0, 1000.0))
    health = Health("p", rules, clock, told.append)

    def fail(times: int, apart_s: float) -> None:
        for _ in range(times):
            health.admit()
            health.failed("no")
            clock.now += apart_s

    fail(8, 20.0)  # four take longer than the window
    assert told == []
    fail(4, 0.1)
    assert len(told) == 1
    assert 80 <= told[0] <= 120
    assert (health.report().state, code_of(health.admit)) == ("quarantined", "plugin.quarantined")
    clock.now += told[0]
    fail(4, 0.1)
    assert 800 <= told[1] <= 1200
    health.reset()
    health.admit()


def test_a_plugin_in_quarantine_is_asked_by_nobody_until_it_is_over_or_enabled(
    tmp_path: Path,
) -> None:
    heard: list[str] = []
    rules = {"failures_in_row": 100, "failures_max": 3, "quarantines": [0.2]}
    with plugin_maker.plugins(health=rules) as opened:
        opened.on(lambda subject, _: heard.append(subject))
        body = "def fail(self): raise ValueError('no')\ndef answer(self): return 1"
        opened.load(plugin_maker.write(tmp_path / "p", body))
        handle = opened.get("policy")

        def fail() -> None:
            for _ in range(3):
                assert code_of(lambda: handle.call("fail")) == "plugin.failed"
            assert code_of(lambda: handle.call("answer")) == "plugin.quarantined"
            assert code_of(lambda: handle.use().__enter__()) == "plugin.quarantined"
            assert opened.info("p").state == "quarantined"
            assert opened.find("policy") == []

        fail()
        assert "plugin.quarantined" in heard
        until(lambda: opened.find("policy"))
        assert handle.call("answer") == 1
        fail()
        opened.enable("p")
        assert handle.call("answer") == 1


def test_a_quarantine_of_a_plugin_that_is_paused_ends_in_a_pause(tmp_path: Path) -> None:
    rules = {"failures_in_row": 100, "failures_max": 3, "quarantines": [0.2]}
    with plugin_maker.plugins(health=rules) as opened:
        opened.load(plugin_maker.write(tmp_path / "p"))
        handle = opened.get("policy")
        opened.pause("p")
        for _ in range(3):  # calls that had begun before
            handle.health.failed("no")
        assert handle.slot.is_paused, "it rests, and is not refused"
        opened.resume("p")
        until(lambda: not handle.slot.is_paused)
        until(lambda: handle.health.report().state != "quarantined")
        until(lambda: handle.is_open)
        assert handle.call("before", []) == []


def test_a_call_with_a_limit_is_left_alone_and_counts_as_failed(
    opened: Plugins, tmp_path: Path
) -> None:
    body = """
def slow(self):
    import time
    time.sleep(0.5)
def refuse(self):
    from dwkernel import errors
    raise errors.new("policy.refused", "not you")
"""
    opened.load(plugin_maker.write(tmp_path / "p", body))
    handle = opened.get("policy")
    assert code_of(lambda: handle.call("slow", limit_s=0.05)) == "plugin.timeout"
    assert code_of(lambda: handle.call("refuse")) == "policy.refused"
    assert code_of(lambda: handle.call("refuse", limit_s=5.0)) == "policy.refused"
    report = handle.health.report()
    assert (report.calls, report.failures, report.failures_in_row) == (3, 1, 0)


def test_an_error_of_a_plugin_does_not_keep_its_version_alive(
    opened: Plugins, tmp_path: Path
) -> None:
    body = "def fail(self):\n    class Own(Exception): pass\n    raise Own('no')"
    home = plugin_maker.write(tmp_path / "p", body)
    opened.load(home)
    kept = []
    for limit_s in (None, 5.0):
        with pytest.raises(errors.Internal) as caught:
            opened.get("policy").call("fail", limit_s=limit_s)
        kept.append(caught.value)
    assert opened.reload("p").is_unloaded
    assert [plugin_maker.raised(one).kind for one in kept] == ["Plugin.fail.<locals>.Own"] * 2


def test_a_watchdog_counts_what_comes_back_too_late() -> None:
    dog = Watchdog("p", Log("p"))
    end = threading.Event()
    assert code_of(lambda: dog.call("it", lambda: end.wait(30), 0.05)) == "plugin.timeout"
    assert dog.stuck == 1
    end.set()
    until(lambda: dog.stuck == 0)
    assert dog.call("it", lambda: 5, 5.0) == 5


def test_a_watchdog_counts_what_nobody_waits_for_after_an_interrupt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_: object) -> bool:
        raise KeyboardInterrupt

    dog, end = Watchdog("p", Log("p")), threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(Latch, "wait", interrupt)
        with pytest.raises(KeyboardInterrupt):
            dog.call("it", lambda: end.wait(30), 5.0)
    assert dog.stuck == 1
    end.set()
    until(lambda: dog.stuck == 0)


# --- At the end of the process ---


def test_a_process_ends_with_plugins_that_hang_and_leaves_no_files(tmp_path: Path) -> None:
    body = """
def start(self):
    import threading
    self.thread = threading.Thread(target=threading.Event().wait, daemon=True)
    self.thread.start()
"""
    home = plugin_maker.write(tmp_path / "p", body)
    program = f"""
from dwkernel.plugins import Plugins, PluginsSection
plugins = Plugins(PluginsSection(installed=False, stage={str(tmp_path)!r}))
plugins.load({str(home)!r})
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, capture_output=True)
    assert not list(tmp_path.glob("dwkernel-plugins-*"))
