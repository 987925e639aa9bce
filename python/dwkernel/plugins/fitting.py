"""What is wrong with plugins for all that their manifests say: seen before one of them starts."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from dwkernel import errors

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from dwkernel.plugins.manifest import Manifest
    from dwkernel.plugins.settings import PluginsSection

__all__ = ["near", "starts", "unfit"]


def starts(section: PluginsSection, plugin_id: str) -> bool:
    """Return whether the section lets a plugin start by itself."""
    is_named = plugin_id in section.enabled or "*" in section.enabled
    return is_named and plugin_id not in section.disabled


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
    for name in sorted({*section.enabled} - {"*"} - {*section.disabled} - {*known}):
        text = f"plugins.enabled names {name!r}, which is not there{near(name, known)}"
        yield name, errors.new("plugin.not_found", text, id=name)
    for said in there:
        loose = _loose(said)
        if loose:
            text = f"{said.id} is a {loose}, which can't be confined"
            yield said.id, errors.new("plugin.sandbox", text, id=said.id)
        granted = section.grant.get(said.id, ())
        asked = [one for one in said.permissions.names() if one not in granted]
        if asked and "*" not in granted and starts(section, said.id):
            text = f"{said.id} asks for {', '.join(asked)}, which nobody granted"
            permissions = ", ".join(asked)
            yield (
                said.id,
                errors.new("plugin.permission", text, id=said.id, permissions=permissions),
            )


def _loose(said: Manifest) -> str | None:
    """Return a kind that it is and that can't run where it wants to."""
    if said.run != "confined":
        return None
    from dwkernel.plugins.remote import CONFINABLE  # noqa: PLC0415 - who confines pays for it

    return min(set(said.kinds) - CONFINABLE, default=None)
