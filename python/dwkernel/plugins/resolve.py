r"""Which version of which plugin, and in which order they begin.

>>> from dwkernel.plugins import manifest, resolve
>>> def plugin(name, version, **requires):
...     text = f'id="{name}"\nversion="{version}"\nkinds=["policy"]\nentry="a:b"\nkernel=">=1"\n'
...     text += "[requires]\n" + "".join(f'{k} = "{v}"\n' for k, v in requires.items())
...     return manifest.parse(text.encode())
>>> plan = resolve.resolve({"a": [plugin("a", "1.0", b=">=2")], "b": [plugin("b", "1.4")]}, ["a"])
>>> plan.refused["a"].args[0].split(". ")[0]
'a 1.0 needs b >=2, and only b 1.4 is there'
"""

from __future__ import annotations

import graphlib
from typing import TYPE_CHECKING, Any, NamedTuple

import resolvelib
from packaging.specifiers import SpecifierSet

from dwkernel import errors
from dwkernel.plugins.manifest import API_VERSION, Manifest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from packaging.version import Version

__all__ = ["Plan", "Row", "matrix", "needed", "resolve"]

# A plugin that many want in ways that differ is tried again in another version, so often at most.
_ROUNDS_MAX = 10_000


class Plan(NamedTuple):
    """What begins.

    Attributes:
        order: plugins in the order in which they begin: each after those that it needs.
        refused: why others don't, by id.

    """

    order: list[Manifest]
    refused: dict[str, errors.DwError]


class Row(NamedTuple):
    """One cell of the compatibility matrix.

    Attributes:
        plugin: who needs something.
        version: of the plugin.
        needs: what: another plugin's id, or `"kernel"`.
        range: which versions of it.
        found: the version that is there; None if there is none.
        is_met: whether it is in the range.

    """

    plugin: str
    version: str
    needs: str
    range: str
    found: str | None
    is_met: bool


class _Need(NamedTuple):
    """That somebody needs a plugin."""

    id: str
    range: SpecifierSet


def resolve(candidates: Mapping[str, Sequence[Manifest]], wanted: Iterable[str]) -> Plan:
    """Choose versions, newest first, and an order. One that can't be had does not stop others.

    Args:
        candidates: versions of each plugin that are there.
        wanted: ids that are to begin; what they need begins, too.

    """
    roots = sorted(set(wanted))
    return Plan(*_ordered(*_as_many_as_fit(candidates, roots)))


def _as_many_as_fit(
    candidates: Mapping[str, Sequence[Manifest]], roots: list[str]
) -> tuple[dict[str, Manifest], dict[str, errors.DwError]]:
    """Leave out those that can't be had, and those that don't fit to those before them."""
    refused: dict[str, errors.DwError] = {}
    possible = _possible(candidates)
    for root in roots:
        if not possible.get(root):
            try:
                _choose(candidates, [root])
            except errors.DwError as error:
                refused[root] = error
    good: list[str] = []
    chosen: dict[str, Manifest] = {}
    waiting = [[root for root in roots if root not in refused]]
    while waiting:
        # What fits together fits in parts: a group that does not is halved, down to who is why.
        group = waiting.pop()
        try:
            chosen = _choose(candidates, [*good, *group])
        except errors.DwError as error:
            if len(group) == 1:
                refused[group[0]] = error
            else:
                half = len(group) // 2
                waiting += [group[half:], group[:half]]
        else:
            good += group
    return chosen, refused


def _possible(candidates: Mapping[str, Sequence[Manifest]]) -> dict[str, list[Manifest]]:
    """Return versions that fit to the kernel, and all of whose needs are there at all."""
    found = {
        name: [one for one in several if API_VERSION in one.kernel]
        for name, several in candidates.items()
    }

    def has_all(one: Manifest) -> bool:
        return all(
            any(each.version in range_ for each in found.get(need, ()))
            for need, range_ in one.requires.items()
        )

    is_new = True
    while is_new:
        left = {name: [one for one in several if has_all(one)] for name, several in found.items()}
        is_new = left != found
        found = left
    return found


