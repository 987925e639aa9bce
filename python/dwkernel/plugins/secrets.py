"""Secrets of the configuration that plugins hold: `plugin:SOURCE:NAME`.

SOURCE is what a plugin of the kind `key_source` names as its capability, or its id, and NAME what
its `get` is asked for; the bytes that it returns are UTF-8 text.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from dwkernel import errors
from dwkernel.config.secret import register_secret_source

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwkernel.plugins.handle import Handle
    from dwkernel.plugins.registry import Registry

__all__ = ["Secrets"]

_LIMIT_S = 30.0
_lock = threading.Lock()
# References belong to no kernel: of several that have a source of one name the last one counts.
_asked: list[Secrets] = []
_before: Callable[[str], str] | None = None


class Secrets:
    """Answers for the sources of keys of a registry. Safe from any thread."""

    def __init__(self, registry: Registry) -> None:
        """Answer for none yet."""
        self._registry = registry

    def renew(self) -> None:
        """Answer if there are sources, else not; call it when plugins come or go."""
        _ask(self, wanted=bool(self._registry.find("key_source", closed=True)))

    def close(self) -> None:
        """Answer no more."""
        _ask(self, wanted=False)

    def find(self, name: str) -> Handle | None:
        """Return the source of a name, if there is one."""
        named = self._registry.find("key_source", name, closed=True)
        named += [one for one in self._registry.find("key_source", closed=True) if one.id == name]
        return named[0] if named else None


def _ask(secrets: Secrets, *, wanted: bool) -> None:
    global _before  # noqa: PLW0603 - one for the process
    with _lock:
        if wanted == (secrets in _asked):
            return
        if not _asked:
            _before = register_secret_source("plugin", _resolve)
        if wanted:
            _asked.append(secrets)
        else:
            _asked.remove(secrets)
        if not _asked:
            register_secret_source("plugin", _before)


def _resolve(reference: str) -> str:
    """Return the text of a secret, from what follows `plugin:`."""
    source, _, name = reference.partition(":")
    for secrets in reversed(list(_asked)):
        handle = secrets.find(source)
        if handle is not None:
            content: bytes = handle.call("get", name, limit_s=_LIMIT_S)
            return content.decode()
    raise errors.new("plugin.not_found", f"no source of keys {source!r} runs", kind="key_source")
