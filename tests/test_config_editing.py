"""One value of a file is changed, and nothing else: not a byte."""

from __future__ import annotations

import os
import stat
import threading
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dwkernel import errors
from dwkernel.config.editing import literal, replaced, with_value, write
from dwkernel.config.layers import leaves
from dwkernel.config.positions import scan
from expect import code_of

# --- Random files ---------------------------------------------------------------------------------

_BARE = st.sampled_from(["a", "b", "c", "rate", "a-b", "1"])
_KEYS = st.one_of(
    _BARE, _BARE, st.sampled_from(['"a b"', "'x.y'", '"\\u00e9"', '"#"', '"["', '""'])
)
_VALUES = st.sampled_from(
    [
        "1",
        "-0x1F",
        "1_000.5e3",
        "inf",
        "true",
        '"text # no comment"',
        '"a \\" ] } quote"',
        "'literal \\'",
        '"""\nmany "" lines\n[no.header]\nx = 1 \\\n  end""""',
        "'''\n'' # no comment\n''''",
        "1979-05-27 07:32:00",
        "1979-05-27T07:32:00Z",
        "07:32:00",
        "[]",
        "[1, 2,]",
        '[ # comment ]\n  "a", [1, {k = "]"}],\n  # more\n]',
        "{}",
        '{ k = 1, "l m" = { n = [2] } }',
    ]
)
_SPACE = st.sampled_from(["", " ", "  ", "\t"])
_NOISE = st.sampled_from(["", "", "\n", "# a comment [x]\n", "  # indented = 1\n", "\t\n"])
_END = st.sampled_from(["", "  # why\n", "\n", "\t\n"])


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Draw a valid text with comments and blanks in odd places."""
    lines: list[str] = []
    for _ in range(draw(st.integers(0, 8))):
        kind = draw(st.sampled_from(["pair", "pair", "pair", "table", "array"]))
        keys = draw(st.lists(_KEYS, min_size=1, max_size=2 if kind == "pair" else 3))
        dot = draw(st.sampled_from([".", " . "]))
        key, indent, space = dot.join(keys), draw(_SPACE), draw(_SPACE)
        if kind == "pair":
            line = f"{indent}{key}{space}={draw(_SPACE)}{draw(_VALUES)}"
        else:
            left, right = ("[", "]") if kind == "table" else ("[[", "]]")
            line = f"{indent}{left}{space}{key}{space}{right}"
        trial = "".join([*lines, line, "\n"])
        try:
            tomllib.loads(trial)
        except tomllib.TOMLDecodeError:
            continue
        end = draw(_END) or "\n"
        lines += [line, end, draw(_NOISE)]
    text = "".join([draw(_NOISE), *lines])
    if draw(st.booleans()):
        text = text.removesuffix("\n")
    if draw(st.booleans()):
        text = text.replace("\n", "\r\n")
    return text


def _at(tree: Any, path: Any) -> Any:
    for key in path:
        tree = tree[key]
    return tree


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(texts())
def test_every_key_is_found_where_it_stands(text: str) -> None:
    tree = tomllib.loads(text)
    found = scan(text)
    for path, entry in found.entries.items():
        value = _at(tree, path)
        start, end = entry.value
        assert tomllib.loads(f"v = {text[start:end]}")["v"] == value or value != value  # noqa: PLR0124 - nan
        line, column = found.place(entry.key)
        shown = text.split("\n")[line - 1][column - 1 :]
        assert not shown[0].isspace()
        assert text[entry.key :].startswith(shown)
    written = {path for path in found.entries if all(isinstance(key, str) for key in path)}
    for route, value in leaves(tree):
        assert route in written or (value == {} or isinstance(value, list)), route


_ROUTES = st.lists(
    st.sampled_from(["a", "b", "c", "rate", "a b", "x.y", "new", "é"]), min_size=1, max_size=4
).map(tuple)
_NEW = st.sampled_from(
    [1, -2.5, True, "text", 'quote " \\ \n \x00 \x7f é \U0001f600', ["a", 1], {"k": [1]}, {}, ""]
)


def _wanted(tree: Any, route: Any, value: Any) -> Any:
    at = tree
    for key in route[:-1]:
        at = at.setdefault(key, {})
    at[route[-1]] = value
    return tree


def _set(text: str, route: Any, value: Any) -> str | None:
    """Set a value; None if a table is where a value should be, or the other way round."""
    try:
        return with_value(text, route, value)
    except errors.Invalid:
        at = tomllib.loads(text)
        for key in route[:-1]:
            if not isinstance(at.get(key, {}), dict):
                return None
            at = at.get(key, {})
        assert isinstance(at.get(route[-1]), dict | list)
    return None


def _common(one: str, other: str) -> int:
    """Return how many letters two texts have in common at the beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(texts(), _ROUTES, _NEW)
def test_setting_a_value_keeps_everything_else_byte_for_byte(
    text: str, route: Any, value: Any
) -> None:
    new = _set(text, route, value)
    if new is None:
        return
    assert tomllib.loads(new) == _wanted(tomllib.loads(text), route, value)
    # What was there is there, in order: one piece went out, one came in.
    same, rest = _common(text, new), _common(text[::-1], new[::-1])
    removed = text[same : len(text) - rest]
    entry = scan(text).entries.get(route)
    if entry is None:
        assert removed == ""
    else:
        start, end = entry.value
        assert new.startswith(text[:start])
        assert new.endswith(text[end:])
    for comment in ("# why", "# a comment [x]", "  # indented = 1"):
        in_value = text[slice(*entry.value)].count(comment) if entry is not None else 0
        assert new.count(comment) >= text.count(comment) - in_value
    if "\r\n" in text:
        assert "\n" not in new.replace("\r\n", "") or "\n" in str(value)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(texts(), st.data())
