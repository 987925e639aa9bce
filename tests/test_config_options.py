"""Options of plugins are held against manifests before they count, and no plugin runs for it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

import dwkernel as dw
import plugin_maker
from dwkernel import config, errors
from dwkernel.plugins import options as plugin_options
from expect import code_of, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import Cli

SCHEMA: dict[str, Any] = {
    "properties": {
        "limit": {"type": "integer", "minimum": 1, "maximum": 9},
        "hosts": {"type": "array", "items": {"type": "string"}},
        "tls": {"type": "object", "properties": {"verify": {"type": "boolean"}}},
        "token": {"type": "string"},
    },
    "required": ["limit"],
}
# Whoever runs this code is caught.
TRAP = {"main.py": "import pathlib\npathlib.Path(__file__).with_name('ran').touch()\n"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one plugin `guard` that has options."""
    folder = tmp_path / "plugins"
    plugin_maker.write(folder / "guard", plugin_id="guard", config=SCHEMA, files=TRAP)
    return folder


def said(folder: Path, *lines: str, enabled: str = "") -> str:
    head = f'[plugins]\nfolders = ["{folder}"]\ninstalled = false\nenabled = [{enabled}]\n'
    return head + "".join(f"{line}\n" for line in lines)


GUARD = "[plugins.config.guard]"


# --- dwkernel config check ------------------------------------------------------------------------


def test_check_tells_wrong_options_where_they_stand(cli: Cli, folder: Path) -> None:
    file = cli.place / "a.toml"
    file.write_text(
        said(
            folder,
            "[plugins.limits]",
            'load = "soon"',
            GUARD,
            "  limt = 5",
            '  hosts = ["a", 5]',
            "  tls = { verify = 1 }",
            "[pol]",
        )
    )
    # A mistake in the same section comes first: what it says is not known yet.
    found = cli.answer("config", "check", file, status=1)["errors"]
    assert [one["path"] for one in found] == ["plugins.limits.load", "pol"]
    file.write_text(file.read_text().replace("soon", "9s"))
    found = cli.answer("config", "check", file, status=1)["errors"]
    assert [(one["code"], one["path"], one["where"].removeprefix(f"{file}:")) for one in found] == [
        ("config.unknown", "pol", "11:1"),
        ("config.unknown", "plugins.config.guard.limt", "8:3"),
        ("config.value", "plugins.config.guard.limit", "7:1"),
        ("config.value", "plugins.config.guard.hosts.1", "9:3"),
        ("config.value", "plugins.config.guard.tls.verify", "10:11"),
    ]
    texts = {one["path"]: one["text"] for one in found}
    wanted = "plugins.config.guard.limt is not known, did you mean 'limit'? (guard 1.0)"
    assert texts["plugins.config.guard.limt"] == wanted
    assert "is missing" in texts["plugins.config.guard.limit"]
    assert f"{file}:8:3: {wanted}\n" in cli.run("config", "check", file, status=1).stdout
    file.write_text(said(folder, GUARD, "limit = 5"))
    assert cli.answer("config", "check", file) == {"ok": True, "errors": [], "unchecked": []}
    assert not list(folder.rglob("ran"))


def test_check_looks_at_plugins_that_are_only_enabled(cli: Cli, folder: Path) -> None:
    file = cli.place / "a.toml"
    for enabled in ('"guard"', '"*"'):
        file.write_text(said(folder, enabled=enabled))
        (found,) = cli.answer("config", "check", file, status=1)["errors"]
        assert (found["path"], found["where"]) == ("plugins.config.guard.limit", f"{file}:1:1")
        file.write_text(said(folder, 'disabled = ["guard"]', enabled=enabled))
        assert cli.answer("config", "check", file)["ok"]


def test_check_says_what_it_could_not_check(cli: Cli, folder: Path) -> None:
    plugin_maker.write(folder / "own", plugin_id="own", config={"model": "main:Model"}, files=TRAP)
    plugin_maker.write(folder / "org", plugin_id="org.example.s3", config=SCHEMA)
    (folder / "bad").mkdir()
    (folder / "bad" / "plugin.toml").write_text('id = "bad"\n')
    file = cli.place / "a.toml"
    lines = (
        "[plugins.config.gurad]",
        "x = 1",
        "[plugins.config.own]",
        "x = 1",
        "[plugins.config.org.example.s3]",
        "x = 1",
    )
    file.write_text(said(folder, *lines, enabled='"elsewhere"'))
    answer = cli.answer("config", "check", file)
    assert (answer["ok"], answer["errors"]) == (True, [])
    told = {(one["path"], one["where"].removeprefix(f"{file}:")): one["text"]
            for one in answer["unchecked"]}  # fmt: skip
    assert list(told) == [
        ("plugins.config.gurad", "5:1"),
        ("plugins.config.own", "7:1"),
        ("plugins.config.org", "9:1"),
        ("plugins.enabled", "4:1"),
    ]
    by_path = {path: text for (path, _), text in told.items()}
    assert "did you mean guard?" in by_path["plugins.config.gurad"]
    assert "[plugin.manifest]" in by_path["plugins.config.gurad"]
    assert "own model" in by_path["plugins.config.own"]
    assert 'did you mean "org.example.s3", in quotes?' in by_path["plugins.config.org"]
    assert "names 'elsewhere'" in by_path["plugins.enabled"]
    done = cli.run("config", "check", file)
    assert f"{file}:5:1: not checked: plugins.config.gurad is of no plugin" in done.stderr
    assert not list(folder.rglob("ran"))


