"""A store whose drives can only be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import dwkernel as dw
from dwkernel import _native, errors
from python_drive import DictDrive, DictDrives

if TYPE_CHECKING:
    from collections.abc import Mapping


class _ReadOnlyDrive(DictDrive):
    """A file system that was mounted read-only: nobody can lock it for writing."""

    is_read_only = False

    def lock(self, holder: Mapping[str, str], *, shared: bool) -> str:
        if self.is_read_only and not shared:
            raise errors.new("drive.read_only", f"{self.location} is read-only")
        return super().lock(holder, shared=shared)


def test_a_store_that_can_only_be_read_says_so_when_it_is_to_be_written() -> None:
    drives = DictDrives()
    names = ["dict://a", "dict://b"]
    made = [_ReadOnlyDrive(name) for name in names]
    drives.drives.update(zip(names, made, strict=True))
    _native.register_drives("dict", drives.open)
    try:
        with dw.open(drives=names, geometry="mirror:2", create=True) as kernel:
            kernel.containers.create("docs")
            kernel.put("docs/a", b"a")
        made[1].is_read_only = True
        # One half is enough.
        with dw.open(drives=names) as kernel:
            assert kernel.pool.status().redundancy == "degraded"
        for drive in made:
            drive.is_read_only = True
        for given in (names, names[:1]):
            with pytest.raises(errors.Denied, match="read_only=True") as refused:
                dw.open(drives=given)
            assert refused.value.details["readable"] == "true"
            with dw.open(drives=given, read_only=True) as kernel:
                assert kernel["docs/a"] == b"a"
    finally:
        _native.unregister_drives("dict")
