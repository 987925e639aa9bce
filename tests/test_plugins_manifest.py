"""What plugins say of themselves, where they are found, and how they are put in order."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import plugin_maker
from dwkernel import errors
from dwkernel.plugins import Plugins, Request, discovery, kinds, manifest, resolve, schema
from dwkernel.plugins.kinds.policy import Verdict
from dwkernel.plugins.plain import plain
from expect import code_of

if TYPE_CHECKING:
    from pathlib import Path


def refused(text: str) -> errors.DwError:
    with pytest.raises(errors.Invalid) as caught:
        manifest.parse(text.encode())
    assert caught.value.code == "plugin.manifest"
    return caught.value


def one(plugin_id: str = "p", version: str = "1.0", **fields: Any) -> manifest.Manifest:
    return manifest.parse(plugin_maker.manifest(plugin_id, version, **fields).encode())


# --- Manifests ---


def test_a_manifest_is_read_whole() -> None:
    said = one(
        "org.example.s3-drive",
        "1.2rc1",
        kinds=["drive", "policy"],
        entry="inner.module:Class.make",
        requires={"b": ">=1,<2"},
        capabilities={"drive": ["s3", "s3s"]},
        permissions={"network": True, "read": ["/etc/x"], "environment": ["AWS_*"]},
        state_version=2,
        run="confined",
    )
    assert (said.id, str(said.version), said.kinds) == (
        "org.example.s3-drive",
        "1.2rc1",
        ("drive", "policy"),
    )
    assert said.capabilities == {"drive": ("s3", "s3s")}
    assert said.permissions.names() == ["network", "read:/etc/x", "environment:AWS_*"]
    assert "1.9" in said.requires["b"]
    assert (said.state_version, said.state_reads, said.run) == (2, (1, 2), "confined")


def test_everything_that_is_wrong_is_told_at_once_with_its_line() -> None:
    error = refused(
        """id = "Bad Id"
version = "one"
knids = ["policy"]
kinds = ["polcy"]
kernel = "1.0 or so"

[permissions]
netwrok = true
read = ["relative"]

