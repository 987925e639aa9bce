"""`dwkernel plugin`: what authors and those who run plugins do on the command line."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

import plugin_maker
from dwkernel.cli.output import Output
from dwkernel.cli.plugin.making import use_of
from dwkernel.cli.plugin.operators import _show_list
from dwkernel.cli.plugin.settings import switch
from dwkernel.cli.plugin.shown import Results
from dwkernel.conformance.plugins import Result
from dwkernel.plugins import KINDS, Plugins, PluginsSection
from dwkernel.plugins.discovery import at, discover
from expect import code_of

if TYPE_CHECKING:
    from conftest import Said


class Plugin:
    """`dwkernel plugin …` in this process."""

    def __init__(
        self, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(place)
        self._monkeypatch = monkeypatch
        self._capfd = capfd

    def __call__(self, *arguments: object, status: int = 0) -> Said:
        from conftest import Said
        from dwkernel.cli import app

        self._capfd.readouterr()
        words = ["dwkernel", "plugin", *map(str, arguments)]
        self._monkeypatch.setattr(sys, "argv", words)
        done = app.run()
        said = Said(*self._capfd.readouterr())
        assert done == status, (done, said)
        assert "Traceback" not in said.err
        return said

    def code(self, *arguments: object, status: int) -> Any:
        return self(*arguments, "--json", status=status).json["error"]["code"]


@pytest.fixture
def plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Plugin:
    return Plugin(tmp_path, monkeypatch, capfd)


# --- Authors ---


def test_a_new_plugin_passes_its_tests_ruff_and_mypy_at_once(plugin: Plugin) -> None:
    for kind in KINDS:
        name = f"own-{kind.replace('_', '-')}"
        made = plugin("new", kind, name, "--json").json
        assert set(made["files"]) == {str(path) for path in Path(name).rglob("*") if path.is_file()}
    package = Path(sys.modules["dwkernel"].__file__ or "").parents[1]
    environment = {**os.environ, "MYPYPATH": str(package)}
    for command in (
        ["ruff", "check", "--no-cache", "."],
        ["ruff", "format", "--no-cache", "--check", "."],
        *(
            ["mypy", "--strict", "--cache-dir=.cache", f"{home}/src"]
            for home in sorted(Path().glob("own-*"))
        ),
    ):
        done = subprocess.run(
            [sys.executable, "-m", *command],
            env=environment, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, (command, done.stdout, done.stderr)


def test_a_new_plugin_is_tested_by_its_folder(plugin: Plugin) -> None:
    plugin("new", "codec", "own", "--dir", "a/b")
    told = plugin("test", "a/b", "--json").json
    assert (told["id"], told["kind"], told["counts"]["failed"]) == ("own", "codec", 0)
    assert {one["status"] for one in told["results"]} == {"passed", "left out"}
    source = Path("a/b/src/own/plugin.py")
    source.write_text(source.read_text().replace("if len(content) != length", "if False"))
    said = plugin("test", "a/b", "--only", "damaged", status=1)
    assert "FAILED    what is damaged is noticed or has its length: 600 bytes came" in said.out
    assert "Raise in decode if what it made is not `length` bytes long." in said.out
    assert said.out.endswith("own as codec: 0 passed, 1 failed, 0 left out\n")
    assert plugin.code("test", "a/b", "--kind", "drive", status=2) == "plugin.kind"
    assert plugin.code("test", "nobody", status=1) == "plugin.not_found"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["polcy", "own"], "plugin.kind", "did you mean 'policy'"),
        (["policy", "Own_Thing"], "plugin.option", "own-thing is one"),
        (["policy", "json"], "plugin.option", "a module of Python"),
        (["policy", "class"], "plugin.option", "a word"),
        (["policy", "../x"], "plugin.option", "x is one"),
        (["policy", "kernel-x"], "plugin.option", "the kernel's own"),
        (["policy", ""], "plugin.option", "is no name"),
        (["policy", "a" * 66], "plugin.option", "1 to 64"),
    ],
)
def test_wrong_kinds_and_names_are_refused_with_what_is_meant(
    plugin: Plugin, arguments: list[str], code: str, says: str
) -> None:
    error = plugin("new", *arguments, "--json", status=2).json["error"]
    assert error["code"] == code
    assert says in error["message"]
    assert not list(Path().iterdir())


def test_what_is_there_is_left_alone(plugin: Plugin) -> None:
    Path("full").mkdir()
    Path("full/mine").write_text("mine")
    Path("file").write_text("mine")
    Path("link").symlink_to("nowhere")
    Path("empty").mkdir()
    for place in ("full", "file", "link"):
        assert plugin.code("new", "policy", "own", "--dir", place, status=1) == "plugin.exists"
    assert Path("full/mine").read_text() == Path("file").read_text() == "mine"
    plugin("new", "policy", "own", "--dir", "empty")
    assert plugin.code("new", "policy", "own", "--dir", "empty", status=1) == "plugin.exists"
    assert sorted(one.name for one in Path().iterdir()) == ["empty", "file", "full", "link"]


def test_cases_are_chosen_by_the_words_that_are_shown(plugin: Plugin) -> None:
    plugin("new", "codec", "own")
    assert "1 passed" in plugin("test", "own", "--only", "name can be").out
    assert "1 passed" in plugin("test", "own", "--only", "name_can_be").out
    error = plugin("test", "own", "--only", "nothing of it", "--json", status=2).json["error"]
    assert "none of the 16 cases has 'nothing of it'" in error["message"]


def test_all_kinds_of_a_plugin_are_tested_unless_one_is_named(plugin: Plugin) -> None:
    fields: dict[str, Any] = {"kinds": ["policy", "authoriser"], "summary": "Two"}
    plugin_maker.write(Path("p"), "def decide(self, requests): return []", **fields)
    told = plugin("test", "p", "--json", status=1).json
    assert told["kind"] == "policy, authoriser"
    of_life = [one for one in told["results"] if one["kind"] == "any"]
    assert len({one["name"] for one in of_life}) == len(of_life)
    wrong = {(one["kind"], one["name"]) for one in told["results"] if one["status"] == "failed"}
    assert ("authoriser", "each_request_has_a_verdict") in wrong
    assert {kind for kind, _ in wrong} == {"authoriser"}
    assert not plugin("test", "p", "--kind", "policy", "--json").json["counts"]["failed"]


def test_what_was_left_out_is_told_once_for_each_reason(plugin: Plugin) -> None:
    plugin("new", "policy", "own")
    code = next(Path("own").glob("src/*/plugin.py"))
    code.write_text(code.read_text().replace("    def after", "    def afterwards"))
    lines = plugin("test", "own", status=1).out.splitlines()
    assert lines[1].startswith("FAILED    it loads and starts: Own is no policy: it lacks after(")
    left_out = [line for line in lines if line.startswith("left out")]
    assert len(left_out) == 1
    assert left_out[0].endswith(
        "many threads ask at once, it hears how anything ended: it does not load"
    )


def test_what_a_plugin_writes_is_not_among_the_results(plugin: Plugin) -> None:
    plugin_maker.write(
        Path("p"), "def export_state(self): __import__('sys').stdout.write('loud'); return {}"
    )
    said = plugin("test", "p", "--json", status=1)
    assert said.json["id"] == "p"
    assert "loud" in said.err


def test_a_plugin_that_ends_the_process_leaves_what_went_well_before(plugin: Plugin) -> None:
    plugin("new", "policy", "own")
    code = next(Path("own").glob("src/*/plugin.py"))
    ends = "import os; os._exit(7)\n        with self._lock:\n            self._asked +="
    code.write_text(code.read_text().replace("with self._lock:\n            self._asked +=", ends))
    command = [sys.executable, "-m", "dwkernel", "plugin", "test", "own"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 7
    assert done.stdout.splitlines()[-1] == "ok        two of it run side by side"


def test_help_names_every_kind(plugin: Plugin) -> None:
    text = " ".join(plugin("new", "--help").out.replace("\n", " ").split())
    assert f"{', '.join(list(KINDS)[:-1])} or {list(KINDS)[-1]}" in text


@pytest.mark.parametrize("kind", KINDS)
def test_the_program_beside_each_worked_example_runs(
    plugin: Plugin, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"my-{kind.replace('_', '-')}"
    plugin("new", kind, name)
    program = use_of(kind, name)
    assert program.strip() in Path(name, "README.md").read_text()
    exec(compile(program, name, "exec"), {})  # noqa: S102 - our own
    assert not caplog.records  # such as that something is left of it


def test_a_project_installs_what_is_found_then(plugin: Plugin, tmp_path: Path) -> None:
    plugin("new", "codec", "own-codec")
    for number, project in enumerate((Path("own-codec"), plugin_maker.EXAMPLE)):
        said = tomllib.loads((project / "pyproject.toml").read_text())
        about = said["project"]
        if "version" in about.get("dynamic", ()):
            where = said["tool"]["hatch"]["version"]
            text = (project / where["path"]).read_text()
            about["version"] = re.findall(where["pattern"], text, re.MULTILINE)[0]
        site = tmp_path / f"site-{number}"
        info = site / f"{about['name'].replace('-', '_')}-{about['version']}.dist-info"
        info.mkdir(parents=True)
        metadata = f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n"
        (info / "METADATA").write_text(metadata)
        points = about["entry-points"]["dwkernel.plugins"].items()
        text = "".join(f"{name} = {package}\n" for name, package in points)
        (info / "entry_points.txt").write_text(f"[dwkernel.plugins]\n{text}")
        for package in said["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
            shutil.copytree(project / package, site / Path(package).name)
        found = discover([], [str(site)])
        assert found.wrong == {}
        assert list(found.plugins) == [at(project).id]


# --- Operators ---


def some(folder: str = "plugins") -> None:
    plugin_maker.write(Path(folder, "a"), plugin_id="a", version="1.0", requires={"b": ">=2"})
    plugin_maker.write(Path(folder, "b"), plugin_id="b", version="1.4", summary="B")


def test_check_shows_what_is_not_met_with_the_chain(plugin: Plugin) -> None:
    some()
    plugin_maker.write(Path("plugins/c"), plugin_id="c", requires={"a": ">=1"})
    Path("plugins/bad").mkdir()
    Path("plugins/bad/plugin.toml").write_text("id = 'x'\nkind = 3\n")
    said = plugin("check", "plugins", status=1)
    assert ["a", "1.0", "b", ">=2", "1.4", "not met"] in said.rows
    assert ["b", "1.4", "kernel", "<2,>=1.0", "1.0", "met"] in said.rows
    assert "a 1.0 needs b >=2 (needed by c 1.0), and only b 1.4 is there" in said.out
    assert "plugins/bad" in said.out
    assert "did you mean 'kinds'" in said.out
    told = plugin("check", "plugins", "--json", status=1).json
    assert not told["is_good"]
    assert set(told["wrong"]) == {"a", "c", "plugins/bad"}
    plugin_maker.write(Path("plugins/b"), plugin_id="b", version="2.0")
    (Path("plugins/bad/plugin.toml")).unlink()
    assert plugin("check", "plugins", "--json").json["is_good"]


def test_a_project_is_checked_by_its_folder(plugin: Plugin) -> None:
    plugin("new", "policy", "own")
    assert [row[0] for row in plugin("check", "own").rows] == ["own"]
    assert plugin.code("check", "own", "--config", "none.toml", status=1) == "config.file"


def test_a_plugin_is_meant_by_its_folder_or_its_id(plugin: Plugin) -> None:
    plugin("new", "policy", "own-one", "--dir", "here/one")
    for arguments in (["here/one"], ["here/one", "-f", "here"], ["own-one", "-f", "here"]):
        assert plugin("info", *arguments, "--json").json["id"] == "own-one"
        assert plugin("reload", *arguments, "--json").json["is_good"]
        assert plugin("test", *arguments, "--only", "loads", "--json").json["id"] == "own-one"
    Path("own-one").mkdir()  # something else
    assert plugin("info", "own-one", "-f", "here", "--json").json["id"] == "own-one"
    assert plugin.code("info", "./own-one", status=1) == "plugin.not_found"
    said = plugin("info", "own-on", "-f", "here", status=1)
    assert "did you mean 'own-one'?" in said.err


def test_folders_are_arguments_or_options_and_may_hold_projects(plugin: Plugin) -> None:
    plugin("new", "policy", "one", "--dir", "here/one")
    plugin("new", "codec", "two", "--dir", "here/two")
    for arguments in (["here"], ["-f", "here"], ["here/one", "-f", "here/two"]):
        assert {row[0] for row in plugin("list", *arguments).rows} >= {"one", "two"}
        assert {row[0] for row in plugin("check", *arguments).rows} == {"one", "two"}
    Path("empty").mkdir()
    assert "! empty holds no plugin" in plugin("list", "empty", "here").err
    assert "here" not in plugin("check", "empty", "here").err


def test_what_is_enabled_and_would_not_start_is_told(plugin: Plugin) -> None:
    plugin_maker.write(Path("plugins/a"), plugin_id="a", permissions={"network": True})
    plugin_maker.write(
        Path("plugins/b"), plugin_id="b", run="confined", kinds=["policy", "sink", "door"]
    )
    Path("c.toml").write_text("[plugins]\nfolders = ['plugins']\n[own]\nof = 'a program'\n")
    assert set(plugin("check", "--config", "c.toml", "--json", status=1).json["wrong"]) == {"b"}
    done = plugin("enable", "a", "--config", "c.toml", "--json").json
    assert "a asks for network, which nobody granted" in done["wrong"]
    plugin("enable", "bb", "--config", "c.toml")
    wrong = plugin("check", "--config", "c.toml", "--json", status=1).json["wrong"]
    assert set(wrong) == {"a", "b", "bb"}
    assert "b is a door, which can't be confined" in wrong["b"]
    assert "'bb' is enabled, and not there" in wrong["bb"]
    with Path("c.toml").open("a") as file:
        file.write("[plugins.grant]\na = ['*']\n")
    plugin("disable", "bb", "--config", "c.toml")
    assert set(plugin("check", "--config", "c.toml", "--json", status=1).json["wrong"]) == {"b"}


def test_settings_are_those_that_a_program_has(
    plugin: Plugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    some("away/plugins")
    Path("away/c.toml").write_text("[plugins]\nfolders = ['plugins']\nenabled = ['b']\n")
    # As `dwkernel.open` does it: from where the program runs, and with the environment.
    assert "plugins can't be read" in plugin("list", "--config", "away/c.toml").err
    monkeypatch.setenv("DWKERNEL__PLUGINS__FOLDERS", '["away/plugins"]')
    rows = {row[0]: row for row in plugin("list", "--config", "away/c.toml").rows}
    assert rows["b"][3] == "yes"
    Path("c.toml").write_text("[plugins]\nfoldrs = []\n")
    error = plugin("list", "--config", "c.toml", "--json", status=2).json["error"]
    assert error["code"] == "config.unknown"
    assert "c.toml:2:1: plugins.foldrs (did you mean folders?)" in error["message"]
    assert plugin.code("enable", "b", "--config", "c.toml", status=2) == "config.unknown"
    assert Path("c.toml").read_text() == "[plugins]\nfoldrs = []\n"


def terminal(width: int, *, color: bool = False) -> Console:
    system: Any = "standard" if color else None
    return Console(file=io.StringIO(), width=width, force_terminal=True, color_system=system)


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_terminal_shows_which_case_is_under_way_and_colours_for_how_they_went() -> None:
    out = Output(as_json=False)
    out.console, out.notes = terminal(40, color=True), terminal(40)
    shown = Results(out)
    with shown.waiting("a_case_" * 10, 3, 17):
        line = written(out.notes)
        assert line.startswith("\r3 of 17: a case a case")
        assert len(line.removesuffix("\x1b[K").strip("\r")) < 40
    assert written(out.notes).endswith("\r\x1b[K")
    shown.show(Result("any", "it_is_so", "", "passed", seconds=3.21))
    shown.show(Result("any", "it_is_not", "", "failed", "it is\x1b[2J", "mend it"))
    text = written(out.console)
    assert "\x1b[32mok      \x1b[0m  it is so (3.2 s)\n" in text
    assert "\x1b[1;31mFAILED  \x1b[0m  it is not: it is\\x1b[2J\n          mend it\n" in text
    out = Output(as_json=True)
    out.notes = terminal(40)
    with Results(out).waiting("a_case", 1, 2):
        assert not written(out.notes)


def test_a_list_fits_a_terminal_and_breaks_no_id(plugin: Plugin) -> None:
    plugin("new", "metrics_exporter", "a-plugin-with-a-name")
    section = PluginsSection(installed=False, folders=(Path("a-plugin-with-a-name"),))
    out = Output(as_json=False)
    for width, has_places in ((80, False), (130, True)):
        out.console = terminal(width)
        with Plugins(section) as plugins:
            _show_list(out, plugins.list(), {one.id: False for one in plugins.list()})
        lines = written(out.console).splitlines()
        assert max(map(len, lines)) <= width
        words = [line.split()[:3] for line in lines]
        assert ["a-plugin-with-a-name", "0.1.0", "metrics_exporter"] in words
        assert ("place" in lines[0]) == has_places


def test_list_and_info_say_what_a_plugin_is(plugin: Plugin) -> None:
    some()
    Path("c.toml").write_text("[plugins]\nfolders = ['plugins']\nenabled = ['b']\n")
    rows = {row[0]: row for row in plugin("list", "--config", "c.toml").rows}
    assert rows["b"][1:5] == ["1.4", "policy", "yes", "folder"]
    assert rows["a"][3] == ""
    tenants = "[plugins]\nfolders = ['plugins']\n[plugins.tenants.acme]\nenabled = ['a', 'gone']\n"
    Path("t.toml").write_text(tenants)
    said = plugin("list", "--config", "t.toml")
    assert {row[0]: row[3] for row in said.rows}["a"] == "yes"
    assert "'gone' is enabled, and not there" in said.err
    assert rows["kernel.drive.file"][4] == "kernel"
    assert {one["id"] for one in plugin("list", "-f", "plugins", "--json").json["plugins"]} > {"a"}
    plugin("new", "policy", "own")
    about = plugin("info", "own", "-f", "own", "--json").json
    assert about["options"]["refuse_below"].startswith("string = 'frozen/'")
    assert about["keeps_state"]
    fields: dict[str, Any] = {"properties": {"size": {"type": "integer"}}, "required": ["size"]}
    plugin_maker.write(Path("size"), plugin_id="size", config=fields)
    assert plugin("info", "size/", "--json").json["options"]["size"].startswith("integer, required")
    plugin_maker.write(Path("model"), plugin_id="model", config={"model": "main:Options"})
    assert "main:Options" in plugin("info", "model").out
    shown = plugin("info", "own", "-f", "own").out
    assert "refuse_below: string = 'frozen/'" in shown
    assert plugin("info", "kernel.drive.file", "--json").json["source"] == "kernel"
    assert plugin.code("info", "nobody", status=1) == "plugin.not_found"


def test_an_archive_is_installed_where_the_settings_say(plugin: Plugin) -> None:
    home = plugin_maker.write(Path("new/p"), plugin_id="p", permissions={"network": True})
    with zipfile.ZipFile("p.zip", "w") as archive:
        for path in home.iterdir():
            archive.write(path, f"p/{path.name}")
    Path("c.toml").write_text("[plugins]\nfolders = ['plugins']\n")
    assert plugin("install", "p.zip", status=2).err
    said = plugin("install", "p.zip", "--config", "c.toml").out
    assert "it asks for network" in said
    assert "plugins/p-1.0" in said
    about = plugin("info", "p", "--config", "c.toml", "--json").json
    assert about["not_granted"] == ["network"]
    with Path("c.toml").open("a") as file:
        file.write("grant = { p = ['network'] }\n")
    assert not plugin("info", "p", "--config", "c.toml", "--json").json["not_granted"]
    assert plugin.code("install", "c.toml", "-f", "plugins", status=2) == "plugin.archive"
    Path("p.zip").rename("p-1.0-py3-none-any.whl")
    wheel = plugin("install", "p-1.0-py3-none-any.whl", "-f", "plugins", status=2)
    assert "pip installs it" in wheel.err
    assert "no archive" in plugin("install", "new/p", "-f", "plugins", status=2).err


def test_enabling_and_disabling_keep_the_files_comments(plugin: Plugin) -> None:
    some()
    text = "# ours\n[plugins]  # all of them\nfolders = ['plugins']\ndisabled = ['b']\n"
    text += "\n[x]\ny = 1\n"
    Path("c.toml").write_text(text)
    Path("c.toml").chmod(0o640)
    Path("link.toml").symlink_to("c.toml")
    done = plugin("enable", "b", "--config", "link.toml", "--json").json
    assert done == {
        "id": "b", "enabled": True, "changed": True, "file": "link.toml", "wrong": None,
    }  # fmt: skip
    now = Path("c.toml").read_text()
    assert now.startswith("# ours\n[plugins]  # all of them\nfolders = ['plugins']\n")
    assert now.endswith("[x]\ny = 1\n")
    assert tomllib.loads(now)["plugins"] == {
        "folders": ["plugins"], "disabled": [], "enabled": ["b"],
    }  # fmt: skip
    assert Path("c.toml").stat().st_mode & 0o777 == 0o640
    assert Path("link.toml").is_symlink()
    assert "as it was" in plugin("enable", "b", "--config", "c.toml").out
    assert Path("c.toml").read_text() == now
    plugin("disable", "b", "--config", "c.toml")
    assert tomllib.loads(Path("c.toml").read_text())["plugins"]["disabled"] == ["b"]
    assert tomllib.loads(Path("c.toml").read_text())["plugins"]["enabled"] == []
    assert "neither in that file's" in plugin("enable", "z", "--config", "new.toml").err
    assert tomllib.loads(Path("new.toml").read_text()) == {"plugins": {"enabled": ["z"]}}
    assert {one.name for one in Path().iterdir()} == {"c.toml", "link.toml", "new.toml", "plugins"}


def test_all_stay_enabled_where_a_star_says_so(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[plugins]\nenabled = ['*']\n")
    assert not switch(path, "a", enabled=True)
    assert switch(path, "a", enabled=False)
    assert tomllib.loads(path.read_text())["plugins"] == {"enabled": ["*"], "disabled": ["a"]}
    assert switch(path, "*", enabled=False)
    assert tomllib.loads(path.read_text())["plugins"] == {"enabled": [], "disabled": ["a"]}
    assert switch(path, "*", enabled=True)
    assert code_of(lambda: switch(path, "No Id", enabled=True)) == "plugin.option"
    assert tomllib.loads(path.read_text())["plugins"] == {"enabled": ["*"], "disabled": ["a"]}


def test_a_reload_is_tried_with_what_a_manifest_asks_for_or_a_file_grants(plugin: Plugin) -> None:
    plugin_maker.write(Path("p"), permissions={"network": True})
    assert plugin("reload", "p", "--json").json["is_good"]
    Path("c.toml").write_text("")
    assert plugin.code("reload", "p", "--config", "c.toml", status=1) == "plugin.permission"
    Path("c.toml").write_text("[plugins.grant]\np = ['network']\n")
    assert plugin("reload", "p", "--config", "c.toml", "--json").json["is_good"]


def test_files_that_are_wrong_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    for text, code in [
        ("[plugins\n", "config.syntax"),
        ("plugins = 3\n", "config.value"),
        ("[plugins]\nenabled = 'a'\n", "config.value"),
    ]:
        path.write_text(text)
        assert code_of(lambda: switch(path, "a", enabled=True)) == code
        assert path.read_text() == text
    assert [one.name for one in tmp_path.iterdir()] == ["c.toml"]


STATE = """
    def export_state(self): return {"n": 1}
    def import_state(self, state, from_version): self.n = state["n"]
