"""The configuration: each layer counts, in order, and mistakes are named where they are."""

from __future__ import annotations

import json
import os
import pickle
import tomllib
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwkernel import config, errors
from dwkernel.config import registry, resolving
from dwkernel.config.layers import Layer, Origin, leaves, merged
from dwkernel.config.looking import flat
from dwkernel.config.modes import MODES
from dwkernel.config.section import setting
from dwkernel.config.showing import json_schema, page
from dwkernel.config.values import Table
from expect import code_of, open_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


MADE: list[config.Configuration] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """Let no configuration be in use after its test."""
    yield
    while MADE:
        MADE.pop().close()


def configured(*paths: Path, variables: dict[str, str] | None = None, **call: Any) -> Any:
    made = config.Configuration(paths, values=call, environment=variables or {}, watch=False)
    MADE.append(made)
    return made


def error_of(*paths: Path, variables: dict[str, str] | None = None, **call: Any) -> errors.DwError:
    with pytest.raises(errors.DwError) as caught:
        configured(*paths, variables=variables, **call)
    return caught.value


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "dwkernel.toml"


@pytest.fixture
def _registered() -> Iterator[None]:
    """Forget sections that a test registers."""
    before = registry.shape()
    yield
    for made in MADE:
        made.close()
    for name in [*registry.shape().sections, *map(".".join, registry.shape().parts)][::-1]:
        if name not in before.sections and tuple(name.split(".")) not in before.parts:
            registry.unregister(name)


# --- Layers ---------------------------------------------------------------------------------------


def test_each_layer_wins_over_those_before(tmp_path: Path) -> None:
    first, second = tmp_path / "a.toml", tmp_path / "b.toml"
    first.write_text('mode = "nas"\n[limits]\nrate = 1\noperations = 1\ntimeout = "1s"\n')
    second.write_text("[limits]\nrate = 2\noperations = 2\n")
    variables = {"DWKERNEL__LIMITS__RATE": "3", "DWKERNEL__LIMITS__BURST": "3"}
    made = configured(first, second, variables=variables, limits={"burst": 4})
    found, origins = made.current, made.origins
    assert (found.limits.burst, str(origins["limits.burst"])) == (4, "call")
    assert (found.limits.rate, str(origins["limits.rate"])) == (3, "DWKERNEL__LIMITS__RATE")
    assert (found.limits.operations, str(origins["limits.operations"])) == (2, f"{second}:3:1")
    assert (found.limits.timeout, str(origins["limits.timeout"])) == (1, f"{first}:5:1")
    assert (found.pool.drive_timeout, str(origins["pool.drive_timeout"])) == (60, "mode nas")
    assert (found.streams.keys_max, str(origins["streams.keys_max"])) == (262_144, "default")
    assert origins["mode"] == Origin("file", str(first), 1, 1)


def test_the_mode_comes_from_the_layers_and_is_only_a_default(file: Path) -> None:
    file.write_text('mode = "server"\n[limits]\noperations = 7\n')
    made = configured(file, variables={"DWKERNEL__MODE": "hyperscale"})
    assert made.current.mode == "hyperscale"
    assert made.current.limits.timeout == 30
    assert made.current.limits.operations == 7


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_valid_and_says_why(mode: str) -> None:
    made = configured(mode=mode)
    for default in MODES[mode][1]:
        assert default.why
        assert str(made.origins[default.path]) == f"mode {mode}"


_NAMES = st.sampled_from(["a", "b", "c"])
_TREES = st.recursive(
    st.dictionaries(_NAMES, st.integers(0, 3), max_size=3),
    lambda inner: st.dictionaries(_NAMES, st.integers(0, 3) | inner, max_size=3),
    max_leaves=6,
)


def slowly_merged(low: Any, high: Any) -> Any:
    """Say the same another way: of each key the higher one counts, unless both are tables."""
    if not (isinstance(low, dict) and isinstance(high, dict)):
        return high
    keys = {**low, **high}
    return {
        key: slowly_merged(low[key], high[key])
        if key in low and key in high
        else high.get(key, low.get(key))
        for key in keys
    }