[config.properties.limit]
type = "nubmer"
"""
    )
    lines = error.details["errors"].splitlines()
    expected = [
        "line 3: 'knids' is not known, did you mean 'kinds'?",
        "line 1: 'entry' is missing",
        "line 1: 'Bad Id' is no id",
        "line 2: 'one' is no version",
        "line 4: 'polcy' is no kind of plugin, did you mean 'policy'?",
        "line 5: '1.0 or so' is no range of versions",
        "line 8: 'netwrok' is not known, did you mean 'network'?",
        "line 9: 'relative' is no absolute path",
        "line 12: 'nubmer' is no type",
    ]
    for start in expected:
        assert [line for line in lines if line.startswith(start)], (start, lines)
    assert len(lines) == len(expected)
    assert all(line in str(error) for line in lines)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"requires": {"p": ">=1"}}, "needs itself"),
        ({"kinds": []}, "kinds is empty"),
        ({"kinds": ["policy", "policy"]}, "twice"),
        ({"entry": "main"}, "module:attribute"),
        ({"entry": "../main:Plugin"}, "module:attribute"),
        ({"capabilities": {"drive": ["s3"]}}, "not one of the plugin's kinds"),
        ({"permissions": {"write": ["/a/../b"]}}, "absolute path"),
        ({"run": "sandboxed"}, '"trusted" or "confined"'),
        ({"state_version": -1}, "0 or more"),
        ({"state_version": True}, "is a int"),
        ({"keep_state": "yes"}, "is a bool"),
        ({"config": {"model": "no"}}, "module:Class"),
        ({"plugin_id": "a" * 65}, "is no id"),
        ({"plugin_id": "kernel.drive.file"}, "the kernel's own"),
        ({"plugin_id": "a..b"}, "is no id"),
    ],
)
def test_a_wrong_field_is_refused(fields: dict[str, Any], says: str) -> None:
    assert says in str(refused(plugin_maker.manifest(**fields)))


def test_broken_toml_names_line_and_column() -> None:
    assert "line 2, column" in str(refused('id = "p"\nversion = = 1\n'))
    assert "plugin.manifest" in str(refused("id = 'p'\n" * 30_000))


@given(st.binary(max_size=300))
def test_any_bytes_are_a_manifest_or_a_coded_error(content: bytes) -> None:
    try:
        manifest.parse(content)
    except errors.Invalid as error:
        if error.code != "plugin.manifest":
            raise


WORDS = ["type", "properties", "required", "items", "default", "policy", "a", "model", "read"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 1 << 70) | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.sampled_from(sorted(manifest._FIELDS)), VALUES)
def test_any_value_of_any_field_is_taken_or_told(name: str, value: Any) -> None:
    given = {"id": "p", "version": "1", "kinds": ["policy"], "entry": "a:b", "kernel": ">=1"}
    try:
        found = manifest._checked({**given, name: value}, "", "plugin.toml")
    except errors.Invalid as error:
        assert error.code == "plugin.manifest"  # noqa: PT017 - both ways are right
    else:
        with contextlib.suppress(errors.Invalid):
            schema.filled(found.config, {})


@pytest.mark.parametrize(
    "more",
    [
        "state_version = " + "1" * 5000,
        "requires = { a = '>=" + "1" * 5000 + "' }",
        "config.properties.a" + ".properties.a" * 5000 + ".type = 'string'",
        'kinds = 1\nsummary = """\n[' + " " * 200_000 + '\n"""',
        'kinds = 1\nsummary = """\n[a' + " " * 200_000 + 'b]\n"""',
    ],
    ids=["number", "range", "depth", "bracket", "gap"],
)
def test_a_manifest_made_to_hurt_is_refused_soon(more: str) -> None:
    began = time.monotonic()
    refused("id = 'p'\nversion = '1'\nentry = 'a:b'\nkernel = '>=1'\n" + more)
    assert time.monotonic() - began < 20.0, "such texts took hours"
    refused("id = 'p'\nversion = '" + "1" * 5000 + "'")


# --- Configuration ---


def test_a_configuration_gets_its_defaults_and_is_checked_as_a_whole() -> None:
    wanted = {
        "properties": {
            "region": {"type": "string", "enum": ["eu", "us"]},
            "retries": {"type": "integer", "minimum": 0, "maximum": 9, "default": 3},
            "hosts": {"type": "array", "items": {"type": "string", "minLength": 1}},
        },
        "required": ["region"],
    }
    assert not schema.faults(wanted)
    assert schema.filled(wanted, {"region": "eu"}) == {"region": "eu", "retries": 3}
    with pytest.raises(errors.Invalid) as caught:
        schema.filled(wanted, {"retires": 1, "retries": 10, "hosts": ["a", ""]})
    assert caught.value.code == "plugin.option"
    assert caught.value.details["errors"].splitlines() == [
        "retires is not known, did you mean 'retries'?",
        "region is missing",
        "retries is 0 to 9, not 10",
        "hosts[1] has 1 at least letters, not 0",
    ]
    with pytest.raises(errors.Invalid, match="did you mean 'eu'"):
        schema.filled(wanted, {"region": "eur"})
    assert (
        "of the type integer"
        in schema.faults({"properties": {"n": {"type": "integer", "default": True}}})[0][1]
    )


@pytest.mark.parametrize(
    "wrong",
    [{"type": ["string"]}, {"required": [["a"]]}, {"properties": {"a": {"type": {"b": 1}}}}],
)
def test_a_schema_that_is_none_is_refused(wrong: Any) -> None:
    assert "can't be" in str(refused(plugin_maker.manifest(config=wrong)))


def test_schemas_without_end_are_refused() -> None:
    text = f"{plugin_maker.manifest()}[config{'.properties.a' * 3000}]\ntype = 'string'\n"
    assert "within each other" in str(refused(text))


def test_a_number_that_is_none_is_in_no_range() -> None:
    wanted = {"properties": {"n": {"type": "number", "minimum": 0}}}
    with pytest.raises(errors.Invalid, match="n is 0 at least, not nan"):
        schema.filled(wanted, {"n": float("nan")})


# --- Plain data ---


def test_plain_data_is_copied_and_nothing_else() -> None:
    given = {"a": [1, 2.5, None, b"x", {"b": (True, "y")}]}
    copied = plain(given)
    assert copied == {"a": [1, 2.5, None, b"x", {"b": [True, "y"]}]}
    assert copied["a"] is not given["a"]

    class Own(dict[str, int]):
        pass

    for wrong in ({"a": Own()}, {"a": {1}}, {1: 2}, {"a": object()}, 1 << 5000):
        assert code_of(lambda wrong=wrong: plain(wrong)) == "plugin.option"  # type: ignore[misc]
    deep: Any = []
    for _ in range(100):
        deep = [deep]
    assert code_of(lambda: plain(deep)) == "plugin.option"
    assert code_of(lambda: plain("x" * 1000, bytes_max=999)) == "plugin.option"
    circle: list[Any] = []
    circle.append(circle)
    assert code_of(lambda: plain(circle)) == "plugin.option"


# --- Kinds ---


def test_every_kind_has_a_protocol_and_names_what_is_missing() -> None:
    for name in kinds.KINDS:
        lacks = kinds.missing(name, object())
        assert lacks, name
        with pytest.raises(errors.Invalid) as caught:
            kinds.check(name, object())
        assert caught.value.code == "plugin.kind"
        assert caught.value.details["missing"] == ", ".join(lacks)
    with pytest.raises(errors.Invalid, match="did you mean 'policy'"):
        kinds.check("polcy", object())


def test_a_method_with_other_arguments_is_missing() -> None:
    class Narrow:
        def before(self) -> None: ...
        def after(self, finished: object) -> None: ...

    assert kinds.missing("policy", Narrow()) == ["before(requests)"]

    class Wide:
        def before(self, *requests: object, **rest: object) -> None: ...
        def after(self, finished: object, more: int = 1) -> None: ...

    assert kinds.missing("policy", Wide()) == []


def test_verdicts_hold_text() -> None:
    assert Verdict.refuse("x" * 1000).reason == "x" * 500
    assert Verdict.annotate({"a": "b"}).annotations == {"a": "b"}
    assert code_of(lambda: Verdict.annotate({"a": 1})) == "plugin.option"  # type: ignore[dict-item]


# --- Discovery ---


def test_plugins_are_found_in_folders_without_running_them(tmp_path: Path) -> None:
    trap = {"main.py": "raise SystemExit('it ran')"}
    plugin_maker.write(tmp_path / "a", plugin_id="a", files=trap)
    plugin_maker.write(tmp_path / "b-1", plugin_id="b", version="1.0", files=trap)
    plugin_maker.write(tmp_path / "b-2", plugin_id="b", version="2.0", files=trap)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "plugin.toml").write_text("id = 1")
    (tmp_path / "no-plugin").mkdir()
    found = discovery.discover([tmp_path, tmp_path / "gone"], [])
    assert {
        name: [str(v.manifest.version) for v in several] for name, several in found.plugins.items()
    } == {
        "a": ["1.0"],
        "b": ["1.0", "2.0"],
    }
    assert {place: error.code for place, error in found.wrong.items()} == {
        str(tmp_path / "c"): "plugin.manifest",
        str(tmp_path / "gone"): "plugin.not_found",
    }


def test_one_id_in_two_places_is_in_neither(tmp_path: Path) -> None:
    plugin_maker.write(tmp_path / "x" / "a", plugin_id="a")
    plugin_maker.write(tmp_path / "y" / "a", plugin_id="a", version="2.0")
    plugin_maker.write(tmp_path / "x" / "b", plugin_id="b")
    plugin_maker.write(tmp_path / "x" / "b-again", plugin_id="b")
    found = discovery.discover([tmp_path / "x", tmp_path / "y"], [])
    assert found.plugins == {}
    for name, places in (("a", ("x/a", "y/a")), ("b", ("x/b", "x/b-again"))):
        assert found.wrong[name].code == "plugin.exists"
        for place in places:
            assert str(tmp_path / place) in str(found.wrong[name])


def install(site: Path, name: str, point: str, package: str, version: str = "1.0") -> None:
    """Write what an installer would of a distribution."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[dwkernel.plugins]\n{point} = {package}\n")