"""


def test_reload_tries_whether_a_new_version_would_take_over(plugin: Plugin) -> None:
    fields: dict[str, Any] = {"plugin_id": "p", "state_version": 1}
    plugin_maker.write(Path("plugins/p"), STATE, version="1.0", **fields)
    plugin_maker.write(Path("new/p"), STATE, version="1.1", **fields)
    told = plugin("reload", "p", "-f", "plugins", "--from", "new/p", "--json").json
    assert (told["before"], told["after"], told["state"], told["is_good"]) == (
        "1.0", "1.1", True, True,
    )  # fmt: skip
    said = plugin("reload", "p", "-f", "plugins", "--from", "new/p").out
    assert "kernel.plugins.reload('p')" in said
    ill = STATE + "\n    def health(self): return False\n"
    plugin_maker.write(Path("new/p"), ill, version="1.1", **fields)
    error = plugin("reload", "p", "-f", "plugins", "--from", "new/p", "--json", status=1)
    details = json.loads(error.out)["error"]
    assert (details["code"], details["details"]["step"]) == ("plugin.reload", "health")
    assert plugin.code("reload", "nobody", "-f", "plugins", status=1) == "plugin.not_found"
    plugin_maker.write(Path("new/p"), STATE + "\n    def start(self): 1 / 0\n", **fields)
    told_of = plugin("reload", "p", "-f", "plugins", "--from", "new/p", status=1)
    line = (Path("new/p/main.py").read_text().splitlines()).index("    def start(self): 1 / 0") + 1
    assert told_of.err.startswith(f"at new/p/main.py:{line}, in start\nerror: p 1.0 could not")
    told_of = plugin("reload", "new/p", status=1)
    assert told_of.err.startswith(f"at new/p/main.py:{line}, in start\nerror: start of p")
