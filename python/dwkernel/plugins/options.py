"""Whether options of plugins are what their manifests ask for: a check of the section `plugins`.

Manifests are read as files; nothing of a plugin runs. Who finds none, or one that leaves it to a
model of its own, says so: then it is seen when the plugin starts.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from dwkernel.config.section import Finding
from dwkernel.plugins import schema

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dwkernel.plugins.discovery import Discovery, Found
    from dwkernel.plugins.settings import PluginsSection

__all__ = ["check"]


def check(section: PluginsSection, before: PluginsSection | None = None) -> list[Finding]:
    """Return what is wrong with the options of plugins that the section names or enables.

    With `before` only with those whose options are other ones, or that were not named then.
    """
    wanted, is_all = _wanted(section), "*" in section.enabled
    if before is not None and _places(before) == _places(section):
        known = {name: repr(options) for name, options in _wanted(before).items()}
        wanted = {name: one for name, one in wanted.items() if known.get(name) != repr(one)}
        is_all = is_all and "*" not in before.enabled
    if not (wanted or is_all):
        return []
    there = _discovered(section, set(wanted), is_all=is_all)
    if is_all:
        others = {*there.plugins} - {*section.disabled} - {*section.config}
        wanted |= {name: {} for name in others}
    return [one for name, options in wanted.items() for one in _findings(there, name, options)]


def _wanted(section: PluginsSection) -> dict[str, dict[str, Any]]:
    """Return the options of all plugins that are named: none for those that are only enabled."""
    enabled = {*section.enabled}.union(*(one.enabled for one in section.tenants.values()))
    named = sorted(enabled - {*section.disabled, "*"})
    # Where a part of the configuration is registered, its model has looked already.
    said: Mapping[str, Any] = section.config
    given = {name: one for name, one in said.items() if isinstance(one, dict)}
    return given | {name: {} for name in named if name not in section.config}


def _places(section: PluginsSection) -> tuple[Any, ...]:
    return section.folders, section.installed


def _discovered(section: PluginsSection, names: set[str], *, is_all: bool) -> Discovery:
    from dwkernel.plugins.discovery import discover  # noqa: PLC0415 - who has plugins pays

    found = discover(section.folders, ())
    # Looking through all distributions takes long.
    if section.installed and (is_all or names - {*found.plugins, *found.wrong}):
        found = discover(section.folders)
    return found


def _findings(there: Discovery, name: str, options: Mapping[str, Any]) -> Iterator[Finding]:
    place = ("config", name)
    versions = there.plugins.get(name)
    if name.startswith("kernel."):
        yield from _wrong(place, {}, options, "the kernel's own")
    elif versions is None:
        yield _unfound(there, name, is_given=bool(options))
    elif any("model" in one.manifest.config for one in versions):
        if options:
            yield Finding(place, "is for the plugin's own model to check", "unchecked")
    else:
        told = [_told(place, one, options) for one in versions]
        # Which of several versions starts, others have a say in.
        if all(told):
            yield from told[-1]


def _told(place: tuple[str, ...], found: Found, options: Mapping[str, Any]) -> list[Finding]:
    said = found.manifest
    return list(_wrong(place, said.config, options, f"{said.id} {said.version}"))


def _wrong(
    place: tuple[str, ...], wanted: Mapping[str, Any], options: Mapping[str, Any], whose: str
) -> Iterator[Finding]:
    for one in schema.wrong_with(wanted, options):
        kind: Any = "unknown" if one.is_unknown else "value"
        yield Finding((*place, *one.place), f"{one.text} ({whose})", kind)


def _unfound(there: Discovery, name: str, *, is_given: bool) -> Finding:
    """Tell why a plugin's options cannot be looked at."""
    place = ("config", name) if is_given else ("enabled",)
    whose = "is of no plugin that is found" if is_given else f"names {name!r}, which is not found"
    if name in there.wrong:
        return Finding(
            place, f"is of {name!r}, which cannot be used: {there.wrong[name]}", "unchecked"
        )
    # A dot in an id begins another table, unless it is quoted.
    parts = [one for one in there.plugins if one.startswith(f"{name}.")]
    near = difflib.get_close_matches(name, there.plugins, 1)
    hint = f' (did you mean "{parts[0]}", in quotes?)' if parts else ""
    hint = hint or (f" (did you mean {near[0]}?)" if near else "")
    others = "; ".join(map(str, there.wrong.values()))
    return Finding(place, f"{whose}{hint}{f': {others}' if others else ''}", "unchecked")