def _choose(
    candidates: Mapping[str, Sequence[Manifest]], roots: Sequence[str]
) -> dict[str, Manifest]:
    provider = _Provider(candidates)
    resolver: Any = resolvelib.Resolver(provider, resolvelib.BaseReporter())
    anyone = SpecifierSet(prereleases=True)
    needs = [_Need(root, anyone) for root in roots]
    try:
        result = resolver.resolve(needs, max_rounds=_ROUNDS_MAX)
    except resolvelib.ResolutionImpossible as error:
        raise _explained(candidates, error.causes, roots) from None
    except resolvelib.ResolutionTooDeep:
        text = "the plugins' requirements can't be met in any of many ways"
        raise errors.new("plugin.dependency", text) from None
    return dict(result.mapping)


class _Provider(resolvelib.AbstractProvider):  # type: ignore[type-arg]  # generic in stubs only
    """Answers resolvelib's questions about plugins."""

    def __init__(self, candidates: Mapping[str, Sequence[Manifest]]) -> None:
        self._candidates = candidates
        # The same few questions are asked in each round; ranges and manifests outlive them.
        self._fits: dict[tuple[int, int], bool] = {}

    def identify(self, requirement_or_candidate: Any) -> str:
        """Return whom it is about."""
        name: str = requirement_or_candidate.id
        return name

    def get_preference(
        self,
        identifier: str,
        resolutions: Mapping[str, Any],  # noqa: ARG002 - resolvelib's
        candidates: Mapping[str, Iterator[Any]],  # noqa: ARG002 - resolvelib's
        information: Mapping[str, Iterator[Any]],  # noqa: ARG002 - resolvelib's
        backtrack_causes: Sequence[Any],
    ) -> Any:
        """Decide first about those that were in the way."""
        in_way = any(
            identifier in (cause.requirement.id, cause.parent and cause.parent.id)
            for cause in backtrack_causes
        )
        return (not in_way, identifier)

    def find_matches(
        self,
        identifier: str,
        requirements: Mapping[str, Iterator[_Need]],
        incompatibilities: Mapping[str, Iterator[Manifest]],
    ) -> list[Manifest]:
        """Return versions that all agree to, the newest first."""
        ranges = [need.range for need in requirements[identifier]]
        bad = {one.version for one in incompatibilities[identifier]}
        fitting = [
            one
            for one in self._candidates.get(identifier, ())
            if one.version not in bad
            and API_VERSION in one.kernel
            and all(one.version in each for each in ranges)
        ]
        return sorted(fitting, key=lambda one: one.version, reverse=True)

    def is_satisfied_by(self, requirement: _Need, candidate: Manifest) -> bool:
        """Return whether a version is in a range."""
        key = id(requirement.range), id(candidate)
        fits = self._fits.get(key)
        if fits is None:
            fits = self._fits[key] = candidate.version in requirement.range
        return fits

    def get_dependencies(self, candidate: Manifest) -> list[_Need]:
        """Return what a plugin needs."""
        return [_Need(name, range_) for name, range_ in candidate.requires.items()]


def _explained(
    candidates: Mapping[str, Sequence[Manifest]], causes: Iterable[Any], roots: Sequence[str]
) -> errors.DwError:
    """Say in a sentence who wants what of whom, and what is there."""
    several = [(one.requirement, one.parent) for one in _once(causes)]
    wanted = several[0][0].id
    there = sorted(candidates.get(wanted, ()), key=lambda one: one.version)
    if not any(parent for _, parent in several) and there:
        return _other_kernel(there[-1])
    demands = [
        f"{parent.id} {parent.version} needs {_shown(need)}"
        f"{_behind(candidates, parent.id, roots[-1])}"
        for need, parent in several
        if parent is not None
    ]
    if not there:
        stock = f"no {wanted} is there"
    elif all(API_VERSION not in one.kernel for one in there):
        stock = f"{wanted} {there[-1].version} is for the kernel's API {there[-1].kernel} only"
    else:
        stock = f"only {' and '.join(f'{wanted} {one.version}' for one in there)} is there"
        if len(demands) > 1 and any(
            one.version in need.range for one in there for need, _ in several
        ):
            stock += ", which does not suit all of them"
    said = " and ".join(demands) or f"{wanted} is wanted"
    return errors.new("plugin.dependency", f"{said}, and {stock}", needs=wanted)


