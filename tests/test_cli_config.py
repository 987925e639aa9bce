"""`dwkernel config`: what counts and why, what is wrong and where, and changes to files."""

from __future__ import annotations

import json
import os
import tomllib
from typing import TYPE_CHECKING

import pytest

from dwkernel.config.modes import MODES

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli


@pytest.fixture
def file(cli: Cli) -> Path:
    file = cli.place / "a.toml"
    file.write_text('# ours\nmode = "nas"\n\n[limits]\nrate = 5 # slow\n')
    return file


def test_show_says_what_counts_and_where_it_comes_from(cli: Cli, file: Path) -> None:
    lines = cli.run("config", "show", file).stdout.splitlines()
    assert "limits.rate\t5.0" in lines
    assert 'pool.drive_timeout\t"1min"' in lines
    assert "limits.burst\tnone" in lines
    lines = cli.run("config", "show", file, "--origin").stdout.splitlines()
    assert f"limits.rate\t5.0\t{file}:5:1\tat once" in lines
    assert 'pool.drive_timeout\t"1min"\tmode nas\tafter a restart' in lines
    assert "limits.burst\tnone\tdefault\tat once" in lines
    assert cli.answer("config", "show", file)["limits"]["rate"] == 5
    rows = {row["path"]: row for row in cli.answer("config", "show", file, "--origin")}
    assert rows["limits.rate"] == {
        "path": "limits.rate",
        "value": 5,
        "origin": f"{file}:5:1",
        "live": True,
    }


def test_show_has_the_environment_and_a_folder_s_file(
    cli: Cli, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.rename(cli.place / "dwkernel.toml")
    monkeypatch.setenv("DWKERNEL__LIMITS__RATE", "9")
    rows = {row["path"]: row for row in cli.answer("config", "show", ".", "--origin")}
    assert rows["limits.rate"]["origin"] == "DWKERNEL__LIMITS__RATE"
    assert rows["mode"]["origin"].endswith("dwkernel.toml:2:1")
    assert cli.answer("config", "show")["mode"] == "workstation"


def test_check_tells_all_mistakes_a_line_each(cli: Cli, file: Path) -> None:
    done = cli.run("config", "check", file)
    assert (done.stdout, done.stderr) == ("", f"{file}: nothing is wrong\n")
    assert cli.answer("config", "check", file) == {"ok": True, "errors": [], "unchecked": []}
    file.write_text('mode = "nass"\n[limits]\nrte = 5\nrate = 0\n')
    lines = cli.run("config", "check", file, status=1).stdout.splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"{file}:{n}:1" for n in (1, 3, 4)]
    assert "did you mean nas?" in lines[0]
    found = cli.answer("config", "check", file, status=1)
    assert not found["ok"]
    assert [one["path"] for one in found["errors"]] == ["mode", "limits.rte", "limits.rate"]


def test_check_tells_the_typos_of_several_files(cli: Cli, file: Path) -> None:
    (cli.place / "b: c").mkdir()
    other = cli.place / "b: c" / "b.toml"
    other.write_text("a = \n")
    file.write_text("[b\n")
    lines = cli.run("config", "check", file, other, status=1).stdout.splitlines()
    assert lines[0].startswith(f"{file}:1:3: ")
    assert lines[1].startswith(f"{other}:1:5: ")
    answer = cli.answer("config", "check", file, other, status=1)
    assert [one["where"] for one in answer["errors"]] == [f"{file}:1:3", f"{other}:1:5"]
    assert cli.run("config", "check", "missing.toml", status=1).stderr.startswith("error: ")
    assert "usage" in str(cli.answer("config", "check", status=2))


def test_diff_shows_what_differs_with_defaults_and_modes(cli: Cli, file: Path) -> None:
    other = cli.place / "b.toml"
    other.write_text("[limits]\nrate = 5\n")
    lines = cli.run("config", "diff", file, other).stdout.splitlines()
    assert lines == [
        'mode\t"nas"\t"workstation"',
        "limits.operations\t256\tnone",
        'pool.drive_timeout\t"1min"\t"30s"',
    ]
    cli.run("config", "diff", file, other, "--exit-code", status=1)
    assert cli.run("config", "diff", file, file, "--exit-code").stdout == ""
    assert cli.answer("config", "diff", file, other)[0]["path"] == "mode"