def test_options_that_one_of_several_versions_takes_are_right(cli: Cli, folder: Path) -> None:
    newer = {"properties": {"speed": {"type": "integer"}}}
    plugin_maker.write(folder / "guard2", plugin_id="guard", version="2.0", config=newer)
    file = cli.place / "a.toml"
    for right in ("limit = 5", "speed = 5"):
        file.write_text(said(folder, GUARD, right))
        assert cli.answer("config", "check", file)["ok"]
    file.write_text(said(folder, GUARD, "sped = 5"))
    (found,) = cli.answer("config", "check", file, status=1)["errors"]
    assert "did you mean 'speed'? (guard 2.0)" in found["text"]


def test_set_writes_no_option_that_no_plugin_takes(cli: Cli, folder: Path) -> None:
    file = cli.place / "a.toml"
    file.write_text(said(folder, GUARD, "limit = 5"))
    before = file.read_text()
    answer = cli.answer("config", "set", "plugins.config.guard.limt", "6", "-f", file, status=2)
    assert answer["error"]["code"] == "config.unknown"
    assert file.read_text() == before
    cli.run("config", "set", "plugins.config.guard.limit", "6", "-f", file)
    # What was wrong before keeps nobody from changing something else.
    file.write_text(said(folder, GUARD, "limit = 50"))
    cli.run("config", "set", "limits.rate", "6", "-f", file)
    cli.run("config", "set", "plugins.config.guard.limit", "8", "-f", file)


def test_an_id_with_dots_stands_in_quotes(cli: Cli, folder: Path) -> None:
    plugin_maker.write(folder / "org", plugin_id="org.example.s3", config=SCHEMA, files=TRAP)
    file = cli.place / "a.toml"
    file.write_text(said(folder))
    path = 'plugins.config."org.example.s3".limit'
    cli.run("config", "set", path, "5", "-f", file)
    assert '[plugins.config."org.example.s3"]\nlimit = 5\n' in file.read_text()
    assert cli.answer("config", "check", file) == {"ok": True, "errors": [], "unchecked": []}
    heard: list[Any] = []
    with config.Configuration(file, environment={}, watch=False) as made:
        made.on_change(path, lambda old, new: heard.append((old, new)))
        assert made.set({path: 6}).changed[0].path == path
        assert code_of(lambda: made.set({path: 60})) == "config.value"
        assert str(made.origins[path]) == "call"
        made.set({}, unset=[path])
        assert heard == [(5, 6), (6, 5)]
        assert str(made.origins[path]) == f"{file}:7:1"


def test_what_options_hold_is_not_shown(cli: Cli, folder: Path) -> None:
    file = cli.place / "a.toml"
    lines = ('token = { a = "hunter2" }', "limit = [ 'hunter2' ]")
    file.write_text(said(folder, GUARD, *lines))
    done = cli.run("config", "check", file, status=1)
    assert len(done.stdout.splitlines()) == 2
    assert "hunter2" not in done.stdout + done.stderr
    file.write_text(said(folder, GUARD, "limit = 5", 'token = "literal:hunter2"'))
    done = cli.run("config", "check", file, status=1)
    assert f"{file}:7:1: plugins.config.guard.token: literal: is for programs" in done.stdout
    assert "hunter2" not in done.stdout + done.stderr


# --- Changes --------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path, folder: Path) -> Path:
    file = tmp_path / "dwkernel.toml"
    file.write_text(said(folder, GUARD, "limit = 5"))
    return file


@pytest.fixture
def made(file: Path) -> Iterator[config.Configuration]:
    with config.Configuration(file, environment={}, watch=False) as made:
        yield made


def test_a_reload_with_a_wrong_option_is_refused_before_anybody_hears(
    made: config.Configuration, file: Path
) -> None:
    heard: list[Any] = []
    made.on_change("", lambda *told: heard.append(told), lambda *told: heard.append(told))
    before = made.current
    file.write_text(file.read_text().replace("limit = 5", "limt = 5"))
    with pytest.raises(errors.Invalid) as caught:
        made.reload()
    assert caught.value.code == "config.unknown"
    assert f"{file}:6:1: plugins.config.guard.limt is not known, did you mean" in str(caught.value)
    assert json.loads(caught.value.details["errors"])[0]["path"] == "plugins.config.guard.limt"
    assert made.current is before
    assert not heard
    assert made.status().last_error_code == "config.unknown"
    assert code_of(lambda: made.set({"plugins.config.guard.limit": 50})) == "config.value"
    file.write_text(file.read_text().replace("limt = 5", "limit = 6"))
    assert made.reload().changed
    assert len(heard) == 2


