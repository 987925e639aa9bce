"""Moments in which a change, an interruption or a mistake of somebody else comes in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import field_validator

import dwkernel as dw
import plugin_maker
from dwkernel import _native, config, errors
from dwkernel.config import following, registry, resolving, subscribers
from expect import PATIENCE_S, code_of, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "dwkernel.toml"
    write(path, 1)
    return path


def write(path: Path, rate: float) -> None:
    beside = path.with_name("beside")
    beside.write_text(f"[limits]\nrate = {rate}\n")
    beside.replace(path)


@pytest.fixture
def made() -> Iterator[config.Configuration]:
    with config.Configuration(
        values={"limits": {"rate": 1}}, environment={}, timeout="30s"
    ) as made:
        yield made


# --- Who subscribes while something changes -------------------------------------------------------


def test_who_subscribes_while_others_are_asked_hears_of_the_change(
    made: config.Configuration,
) -> None:
    heard: list[Any] = []

    def asked(_old: Any, _new: Any) -> None:
        made.on_change("limits.rate", lambda old, new: heard.append((old, new)))
        heard.append(made.current.limits.rate)

    stop = made.on_change("limits.rate", lambda *_: None, asked)
    made.set({"limits.rate": 2})
    assert heard == [1, (1, 2)]
    stop()
    made.on_change("limits.rate", lambda *_: 1 / 0)
    assert code_of(lambda: made.set({"limits.rate": 3})) == "config.refused"
    assert heard[2:] == [(2, 3), (3, 2)]


def test_who_unsubscribes_while_it_is_asked_refuses_nothing(made: config.Configuration) -> None:
    def asked(_old: Any, _new: Any) -> None:
        stop()
        raise ValueError

    stop = made.on_change("limits.rate", lambda *_: None, asked)
    made.set({"limits.rate": 2})
    assert made.current.limits.rate == 2


def test_who_follows_a_path_ends_with_what_counts(made: config.Configuration) -> None:
    used: list[Any] = []
    in_use, go = threading.Event(), threading.Event()

    def use(rate: Any) -> None:
        if not used:
            in_use.set()
            go.wait(PATIENCE_S)
        used.append(rate)

    stops: list[Any] = []
    one = threading.Thread(target=lambda: stops.append(following.follow(made, "limits.rate", use)))
    one.start()
    assert in_use.wait(PATIENCE_S)
    # It was read, and is being used: a change must not get in before.
    other = threading.Thread(target=lambda: made.set({"limits.rate": 2}))
    other.start()
    until(lambda: made.current.limits.rate == 2)
    time.sleep(0.05)
    go.set()
    one.join()
    other.join()
    assert used == [1, 2]
    stops[0]()
    made.set({"limits.rate": 3})
    assert used == [1, 2]
    with pytest.raises(ZeroDivisionError):
        following.follow(made, "limits.rate", lambda _: 1 / 0)
    made.set({"limits.rate": 4})


def test_a_deadline_that_changes_while_the_store_opens_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = _native.Store.open

    def opens(*arguments: Any, **options: Any) -> Any:
        shared.set({"limits.timeout": "7s", "limits.object_size": "1 KiB"})
        return real(*arguments, **options)

    class Slowly:
        open = staticmethod(opens)

    with config.Configuration(values={"limits.timeout": "5s"}, environment={}) as shared:
        monkeypatch.setattr(_native, "Store", Slowly)
        with dw.open(tmp_path / "a", drives=3, create=True, config=shared) as kernel:
            assert kernel._limit(None) == 7
            kernel.containers.create("c")
            assert code_of(lambda: kernel.put("c/a", bytes(2000))) == "limit.object_size"


def test_a_file_that_changes_while_it_is_read_first_is_seen(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = resolving.resolve

    def resolves(*arguments: Any) -> Any:
        # It was read, and nobody watches yet.
        monkeypatch.setattr("dwkernel.config.manager.resolve", real)
        write(path, 2)
        return real(*arguments)

    monkeypatch.setattr("dwkernel.config.manager.resolve", resolves)
    with config.Configuration(path, environment={}, debounce="20ms") as made:
        until(lambda: made.current.limits.rate == 2)


def test_plugins_that_a_file_enables_later_start(tmp_path: Path) -> None:
    plugin_maker.write(tmp_path / "plugins" / "p")
    path = tmp_path / "dwkernel.toml"
    head = f'[plugins]\nfolders = ["{tmp_path}/plugins"]\ninstalled = false\n'
    path.write_text(head)
    with dw.open(tmp_path / "store", drives=3, create=True, config=path) as kernel:
        path.write_text(f'{head}enabled = ["p"]\n')
        until(lambda: kernel._plugins is not None)
        until(lambda: kernel.plugins.info("p").state == "started")
    until(lambda: not [one for one in threading.enumerate() if one.name.startswith("dwk-plugins")])


def test_plugins_that_change_while_the_store_opens_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("p", "q"):
        plugin_maker.write(tmp_path / "plugins" / name, plugin_id=name)
    values = {"plugins": {"folders": [tmp_path / "plugins"], "installed": False, "enabled": ["p"]}}
    real = _native.Store.open

    def opens(*arguments: Any, **options: Any) -> Any:
        shared.set({"plugins.enabled": ["p", "q"]})
        return real(*arguments, **options)

    class Slowly:
        open = staticmethod(opens)

    with config.Configuration(values=values, environment={}) as shared:
        monkeypatch.setattr(_native, "Store", Slowly)
        with dw.open(tmp_path / "a", drives=3, create=True, config=shared) as kernel:
            until(lambda: kernel.plugins.info("q").state == "started")


# --- Interruptions --------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after"])
def test_ctrl_c_beside_the_telling_leaves_nobody_with_what_does_not_count(
    made: config.Configuration, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, heard = subscribers.tell, list[Any]()
    made.on_change("limits.rate", lambda old, new: heard.append((old, new)))

    def interrupted(*arguments: Any) -> Any:
        if when == "after":
            assert real(*arguments) is None
        raise KeyboardInterrupt

    monkeypatch.setattr(subscribers, "tell", interrupted)
    before = made.current
    with pytest.raises(KeyboardInterrupt):
        made.set({"limits.rate": 2})
    assert made.current is before
    assert heard == ([(1, 2), (2, 1)] if when == "after" else [])
    monkeypatch.undo()
    made.set({"limits.rate": 3})
    assert heard[-1] == (1, 3)


def test_ctrl_c_while_sections_are_loaded_leaves_them_to_who_comes_next() -> None:
    code = """
