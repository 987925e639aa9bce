"""Configuration: typed, in layers, and changed while the kernel runs.

`kernel.config` is a `Configuration`; `register` adds sections; `Section`, `setting` and the types
of values are what sections are made of. Everything is loaded when it is first used.

>>> from dwkernel import config
>>> config.Configuration(values={"mode": "nas"}, environment={}).current.pool.drive_timeout
'1min'
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dwkernel.config.changes import Change, ConfigStatus, HistoryEntry, ReloadReport
    from dwkernel.config.layers import Origin
    from dwkernel.config.manager import Configuration
    from dwkernel.config.modes import MODES
    from dwkernel.config.registry import register, unregister
    from dwkernel.config.secret import Secret, register_secret_source
    from dwkernel.config.section import Finding, Section, setting
    from dwkernel.config.sections import Config
    from dwkernel.config.showing import json_schema
    from dwkernel.config.values import ByteSize, NoneWord, Seconds, Table

# pydantic alone costs more than the package: nothing is loaded before it is used.
_LAZY = {
    "ByteSize": "values",
    "Change": "changes",
    "Config": "sections",
    "ConfigStatus": "changes",
    "Configuration": "manager",
    "Finding": "section",
    "HistoryEntry": "changes",
    "MODES": "modes",
    "NoneWord": "values",
    "Origin": "layers",
    "ReloadReport": "changes",
    "Seconds": "values",
    "Secret": "secret",
    "Section": "section",
    "Table": "values",
    "json_schema": "showing",
    "register": "registry",
    "register_secret_source": "secret",
    "setting": "section",
    "unregister": "registry",
}

__all__ = [
    "MODES",
    "ByteSize",
    "Change",
    "Config",
    "ConfigStatus",
    "Configuration",
    "Finding",
    "HistoryEntry",
    "NoneWord",
    "Origin",
    "ReloadReport",
    "Seconds",
    "Secret",
    "Section",
    "Table",
    "json_schema",
    "register",
    "register_secret_source",
    "setting",
    "unregister",
]


def __getattr__(name: str) -> object:
    """Load what `name` means and keep it (PEP 562)."""
    try:
        module = importlib.import_module(f"dwkernel.config.{_LAZY[name]}")
    except KeyError:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message) from None
    value: object = getattr(module, name)
    globals()[name] = value
    return value
