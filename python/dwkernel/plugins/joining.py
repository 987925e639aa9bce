"""What joins plugins to a kernel."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel.plugins.asking import Asking
from dwkernel.plugins.manager import Plugins

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwkernel.kernel import Kernel
    from dwkernel.plugins.settings import PluginsSection

__all__ = ["adopt", "join"]

# A subscriber that holds publishers back must not hold up plugins.
_TELL_S = 0.1


def join(kernel: Kernel, section: Callable[[], PluginsSection] | None = None) -> Plugins:
    """Return the plugins of a kernel; what happens to them is published on its bus, in memory.

    Subjects are those of `Plugins`, the data is JSON.
    """

    def announce(subject: str, data: dict[str, Any]) -> None:
        with contextlib.suppress(errors.DwError):  # a kernel that closes has no bus any more
            kernel.bus.publish(subject, json.dumps(data, default=str).encode(), timeout=_TELL_S)

    return adopt(kernel, Plugins(section, announce=announce))


def adopt(kernel: Kernel, plugins: Plugins) -> Plugins:
    """Let a kernel's door ask the policies of these plugins from now on; return them."""
    desk = kernel._store.policies(kernel._caller, kernel._limit(None))  # noqa: SLF001 - of this package
    asking = Asking(desk, plugins.registry, plugins.section.limits.call)
    plugins.on(lambda *_: asking.renew())
    asking.renew()
    return plugins
