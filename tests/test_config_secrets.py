"""Secrets are read where they are needed, and shown nowhere."""

from __future__ import annotations

import copy
import gc
import io
import json
import logging
import os
import pickle
import traceback
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from dwkernel import config, errors
from dwkernel.config import registry
from dwkernel.config.showing import rows, shown
from expect import code_of, open_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import Cli

# What no test may find anywhere.
TEXT = "hunter2-7f3a9c"


class Mail(config.Section):
    """A section with secrets."""

    key: config.Secret | None = config.setting(None, "who we are", live=True)
    server: str = config.setting("localhost", "where to", live=True)
    retries: int = config.setting(3, "how often", live=True)


@pytest.fixture(autouse=True)
def _mail() -> Iterator[None]:
    config.register("testmail", Mail)
    yield
    gc.collect()
    config.unregister("testmail")
    config.register_secret_source("plugin", None)


def configured(*paths: Path, variables: dict[str, str] | None = None, **call: Any) -> Any:
    return config.Configuration(paths, values=call, environment=variables or {}, watch=False)


# --- Where secrets come from ----------------------------------------------------------------------


def test_a_variable_is_read_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DWK_TEST_KEY", raising=False)
    with configured(testmail={"key": "env:DWK_TEST_KEY"}) as made:
        key = made.current.testmail.key
        assert code_of(key.reveal) == "config.secret"
        for text in (TEXT, "", "other"):
            monkeypatch.setenv("DWK_TEST_KEY", text)
            assert key.reveal() == text


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"a", "a"),
        (b"a\n", "a"),
        (b"a\r\n", "a"),
        (b"a\n\n", "a\n"),
        (b" a \n", " a "),
        (b"a\r", "a\r"),
        (b"", ""),
        ("é\n".encode(), "é"),
    ],
)
def test_a_file_is_the_secret_without_one_line_end(
    tmp_path: Path, content: bytes, text: str
) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    assert config.Secret(f"file:{path}").reveal() == text


