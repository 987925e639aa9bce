"""A kernel and its configuration: what it is opened with, and what changes while it runs."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import dwkernel as dw
from dwkernel import config
from dwkernel.config import _native
from expect import code_of, uncollected, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "dwkernel.toml"
    file.write_text(
        f'[store]\npath = "{tmp_path}/store"\ndrives = 6\ngeometry = "4+2"\n'
        '[limits]\ntimeout = "2min"\n'
    )
    return file


@pytest.fixture
def kernel(file: Path) -> Iterator[dw.Kernel]:
    with dw.open(config=file, create=True) as kernel:
        yield kernel


# --- Opening --------------------------------------------------------------------------------------


def test_a_store_is_opened_as_its_file_says(file: Path, tmp_path: Path) -> None:
    with dw.open(config=file, create=True) as kernel:
        assert kernel.pool.status().geometry == "4+2"
        assert len(kernel.pool.status().drives) == 6
        assert kernel.config.current.store.path == f"{tmp_path}/store"
    with dw.open(config=[file]) as kernel:
        assert kernel.config.status().files == [str(file)]
    with dw.open(config=tmp_path) as kernel:
        assert kernel.config.status().files == [str(file)]
    with dw.open(config={"store": {"path": str(tmp_path / "store"), "read_only": True}}) as kernel:
        assert code_of(lambda: kernel.containers.create("a")) == "pool.read_only"


def test_a_store_s_folder_may_hold_its_file(path: Path) -> None:
    path.mkdir()
    (path / "dwkernel.toml").write_text('[store]\ndrives = 3\ngeometry = "2+1"\n')
    for create in (True, False):
        with dw.open(path, config=path, create=create) as kernel:
            assert kernel.pool.status().geometry == "2+1"


def test_arguments_win_over_the_file(file: Path, tmp_path: Path) -> None:
    with dw.open(
        tmp_path / "other", config=file, drives=3, geometry="2+1", timeout="7s", create=True
    ) as kernel:
        assert kernel.pool.status().geometry == "2+1"
        assert kernel._limit(None) == 7
        assert str(kernel.config.origins["store.geometry"]) == "call"
        assert str(kernel.config.origins["limits.timeout"]) == "call"
        file.write_text(file.read_text().replace("2min", "3min"))
        kernel.config.reload()
        assert kernel._limit(None) == 7


def test_the_environment_counts_without_a_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DWKERNEL__LIMITS__TIMEOUT", "9s")
    monkeypatch.setenv("DWKERNEL__STORE__PATH", str(path))
    with dw.open(drives=3, create=True) as kernel:
        assert kernel._limit(None) == 9
    monkeypatch.setenv("DWKERNEL__LIMITS__TIMEUOT", "9s")
    assert code_of(dw.open) == "config.unknown"


@pytest.mark.parametrize(
    ("source", "code"),
    [
        (5, "config.value"),
        ({"store": 5}, "config.value"),
        ({5: {}}, "config.value"),
        ("missing.toml", "config.file"),
        ([b"x"], "config.value"),
        (["missing.toml", "also.toml"], "config.file"),
    ],
)
def test_a_configuration_that_is_none_is_refused(path: Path, source: Any, code: str) -> None:
    assert code_of(lambda: dw.open(path, config=source, drives=3, create=True)) == code
    assert not path.exists()


def test_a_failed_opening_ends_the_watching(file: Path) -> None:
    assert code_of(lambda: dw.open(config=file)) == "store.not_found"
    assert not [one for one in threading.enumerate() if one.name.startswith("dwk-config")]


def test_a_shared_configuration_outlives_its_kernels(tmp_path: Path) -> None:
    with config.Configuration(
        values={"store.drives": 3, "store.geometry": "2+1", "limits.timeout": "5s"},
        environment={},
    ) as shared:
        one = dw.open(tmp_path / "a", config=shared, create=True)
        other = dw.open(tmp_path / "b", config=shared, create=True, timeout="8s")
        assert one.config is other.config is shared
        shared.set({"limits.timeout": "6s"})
        assert (one._limit(None), other._limit(None)) == (6, 8)
        one.close()
        other.close()
        assert not shared._board._all
        assert shared.set({"limits.timeout": "7s"}).changed


# --- Live -----------------------------------------------------------------------------------------


def test_the_default_deadline_changes_while_the_kernel_runs(kernel: dw.Kernel, file: Path) -> None:
    kernel.containers.create("docs")
    assert kernel._limit(None) == 120
    file.write_text(file.read_text().replace("2min", "1ns"))
    until(lambda: kernel._limit(None) < 1)
    assert code_of(lambda: kernel.put("docs/a", b"x")) == "context.deadline"
    file.write_text(file.read_text().replace("1ns", "1min"))
    until(lambda: kernel._limit(None) == 60)
    kernel.put("docs/a", b"x")
    assert kernel._limit("5s") == 5


def test_no_operation_fails_during_a_thousand_changes(kernel: dw.Kernel) -> None:
    kernel.containers.create("docs")
    failures: list[BaseException] = []
    done, counts = threading.Event(), [0, 0, 0]

    def work(number: int) -> None:
        while not done.is_set():
            try:
                kernel.put(f"docs/{number}", bytes([number]) * 100)
                assert kernel[f"docs/{number}"] == bytes([number]) * 100
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is one too many
                failures.append(error)
            counts[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for number in range(1000):
        limits = {"operations": 10 + number, "timeout": 10 + number, "object_size": 100 + number}
        kernel.config.set({"limits": limits})
    done.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert min(counts) > 0
    assert kernel.config.version == 1001


def test_new_containers_are_made_with_what_the_configuration_says(kernel: dw.Kernel) -> None:
    kernel.config.set({"containers.quota": "10 GiB", "containers.compress": "zstd"})
    with pytest.warns(dw.NotEnforcedWarning, match="quota, compress"):
        made = kernel.containers.create("a")
    assert made.options == {"quota": "10 GiB", "compress": "zstd"}
    with pytest.warns(dw.NotEnforcedWarning, match="quota"):
        made = kernel.containers.create("b", quota="1 GiB")
    assert made.options == {"quota": "1 GiB", "compress": "zstd"}


def test_changes_are_events_on_the_bus(kernel: dw.Kernel) -> None:
    kernel.config.set({"limits.timeout": "3min"})  # before there is a bus
    heard = kernel.bus.subscribe("config.*")
    kernel.config.set({"limits.timeout": "4min"})
    code_of(lambda: kernel.config.set({"limits.timeuot": "4min"}))
    changed, failed = heard.fetch(2, "10s")
    assert (changed.subject, failed.subject) == ("config.changed", "config.failed")
    assert changed.schema == "dwkernel.event.v1"
    assert json.loads(changed.data)["changed"][0]["new"] == "4min"
    assert json.loads(failed.data)["code"] == "config.unknown"


def test_a_subscriber_of_the_bus_that_is_full_holds_no_change_up(kernel: dw.Kernel) -> None:
    full = kernel.bus.subscribe("config.changed", limit=1)
    began = time.monotonic()
    for seconds in range(1, 6):
        kernel.config.set({"limits.timeout": seconds})
    assert kernel._limit(None) == 5
    assert time.monotonic() - began < 3
    (only,) = full.fetch(5, "0s")
    assert json.loads(only.data)["version"] == 2


def test_a_closed_kernel_s_configuration_is_closed(file: Path) -> None:
    with dw.open(config=file, create=True) as kernel:
        made = kernel.config
    assert not made.status().watching
    assert code_of(made.reload) == "config.refused"
    assert made.current.limits.timeout == 120.0


def test_a_kernel_that_nobody_has_is_let_go(file: Path) -> None:
    import gc
    import weakref

    with uncollected():
        kernel = dw.open(config=file, create=True)
        gone = weakref.ref(kernel)
        del kernel
        with pytest.warns(ResourceWarning, match="unclosed"):
            gc.collect()
    assert gone() is None
    dw.open(config=file).close()


# --- What the data plane takes --------------------------------------------------------------------


def test_limits_reach_the_store_as_one_swap_and_are_taken_back_as_one(path: Path) -> None:
    values = {"limits": {"rate": 500_000, "burst": 7, "object_size": "1 KiB"}}
    with dw.open(path, drives=3, create=True, config=values) as kernel:

        def now() -> dict[str, Any]:
            return kernel._store.settings(kernel._caller, 5.0)

        first = {"version": 1, "operations": None, "rate": 5e5, "burst": 7, "object_size": 1024}
        assert now() == first
        kernel.containers.create("c")
        assert code_of(lambda: kernel.put("c/a", bytes(1025))) == "limit.object_size"
        kernel.put("c/a", bytes(1024))
        kernel.config.set({"limits.rate": "none", "limits.operations": 3})
        second = {**first, "version": 2, "rate": None, "operations": 3}
        assert now() == second
        broken = kernel.config.on_change("limits.rate", lambda *_: 1 / 0)
        assert code_of(lambda: kernel.config.set({"limits.rate": 9})) == "config.refused"
        assert now() == {**second, "version": 4}, "there, and back again"
        broken()
        kernel.config.set({"limits.object_size": "none"})
        kernel.put("c/a", bytes(5000))


def test_no_operation_sees_half_of_a_thousand_changes(path: Path) -> None:
    values = {"limits": {"object_size": 1000, "operations": 1000}}
    with dw.open(path, drives=3, create=True, config=values) as kernel:
        kernel.containers.create("c")
        stop, seen, wrong = threading.Event(), [0] * 8, list[BaseException]()

        def work(number: int) -> None:
            try:
                while not stop.is_set():
                    now = kernel._store.settings(kernel._caller, 5.0)
                    assert now["object_size"] == now["operations"], now
                    assert code_of(lambda: kernel.put("c/a", bytes(5000))) == "limit.object_size"
                    seen[number] += 1
            except BaseException as error:  # noqa: BLE001 - whatever it is
                wrong.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for limit in range(1001, 2001):
            kernel.config.set({"limits.object_size": limit, "limits.operations": limit})
        stop.set()
        for thread in threads:
            thread.join(30)
        assert not wrong, wrong[0]
        assert min(seen) > 0
        assert kernel._store.settings(kernel._caller, 5.0)["version"] == 1001


def test_what_stays_until_the_next_opening_is_given_to_it(path: Path) -> None:
    values = {"streams": {"merge_frames": 5}, "pool": {"drive_timeout": "9s"}}
    with config.Configuration(values=values, environment={}) as made:
        given = _native.opening_of(made.current)
        assert given == {
            "drive_timeout_s": 9.0,
            "merge_bytes": 4 << 20,
            "merge_frames": 5,
            "delayed_max": 1_000_000,
            "keys_max": 262_144,
        }
    with dw.open(path, drives=3, create=True, config=values) as kernel:
        stream = kernel.bus.stream("s", subjects=["s"], create=True)
        for _ in range(40):
            stream.publish("s", b"1")
        # Merged after so few, which takes thousands else.
        until(lambda: stream.status().blocks > 0)
        report = kernel.config.set({"pool.drive_timeout": "8s"})
        assert report.restart_required == ["pool.drive_timeout"]


# --- What it costs --------------------------------------------------------------------------------


def run(code: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    )
    return json.loads(done.stdout)


def test_what_is_heavy_is_loaded_by_who_uses_it() -> None:
    code = """
import json, sys, threading
heavy = lambda: [name for name in ("pydantic", "watchfiles", "tomllib") if name in sys.modules]
import dwkernel as dw
found = [heavy(), "dwkernel.config" in sys.modules]
with dw.open(drives=["memory://a", "memory://b", "memory://c"], create=True) as kernel:
    found += [heavy()]
    kernel.config.current
    found += [heavy(), threading.active_count()]
print(json.dumps(found))
"""
    assert run(code) == [[], False, [], ["pydantic", "tomllib"], 1]