@given(st.lists(_TREES, min_size=1, max_size=4))
def test_layers_are_merged_as_a_slow_twin_does(trees: list[dict[str, Any]]) -> None:
    whole: dict[str, Any] = {}
    twin: Any = {}
    for tree in trees:
        whole = merged(whole, tree)
        twin = slowly_merged(twin, tree)
    assert whole == twin
    layers = [Layer(tree, {}, Origin("file", str(at))) for at, tree in enumerate(trees)]
    for route, value in leaves(whole):
        origin = next(found for one in layers[::-1] if (found := one.origin(route)) is not None)
        said: Any = trees[int(origin.name)]
        for key in route:
            said = said[key]
        assert value in (said, {})


def test_a_value_in_the_place_of_a_section_is_told_also_where_another_layer_hides_it(
    file: Path,
) -> None:
    file.write_text("limits = 5\n")
    error = error_of(file, limits={"rate": 1})
    assert (error.code, error.details["where"]) == ("config.value", f"{file}:1:1")


def test_names_in_tables_may_have_dots() -> None:
    labels = {"d.1": {"rack.a": "x"}}
    made = configured(store={"labels": labels}, limits={"rate": 1})
    assert made.current.store.labels == labels
    made.set({"limits.rate": 2}, unset=["limits.burst"])
    assert made.current.store.labels == labels
    made.set({}, unset=["store.labels"])
    assert made.current.store.labels == {}


@pytest.mark.parametrize("wrong", [{5: 1}, {"limits": {5: 1}}, {"store": {"labels": {5: {}}}}])
def test_names_are_text(wrong: Any) -> None:
    assert code_of(lambda: config.Configuration(values=wrong)) == "config.value"


def test_a_directory_stands_for_its_file(tmp_path: Path, file: Path) -> None:
    file.write_text("[limits]\nrate = 1\n")
    assert configured(tmp_path).current.limits.rate == 1


# --- Environment ----------------------------------------------------------------------------------


def test_variables_are_literals_or_text() -> None:
    variables = {
        "DWKERNEL__STORE__DRIVES": '["a", "b"]',
        "DWKERNEL__STORE__LABELS": "{d1 = {rack = 'a'}}",
        "DWKERNEL__STORE__PATH": "5",
        "DWKERNEL__STORE__GEOMETRY": "'4+2'",
        "DWKERNEL__STORE__READ_ONLY": "true",
        "DWKERNEL__STREAMS__MERGE_BYTES": "1 MiB",
        "DWKERNEL__LIMITS": "{rate = 1, burst = 2}",
        "DWKERNEL__LIMITS__RATE": "9",
        "DWKERNEL_TRACEBACK": "1",
    }
    found = configured(variables=variables).current
    assert found.store.drives == ("a", "b")
    assert found.store.labels == {"d1": {"rack": "a"}}
    assert (found.store.path, found.store.geometry, found.store.read_only) == ("5", "4+2", True)
    assert (str(found.streams.merge_bytes), found.limits.rate, found.limits.burst) == (
        "1 MiB",
        9,
        2,
    )


def test_a_variable_of_a_table_counts_less_than_those_of_its_fields_however_written() -> None:
    variables = {"DWKERNEL__limits": "{rate = 1, burst = 2}", "DWKERNEL__LIMITS__RATE": "9"}
    limits = configured(variables=variables).current.limits
    assert (limits.rate, limits.burst) == (9, 2)


def test_a_variable_that_nothing_knows_is_an_error_that_says_what_was_meant() -> None:
    error = error_of(variables={"DWKERNEL__LIMITS__RTE": "5"})
    assert error.code == "config.unknown"
    assert "DWKERNEL__LIMITS__RTE: limits.rte (did you mean rate?)" in str(error)


@pytest.mark.parametrize("upper", ["LIMITS", "LIMITS__RATE"])
def test_a_variable_in_the_place_of_others_is_told_and_not_hidden(upper: str) -> None:
    for value in ("5", "{rate = 5}"):
        variables = {f"DWKERNEL__{upper}": value, f"DWKERNEL__{upper}__RATE__X": "5"}
        error = error_of(variables=variables)
        assert (error.code, f"DWKERNEL__{upper}: " in str(error)) == ("config.value", True)


def test_variables_with_names_without_end_are_refused() -> None:
    error = error_of(variables={f"DWKERNEL{'__A' * 5000}": "5"})
    assert error.code == "config.unknown"
    assert len(str(error)) < 1000


