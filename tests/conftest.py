"""What tests of the store share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import dwkernel as dw

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def kernel(path: Path) -> Iterator[dw.Kernel]:
    """A store of three local drives with a container `docs`."""
    with dw.open(path, drives=3, create=True) as kernel:
        kernel.containers.create("docs")
        yield kernel
