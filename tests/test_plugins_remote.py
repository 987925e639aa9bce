"""Plugins in a process of their own, through the same registry, reloads included.

They are written as those in the kernel's process are: what runs here confined would run trusted.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import types
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

import dwkernel as dw
import plugin_maker
from dwkernel import errors
from dwkernel.metrics import Family, Sample, Snapshot
from dwkernel.plugins import (
    Finished,
    Plugins,
    PluginsSection,
    Request,
    confined,
    kinds,
    manifest,
)
from dwkernel.plugins.confined import keeper
from dwkernel.plugins.guest import Guest
from dwkernel.plugins.kinds import crossing
from dwkernel.plugins.kinds.policy import Verdict
from dwkernel.plugins.output import Log
from dwkernel.plugins.plain import plain
from dwkernel.plugins.remote import Remote
from expect import code_of, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dwkernel.plugins.discovery import Found

COUNTS = """
import os
from dwkernel import errors
from dwkernel.plugins import Context, Finished, Request, Verdict

class Plugin:
    timeout_s = 3

    def __init__(self):
        self.count = 0

    def handshake(self, context):
        assert type(context).__mro__[1] is Context
        self.limit = context.config["limit"]
        context.log(f"{context.id} {context.version} is limited to {self.limit}")

    def before(self, requests):
        self.count += len(requests)
        assert all(type(one) is Request for one in requests)
        return [self.verdict(one) for one in requests]

    def verdict(self, one):
        if len(one.key) > self.limit:
            return Verdict.refuse("too long")
        return Verdict.annotate({"count": str(self.count), "verb": one.verb})

    def after(self, finished):
        assert all(type(one) is Finished for one in finished)
        print("ended:", finished[0].request.key, finished[0].code, dict(finished[0].annotations))

    def where(self):
        return os.getpid()

    def end(self):
        os._exit(3)

    def fail(self, code):
        raise errors.new(code, "no")

    def export_state(self):
        return self.count

    def import_state(self, state, from_version):
        self.count = state