def test_a_line_end_in_a_variable_begins_no_other_key() -> None:
    error = error_of(variables={"DWKERNEL__LIMITS__RATE": "5\nburst = 7"})
    assert error.code == "config.value"


# --- Values ---------------------------------------------------------------------------------------


def test_sizes_and_durations_are_numbers_and_stay_as_they_were_written() -> None:
    made = configured(limits={"timeout": "2h", "object_size": "10 GiB"}, containers={"quota": 1536})
    limits = made.current.limits
    assert limits.timeout == 7200
    assert limits.object_size == 10 << 30
    assert (str(limits.timeout), str(limits.object_size)) == ("2h", "10 GiB")
    assert str(made.current.containers.quota) == "1.5 KiB"
    assert str(configured(containers={"quota": 1537}).current.containers.quota) == "1537"
    again = pickle.loads(pickle.dumps(made.current))  # noqa: S301 - our own
    assert again == made.current
    assert str(again.limits.timeout) == "2h"


def test_none_takes_away_what_a_lower_layer_sets(file: Path) -> None:
    file.write_text('mode = "server"\n[limits]\noperations = "none"\n')
    assert configured(file).current.limits.operations is None


def test_a_snapshot_cannot_be_changed() -> None:
    found = configured(store={"labels": {"d1": {"rack": "a"}}, "drives": ["a"]}).current
    with pytest.raises(ValueError, match="frozen"):
        found.limits.rate = 5
    for change in (
        lambda: found.store.labels.update(d2={}),
        lambda: found.store.labels["d1"].pop("rack"),
        found.store.labels.clear,
    ):
        assert code_of(change) == "config.value"
    assert isinstance(found.store.drives, tuple)


WRONG: list[dict[str, Any]] = [
    {"version": 2},
    {"mode": "laptop"},
    {"limits": 5},
    {"limits": {"timeout": 0}},
    {"limits": {"timeout": "soon"}},
    {"limits": {"timeout": True}},
    {"limits": {"timeout": -1}},
    {"limits": {"timeout": float("nan")}},
    {"limits": {"timeout": 10**400}},
    {"limits": {"rate": 0}},
    {"limits": {"rate": float("inf")}},
    {"limits": {"rate": "5"}},
    {"limits": {"operations": 0}},
    {"limits": {"operations": 1.5}},
    {"limits": {"operations": True}},
    {"limits": {"object_size": 0}},
    {"limits": {"object_size": "10 apples"}},
    {"store": {"drives": []}},
    {"store": {"drives": True}},
    {"store": {"drives": [1]}},
    {"store": {"read_only": "yes"}},
    {"store": {"labels": {"d1": "a"}}},
    {"streams": {"merge_bytes": "65 MiB"}},
]


@pytest.mark.parametrize("wrong", WRONG, ids=repr)
def test_a_wrong_value_is_refused_with_its_path(wrong: dict[str, Any]) -> None:
    error = error_of(**wrong)
    assert error.code == "config.value"
    name, inner = next(iter(wrong.items()))
    path = f"{name}.{next(iter(inner))}" if isinstance(inner, dict) else name
    assert error.details["path"].startswith(path)
    assert path in str(error)


# --- Mistakes in files ----------------------------------------------------------------------------


def test_all_mistakes_of_a_file_are_told_at_once_where_they_are(file: Path) -> None:
    file.write_text(
        'mode = "laptop"\n'
        "[limits]\n"
        '  tmeout = "3s"\n'
        "  operations = 0\n"
        "[pol]\n"
        "x = 1\n"
        "[store]\n"
        'labels = { d1 = { rack = "a" }, "d 2" = 5 }\n'
    )
    error = error_of(file)
    found = {one["path"]: one for one in json.loads(error.details["errors"])}
    places = {path: one["where"].removeprefix(f"{file}:") for path, one in found.items()}
    assert places == {
        "mode": "1:1",
        "limits.tmeout": "3:3",
        "limits.operations": "4:3",
        "pol": "5:1",
        "store.labels.d 2": "8:33",
    }
    assert "did you mean timeout?" in found["limits.tmeout"]["text"]
    assert "did you mean pool?" in found["pol"]["text"]
    for mode in MODES:
        assert mode in found["mode"]["text"]
    assert 'found "laptop"' in found["mode"]["text"]
    assert all(one["where"] in str(error) for one in found.values())
    assert list(found) == sorted(found, key=lambda path: [*map(int, places[path].split(":"))])


