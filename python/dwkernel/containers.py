"""Containers: namespaces of objects."""

from __future__ import annotations

import contextlib
import json
import warnings
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel.objects import ContainerInfo, moment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dwkernel.kernel import Kernel
    from dwkernel.units import Duration

__all__ = ["Containers", "NotEnforcedWarning"]

_PAGE_ENTRIES = 1000
# Options of a container that are kept, and that nothing holds to yet.
_CONTAINER_OPTIONS = ("quota", "compress")


class NotEnforcedWarning(UserWarning):
    """An option is kept with the store, and this version does not act on it yet."""


class Containers:
    """The containers of a store: `kernel.containers`."""

    def __init__(self, kernel: Kernel) -> None:
        """Take an open store; use `kernel.containers`."""
        self._store = kernel._store  # noqa: SLF001 - of this module
        self._caller = kernel._caller  # noqa: SLF001
        self._limit = kernel._limit  # noqa: SLF001
        self._defaults = kernel._settings.container_options  # noqa: SLF001

    def create(
        self, name: str, *, timeout: Duration | None = None, **options: Any
    ) -> ContainerInfo:
        """Make a container.

        Args:
            name: 1 to 255 bytes of UTF-8 without `/`.
            timeout: the operation's deadline.
            options: kept with it, on top of the configuration's section `containers`; `quota` and
                `compress` are known but not acted on yet, which a `NotEnforcedWarning` says.

        Raises:
            Exists: `container.exists`
            Invalid: `container.name`, `store.option`

        """
        for option in options:
            if option not in _CONTAINER_OPTIONS:
                text = f"a container has no option {option!r}, only {', '.join(_CONTAINER_OPTIONS)}"
                raise errors.new("store.option", text, option=option)
        options = {**self._defaults(), **options}
        if options:
            text = f"kept with the container, not acted on yet: {', '.join(options)}"
            warnings.warn(text, NotEnforcedWarning, stacklevel=2)
        kept = json.dumps(options, sort_keys=True).encode() if options else b""
        native = self._store.create_container(self._caller, self._limit(timeout), name, kept)
        return _container(native)

    def get(self, name: str, *, timeout: Duration | None = None) -> ContainerInfo:
        """Return what is known of a container.

        Raises:
            NotFound: `container.not_found`

        """
        return _container(self._store.get_container(self._caller, self._limit(timeout), name))

    def list(self, *, timeout: Duration | None = None) -> list[ContainerInfo]:
        """Return all containers, in the order of UTF-8 bytes."""
        found: list[ContainerInfo] = []
        while True:
            after = found[-1].name if found else None
            page = self._store.list_containers(
                self._caller, self._limit(timeout), after, _PAGE_ENTRIES
            )
            found += [_container(native) for native in page]
            if len(page) < _PAGE_ENTRIES:
                return found

    def delete(self, name: str, *, timeout: Duration | None = None) -> None:
        """Delete an empty container.

        Raises:
            NotFound: `container.not_found`
            Conflict: `container.not_empty`

        """
        self._store.delete_container(self._caller, self._limit(timeout), name)

    def __iter__(self) -> Iterator[ContainerInfo]:
        """Iterate over all containers."""
        return iter(self.list())

    def __contains__(self, name: object) -> bool:
        """Return whether there is such a container."""
        if not isinstance(name, str):
            return False
        with contextlib.suppress(errors.NotFound):
            self.get(name)
            return True
        return False


def _container(native: tuple[str, int, bytes]) -> ContainerInfo:
    name, created_unix_ns, options = native
    return ContainerInfo(name, moment(created_unix_ns), json.loads(options) if options else {})
