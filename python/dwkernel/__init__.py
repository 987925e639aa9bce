"""An embeddable storage kernel.

Submodules are loaded when they are first used: importing the package costs milliseconds, starts no
thread and reads no file of yours.

>>> import dwkernel as dw
>>> dw.hashing.blake3(b"abc").hex()[:8]
'6437b3ac'
"""

import importlib
from typing import TYPE_CHECKING

from dwkernel._native import __version__

if TYPE_CHECKING:
    from dwkernel import (
        aio,
        bus,
        config,
        erasure,
        errors,
        hashing,
        metrics,
        plugins,
        queue,
        sinks,
        units,
    )
    from dwkernel.errors import DwError
    from dwkernel.kernel import Kernel, NotEnforcedWarning, open  # noqa: A004 - `dw.open`
    from dwkernel.objects import ContainerInfo, ObjectInfo, Prefix, Reader
    from dwkernel.reports import (
        DriveStatus,
        PackReport,
        PoolStatus,
        Progress,
        RebuildReport,
        ScrubReport,
    )

# What `dw.name` means: the module that defines it, and its name there (None: the module itself).
_LAZY: dict[str, tuple[str, str | None]] = {
    "ContainerInfo": ("dwkernel.objects", "ContainerInfo"),
    "DriveStatus": ("dwkernel.reports", "DriveStatus"),
    "DwError": ("dwkernel.errors", "DwError"),
    "Kernel": ("dwkernel.kernel", "Kernel"),
    "NotEnforcedWarning": ("dwkernel.kernel", "NotEnforcedWarning"),
    "ObjectInfo": ("dwkernel.objects", "ObjectInfo"),
    "PackReport": ("dwkernel.reports", "PackReport"),
    "PoolStatus": ("dwkernel.reports", "PoolStatus"),
    "Prefix": ("dwkernel.objects", "Prefix"),
    "Progress": ("dwkernel.reports", "Progress"),
    "Reader": ("dwkernel.objects", "Reader"),
    "RebuildReport": ("dwkernel.reports", "RebuildReport"),
    "ScrubReport": ("dwkernel.reports", "ScrubReport"),
    "aio": ("dwkernel.aio", None),
    "bus": ("dwkernel.bus", None),
    "config": ("dwkernel.config", None),
    "erasure": ("dwkernel.erasure", None),
    "errors": ("dwkernel.errors", None),
    "hashing": ("dwkernel.hashing", None),
    "metrics": ("dwkernel.metrics", None),
    "open": ("dwkernel.kernel", "open"),
    "plugins": ("dwkernel.plugins", None),
    "queue": ("dwkernel.queue", None),
    "sinks": ("dwkernel.sinks", None),
    "units": ("dwkernel.units", None),
}

__all__ = [
    "ContainerInfo",
    "DriveStatus",
    "DwError",
    "Kernel",
    "NotEnforcedWarning",
    "ObjectInfo",
    "PackReport",
    "PoolStatus",
    "Prefix",
    "Progress",
    "Reader",
    "RebuildReport",
    "ScrubReport",
    "__version__",
    "aio",
    "bus",
    "config",
    "erasure",
    "errors",
    "hashing",
    "metrics",
    "open",
    "plugins",
    "queue",
    "sinks",
    "units",
]


def __getattr__(name: str) -> object:
    """Load what `name` means and keep it (PEP 562)."""
    try:
        module_name, attribute = _LAZY[name]
    except KeyError:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message) from None
    module = importlib.import_module(module_name)
    value: object = module if attribute is None else getattr(module, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Every public name, loaded or not."""
    return sorted(__all__)
