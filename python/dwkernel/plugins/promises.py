"""What a manifest promises of the code: held against it as soon as that is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel.plugins import kinds
from dwkernel.plugins.watchdog import bare

if TYPE_CHECKING:
    from dwkernel.plugins.manifest import Manifest
    from dwkernel.plugins.watchdog import Watchdog

__all__ = ["hold", "hold_apart"]

_STATE = ("export_state", "import_state")


def hold(said: Manifest, instance: Any) -> None:
    """Refuse a plugin that is not what its manifest says.

    Raises:
        Invalid: `plugin.kind`: it lacks what its kind must have; `plugin.manifest`: it has no state
            though its manifest has a version of it, or another name than the manifest lists

    """
    text = ""
    for kind in said.kinds:
        kinds.check(kind, instance)
        listed = said.capabilities.get(kind, ())
        if kinds.is_named(kind) and listed and instance.name not in listed:
            text = f"its code calls the {kind} {instance.name!r}, and its manifest "
            text += f"{' and '.join(map(repr, listed))}"
    lacks = [name for name in _STATE if not callable(getattr(instance, name, None))]
    if said.state_version and lacks:
        text = f"its manifest has state_version {said.state_version}, and its code no {lacks[0]}"
    if text:
        raise errors.new("plugin.manifest", f"{said.id}: {text}", id=said.id)


def hold_apart(said: Manifest, instance: Any, watchdog: Watchdog, limit_s: float) -> bool:
    """As `hold`, on a thread of its own: even attributes are the plugin's code.

    Returns whether what it decides is refused when it can't be asked.

    Raises:
        What `hold` raises; Internal: `plugin.failed`; Timeout: `plugin.timeout`

    """

    def look() -> errors.DwError | bool:
        try:
            hold(said, instance)
        except errors.DwError as error:
            return bare(error)
        return getattr(instance, "on_failure", None) != "allow"

    result = watchdog.step("looking at", look, limit_s)
    if isinstance(result, errors.DwError):
        raise result
    return bool(result)