def test_installed_plugins_are_found_by_entry_points_without_importing_them(tmp_path: Path) -> None:
    trap = {"__init__.py": "raise SystemExit('it ran')"}
    plugin_maker.write(tmp_path / "good", plugin_id="good", files=trap, package="good-plugin")
    install(tmp_path, "good-plugin", "good", "good")
    plugin_maker.write(tmp_path / "outer" / "inner", plugin_id="nested")
    (tmp_path / "outer" / "__init__.py").write_text("raise SystemExit('it ran')")
    install(tmp_path, "nested-plugin", "nested", "outer.inner")
    plugin_maker.write(tmp_path / "other", plugin_id="said-otherwise")
    install(tmp_path, "other-plugin", "other", "other")
    plugin_maker.write(tmp_path / "old", plugin_id="old", version="0.9", package="old-plugin")
    install(tmp_path, "old-plugin", "old", "old")
    install(tmp_path, "empty-plugin", "empty", "nothing_there")
    found = discovery.discover([], [str(tmp_path)])
    assert {name: several[0].place for name, several in found.plugins.items()} == {
        "good": "good-plugin 1.0",
        "nested": "nested-plugin 1.0",
    }
    assert found.plugins["nested"][0].home == tmp_path / "outer" / "inner"
    assert {place: error.code for place, error in found.wrong.items()} == {
        f"{name} 1.0": "plugin.manifest" for name in ("other-plugin", "old-plugin", "empty-plugin")
    }
    assert "calls it 'other'" in str(found.wrong["other-plugin 1.0"])
    assert "says version 0.9, and the distribution 1.0" in str(found.wrong["old-plugin 1.0"])


