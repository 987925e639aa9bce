"""What is wrong with plugins for all that their manifests say: seen before one of them starts."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from dwkernel import errors
from dwkernel.plugins import kinds

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from dwkernel.plugins.manifest import Manifest
    from dwkernel.plugins.settings import PluginsSection

__all__ = ["hold_to_confinement", "hold_to_grants", "near", "starts", "unfit", "ungranted"]


def starts(section: PluginsSection, plugin_id: str) -> bool:
    """Return whether the section lets a plugin start by itself."""
    named = _named(section)
    return (plugin_id in named or "*" in named) and plugin_id not in section.disabled


def _named(section: PluginsSection) -> set[str]:
    return {*section.enabled}.union(*(one.enabled for one in section.tenants.values()))


def ungranted(section: PluginsSection, said: Manifest) -> list[str]:
    """Return what a plugin asks for and does not get."""
    granted = section.grant.get(said.id, ())
    return [one for one in said.asks() if "*" not in granted and one not in granted]


def hold_to_grants(section: PluginsSection, said: Manifest) -> None:
    """Refuse a plugin that asks for more than it gets.

    Raises:
        Denied: `plugin.permission`

    """
    asked = ", ".join(ungranted(section, said))
    if asked:
        text = f"{said.id} asks for {asked}, which nobody granted"
        raise errors.new("plugin.permission", text, id=said.id, permissions=asked)


def hold_to_confinement(said: Manifest) -> None:
    """Refuse a plugin that wants to run confined, and is of a kind that can't.

    Raises:
        Unsupported: `plugin.sandbox`

    """
    loose = min(set(said.kinds) - kinds.CONFINABLE, default=None)
    if said.run == "confined" and loose:
        text = f"{said.id} is a {loose}, which can't be confined"
        raise errors.new("plugin.sandbox", text, id=said.id)


def near(plugin_id: str, known: Iterable[str]) -> str:
    """Return `, did you mean 'x'?` for an id that is nobody's, or nothing."""
    found = difflib.get_close_matches(plugin_id, list(known), 1)
    return f", did you mean {found[0]!r}?" if found else ""


def unfit(
    section: PluginsSection, there: Iterable[Manifest], known: Collection[str]
) -> Iterator[tuple[str, errors.DwError]]:
    """Iterate over what would be refused, by id.

    Args:
        section: says which start, and what they may do.
        there: the manifests that are there.
        known: the ids of all, also of those whose manifests are wrong.

    """
    for name in sorted(_named(section) - {"*"} - {*section.disabled} - {*known}):
        text = f"{name!r} is enabled, and not there{near(name, known)}"
        yield name, errors.new("plugin.not_found", text, id=name)
    for said in there:
        try:
            hold_to_confinement(said)
            if starts(section, said.id):
                hold_to_grants(section, said)
        except errors.DwError as error:
            yield said.id, error.with_traceback(None)
