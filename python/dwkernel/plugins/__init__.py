"""Plugins: found, resolved, started, and exchanged while they run.

`kernel.plugins` is a `Plugins`; it works without a store, too:

>>> from dwkernel.plugins import Plugins
>>> with Plugins() as plugins:
...     plugins.get("drive", "memory").id
'kernel.drive.memory'
"""

import importlib
from typing import TYPE_CHECKING

from dwkernel.plugins.kinds import KINDS

if TYPE_CHECKING:
    from dwkernel.plugins.kinds.policy import Finished, Request, Verdict
    from dwkernel.plugins.life import Context
    from dwkernel.plugins.manager import Plugins
    from dwkernel.plugins.manifest import API_VERSION
    from dwkernel.plugins.reload import ReloadReport
    from dwkernel.plugins.report import PluginInfo
    from dwkernel.plugins.settings import PluginsSection
    from dwkernel.plugins.swap import Slot

# A plugin that imports this for `Verdict` does not pay for what manages plugins.
_LAZY = {
    "API_VERSION": "dwkernel.plugins.manifest",
    "Context": "dwkernel.plugins.life",
    "Finished": "dwkernel.plugins.kinds.policy",
    "PluginInfo": "dwkernel.plugins.report",
    "Plugins": "dwkernel.plugins.manager",
    "PluginsSection": "dwkernel.plugins.settings",
    "ReloadReport": "dwkernel.plugins.reload",
    "Request": "dwkernel.plugins.kinds.policy",
    "Slot": "dwkernel.plugins.swap",
    "Verdict": "dwkernel.plugins.kinds.policy",
}

__all__ = [
    "API_VERSION",
    "KINDS",
    "Context",
    "Finished",
    "PluginInfo",
    "Plugins",
    "PluginsSection",
    "ReloadReport",
    "Request",
    "Slot",
    "Verdict",
]


def __getattr__(name: str) -> object:
    """Load what `name` means and keep it (PEP 562)."""
    try:
        module = importlib.import_module(_LAZY[name])
    except KeyError:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message) from None
    value: object = getattr(module, name)
    globals()[name] = value
    return value