def test_a_near_value_is_offered(file: Path) -> None:
    file.write_text('mode = "sever"\n')
    assert "did you mean server?" in str(error_of(file))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[limits]\nrate 5\n", "2:6"),
        ("[limits\nrate = 5\n", "1:8"),
        ("a = \n", "1:5"),
        ("a = 1\na = 2\n", "2:6"),
        ('a = "x\n', "1:7"),
        ("a = [1,\n2", "2:2"),
        ("[a]\n[a]\n", "2:3"),
    ],
)
def test_a_typo_is_told_with_line_and_column(file: Path, text: str, place: str) -> None:
    file.write_text(text)
    error = error_of(file)
    assert error.code == "config.syntax"
    line, column = place.split(":")
    assert (error.details["line"], error.details["column"]) == (line, column)
    assert f"{file}:{place}: " in str(error)


def test_bytes_that_are_no_text_are_told_with_line_and_column(file: Path) -> None:
    file.write_bytes("# é\na = 'é\xff'\n".encode("latin-1").replace(b"\xe9", "é".encode()))
    error = error_of(file)
    assert error.code == "config.syntax"
    assert f"{file}:2:7: the byte 0xff is no UTF-8" in str(error)


def _denied(path: object, *_: object) -> int:
    raise PermissionError(13, "Permission denied", str(path))


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "unreadable", "long", "nul"])
def test_a_file_that_cannot_be_read_is_told(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.toml"
    if kind == "folder":
        (path / "dwkernel.toml").mkdir(parents=True)
    if kind == "pipe":
        os.mkfifo(path)
    if kind == "unreadable":
        path.write_text("")
        # Modes do not stop everybody who runs tests.
        monkeypatch.setattr(os, "open", _denied)
    if kind == "long":
        path.write_bytes(b"#" * (5 << 20))
    if kind == "nul":
        path = tmp_path / "a\0b"
    error_of(path)
    before = open_files()
    error = error_of(path)
    assert (error.code, error.retryable) == ("config.file", True)
    assert open_files() == before, "it was left open"


@pytest.mark.parametrize(
    "text", ["a=" + "[" * 5000, "a=" + "[" * 40 + "]" * 40, ".".join("a" * 3000) + "=1"]
)
def test_nesting_without_end_is_refused(file: Path, text: str) -> None:
    file.write_text(text)
    assert error_of(file).code == "config.syntax"


# --- Sections of others ---------------------------------------------------------------------------


class Jobs(config.Section):
    """Work in the background."""

    workers: int = config.setting(2, "so many at once", live=True, ge=1)
    every: Annotated[config.Seconds | None, config.NoneWord] = config.setting("6h", "how often")


class Host(config.Section):
    """A section with an open table."""

    config: Table = setting(default_factory=Table, about="of each by its id")


class Audit(config.Section):
    """A part of it."""

    level: int = config.setting(about="how much", ge=0, le=9)
    key: config.Secret | None = config.setting(None, "who signs")


@pytest.mark.usefixtures("_registered")
def test_a_registered_section_is_there_and_values_in_use_stay(file: Path) -> None:
    made = configured(limits={"rate": 5})
    config.register("testjobs", Jobs, {"nas": {"workers": 8}})
    assert made.current.testjobs.workers == 2
    assert made.current.limits.rate == 5
    assert made.version == 2
    assert made.history()[-1].why == "registered"
    assert made.set({"testjobs.workers": 3}).changed[0].live
    assert made.section("testjobs").every == 6 * 3600
    file.write_text('mode = "nas"\n[testjobs]\nevery = "none"\n')
    other = configured(file)
    assert (other.current.testjobs.workers, other.current.testjobs.every) == (8, None)
    assert "did you mean workers?" in str(error_of(testjobs={"worker": 1}))
    config.register("testjobs", Jobs)  # again is no mistake
    made.set({}, unset=["testjobs"])
    assert code_of(lambda: config.unregister("testjobs")) == "config.unknown"
    other.close()
    assert config.unregister("testjobs")
    assert not hasattr(made.current, "testjobs")


@pytest.mark.usefixtures("_registered")
@pytest.mark.parametrize(
    "name",
    ["limits", "mode", "copy", "model_fields", "a-b", "A", "", "_a", "a__b", "9", "é", "x.y"],
)
def test_a_name_that_is_none_or_taken_is_refused(name: str) -> None:
    code = code_of(lambda: config.register(name, Jobs))
    assert code == ("config.unknown" if "." in name else "config.value")
    config.register("testjobs", Jobs)
    assert code_of(lambda: config.register("testjobs", Audit)) == "config.value"
    assert code_of(lambda: config.register("other", dict)) == "config.value"  # type: ignore[arg-type]
    assert code_of(lambda: config.register("other", Jobs, {"laptop": {}})) == "config.value"


@pytest.mark.usefixtures("_registered")
def test_a_model_that_names_what_is_nowhere_is_refused() -> None:
    class Half(config.Section):
        """A section."""

        other: Nowhere = config.setting(1, "x")  # type: ignore[name-defined]  # noqa: F821 - the point

    assert code_of(lambda: config.register("half", Half)) == "config.value"
    assert configured().current


@pytest.mark.usefixtures("_registered")
def test_a_part_that_is_registered_later_is_validated_then(file: Path) -> None:
    config.register("host", Host)
    file.write_text("[host.config.audit]\nlevel = 3\n[host.config.other]\nany = [1, {b = 2}]\n")
    made = configured(file)
    assert made.current.host.config["audit"] == {"level": 3}
    config.register("host.config.audit", Audit)
    assert made.current.host.config["audit"].level == 3
    assert str(made.origins["host.config.audit.level"]) == f"{file}:2:1"
    assert made.current.host.config["other"] == {"any": (1, {"b": 2})}
    heard: list[Any] = []
    made.on_change("host.config.audit.level", lambda old, new: heard.append((old, new)))
    made.set({"host.config.audit.level": 4})
    assert heard == [(3, 4)]
    assert code_of(lambda: made.set({"host.config.audit.level": 40})) == "config.value"
    assert code_of(lambda: made.set({"host.config.audit.lvel": 4})) == "config.unknown"
    schema = json_schema()
    part = schema["$defs"]["Host"]["properties"]["config"]["properties"]["audit"]
    assert part["properties"]["level"]["maximum"] == 9


@pytest.mark.usefixtures("_registered")
def test_a_part_that_the_values_in_use_do_not_fit_is_not_registered(file: Path) -> None:
    config.register("host", Host)
    file.write_text("[host.config.audit]\nlevel = 30\n")
    said = {"config": {"audit": {"level": 1}}}
    made, bystanders = configured(file), [configured(host=said) for _ in range(10)]
    before = made.current, flat(bystanders[0].current)
    assert code_of(lambda: config.register("host.config.audit", Audit)) == "config.value"
    assert ("host", "config", "audit") not in registry.shape().parts
    assert made.current == before[0]
    for bystander in bystanders:
        assert flat(bystander.current) == before[1]
        assert bystander.current.host.config["audit"] == {"level": 1}


# --- What is told ---------------------------------------------------------------------------------


def test_the_schema_describes_every_field_and_takes_what_is_valid() -> None:
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    for name, model in type(configured().current).model_fields.items():
        assert schema["properties"][name]
        del model
    for section in schema["$defs"].values():
        assert section["additionalProperties"] is False
        assert section["description"]
        for field in section["properties"].values():
            assert field["description"]
            assert isinstance(field["live"], bool)
    json.dumps(schema)
    # None of TOML's values is null.
    assert not [one for one in _nodes(schema) if one.get("type") == "null"]


def _nodes(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, dict):
        yield value
        for part in value.values():
            yield from _nodes(part)
    if isinstance(value, list):
        for part in value:
            yield from _nodes(part)


def test_the_page_has_every_field() -> None:
    text = page()
    for route in flat(configured().current):
        assert f"| `{route[-1]}` |" in text


def test_what_show_prints_can_be_read_again() -> None:
    from dwkernel.config.showing import rows, shown

    made = configured(mode="nas", store={"drives": ["a", 'b"'], "labels": {"d 1": {"r": "x"}}})
    shape = registry.shape()
    said = rows(shape, made.current, {})
    tree: dict[str, Any] = {}
    for row in said:
        one: Any = (
            tomllib.loads(f"v = {shown(row.value)}")["v"] if row.value is not None else "none"
        )
        tree[row.path] = one
    layers = resolving.Layers(call=resolving.call_layer(tree))
    assert resolving.resolve(shape, layers).config == made.current
