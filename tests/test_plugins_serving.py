"""Policies and drives of plugins, as the kernel asks them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

import plugin_maker
from dwkernel.plugins import Finished, Plugins, Request, kinds
from dwkernel.plugins.serving import PluginDrive, Policies
from expect import code_of, until

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE_S = 30.0


def named(folder: Path, plugin_id: str, body: str = "", **fields: Any) -> Path:
    return plugin_maker.write(folder / plugin_id, body, plugin_id=plugin_id, **fields)


# --- Policies ---


REQUESTS = [Request("put", "a/1"), Request("get", "a/2"), Request("put", "b/1", tenant="acme")]


def test_policies_are_asked_in_turn_and_the_first_refusal_counts(tmp_path: Path) -> None:
    refuses = """
def before(self, requests):
    def of(one):
        return Verdict.refuse("no") if one.verb == "put" else Verdict.annotate({"a": one.key})
    return [of(one) for one in requests]
"""
    counts = """
def before(self, requests):
    self.seen = [one.key for one in requests]
    return [Verdict.annotate({"b": "2"}) for _ in requests]
def after(self, finished):
    self.ended = [one.request.key for one in finished]
"""
    named(tmp_path, "a", refuses)
    named(tmp_path, "b", counts)
    tenants = {"acme": {"disabled": ["a"]}}
    with plugin_maker.plugins(folders=[tmp_path], enabled=["*"], tenants=tenants) as opened:
        opened.start()
        for limit_s in (None, PATIENCE_S):
            verdicts = Policies(opened.registry, limit_s).before(REQUESTS)
            assert [one.kind for one in verdicts] == ["refuse", "allow", "allow"]
            assert verdicts[0].reason == "no"
            assert verdicts[1].annotations == {"a": "a/2", "b": "2"}
        with opened.find("policy")[1].use() as instance:
            assert instance.seen == ["b/1"]
            Policies(opened.registry).after([Finished(REQUESTS[1])])
            assert instance.ended == ["a/2"]
        del instance


@pytest.mark.parametrize(
    "body",
    [
        "def before(self, requests): raise SystemExit",
        "def before(self, requests): return []",
        "def before(self, requests): return None",
        "def before(self, requests): return [True] * len(requests)",
        "def before(self, requests): return [Verdict('deny') for _ in requests]",
        "def before(self, requests): return [Verdict('allow', '', {1: 2}) for _ in requests]",
        "def before(self, requests): return [Verdict.allow()] * (len(requests) + 1)",
        "def before(self, requests):\n    while True: yield Verdict.allow()",
        "def before(self, requests):\n    requests.clear()\n    return []",
        "def before(self, requests):\n    yield Verdict.allow()\n    raise ValueError",
        "def before(self, requests):\n    import time\n    time.sleep(1)",
        "def before(self, requests):\n    import time\n    yield time.sleep(1)",
    ],
)
def test_a_policy_that_fails_refuses_unless_it_says_otherwise(body: str, tmp_path: Path) -> None:
    for allows in (False, True):
        code = body + ("\non_failure = 'allow'" if allows else "")
        with plugin_maker.plugins(health={"failures_max": 4, "failures_in_row": 99}) as opened:
            opened.load(plugin_maker.write(tmp_path / "p", code))
            policies = Policies(opened.registry, 0.2)
            # After the fourth it is in quarantine, and that must not let anybody through.
            for _ in range(6):
                (verdict,) = policies.before(REQUESTS[:1])
                assert verdict.kind == ("allow" if allows else "refuse")
            assert opened.info("p").state == "quarantined"
            opened.enable("p")
            opened.pause("p")
            assert policies.before(REQUESTS[:1])[0].kind == "allow"


def test_what_a_policy_does_to_what_it_is_told_the_next_does_not_see(tmp_path: Path) -> None:
    named(tmp_path, "a", "def after(self, finished): finished.clear()")
    named(tmp_path, "b", "def after(self, finished): self.ended = len(finished)")
    with plugin_maker.plugins(folders=[tmp_path], enabled=["*"]) as opened:
        assert opened.start() == {}
        Policies(opened.registry).after([Finished(one) for one in REQUESTS[:2]])
        with opened.find("policy")[1].use() as instance:
            assert instance.ended == 2
        del instance


def test_a_policy_that_is_paused_while_it_is_asked_for_refuses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with plugin_maker.plugins(folders=[named(tmp_path, "a")]) as opened:
        opened.load("a")
        handle = opened.get("policy")
        admit = handle.health.admit

        def pausing() -> None:
            admit()
            opened.pause("a")

        monkeypatch.setattr(handle.health, "admit", pausing)
        assert [one.kind for one in Policies(opened.registry).before(REQUESTS)] == ["allow"] * 3
        assert opened.info("a").state == "paused"


def test_a_policy_that_rests_is_not_asked_whatever_its_last_calls_came_to(tmp_path: Path) -> None:
    body = """
    import threading
    inside, go = threading.Event(), threading.Event()
    def before(self, requests):
        self.inside.set()
        self.go.wait()
        raise ValueError
    """
    rules = {"failures_max": 1, "failures_in_row": 99, "quarantines": ["0.5s"]}
    heard: list[str] = []
    with plugin_maker.plugins(folders=[named(tmp_path, "a", body)], health=rules) as opened:
        opened.load("a")
        handle, policies = opened.get("policy"), Policies(opened.registry)
        with handle.use() as instance:
            inside, go = instance.inside, instance.go
        del instance
        late = threading.Thread(target=lambda: policies.before(REQUESTS[:1]))
        late.start()
        inside.wait()
        opened.pause("a")
        opened.on(lambda subject, _: heard.append(subject))
        go.set()
        late.join()
        assert handle.health.report().quarantines == 1
        assert policies.before(REQUESTS[:1])[0].kind == "allow"
        until(lambda: handle.health.report().state == "well")
        assert heard == []
        opened.resume("a")
        assert policies.before(REQUESTS[:1])[0].kind == "refuse"
        opened.pause("a")
        opened.resume("a")
        # The quarantine that was begun before goes on, for jobs and drives, too.
        assert not handle.is_open
        until(lambda: handle.is_open)
        assert heard[:1] == ["plugin.resumed"]


def test_a_call_that_is_interrupted_or_finds_no_thread_is_no_probe_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = "wrong = KeyboardInterrupt\ndef before(self, requests):\n    raise self.wrong"

    def none_left(_: threading.Thread) -> None:
        text = "can't start new thread"
        raise RuntimeError(text)

    rules = {"failures_in_row": 1, "pauses": ["1ms"], "failures_max": 99}
    with plugin_maker.plugins(folders=[named(tmp_path, "a", body)], health=rules) as opened:
        opened.load("a")
        handle = opened.get("policy")
        with handle.use() as instance:
            instance.wrong = ValueError
            assert code_of(lambda: handle.call("before", [])) == "plugin.failed"
            instance.wrong = KeyboardInterrupt
        del instance
        until(lambda: handle.health.report().wait_s == 0)
        with pytest.raises(KeyboardInterrupt):
            handle.call("before", [])
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", none_left)
            assert code_of(lambda: handle.call("after", [], limit_s=9)) == "plugin.state"
            assert [one.kind for one in Policies(opened.registry, 9).before(REQUESTS)] == [
                "refuse"
            ] * 3
        handle.call("after", [])
        assert handle.health.report().state == "well"


# --- Drives ---

DRIVE = """
import threading
from dwkernel import errors