"""
CONFIG = {"properties": {"limit": {"type": "integer", "default": 10}}}
REQUESTS = [Request("object.put", "a/b"), Request("object.put", "a/ccccccccccc")]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="confined processes are Linux only")


class Here:
    """Answers as a confined process does, in this one: what crosses must be plain."""

    def __init__(self, guest: Any) -> None:
        self.guest = guest
        self.calls: list[str] = []
        self.is_stopped = False

    def call(self, method: str, *arguments: Any) -> Any:
        self.calls.append(method)
        return plain(getattr(self.guest, method)(*plain(list(arguments))))

    def status(self) -> confined.Status:
        kept = confined.Confinement(0, seccomp=False, network="open", missing=())
        return confined.Status("p", "1", "running", 1, 0, 0, 0, 0, 0, 0, 0, 0, None, (), kept)

    def stop(self, deadline_s: float) -> None:
        assert deadline_s > 0
        self.is_stopped = True


def write(home: Path, code: str = COUNTS, **fields: Any) -> Path:
    given = {"run": "confined", "config": CONFIG, "state_version": 1, "keep_state": True, **fields}
    return plugin_maker.write(home, files={"main.py": code}, **given)


def remote_of(plugin: Any, *kind_names: str) -> Remote:
    """Return what stands for an object, with a guest around it in this process."""
    module = types.ModuleType("remote_of")
    module.make = lambda: plugin  # type: ignore[attr-defined]  # for its guest
    sys.modules["remote_of"] = module
    said = manifest.parse(plugin_maker.manifest(kinds=list(kind_names)).encode())
    plan = {"id": "p", "entry": "remote_of:make", "kinds": list(kind_names), "model": None}
    return Remote(said, lambda **_: Here(Guest(plan)), Log("p"))


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    assert not keeper._live, "a process is left"


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Plugins]:
    with Plugins() as one:
        try:
            one.load(write(tmp_path / "p"))
        except errors.Unsupported as error:
            pytest.skip(f"this system can't confine: {error}")
        yield one


# --- What crosses ---------------------------------------------------------------------------------


def test_a_plugin_is_asked_and_told_and_reloaded_with_its_state(tmp_path: Path) -> None:
    started: list[Here] = []
    folders: list[Path] = []

    def confine(found: Found, folder: Path, log: Log) -> Remote:
        names: dict[str, Any] = {}
        exec((folder / "main.py").read_text(), names)  # noqa: S102 - the test's own
        module = sys.modules["main_of_p"] = types.ModuleType("main_of_p")
        vars(module).update(names)
        plan = {"id": "p", "entry": "main_of_p:Plugin", "kinds": ["policy"], "model": None}
        started.append(Here(Guest(plan)))
        folders.append(folder)
        return Remote(found.manifest, lambda **_: started[-1], log)

    with Plugins(confine=confine) as plugins:
        plugins.load(write(tmp_path / "p"))
        handle = plugins.get("policy")
        for count in (2, 4):
            assert handle.call("before", REQUESTS) == [
                Verdict.annotate({"count": str(count), "verb": "put"}),
                Verdict.refuse("too long"),
            ]
            handle.call("after", [Finished(REQUESTS[0])])
            assert plugins.reload("p").state
            assert started[-2].is_stopped
        assert started[0].calls == [
            "guest_about", "handshake", "guest_about", "before", "after", "export_state"
        ]  # fmt: skip
    assert all(one.is_stopped for one in started)
    assert len(folders) == 3
    assert not any(folder.exists() for folder in folders)


def test_what_is_sent_arrives_as_it_was() -> None:
    snapshot = Snapshot(
        datetime(2026, 5, 1, 12, tzinfo=UTC),
        0.25,
        [Family("dwk", "gauge", "bytes", "A sentence.", [Sample("dwk", {"drive": "a"}, 3)])],
    )
    sent: dict[str, Any] = {
        "before": [Request("object.get", "c/ü", "read", "object", "ann", "acme", "0" * 32)],
        "decide": [Request("bus.publish")],
        "after": [Finished(Request("a.b", "k"), "object.not_found", 0.5, {"a": "b"})],
        "export": snapshot,
        "authenticate": {"token": "secret"},
        "embed": ["a", "b"],
    }
    for method, value in sent.items():
        assert crossing.arguments(method, plain([crossing.plain_of(value)])) == [value]
    verdicts = [Verdict.allow(), Verdict.refuse("no"), Verdict.annotate({"a": "b"})]
    for method in ("before", "decide"):
        assert crossing.result(method, plain(crossing.plain_of(verdicts))) == verdicts
    assert list(crossing.result("complete", plain(crossing.plain_of(iter("ab"))))) == ["a", "b"]


@pytest.mark.parametrize(
    "odd",
    [
        1,
        None,
        "no",
        {},
        {"kind": "maybe", "reason": "", "annotations": {}},
        {"kind": "allow", "reason": 1, "annotations": {}},
        {"kind": "allow", "reason": "", "annotations": {"a": 1}},
        {"kind": "allow", "reason": "", "annotations": []},
        {"kind": "allow", "reason": ""},
        {"kind": ["allow"], "reason": "", "annotations": {}},
    ],
)
def test_what_is_no_verdict_does_not_become_one(odd: Any) -> None:
    assert crossing.result("before", [odd]) == [odd]
    assert crossing.result("before", odd) == odd


def test_a_policy_that_answers_with_no_verdict_refuses() -> None:
    class Odd:
        def before(self, _: list[Any]) -> list[Any]:
            return [{"kind": "maybe"}]

        def after(self, finished: list[Any]) -> None: ...

    (found,) = remote_of(Odd(), "policy").before([Request("object.put")])  # type: ignore[attr-defined]  # a method of the kind
    assert not isinstance(found, Verdict)


# --- What it is held to ---------------------------------------------------------------------------


def test_every_kind_that_can_be_confined_has_its_methods_and_no_others() -> None:
    for kind in kinds.CONFINABLE:
        names = [name for name, one in vars(kinds.protocol(kind)).items() if callable(one)]
        methods = {name: lambda *_: None for name in names if not name.startswith("_")}
        methods["own"] = lambda *_: None
        made = type("Made", (), {**methods, "name": "made", "_hidden": methods["own"]})()
        for name, method in methods.items():
            setattr(made, name, method)
        remote: Any = remote_of(made, kind)
        assert kinds.missing(kind, remote) == []
        assert remote.own() is None
        assert not hasattr(remote, "_hidden")
        assert not hasattr(remote, "export_state")


def test_one_that_lacks_what_its_kind_needs_is_refused_as_a_trusted_one_is(tmp_path: Path) -> None:
    code = "class Plugin:\n    def before(self): ...\n"
    said = []
    for run in ("trusted", "confined"):
        with Plugins() as plugins, pytest.raises(errors.DwError) as caught:
            plugins.load(write(tmp_path / run, code, run=run, state_version=0))
        assert caught.value.code == "plugin.kind"
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert "Plugin is no policy: it lacks before(requests), after(finished)" in said[0]


def test_one_whose_code_says_another_version_is_refused(tmp_path: Path) -> None:
    with Plugins() as plugins:
        home = write(tmp_path / "p", COUNTS + "\n__version__ = '9.9'\n")
        assert code_of(lambda: plugins.load(home)) == "plugin.manifest"


def test_kinds_that_hand_out_objects_are_refused(tmp_path: Path) -> None:
    with Plugins() as plugins:
        home = plugin_maker.write(tmp_path / "p", kinds=["drive"], run="confined")
        assert code_of(lambda: plugins.load(home)) == "plugin.sandbox"


@LINUX
def test_its_configuration_is_held_to_its_model_in_its_process(tmp_path: Path) -> None:
    code = COUNTS.replace('context.config["limit"]', "context.config.limit") + (
        "\nimport dataclasses\n"
        "@dataclasses.dataclass\n"
        "class Options:\n"
        "    limit: int = 3\n"
        "    def __post_init__(self):\n"
        "        if self.limit > 9: raise ValueError('9 at most')\n"
    )
    home = write(tmp_path / "p", code, config={"model": "main:Options"})
    with Plugins() as plugins:
        plugins.load(home)
        assert [one.kind for one in plugins.get("policy").call("before", REQUESTS)] == [
            "allow", "refuse"
        ]  # fmt: skip
    section = PluginsSection.model_validate({"config": {"p": {"limit": 10}}})
    with Plugins(section) as plugins, pytest.raises(errors.DwError, match="9 at most") as caught:
        plugins.load(home)
    assert caught.value.code == "plugin.option"


def test_limits_of_its_process_are_its_manifest_s_and_more_than_usual_is_granted(
    tmp_path: Path,
) -> None:
    limits = {"memory": "2 GiB", "wall": "2s", "calls": 3}
    home = write(tmp_path / "p", limits=limits)
    said = manifest.read(home / "plugin.toml")
    assert said.limits == {"memory_bytes": 2 << 30, "wall_s": 2.0, "calls": 3}
    assert said.asks() == ["memory:2 GiB"]
    with Plugins() as plugins:
        assert code_of(lambda: plugins.load(home)) == "plugin.permission"
    seen: list[Found] = []

    def confine(found: Found, _folder: Path, _log: Log) -> Remote:
        seen.append(found)
        raise errors.new("plugin.sandbox", "not here")

    section = PluginsSection(grant={"p": ("memory:2 GiB",)})
    with Plugins(section, confine=confine) as plugins:
        assert code_of(lambda: plugins.load(home)) == "plugin.sandbox"
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({"memry": "1 GiB"}, "did you mean 'memory'?"),
        ({"memory": "1 KiB"}, "67108864"),
        ({"memory": "much"}, "memory = 'much' can't be"),
        ({"calls": True}, "no number"),
        ({"calls": 1000}, "calls = 1000 can't be"),
        ({"wall": "-1s"}, "wall = '-1s' can't be"),
    ],
)
def test_limits_that_no_process_could_have_are_refused(limits: Any, text: str) -> None:
    with pytest.raises(errors.DwError) as caught:
        manifest.parse(plugin_maker.manifest(limits=limits).encode())
    assert caught.value.code == "plugin.manifest"
    assert text in str(caught.value)


@pytest.mark.parametrize(
    "about",
    [
        None,
        {},
        {"lacks": {"policy": 1}},
        {"attributes": [1]},
        {"attributes": ["abc"]},
        {"methods": [1]},
        {"versions": 1},
    ],
)
def test_whatever_a_process_says_of_itself_is_taken_or_a_coded_error(about: Any) -> None:
    class Hostile(Here):
        def call(self, method: str, *_: Any) -> Any:
            assert method == "guest_about"
            good = {"type": "P", "versions": [], "attributes": {}, "methods": []}
            return {**good, "lacks": {"policy": []}, **about} if about else about

    said = manifest.parse(plugin_maker.manifest().encode())
    process = Hostile(None)
    assert code_of(lambda: Remote(said, lambda **_: process, Log("p"))) == "plugin.load"
    assert process.is_stopped


def test_one_that_died_too_often_is_started_for_who_asks_after_a_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Dead(Here):
        state, restarts = "running", 0

        def call(self, method: str, *arguments: Any) -> Any:
            if self.state == "quarantined":
                raise errors.new("plugin.quarantined", "it died too often")
            return super().call(method, *arguments)

        def status(self) -> confined.Status:
            return super().status()._replace(state=self.state, since=time.time() - 30)

        def restart(self) -> None:
            self.state, self.restarts = "running", self.restarts + 1

    policy = type("P", (), {"before": lambda *_: [], "after": lambda *_: None})
    monkeypatch.setitem(sys.modules, "remote_of", types.ModuleType("remote_of"))
    sys.modules["remote_of"].make = policy  # type: ignore[attr-defined]  # for its guest
    plan = {"id": "p", "entry": "remote_of:make", "kinds": ["policy"], "model": None}
    process = Dead(Guest(plan))
    said = manifest.parse(plugin_maker.manifest().encode())
    remote: Any = Remote(said, lambda **_: process, Log("p"))
    process.state = "quarantined"
    assert code_of(lambda: remote.before([])) == "plugin.quarantined"
    monkeypatch.setattr("dwkernel.plugins.remote._REST_S", 20.0)
    assert remote.before([]) == []
    assert process.restarts == 1


# --- In another process ---------------------------------------------------------------------------


@LINUX
def test_a_confined_plugin_runs_in_another_process(opened: Plugins) -> None:
    handle = opened.get("policy")
    assert [one.kind for one in handle.call("before", REQUESTS)] == ["allow", "refuse"]
    first = handle.call("where")
    assert first != os.getpid()
    assert opened.reload("p").state
    assert handle.call("where") not in (first, os.getpid())
    assert handle.call("before", REQUESTS)[0].annotations == {"count": "4", "verb": "put"}
    with handle.use() as instance:
        assert instance.timeout_s == 3


@LINUX
def test_what_it_prints_and_logs_is_in_its_log(opened: Plugins) -> None:
    opened.get("policy").call("after", [Finished(REQUESTS[0], "object.not_found", 0, {"a": "b"})])
    until(lambda: len(opened.info("p").lines) == 2)
    assert opened.info("p").lines == [
        "p 1.0 is limited to 10",
        "ended: a/b object.not_found {'a': 'b'}",
    ]


@LINUX
def test_one_that_died_is_greeted_again_and_its_end_is_in_its_log(opened: Plugins) -> None:
    handle = opened.get("policy")
    first = handle.call("where")
    assert code_of(lambda: handle.call("end")) == "plugin.died"
    assert handle.health.report().failures == 1
    # It has its configuration again; what it counted is gone.
    until(lambda: handle.call("before", REQUESTS)[0].annotations["count"] == "2")
    assert handle.call("where") != first
    until(lambda: any("its process ended" in line for line in opened.info("p").lines))
    found = opened.info("p").process
    assert found is not None
    assert (found["restarts"], found["pid"]) == (1, handle.call("where"))
    assert found["confinement"]["missing"] == ()


@LINUX
def test_errors_of_the_kernel_s_are_answers_and_others_are_failures(opened: Plugins) -> None:
    handle = opened.get("policy")
    with pytest.raises(errors.NotFound, match="no") as caught:
        handle.call("fail", "object.not_found")
    assert caught.value.code == "object.not_found"
    assert handle.health.report().failures == 0
    for code in ("plugin.died", "no.such"):
        assert code_of(lambda: handle.call("fail", code)) == "plugin.failed"  # noqa: B023 - called at once
    assert handle.health.report().failures == 2


@LINUX
def test_of_the_kernel_s_package_it_has_what_needs_no_native_code(tmp_path: Path) -> None:
    code = COUNTS + (
        "\n    def look(self, name):\n"
        "        import importlib\n"
        "        return importlib.import_module(name).__name__\n"
        "    def hash(self):\n"
        "        import dwkernel\n"
        "        return dwkernel.hashing.blake3(b'')\n"
        "    def others(self):\n"
        "        return self.context.plugin('other')\n"
    ).replace("self.context", "self.kept")
    code = code.replace("self.limit = ", "self.kept = context; self.limit = ")
    with Plugins() as plugins:
        plugins.load(write(tmp_path / "p", code))
        handle = plugins.get("policy")
        for name in ("dwkernel.errors", "dwkernel.plugins.kinds.drive", "dwkernel.metrics"):
            assert handle.call("look", name) == name
        with pytest.raises(errors.DwError, match="blake3 needs the native half of dwkernel"):
            handle.call("hash")
        with pytest.raises(errors.DwError, match="No module named 'pydantic'"):
            handle.call("look", "pydantic")
        with pytest.raises(errors.DwError, match="can't call other"):
            handle.call("others")
    section = PluginsSection(grant={"p": ("libraries",)})
    with Plugins(section) as plugins:
        plugins.load(write(tmp_path / "q", code, permissions={"libraries": True}))
        assert plugins.get("policy").call("look", "pydantic") == "pydantic"
        with pytest.raises(errors.DwError, match="blake3 needs the native half of dwkernel"):
            plugins.get("policy").call("hash")


@LINUX
def test_what_a_confined_plugin_does_not_implement_is_not_taken_for_a_missing_method(
    tmp_path: Path,
) -> None:
    raises = "raise NotImplementedError('not today')"  # the plugin's, which is what is tested
    code = COUNTS + f"\n    def start(self):\n        {raises}\n"
    with Plugins() as plugins, pytest.raises(errors.DwError, match="not today"):
        plugins.load(write(tmp_path / "p", code))


@LINUX
def test_no_operation_fails_while_the_confined_policy_that_it_asks_is_reloaded(
    tmp_path: Path,
) -> None:
    drives = [f"memory://{tmp_path.name}-{number}" for number in range(3)]
    with dw.open(drives=drives, geometry="2+1", create=True) as kernel:
        kernel.containers.create("c")
        try:
            kernel.plugins.load(write(tmp_path / "p"))
        except errors.Unsupported as error:
            pytest.skip(f"this system can't confine: {error}")
        over = threading.Event()

        def work(number: int) -> int:
            done = 0
            while not over.is_set():
                kernel.put(f"c/{number}", b"%d" % done)
                assert kernel[f"c/{number}"] == b"%d" % done
                done += 1
            return done

        with ThreadPoolExecutor(16) as pool:
            working = [pool.submit(work, number) for number in range(16)]
            try:
                pids = {kernel.plugins.get("policy").call("where")}
                for _ in range(10):
                    assert kernel.plugins.reload("p").state
                    pids.add(kernel.plugins.get("policy").call("where"))
            finally:
                over.set()
            assert all(one.result(60) for one in working)
        assert len(pids) == 11
        assert code_of(lambda: kernel.put("c/" + "x" * 20, b"")) == "policy.refused"
