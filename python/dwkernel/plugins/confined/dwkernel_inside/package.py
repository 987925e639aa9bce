"""Lets a plugin import `dwkernel`: its Python, without its native half.

So the plugin finds the kernel's own `Verdict`, `Context` and errors, and is written as one that
runs in the kernel's process. The native module is far larger than all the rest, and there is no
store here that it could serve.
"""

from __future__ import annotations

import sys
from importlib import machinery, util
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

_NAME = "dwkernel"


def offer(folder: str, version: str, codes: list[list[Any]]) -> None:
    """Let `dwkernel` be found in its folder; `codes` is its registry of errors."""
    native = _Native(f"{_NAME}._native")
    native.__dict__.update(__version__=version, error_registry=lambda: codes)
    sys.modules[native.__name__] = native
    sys.meta_path.insert(0, _Finder(folder))


class _Native(ModuleType):
    """Stands for the native module."""

    def __getattr__(self, name: str) -> Any:
        text = f"{name} needs the native half of dwkernel, which a confined plugin does not have"
        # As a module that asks for it would be told if it were not built.
        error = AttributeError if name.startswith("__") else ImportError
        raise error(text)


class _Finder:
    """Finds the package; what is in it is then found as everything is."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None = None,  # noqa: ARG002 - importlib's
        target: ModuleType | None = None,  # noqa: ARG002 - importlib's
    ) -> machinery.ModuleSpec | None:
        if name != _NAME:
            return None
        place = f"{self._folder}/__init__.py"
        return util.spec_from_file_location(name, place, submodule_search_locations=[self._folder])