class Plugin:
    def __init__(self):
        self.blobs = {}
        self.locks = {}
        self.opened = 0
        self.lock = threading.Lock()

    def open(self, location, make):
        self.opened += 1
        return Drive(self)

    def export_state(self):
        return {"blobs": self.blobs, "locks": self.locks}

    def import_state(self, state, from_version):
        self.blobs, self.locks = state["blobs"], state["locks"]

class Drive:
    def __init__(self, plugin):
        self.plugin = plugin
        self.blobs = plugin.blobs

    def put(self, name, parts):
        with self.plugin.lock:
            if name in self.plugin.blobs:
                raise errors.new("blob.exists", f"{name} is there")
            self.plugin.blobs[name] = b"".join(parts)

    def read(self, name, offset, length):
        if name == "broken":
            raise OSError("sector")
        return self.plugin.blobs[name][offset : offset + length]

    def list(self, folder, after, limit):
        return sorted((name, len(blob)) for name, blob in self.plugin.blobs.items())[:limit]

    def lock(self, holder, *, shared):
        self.plugin.locks["t1"] = holder["pid"]
        return "t1"

    def unlock(self, token):
        del self.plugin.locks[token]

    def log(self):
        return self

    def list_logs(self):
        return [("log", 4096)]

    def __getattr__(self, name):
        raise AttributeError(name)
"""


def test_a_drive_of_a_plugin_is_one_over_reloads(tmp_path: Path) -> None:
    def write() -> Path:
        return plugin_maker.write(
            tmp_path / "p",
            kinds=["drive"],
            capabilities={"drive": ["mine"]},
            files={"main.py": DRIVE},
            keep_state=True,
            state_version=1,
        )

    limits = dict.fromkeys(("freeze", "drain", "load", "state"), PATIENCE_S)
    wrong: list[BaseException] = []
    written = [0] * 16
    stop = threading.Event()
    with plugin_maker.plugins(limits=limits) as opened:
        opened.load(write())
        drive = PluginDrive(opened.get("drive", "mine").slot, "mine://d1")
        token = drive.lock({"pid": "1"}, shared=False)

        def client(number: int) -> None:
            try:
                while not stop.is_set():
                    name = f"{number}-{written[number]}"
                    drive.put(name, [name.encode(), b"!"])
                    assert drive.read(name, 1, 99) == name.encode()[1:] + b"!"
                    written[number] += 1
                    stop.wait(0.002)
            except BaseException as error:  # noqa: BLE001 - it is what is looked for
                wrong.append(error)

        threads = [threading.Thread(target=client, args=(n,)) for n in range(len(written))]
        for thread in threads:
            thread.start()
        for _ in range(20):
            report = opened.reload("p", write())
            assert report.is_unloaded, report
        stop.set()
        for thread in threads:
            thread.join()
        assert wrong == []
        # Nobody uses it now: what was opened goes with its version all the same.
        assert opened.reload("p", write()).is_unloaded
        assert len(drive.list(None, None, 10**6)) == sum(written) > len(written)
        assert code_of(lambda: drive.put("0-0", [])) == "blob.exists"
        assert code_of(lambda: drive.read("broken", 0, 1)) == "drive.io"
        drive.unlock(token)
        with opened.get("drive", "mine").use() as plugin:
            assert plugin.opened == 1
        del plugin
        log = drive.log()
        assert log is not None
        assert log.list_logs() == [("log", 4096)]


def test_a_plugin_drive_has_all_that_a_drive_has() -> None:
    from dwkernel.plugins.kinds import drive as kind

    drive = PluginDrive(Plugins().get("drive", "file").slot, "file:///nowhere")
    wanted = {name for name in vars(kind.Drive) if not name.startswith("_")}
    assert wanted <= set(dir(drive))
    assert kinds.missing("drive", object()) == ["open(location, make)"]