def test_a_file_that_everybody_may_read_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "key"
    path.write_text(TEXT)
    path.chmod(0o640)
    assert config.Secret(f"file:{path}").reveal() == TEXT
    assert not caplog.records
    path.chmod(0o644)
    assert config.Secret(f"file:{path}").reveal() == TEXT
    assert f"everybody may read the secret file:{path}" in caplog.text
    assert TEXT not in caplog.text


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "long", "binary"])
def test_a_file_that_is_none_is_refused_without_its_content(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "key"
    if kind == "folder":
        path.mkdir()
    if kind == "pipe":
        os.mkfifo(path)
    if kind == "long":
        path.write_text(TEXT * 10_000)
    if kind == "binary":
        path.write_bytes(TEXT.encode() + b"\xff")
    before = open_files()
    with pytest.raises(errors.Unavailable) as caught:
        config.Secret(f"file:{path}").reveal()
    assert caught.value.code == "config.secret"
    assert TEXT not in everything(caught.value)
    assert open_files() == before, "it was left open"


def test_a_source_is_asked_by_name_and_what_it_raises_is_not_quoted() -> None:
    key = config.Secret("plugin:vault:mail/key")
    assert code_of(key.reveal) == "config.secret"
    asked: list[str] = []

    def vault(name: str) -> str:
        asked.append(name)
        if len(asked) > 1:
            raise RuntimeError(TEXT)
        return TEXT

    assert config.register_secret_source("plugin", vault) is None
    assert key.reveal() == TEXT
    assert asked == ["vault:mail/key"]
    with pytest.raises(errors.Unavailable) as caught:
        key.reveal()
    assert "RuntimeError" in str(caught.value)
    assert TEXT not in everything(caught.value)
    config.register_secret_source("plugin", lambda _: 5)  # type: ignore[arg-type, return-value]
    assert code_of(key.reveal) == "config.secret"
    for name in ("env", "file", "literal", "A", "", "a b", "_a"):
        assert code_of(lambda name=name: config.register_secret_source(name, vault)) == (  # type: ignore[misc]
            "config.value"
        )


# --- What is refused ------------------------------------------------------------------------------

BARE = [TEXT, f"evn:{TEXT}", f"{TEXT}:x", f":{TEXT}", "env:", "file:relative", f"file:{TEXT}"]


@pytest.mark.parametrize("text", BARE)
def test_a_secret_as_it_is_is_refused_and_not_quoted(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.toml"
    path.write_text(f"[testmail]\nkey = {json.dumps(text)}\n")
    for options in (
        {"paths": [path]},
        {"variables": {"DWKERNEL__TESTMAIL__KEY": text}},
        {"testmail": {"key": text}},
    ):
        paths: Any = options.pop("paths", [])
        with pytest.raises(errors.Invalid) as caught:
            configured(*paths, **options)
        assert caught.value.code == "config.value"
        assert "env:NAME" in str(caught.value) or "file:/path" in str(caught.value)
        assert TEXT not in everything(caught.value)
    with pytest.raises(errors.Invalid) as caught:
        config.Secret(text)
    assert TEXT not in everything(caught.value)


def test_a_literal_is_for_programs_and_not_for_files_and_variables(tmp_path: Path) -> None:
    text = f"literal:{TEXT}"
    path = tmp_path / "a.toml"
    path.write_text(f'[testmail]\nkey = "{text}"\n')
    with pytest.raises(errors.Invalid) as caught:
        configured(path)
    assert f"{path}:2:1" in str(caught.value)
    assert TEXT not in everything(caught.value)
    with pytest.raises(errors.Invalid) as caught:
        configured(variables={"DWKERNEL__TESTMAIL__KEY": text})
    assert TEXT not in everything(caught.value)
    with configured(testmail={"key": text}) as made:
        assert made.current.testmail.key.reveal() == TEXT


# --- Nothing shows it -----------------------------------------------------------------------------


def everything(value: Any) -> str:
    """Return all that can be printed of a value, an error with all that it holds on to."""
    told = [repr(value), str(value), f"{value}"]
    if isinstance(value, BaseException):
        told.append("".join(traceback.format_exception(value)))
        told.append(repr(vars(value)))
        seen = value
        while seen.__context__ is not None:
            seen = seen.__context__
            told.append(repr(seen) + str(seen) + repr(seen.args))
            # What pydantic's has, it gives to who asks.
            told.append(str(seen.errors() if isinstance(seen, ValidationError) else ""))
    protocols = range(pickle.HIGHEST_PROTOCOL + 1)
    told.extend(pickle.dumps(value, protocol).decode("latin-1") for protocol in protocols)
    return "\n".join(told)


def test_no_way_of_printing_shows_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    told: list[Any] = []
    os.environ["DWK_TEST_HUNTED"] = TEXT
    try:
        with configured(testmail={"key": f"literal:{TEXT}"}) as made:
            made.announce_to(lambda subject, data: told.append((subject, json.dumps(data))))
            made.on_change("testmail.key", lambda old, new: told.append(f"{old} {new!r}"))
            assert made.current.testmail.key.reveal() == TEXT
            seen = [
                everything(made.set({"testmail.key": "env:DWK_TEST_HUNTED"})),
                everything(made.set({"testmail.key": f"literal:{TEXT}!"})),
                everything(made.rollback(1)),
                everything(made.history()),
                everything(made.status()),
                str([one.to_dict() for one in made.history()]),
                *(one._repr_html_() for one in made.history()),
                everything(made.current),
                everything(made.current.testmail),
                everything(made.current.testmail.key),
                made.current.model_dump_json(),
                repr(made.current.model_dump()),
                str(vars(made)),
                repr(made._state),
                str(made.origins),
                str(rows(registry.shape(), made.current, {})),
                "".join(shown(row.value) for row in rows(registry.shape(), made.current, {})),
                repr(copy.deepcopy(made.current)),
            ]
            wrong: list[dict[str, Any]] = [
                {"testmail": {"key": [f"literal:{TEXT}"]}},
                {"testmail": {"key": {"a": f"literal:{TEXT}"}}},
                {"testmail": {"retries": f"literal:{TEXT}"}},
                {"testmail": {"kee": f"literal:{TEXT}"}},
                {"testmail": {"kee": TEXT}},
                {"testmail": [TEXT]},
                {f"testmail.key.{'x'}": f"literal:{TEXT}"},
            ]
            for values in wrong:
                with pytest.raises(errors.Invalid) as caught:
                    made.set(values)
                seen.append(everything(caught.value))
            stream = io.StringIO()
            print(made.current, made.history(), made, file=stream)
            seen.append(stream.getvalue())
        for text in [*seen, *map(str, told), caplog.text]:
            assert TEXT not in text
        assert any("literal:…" in text for text in seen)
        assert len(told) == 6 + len(wrong)
    finally:
        del os.environ["DWK_TEST_HUNTED"]


def test_what_a_program_gives_a_plugin_as_a_literal_is_not_shown_either() -> None:
    options = {"vault": {"token": f"literal:{TEXT}", "more": [f"literal:{TEXT}"]}}
    with configured(plugins={"config": options, "installed": False}) as made:
        assert made.current.plugins.config["vault"]["token"].reveal() == TEXT
        report = made.set({"plugins.config.vault.token": f"literal:{TEXT}!"})
        seen = [everything(made.current), everything(report), str(report.to_dict())]
        seen += [shown(row.value) for row in rows(registry.shape(), made.current, {})]
        assert any("literal:…" in text for text in seen)
        assert not [text for text in seen if TEXT in text]


def test_a_model_that_is_made_by_hand_does_not_quote_what_it_refuses() -> None:
    values: dict[str, Any] = {"key": TEXT, "retries": TEXT}
    with pytest.raises(ValidationError) as caught:
        Mail(**values)
    assert TEXT not in str(caught.value)


def test_a_pickle_leaves_a_literal_behind_and_keeps_a_reference() -> None:
    kept: Any = pickle.loads(pickle.dumps(config.Secret("env:DWK_TEST_KEY")))  # noqa: S301 - ours
    assert kept == config.Secret("env:DWK_TEST_KEY")
    left: Any = pickle.loads(pickle.dumps(config.Secret(f"literal:{TEXT}")))  # noqa: S301 - ours
    assert code_of(left.reveal) == "config.secret"


def test_two_literals_are_told_apart() -> None:
    one, same, other = (config.Secret(f"literal:{text}") for text in ("a", "a", "b"))
    assert one == same
    assert one != other
    assert config.Secret("env:a") != config.Secret("plugin:a")
    assert len({one, same, other}) == 2
    with configured(testmail={"key": "literal:a"}) as made:
        assert made.set({"testmail.key": "literal:a"}).changed == []
        assert len(made.set({"testmail.key": "literal:b"}).changed) == 1


def test_the_command_line_shows_references_only(cli: Cli, tmp_path: Path) -> None:
    # Sections of plugins that are not loaded are open tables; theirs may be anything.
    path = tmp_path / "a.toml"
    path.write_text(f'[limits]\nrate = "literal:{TEXT}"\n')
    for arguments in (["check", path], ["show", path], ["check", path, "--json"]):
        done = cli.run("config", *arguments, status=1 if "check" in arguments else 2)
        assert TEXT not in done.stdout + done.stderr
