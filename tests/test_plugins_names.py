"""Plugins and the kernel's own by what they are called: drives, sinks, sources of secrets."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

import dwkernel as dw
import plugin_maker
from dwkernel import config, sinks
from dwkernel.plugins import Plugins, PluginsSection
from expect import code_of, until

if TYPE_CHECKING:
    from pathlib import Path

URLS = [f"memory://names-{number}" for number in range(3)]

KEYS = """
    def get(self, name):
        if name == "binary":
            return b"\\xff\\xfe"
        return {"db": b"geheim-1", "odd": b"\\xc3\\xa4"}[name]
"""

SINK = """
    batch = 7
    order = "stream"

    def attached(self, stream):
        print("attached", stream)

    def deliver(self, messages):
        import json
        from dwkernel.sinks import Outcome
        with open({path!r}, "a") as file:
            for one in messages:
                file.write(json.dumps([{version!r}, bytes(one.data).decode()]) + "\\n")
        return [Outcome.taken() for _ in messages]

    def close(self):
        pass
"""


def opened(**plugins: Any) -> dw.Kernel:
    given = {"plugins": plugins}
    return dw.open(drives=URLS, geometry="2+1", create="if_missing", config=given)


# --- Drives ---------------------------------------------------------------------------------------


def test_drives_that_are_disabled_open_no_store_of_that_kernel(tmp_path: Path) -> None:
    opened(disabled=["kernel.drive.file"]).close()
    assert code_of(lambda: opened(disabled=["kernel.drive.memory"])) == "drive.url"
    given = {"plugins": {"disabled": ["kernel.drive.file"]}}
    paths = [tmp_path / f"d{number}" for number in range(3)]
    with pytest.raises(dw.errors.Invalid, match=r"nobody opens .*d0.* serves file:"):
        dw.open(drives=paths, geometry="2+1", create=True, config=given)
    # Others go by their own configuration.
    dw.open(drives=URLS).close()
    dw.open(drives=paths, geometry="2+1", create=True).close()


def test_the_kernels_own_serve_again_when_they_are_enabled() -> None:
    with plugin_maker.plugins(disabled=["kernel.sink.files"]) as plugins:
        assert code_of(lambda: plugins.get("sink", "files")) == "plugin.not_found"
        plugins.enable("kernel.sink.files")
        assert plugins.get("sink", "files").id == "kernel.sink.files"
        plugins.disable("kernel.sink.files")
        plugins.start()
        assert code_of(lambda: plugins.get("sink", "files")) == "plugin.not_found"
        assert not plugins.info("kernel.sink.files").is_enabled
        plugins.enable("kernel.sink.files", tenant="t")
        assert plugins.get("sink", "files", tenant="t").is_open
        plugins.disable("kernel.sink.call")
        plugins.enable("kernel.sink.call", tenant="t")
        assert plugins.start() == {}
        assert [plugins.find("sink", "call", tenant=one) for one in (None, "u")] == [[], []]
        assert plugins.get("sink", "call", tenant="t").is_open


def test_the_kernels_own_serve_as_the_configuration_says_now() -> None:
    section = [PluginsSection(installed=False)]
    with Plugins(lambda: section[0]) as plugins:
        for disabled in (["kernel.sink.files"], []):
            section[0] = PluginsSection(installed=False, disabled=tuple(disabled))
            assert plugins.apply() == {}
            there = [one.id for one in plugins.find("sink", "files")]
            assert there == ([] if disabled else ["kernel.sink.files"])


# --- Sinks ----------------------------------------------------------------------------------------


def test_a_sink_of_a_plugin_carries_messages_over_reloads(tmp_path: Path) -> None:
    lines = tmp_path / "lines"

    def written() -> list[list[str]]:
        return [json.loads(line) for line in lines.read_text().splitlines()]

    def version(number: str) -> Path:
        body = SINK.format(path=str(lines), version=number)
        fields: dict[str, Any] = {
            "kinds": ["policy", "sink"],
            "capabilities": {"sink": ["lines"]},
        }
        return plugin_maker.write(tmp_path / "p", body, version=number, **fields)

    lines.touch()
    with opened() as kernel:
        kernel.plugins.load(version("1.0"))
        stream = kernel.bus.stream("s", subjects=["s.>"], create=True)
        sink = kernel.plugins.sink("lines")
        assert (sink.batch, sink.order) == (7, "stream")
        with sinks.attach(stream, sink, name="carry"):
            stream.publish("s.a", b"one")
            until(lambda: written() == [["1.0", "one"]])
            version("1.1")
            assert kernel.plugins.reload("p").is_unloaded
            kernel.plugins.pause("p")
            stream.publish("s.a", b"two")
            kernel.plugins.resume("p")
            until(lambda: written() == [["1.0", "one"], ["1.1", "two"]])
        # Each version is told, before its first message.
        assert kernel.plugins.info("p").lines.count("attached s") == 2
        assert code_of(lambda: kernel.plugins.sink("lines", path="x")) == "sink.option"
        assert code_of(lambda: kernel.plugins.sink("pipes")) == "plugin.not_found"


def test_a_sink_of_a_plugin_that_yields_is_at_work_until_it_has_yielded_all(
    tmp_path: Path,
) -> None:
    body = """
    def deliver(self, messages):
        yield self.used()
        raise ValueError("later")

    def close(self):
        pass