def test_what_others_left_in_the_way_hides_no_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Finder:
        def find_spec(self, *_: object) -> None:
            raise OSError

    plugin_maker.write(tmp_path / "plugins" / "a", plugin_id="a")
    (tmp_path / "plugins" / "circle").mkdir()
    (tmp_path / "plugins" / "circle" / "plugin.toml").symlink_to("plugin.toml")
    folders = [tmp_path / "plugins", tmp_path / ("x" * 5000), tmp_path / "null\0"]
    install(tmp_path, "x-broken", "x", "x")
    (tmp_path / "x_broken-1.0.dist-info" / "entry_points.txt").write_bytes(b"\xff")
    install(tmp_path, "y-finder", "y", "no_such_package_anywhere")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder()])
    found = discovery.discover(folders)
    assert list(found.plugins) == ["a"]
    assert {error.code for error in found.wrong.values()} == {"plugin.manifest"}
    assert set(found.wrong) == {
        str(tmp_path / "plugins" / "circle"),
        *map(str, folders[1:]),
        str(tmp_path / "x_broken-1.0.dist-info"),
        "y-finder 1.0",
    }
    for folder in folders[1:]:
        assert code_of(lambda folder=folder: discovery.at(folder)) == "plugin.manifest"  # type: ignore[misc]


def test_the_example_is_a_plugin_from_its_folder_and_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert discovery.at(plugin_maker.EXAMPLE).id == "operation-counter"
    source = str(plugin_maker.EXAMPLE / "src")
    install(
        tmp_path, "dwkernel-example-plugin", "operation-counter", "dwkernel_example_plugin", "1.0.0"
    )
    found = discovery.discover([], [str(tmp_path), source])
    assert (list(found.plugins), found.wrong) == (["operation-counter"], {})
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(source)
    with Plugins() as opened:
        assert opened.load("operation-counter").source == "installed"
        verdicts = opened.get("policy", "counting").call("before", [Request("put", "frozen/x")])
        assert verdicts[0].kind == "refuse"
        assert opened.reload("operation-counter").is_unloaded
    assert "dwkernel_example_plugin" not in sys.modules
    assert code_of(lambda: discovery.at(tmp_path)) == "plugin.not_found"


def test_200_plugins_are_found_and_resolved_in_half_a_second(tmp_path: Path) -> None:
    for number in range(200):
        needs = {f"p{number - 1}": ">=1"} if number % 10 else {}
        home = tmp_path / f"d{number}"
        plugin_maker.write(home, plugin_id=f"p{number}", requires=needs)

    def once() -> float:
        began = time.perf_counter()
        found = discovery.discover([tmp_path], [])
        versions = {name: [x.manifest for x in several] for name, several in found.plugins.items()}
        plan = resolve.resolve(versions, versions)
        assert (len(plan.order), list(plan.refused)) == (200, bad)
        return time.perf_counter() - began

    # The best of a few: the limit is the code's, not the machine's mood.
    bad: list[str] = []
    assert min(once() for _ in range(3)) <= 0.5
    # One that can't begin holds the others up no longer.
    bad.append("zz")
    plugin_maker.write(tmp_path / "zz", plugin_id="zz", requires={"p9": ">=2"})
    assert min(once() for _ in range(3)) <= 0.5


def test_importing_dwkernel_imports_nothing_of_plugins() -> None:
    code = """
import sys, dwkernel, dwkernel.kernel
heavy = {"pydantic", "packaging", "resolvelib", "cryptography", "watchfiles", "dwkernel.plugins"}
print(sorted(heavy & set(sys.modules)))
"""
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ}
    )
    assert out.stdout.strip() == "[]"


def test_the_authors_page_names_every_field_and_kind() -> None:
    page = (plugin_maker.EXAMPLE.parents[1] / "docs" / "plugins.md").read_text()
    for section, names in (("The manifest", manifest._FIELDS), ("Kinds", kinds.KINDS)):
        rows = page.split(f"## {section}\n")[1].split("\n## ")[0].splitlines()
        listed = [row.split("`")[1] for row in rows if row.startswith("| `")]
        assert listed == list(names)