def _behind(candidates: Mapping[str, Sequence[Manifest]], name: str, root: str) -> str:
    """Say by whom a plugin is needed, up to the one that is wanted for itself."""
    paths: dict[str, list[str]] = {root: []}
    waiting = [root]
    while waiting:
        each = waiting.pop(0)
        for one in reversed(candidates.get(each, ())):
            for needed in one.requires:
                if needed not in paths:
                    paths[needed] = [f"{one.id} {one.version}", *paths[each]]
                    waiting.append(needed)
    chain = paths.get(name)
    return f" (needed by {', needed by '.join(chain)})" if chain else ""


def _once(causes: Iterable[Any]) -> Iterator[Any]:
    seen = set()
    for cause in causes:
        key = (cause.requirement.id, str(cause.requirement.range), cause.parent and cause.parent.id)
        if key not in seen:
            seen.add(key)
            yield cause


def _other_kernel(one: Manifest) -> errors.DwError:
    text = f"{one.id} {one.version} is for the kernel's API {one.kernel}, and this is {API_VERSION}"
    return errors.new("plugin.api", text, id=one.id)


def _shown(need: _Need) -> str:
    return f"{need.id} {need.range}".strip()


def _ordered(
    chosen: dict[str, Manifest], refused: dict[str, errors.DwError]
) -> tuple[list[Manifest], dict[str, errors.DwError]]:
    """Put plugins behind those that they need; leave those out that need each other."""
    while True:
        graph = {name: sorted(one.requires) for name, one in sorted(chosen.items())}
        try:
            return [
                chosen[name] for name in graphlib.TopologicalSorter(graph).static_order()
            ], refused
        except graphlib.CycleError as error:
            circle: list[str] = list(reversed(error.args[1]))
        out = set(circle)
        chain = " needs ".join(circle)
        for name in out:
            text = f"{chain}: that is a circle"
            refused[name] = errors.new("plugin.dependency", text, chain=chain)
        while more := {n for n, one in chosen.items() if n not in out and out & set(one.requires)}:
            for name in more:
                first = min(out & set(chosen[name].requires))
                text = f"{name} needs {first}, which can't begin: {chain} is a circle"
                refused[name] = errors.new("plugin.dependency", text, chain=chain)
            out |= more
        chosen = {name: one for name, one in chosen.items() if name not in out}


def needed(order: Sequence[Manifest], name: str) -> list[Manifest]:
    """Return those of an order that a plugin needs, and itself."""
    by_id = {one.id: one for one in order}
    wanted: set[str] = set()
    waiting = [name]
    while waiting:
        each = waiting.pop()
        if each not in wanted:
            wanted.add(each)
            waiting += by_id[each].requires
    return [one for one in order if one.id in wanted]


def matrix(candidates: Mapping[str, Sequence[Manifest]]) -> list[Row]:
    """Return for each plugin and each thing that it needs whether that is there."""
    found = []
    for name in sorted(candidates):
        for one in candidates[name]:
            met = API_VERSION in one.kernel
            version = str(one.version)
            found.append(Row(name, version, "kernel", str(one.kernel), API_VERSION, met))
            for needed, range_ in sorted(one.requires.items()):
                there = [other.version for other in candidates.get(needed, ())]
                fitting = [each for each in there if each in range_]
                best: Version | None = max(fitting or there, default=None)
                shown = None if best is None else str(best)
                found.append(Row(name, version, needed, str(range_), shown, bool(fitting)))
    return found
