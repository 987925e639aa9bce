"""`rm`: objects, trees of them, and containers."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from dwkernel import errors
from dwkernel.cli.copying import THREADS

if TYPE_CHECKING:
    from dwkernel.cli.output import Deleted
    from dwkernel.kernel import Kernel

__all__ = ["delete", "delete_tree"]


def delete(kernel: Kernel, key: str, gone: Deleted) -> None:
    """Delete one object."""
    if not key.partition("/")[2]:
        text = f"{key} names a container: `rm -r` deletes one with all in it"
        raise errors.new("object.key", text, key=key)
    kernel.delete(key)
    gone.deleted.append(key)


def delete_tree(kernel: Kernel, key: str, gone: Deleted) -> None:
    """Delete what `cp -r` means by `key`: an object and all below it, or a whole container.

    A neighbour whose name only begins so stays: `docs/photos` is not below `docs/photo`.

    Raises:
        NotFound: `object.not_found`: there is nothing; `container.not_found`

    """
    name = key.rstrip("/")
    if "/" not in name:
        _delete_below(kernel, key, gone)
        kernel.containers.delete(name)
        gone.containers.append(name)
        return
    before = len(gone.deleted)
    if not key.endswith("/"):
        with contextlib.suppress(errors.NotFound):
            delete(kernel, key, gone)
    _delete_below(kernel, key if key.endswith("/") else f"{key}/", gone)
    if len(gone.deleted) == before:
        text = f"there is no object {key}, and none below it"
        raise errors.new("object.not_found", text, key=key)


def _delete_below(kernel: Kernel, prefix: str, gone: Deleted) -> None:
    def one(key: str) -> bool:
        # Somebody else may have deleted it meanwhile.
        with contextlib.suppress(errors.NotFound):
            kernel.delete(key)
            return True
        return False

    # Many at a time share the journal's syncs.
    with ThreadPoolExecutor(THREADS, thread_name_prefix="dwkernel-rm") as pool:
        for page in kernel.list(prefix).pages():
            keys = [entry.key for entry in page]
            for key, done in zip(keys, pool.map(one, keys), strict=True):
                if done:
                    gone.deleted.append(key)
