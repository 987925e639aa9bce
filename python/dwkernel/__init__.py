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
    from dwkernel import erasure, errors, hashing
    from dwkernel.errors import DwError

# What `dw.name` means: the module that defines it, and its name there (None: the module itself).
_LAZY: dict[str, tuple[str, str | None]] = {
    "DwError": ("dwkernel.errors", "DwError"),
    "erasure": ("dwkernel.erasure", None),
    "errors": ("dwkernel.errors", None),
    "hashing": ("dwkernel.hashing", None),
}

__all__ = ["DwError", "__version__", "erasure", "errors", "hashing"]


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