import importlib
from dwkernel.config import registry
real, broken = importlib.import_module, list(registry.LATER)
def loads(name):
    if name in broken:
        broken.remove(name)
        raise KeyboardInterrupt
    return real(name)
registry.importlib.import_module = loads
for _ in range(len(broken)):
    try:
        registry.shape()
    except KeyboardInterrupt:
        pass
print(*registry.shape().sections)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["jobs", "plugins"]


def test_closing_in_a_subscriber_s_call_waits_for_nobody(path: Path) -> None:
    taken: list[float] = []

    def closes(_old: Any, _new: Any) -> None:
        began = time.monotonic()
        own.close()
        taken.append(time.monotonic() - began)

    own = config.Configuration(path, environment={}, debounce="20ms")
    own.on_change("limits.rate", closes)
    write(path, 2)
    until(lambda: taken)
    assert taken[0] < 4, "the watcher was waited for, which waits for this call"
    until(lambda: not [one for one in threading.enumerate() if one.name.startswith("dwk-config")])
    assert own.current.limits.rate == 2


def test_a_configuration_that_is_closed_meanwhile_hinders_no_registration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with config.Configuration(environment={}) as made:
        real = registry.leave
        monkeypatch.setattr(registry, "leave", lambda _: None)
        made.close()  # it was in the list already
        try:
            config.register("testtouchy", Touchy)
        finally:
            real(made)
    assert config.unregister("testtouchy")


class User:
    """A configuration in use, as the registry sees one."""

    def __init__(self, fails_at: int = 0) -> None:
        self.shapes: list[Any] = []
        self.fails_at = fails_at

    def reshape(self, shape: Any) -> None:
        self.shapes.append(shape)
        if len(self.shapes) == self.fails_at:
            raise errors.new("config.refused", "no")

    def forked(self) -> None:
        pass