"""
    fields: dict[str, Any] = {"kinds": ["policy", "sink"], "capabilities": {"sink": ["lines"]}}
    with plugin_maker.plugins() as plugins:
        plugins.load(plugin_maker.write(tmp_path / "p", body, **fields))
        sink, handle = plugins.sink("lines"), plugins.get("sink", "lines")
        used: list[int] = []
        with handle.use() as instance:
            instance.used = lambda: used.append(handle.slot.in_flight)
        del instance
        assert code_of(lambda: list(sink.deliver([]))) == "plugin.failed"
        assert (used, handle.health.report().failures) == ([1], 1)


def test_the_kernels_own_sinks_are_made_by_their_names(tmp_path: Path) -> None:
    with plugin_maker.plugins() as plugins:
        made = plugins.sink("files", directory=tmp_path)
        assert isinstance(made, sinks.Files)
        assert code_of(lambda: plugins.sink("files", direktory=tmp_path)) == "sink.option"
        assert code_of(lambda: plugins.sink("webhook")) == "sink.option"


# --- Figures --------------------------------------------------------------------------------------


def test_figures_are_handed_to_exporters_as_long_as_there_is_one(tmp_path: Path) -> None:
    export = """
    def __init__(self):
        self.seen = []

    def export(self, snapshot):
        self.seen.append(snapshot.value("dwkernel_drive_state", drive="d1", state="ok"))
        if len(self.seen) == 2:
            raise OSError("nobody listens")
    """

    def threads() -> list[str]:
        return [one.name for one in threading.enumerate() if one.name == "dwk-figures"]

    with opened(metrics_every="20ms") as kernel:
        home = plugin_maker.write(tmp_path / "p", export, kinds=["policy", "metrics_exporter"])
        kernel.plugins.load(home)
        slot = kernel.plugins.get("policy").slot
        until(lambda: len(slot.held.instance.seen) > 4)
        assert set(slot.held.instance.seen) == {1}
        assert any("nobody listens" in line for line in kernel.plugins.info("p").lines)
        kernel.plugins.disable("p")
        until(lambda: not threads())
        kernel.plugins.enable("p")
        until(threads)
    until(lambda: not threads())


# --- Secrets --------------------------------------------------------------------------------------


def test_secrets_are_asked_of_the_plugin_that_holds_them(tmp_path: Path) -> None:
    fields: dict[str, Any] = {
        "kinds": ["policy", "key_source"],
        "capabilities": {"key_source": ["vault"]},
    }
    home = plugin_maker.write(tmp_path / "p", KEYS, **fields)
    other = KEYS.replace("-1", "-2")
    secret = config.Secret("plugin:vault:db")
    assert code_of(secret.reveal) == "config.secret"
    with plugin_maker.plugins() as plugins:
        plugins.load(home)
        assert secret.reveal() == "geheim-1"
        assert config.Secret("plugin:p:odd").reveal() == "ä"
        for wrong, why in (
            ("vault:none", "plugin.failed"),
            ("vault:binary", "UnicodeDecodeError"),
            ("other:db", "plugin.not_found"),
        ):
            with pytest.raises(dw.errors.DwError, match=why) as caught:
                config.Secret(f"plugin:{wrong}").reveal()
            assert caught.value.code == "config.secret"
            assert "geheim" not in repr(caught.value)
        with plugin_maker.plugins() as others:
            others.load(plugin_maker.write(tmp_path / "q", other, plugin_id="q", **fields))
            assert secret.reveal() == "geheim-2"
        assert secret.reveal() == "geheim-1"
        plugins.disable("p")
        assert code_of(secret.reveal) == "config.secret"