def test_what_was_wrong_before_refuses_no_other_change(file: Path, folder: Path) -> None:
    file.write_text(said(folder, GUARD, "limit = 50"))
    # A program starts with what there is: the plugin says itself what it does not take.
    with config.Configuration(file, environment={}, watch=False) as made:
        made.set({"limits.rate": 1})
        made.set({"plugins.priority": {"guard": 5}})
        made.set({"plugins.config": {"other": {"x": 1}}})
        assert code_of(lambda: made.set({"plugins.config.guard.limit": 60})) == "config.value"
        made.set({"plugins.config.guard.limit": 6})


def test_a_plugin_that_is_enabled_is_looked_at_then(made: config.Configuration) -> None:
    made.set({"plugins.disabled": ["guard"], "plugins.config": {"guard": {}}})
    with config.Configuration(
        values={"plugins": {"folders": list(made.current.plugins.folders), "installed": False}},
        environment={},
    ) as other:
        for enabled in (["guard"], ["*"]):
            call = {"plugins.enabled": enabled}
            assert code_of(lambda call=call: other.set(call)) == "config.value"  # type: ignore[misc]
        other.set({"plugins.enabled": ["guard"], "plugins.config.guard.limit": 1})


def test_a_change_of_something_else_looks_for_no_plugins(
    made: config.Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin_options, "_discovered", lambda *_, **__: 1 / 0)
    made.set({"limits.rate": 1})
    made.set({"plugins.priority": {"guard": 5}})
    assert code_of(lambda: made.set({"plugins.config.guard.limit": 6})) == "config.value"


@pytest.mark.parametrize("wrong", [5, "text", [1], True])
def test_options_of_a_plugin_are_a_table(tmp_path: Path, wrong: Any) -> None:
    file = tmp_path / "a.toml"
    file.write_text(f"[plugins.config]\nguard = {json.dumps(wrong)}\n")
    with pytest.raises(errors.Invalid) as caught:
        dw.open(tmp_path / "store", drives=3, create=True, config=file)
    assert caught.value.code == "config.value"
    assert f"{file}:2:1: plugins.config.guard" in str(caught.value)


def test_a_kernel_goes_on_with_the_options_that_were_right(
    file: Path, folder: Path, tmp_path: Path
) -> None:
    body = "def handshake(self, context):\n    self.limit = context.config['limit']\n"
    plugin_maker.write(folder / "guard", body, plugin_id="guard", config=SCHEMA)
    file.write_text(said(folder, GUARD, "limit = 5", enabled='"guard"'))
    with dw.open(tmp_path / "store", drives=3, create=True, config=file) as kernel:
        assert kernel.plugins.info("guard").state == "started"
        file.write_text(file.read_text().replace("limit = 5", "limit = 50"))
        until(lambda: kernel.config.status().last_error_code == "config.value")
        kernel.plugins.reload("guard")
        assert kernel.plugins.info("guard").state == "started"


# --- Sections of others ---------------------------------------------------------------------------


class Mail(config.Section):
    """A section with a check."""

    server: str = config.setting("localhost", "where to", live=True)


@pytest.fixture
def _unregistered() -> Iterator[None]:
    yield
    config.unregister("testmail")


@pytest.mark.usefixtures("_unregistered")
def test_a_section_brings_a_check_of_its_own() -> None:
    asked: list[Any] = []

    def check(now: Any, before: Any) -> list[config.Finding]:
        asked.append((now.server, before and before.server))
        if now.server == "broken":
            raise RuntimeError(now.server)
        return [config.Finding(("server",), "is nowhere")] if now.server == "nowhere" else []

    config.register("testmail", Mail, check=check)
    with config.Configuration(environment={}) as made:
        assert asked == []
        made.set({"testmail.server": "here"})
        made.set({"limits.rate": 1})
        with pytest.raises(errors.Invalid, match=r"call: testmail\.server is nowhere"):
            made.set({"testmail.server": "nowhere"})
        with pytest.raises(
            errors.Invalid,
            match=r"testmail cannot be checked: RuntimeError at .*test_config_options.py:",
        ):
            made.set({"testmail.server": "broken"})
        assert made.current.testmail.server == "here"
        assert asked == [("here", "localhost"), ("nowhere", "here"), ("broken", "here")]
    config.unregister("testmail")
    config.register("testmail", Mail)
    with config.Configuration(environment={}) as made:
        made.set({"testmail.server": "nowhere"})
    assert len(asked) == 3


class Named(config.Section):
    """A part with a text."""

    name: str = config.setting("", "of what")


def test_a_variable_of_a_part_that_comes_later_is_read_as_its_text() -> None:
    variables = {"DWKERNEL__PLUGINS__CONFIG__TESTPART__NAME": "5"}
    with config.Configuration(environment=variables) as made:
        assert made.current.plugins.config["testpart"] == {"name": 5}
        config.register("plugins.config.testpart", Named)
        try:
            assert made.current.plugins.config["testpart"].name == "5"
        finally:
            made.close()
            config.unregister("plugins.config.testpart")
