"""Ctrl-C while plugins are exchanged or ended: the program's thread is free, and nothing hangs."""

from __future__ import annotations

import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

import plugin_maker
from expect import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAIN = threading.main_thread().ident or 0

# Each of its steps ends as soon as a file with its name is there, and says before that it began.
WAITS = """
def wait(self, name):
    import pathlib, time
    home = pathlib.Path({home!r})
    (home / (name + "-began")).touch()
    while not (home / name).exists():
        time.sleep(0.005)

def {step}(self):
    self.wait({step!r})
"""


def interrupts(when: Callable[[], object]) -> None:
    """Send Ctrl-C to the main thread as soon as something holds."""

    def work() -> None:
        until(when)
        signal.pthread_kill(MAIN, signal.SIGINT)

    threading.Thread(target=work, daemon=True).start()


@pytest.mark.parametrize("step", ["start", "stop"])
def test_a_reload_that_is_interrupted_leaves_one_version_and_says_which(
    tmp_path: Path, step: str
) -> None:
    waits = WAITS.format(home=str(tmp_path), step=step)
    bodies = ("", waits) if step == "start" else (waits, "")
    heard: list[tuple[str, dict[str, Any]]] = []
    with plugin_maker.plugins() as opened:
        home = tmp_path / "p"
        opened.load(plugin_maker.write(home, bodies[0], version="1.0"))
        plugin_maker.write(home, bodies[1], version="1.1")
        opened.on(lambda subject, data: heard.append((subject, data)))
        interrupts((tmp_path / f"{step}-began").exists)
        with pytest.raises(KeyboardInterrupt):
            opened.reload("p")
        (tmp_path / step).touch()
        after = "1.0" if step == "start" else "1.1"
        until(lambda: len(heard) > 1)
        said = "reload_failed" if step == "start" else "reloaded"
        assert [subject for subject, _ in heard] == ["plugin.reloading", f"plugin.{said}"]
        assert heard[1][1]["version"] == after
        assert opened.info("p").version == after
        assert opened.get("policy").call("before", []) == []
        until(lambda: len([name for name in sys.modules if "plugin_p_" in name]) == 2)
    assert not [name for name in sys.modules if "plugin_p_" in name]


def test_an_old_version_is_ended_though_who_reloads_was_interrupted(tmp_path: Path) -> None:
    stop = f"def stop(self): open({str(tmp_path / 'stopped')!r}, 'w').close()"
    body = WAITS.format(home=str(tmp_path), step="used") + stop
    with plugin_maker.plugins() as opened:
        home = tmp_path / "p"
        opened.load(plugin_maker.write(home, body, version="1.0"))
        handle = opened.get("policy")
        user = threading.Thread(target=handle.call, args=("used",), daemon=True)
        user.start()
        until((tmp_path / "used-began").exists)
        plugin_maker.write(home, version="1.1")
        interrupts(lambda: opened.info("p").version == "1.1")
        with pytest.raises(KeyboardInterrupt):
            opened.reload("p")
        assert user.is_alive()
        assert not (tmp_path / "stopped").exists()
        (tmp_path / "used").touch()
        until((tmp_path / "stopped").exists)
        user.join()
