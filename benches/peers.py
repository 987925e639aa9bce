"""Other people's libraries, where they are installed."""

from __future__ import annotations

import functools
import importlib
from typing import Any


@functools.cache
def module(name: str) -> Any:
    """Return a module, or None with a line that says so."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        print(f"without {name}: {error}")
        return None