def test_one_that_cannot_go_back_keeps_no_other_from_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stubborn, plain, refusing = User(2), User(), User(1)
    monkeypatch.setattr(registry, "_users", [stubborn, plain, refusing])
    before = registry.shape()
    assert code_of(lambda: config.register("testtouchy", Touchy)) == "config.refused"
    assert registry.shape() is before
    assert plain.shapes[1:] == [before]
    assert "cannot go back" in caplog.text


# --- Mistakes of others ---------------------------------------------------------------------------


class Touchy(config.Section):
    """A section whose validator raises what it should not."""

    level: int = config.setting(1, "how much", live=True)

    @field_validator("level")
    @classmethod
    def _looked_up(cls, level: int) -> int:
        return {1: 1, 2: 2}[level]


@pytest.fixture
def _touchy() -> Iterator[None]:
    config.register("testtouchy", Touchy)
    yield
    config.unregister("testtouchy")


@pytest.mark.usefixtures("_touchy")
def test_a_validator_that_raises_anything_is_a_mistake_that_is_told(path: Path) -> None:
    before = signal.getsignal(signal.SIGHUP)
    with config.Configuration(path, environment={}, debounce="20ms") as made:
        made.reload_on_sighup()
        with pytest.raises(errors.Invalid) as caught:
            made.set({"testtouchy.level": 5})
        assert caught.value.code == "config.value"
        assert "KeyError at " in str(caught.value)
        assert "test_config_races.py:" in str(caught.value)
        path.write_text("[testtouchy]\nlevel = 6\n")
        until(lambda: made.status().last_error_code == "config.value")
        os.kill(os.getpid(), signal.SIGHUP)
        write(path, 2)
        until(lambda: made.current.limits.rate == 2)
    assert signal.getsignal(signal.SIGHUP) == before


@pytest.mark.parametrize("how", ["file", "signal"])
def test_what_nobody_foresaw_is_told_and_ends_no_watching(
    path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    is_signal = how == "signal"
    with config.Configuration(path, environment={}, debounce="20ms", watch=not is_signal) as made:
        made.announce_to(lambda _, data: told.append(data.get("code", "")))
        made.on_change("limits.rate", lambda *_: None)
        if is_signal:
            made.reload_on_sighup()

        def change(rate: int) -> None:
            write(path, rate)
            if is_signal:
                os.kill(os.getpid(), signal.SIGHUP)

        def full(_told: Any, _timeout_s: float) -> None:
            text = "can't start new thread"
            raise RuntimeError(text)

        monkeypatch.setattr(subscribers, "ask", full)
        change(2)
        until(lambda: told == ["internal.bug"])
        assert made.status().last_error_code == "internal.bug"
        assert "RuntimeError at " in str(made.status().last_error)
        assert made.current.limits.rate == 1
        assert code_of(made.reload) == "internal.bug"
        monkeypatch.undo()
        change(3)
        until(lambda: made.current.limits.rate == 3)


@pytest.mark.parametrize("key", ["limits.rate", "plugins.config.x", "plugins.config.x.y"])
def test_what_cannot_be_copied_is_validated_like_anything_else(
    made: config.Configuration, key: str
) -> None:
    call: Callable[[], Any] = lambda: made.set({key: threading.Lock()})  # noqa: E731 - one of many
    if key.endswith("y"):
        made.set({"plugins.installed": False})
        call()
    else:
        assert code_of(call) == "config.value"


def test_asking_for_sighup_twice_is_asking_once(path: Path) -> None:
    before = signal.getsignal(signal.SIGHUP)
    with config.Configuration(path, environment={}, watch=False) as made:
        made.reload_on_sighup()
        made.reload_on_sighup()
        until(lambda: names_now() == 1)
        os.kill(os.getpid(), signal.SIGHUP)
        until(lambda: made.status().last_attempt is not None)
    assert signal.getsignal(signal.SIGHUP) == before
    until(lambda: names_now() == 0)


def names_now() -> int:
    return [one.name for one in threading.enumerate()].count("dwk-config-sighup")


def test_a_closed_kernel_has_a_closed_configuration(tmp_path: Path) -> None:
    with dw.open(tmp_path / "store", drives=3, create=True) as kernel:
        pass
    assert kernel.config.current.limits.rate is None
    assert code_of(kernel.config.reload) == "config.refused"