def test_schema_and_modes_are_whole(cli: Cli) -> None:
    schema = cli.answer("config", "schema")
    assert {"limits", "store", "mode"} <= set(schema["properties"])
    assert json.loads(cli.run("config", "schema").stdout) == schema
    assert list(cli.answer("config", "modes")) == list(MODES)
    text = cli.run("config", "modes").stdout
    for mode, (_, sets) in MODES.items():
        assert mode in text
        for one in sets:
            assert one.why in text


# --- Set ------------------------------------------------------------------------------------------


def test_set_changes_one_value_and_keeps_the_rest(cli: Cli, file: Path) -> None:
    file.chmod(0o640)
    done = cli.run("config", "set", "limits.rate", "7.5", "--file", file)
    assert done.stdout == f"{file}: limits.rate = 7.5\n"
    assert file.read_text() == '# ours\nmode = "nas"\n\n[limits]\nrate = 7.5 # slow\n'
    assert file.stat().st_mode & 0o777 == 0o640
    cli.run("config", "set", "limits.timeout", "3s", "-f", file)
    cli.run("config", "set", "store.path", "5", "-f", file)
    cli.run("config", "set", "store.drives", '["a", "b"]', "-f", file)
    told = cli.answer("config", "set", "limits.operations", "none", "-f", file)
    assert told["changed"]
    assert tomllib.loads(file.read_text()) == {
        "mode": "nas",
        "limits": {"rate": 7.5, "timeout": "3s", "operations": "none"},
        "store": {"path": "5", "drives": ["a", "b"]},
    }
    assert not cli.answer("config", "set", "limits.rate", "7.5", "-f", file)["changed"]


def test_set_makes_a_file_that_is_missing(cli: Cli) -> None:
    cli.run("config", "set", "limits.rate", "7", "--file", "new.toml")
    assert (cli.place / "new.toml").read_text() == "[limits]\nrate = 7\n"
    assert (cli.place / "new.toml").stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_dry_run_shows_the_change_and_makes_none(cli: Cli, file: Path) -> None:
    before = file.read_text()
    lines = cli.run("config", "set", "limits.rate", "7", "-f", file, "--dry-run").stdout
    assert "-rate = 5 # slow\n+rate = 7 # slow\n" in lines
    assert (
        "+rate = 7"
        in cli.answer("config", "set", "limits.rate", "7", "-f", file, "--dry-run")["diff"]
    )
    assert file.read_text() == before


@pytest.mark.parametrize(
    ("path", "value", "code"),
    [
        ("limits.rate", "-1", "config.value"),
        ("limits.rate", "soon", "config.value"),
        ("limits.rte", "1", "config.unknown"),
        ("limit.rate", "1", "config.unknown"),
        ("limits", "5", "config.value"),
        ("", "5", "config.unknown"),
        ("mode", "laptop", "config.value"),
        ("version", "2", "config.value"),
    ],
)
def test_set_writes_nothing_that_is_not_valid(
    cli: Cli, file: Path, path: str, value: str, code: str
) -> None:
    before = file.read_text()
    done = cli.run("config", "set", path, "--file", file, "--json", "--", value, status=2)
    assert json.loads(done.stdout)["error"]["code"] == code
    assert file.read_text() == before
    assert sorted(cli.place.iterdir()) == [file]


def test_set_leaves_a_file_alone_that_is_wrong_elsewhere(cli: Cli, file: Path) -> None:
    for text, code in (("[limits\n", "config.syntax"), ("[pol]\n", "config.unknown")):
        file.write_text(text)
        error = cli.answer("config", "set", "limits.rate", "1", "-f", file, status=2)["error"]
        assert error["code"] == code
        assert str(file) in error["message"]
        assert file.read_text() == text


def test_a_file_that_cannot_be_written_is_told(cli: Cli) -> None:
    answer = cli.answer("config", "set", "limits.rate", "1", "-f", "no/such/a.toml", status=1)
    assert answer["error"]["code"] == "config.file"