def test_every_value_that_is_there_can_be_set(text: str, data: st.DataObject) -> None:
    scalars = [
        route
        for route, value in leaves(tomllib.loads(text))
        if value != {} and not (isinstance(value, list) and dict in map(type, value))
    ]
    assume(scalars)
    route = data.draw(st.sampled_from(scalars))
    new = with_value(text, route, "set")
    assert _at(tomllib.loads(new), route) == "set"


_ANY: Any = st.recursive(
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(
        st.characters(exclude_categories=["Cs"])), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


@given(_ANY)
def test_a_literal_is_read_as_what_it_was(value: Any) -> None:
    assert tomllib.loads(f"v = {literal(value)}")["v"] == value


# --- Where new values go --------------------------------------------------------------------------

PLACES = [
    ("", "limits.rate", "[limits]\nrate = 1\n"),
    ("# top\n", "mode", "# top\nmode = 1\n"),
    ("# top", "mode", "# top\nmode = 1\n"),
    ("[limits]\n", "limits.rate", "[limits]\nrate = 1\n"),
    ("[limits] # all\n\n[pool]\n", "limits.rate", "[limits] # all\nrate = 1\n\n[pool]\n"),
    ("[limits]\n  a = 1\n# end", "limits.rate", "[limits]\n  a = 1\n  rate = 1\n# end"),
    ("limits.a = 1", "limits.rate", "limits.a = 1\nlimits.rate = 1\n"),
    ("limits = {}\n", "limits.rate", "limits = { rate = 1 }\n"),
    ("limits = {a = 2} # x\n", "limits.rate", "limits = {a = 2, rate = 1} # x\n"),
    ("# of pool\n[pool]\na = 1\n", "mode", "mode = 1\n\n# of pool\n[pool]\na = 1\n"),
    ("[a.b]\nc = 1\n", "a.d", "[a.b]\nc = 1\n\n[a]\nd = 1\n"),
    ("[a]\r\nc = 1\r\n", "a.d", "[a]\r\nc = 1\r\nd = 1\r\n"),
    ("[[a]]\nc = 1\n", "b.d", "[[a]]\nc = 1\n\n[b]\nd = 1\n"),
]


@pytest.mark.parametrize(("text", "path", "wanted"), PLACES)
def test_new_values_stand_where_somebody_would_write_them(
    text: str, path: str, wanted: str
) -> None:
    assert with_value(text, tuple(path.split(".")), 1) == wanted


@pytest.mark.parametrize(
    ("text", "path"), [("a = 1\n", "a.b"), ("[a]\nb = 1\n", "a"), ("[[a]]\nb = 1\n", "a.b")]
)
def test_what_cannot_be_set_is_refused(text: str, path: str) -> None:
    assert code_of(lambda: with_value(text, tuple(path.split(".")), 1)) == "config.value"


# --- Writing --------------------------------------------------------------------------------------


def test_a_written_file_keeps_its_mode_and_a_link_stays_one(tmp_path: Path) -> None:
    path, link = tmp_path / "real" / "a.toml", tmp_path / "link.toml"
    path.parent.mkdir()
    path.write_text("[limits]\nrate = 1\n")
    path.chmod(0o640)
    link.symlink_to("real/a.toml")
    if os.getuid() == 0:
        os.chown(path, 12345, 54321)
    before, after = replaced(link, ("limits", "rate"), 2)
    inode = path.stat().st_ino
    write(link, before, after)
    assert link.is_symlink()
    assert path.read_text() == after == "[limits]\nrate = 2\n"
    found = path.stat()
    assert stat.S_IMODE(found.st_mode) == 0o640
    assert found.st_ino != inode, "it was not replaced but written over"
    if os.getuid() == 0:
        assert (found.st_uid, found.st_gid) == (12345, 54321)
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_somebody_changed_meanwhile_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("a = 1\n")
    before, after = replaced(path, ("a",), 2)
    path.write_text("a = 3\n")
    assert code_of(lambda: write(path, before, after)) == "config.file"
    assert path.read_text() == "a = 3\n"
    assert list(tmp_path.iterdir()) == [path]


def test_of_two_who_write_at_once_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, codes = tmp_path / "a.toml", list[str]()
    path.write_text("a = 1\n")
    before, after = replaced(path, ("a",), 2)
    real = Path.replace
    other = threading.Thread(
        target=lambda: codes.append(code_of(lambda: write(path, before, "a = 3\n")))
    )

    def moved(self: Path, target: Path) -> Path:
        # Between the last look and the rename somebody else does the same.
        monkeypatch.setattr(Path, "replace", real)
        other.start()
        other.join(0.3)
        return real(self, target)

    monkeypatch.setattr(Path, "replace", moved)
    write(path, before, after)
    other.join()
    assert codes == ["config.file"]
    assert path.read_text() == "a = 2\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failing_sync_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.toml"
    path.write_text("a = 1\n")
    before, after = replaced(path, ("a",), 2)

    def fails(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails)
    assert code_of(lambda: write(path, before, after)) == "config.file"
    assert path.read_text() == "a = 1\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_and_its_folder_are_synced_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, done = tmp_path / "a.toml", []
    sync, replace = os.fsync, Path.replace

    def synced(handle: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file"
        done.append(kind)
        sync(handle)

    def moved(self: Path, target: Path) -> Path:
        done.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", moved)
    write(path, "", "a = 1\n")
    assert done == ["file", "rename", "folder"]
    assert path.read_text() == "a = 1\n"
