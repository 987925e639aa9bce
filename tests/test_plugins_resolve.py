"""In which order plugins begin, which versions of them, and what is said where that cannot be."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING, Any

import pytest

import plugin_maker
from dwkernel.plugins import manifest, resolve

if TYPE_CHECKING:
    from collections.abc import Mapping


def one(plugin_id: str = "p", version: str = "1.0", **fields: Any) -> manifest.Manifest:
    return manifest.parse(plugin_maker.manifest(plugin_id, version, **fields).encode())


def candidates(*several: manifest.Manifest) -> dict[str, list[manifest.Manifest]]:
    found: dict[str, list[manifest.Manifest]] = {}
    for each in several:
        found.setdefault(each.id, []).append(each)
    return found


def why(plan: resolve.Plan, name: str) -> str:
    return str(plan.refused[name]).split(". The plugin")[0]


def test_the_newest_versions_that_fit_begin_after_those_that_they_need() -> None:
    there = candidates(
        one("a", "1.0", requires={"b": "<3"}),
        one("b", "1.0"),
        one("b", "2.0", requires={"c": ">=1"}),
        one("b", "3.0"),
        one("c", "1.0"),
    )
    plan = resolve.resolve(there, ["a"])
    assert [(each.id, str(each.version)) for each in plan.order] == [
        ("c", "1.0"),
        ("b", "2.0"),
        ("a", "1.0"),
    ]


def test_an_older_version_is_taken_where_the_newest_can_not_be() -> None:
    there = candidates(
        one("a", "1.0", requires={"b": ">=1"}),
        one("b", "1.0"),
        one("b", "2.0", requires={"missing": ">=1"}),
        one("b", "3.0", kernel=">=2"),
    )
    plan = resolve.resolve(there, ["a"])
    assert ([str(each.version) for each in plan.order], plan.refused) == (["1.0", "1.0"], {})


def test_a_sentence_names_the_chain_that_can_not_be_met() -> None:
    there = candidates(
        one("a", "1.0", requires={"b": ">=2"}),
        one("b", "1.4"),
        one("c", "3.1", requires={"a": ">=1"}),
        one("d", "1.0", requires={"nowhere": "==1.0"}),
        one("e", "1.0", requires={"b": "<1.4"}),
        one("f", "1.0", kernel=">=7"),
        one("g", "1.0"),
    )
    plan = resolve.resolve(there, there)
    assert [each.id for each in plan.order] == ["b", "g"]
    assert why(plan, "a") == "a 1.0 needs b >=2, and only b 1.4 is there"
    assert why(plan, "c") == "a 1.0 needs b >=2 (needed by c 3.1), and only b 1.4 is there"
    assert why(plan, "d") == "d 1.0 needs nowhere ==1.0, and no nowhere is there"
    assert why(plan, "e") == "e 1.0 needs b <1.4, and only b 1.4 is there"
    assert plan.refused["f"].code == "plugin.api"
    assert "kernel's API >=7, and this is 1.0" in str(plan.refused["f"])


def test_a_conflict_names_both_sides() -> None:
    there = candidates(
        one("a", "1.0", requires={"x": ">=2"}),
        one("b", "1.0", requires={"x": "<2"}),
        one("x", "1.5"),
        one("x", "2.5"),
    )
    plan = resolve.resolve(there, ["a", "b"])
    assert [each.id for each in plan.order] == ["x", "a"]
    assert plan.refused["b"].code == "plugin.dependency"
    text = why(plan, "b")
    assert "a 1.0 needs x >=2" in text
    assert "b 1.0 needs x <2" in text
    assert "only x 1.5 and x 2.5 is there, which does not suit all of them" in text


def test_a_circle_is_named_and_others_begin() -> None:
    there = candidates(
        one("a", requires={"b": ">=1"}),
        one("b", requires={"c": ">=1"}),
        one("c", requires={"a": ">=1"}),
        one("d", requires={"a": ">=1"}),
        one("e"),
    )
    plan = resolve.resolve(there, there)
    assert [each.id for each in plan.order] == ["e"]
    for name in "abc":
        chain = plan.refused[name].details["chain"].split(" needs ")
        assert (chain[0], len(chain)) == (chain[-1], 4)
        assert all(there[x][0].requires.keys() == {y} for x, y in itertools.pairwise(chain))
    assert "d needs a, which can't begin" in str(plan.refused["d"])


def test_the_matrix_says_of_each_need_whether_it_is_met() -> None:
    there = candidates(
        one("a", requires={"b": ">=2", "z": ">=1"}), one("b", "1.4"), one("c", kernel=">=9")
    )
    rows = {(row.plugin, row.needs): (row.found, row.is_met) for row in resolve.matrix(there)}
    assert rows == {
        ("a", "kernel"): ("1.0", True),
        ("a", "b"): ("1.4", False),
        ("a", "z"): (None, False),
        ("b", "kernel"): ("1.0", True),
        ("c", "kernel"): ("1.0", False),
    }


def can_all_begin(
    there: Mapping[str, list[manifest.Manifest]],
    chosen: dict[str, manifest.Manifest],
    todo: list[str],
) -> bool:
    """Try every choice of versions: the slow twin."""
    if not todo:
        return True
    name, *rest = todo
    if name in chosen:
        return can_all_begin(there, chosen, rest)
    for each in there.get(name, []):
        trial = {**chosen, name: each}
        fits = all(
            need not in trial or trial[need].version in range_
            for one_ in trial.values()
            for need, range_ in one_.requires.items()
        )
        if fits and can_all_begin(there, trial, [*rest, *each.requires]):
            return True
    return False


@pytest.mark.parametrize("seed", range(60))
def test_what_can_begin_together_does(seed: int) -> None:
    chance = random.Random(seed)
    names = "abcdef"
    there = candidates(
        *(
            one(
                name,
                f"{version}.0",
                requires={
                    other: chance.choice([">=1", ">=2", "<2", "==1.0"])
                    for other in names[:index]
                    if chance.random() < 0.4
                },
            )
            for index, name in enumerate(names)
            for version in (1, 2)
            if chance.random() < 0.9
        )
    )
    plan = resolve.resolve(there, list(names))
    began = {each.id: each for each in plan.order}
    for each in plan.order:
        assert all(began[need].version in range_ for need, range_ in each.requires.items())
        assert all(plan.order.index(began[need]) < plan.order.index(each) for need in each.requires)
    assert set(plan.refused) | set(began) >= set(names)
    if can_all_begin(there, {}, list(names)):
        assert not plan.refused
