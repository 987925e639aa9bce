# The compiled module, checked against it by stubtest; docstrings are in the module itself.

from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
from typing_extensions import Buffer

# Type checkers see arrays as buffers from Python 3.12 on only; without NumPy they are Any.
_Buffer: TypeAlias = Buffer | np.ndarray[Any, Any]

__all__ = [
    "__version__",
    "blake3",
    "blake3_many",
    "crc64_join",
    "crc64nvme",
    "error_registry",
]

__version__: str

def error_registry() -> list[tuple[str, str, bool, str]]: ...
def blake3(data: _Buffer, key: _Buffer | None = None) -> bytes: ...
def blake3_many(
    buffers: Iterable[_Buffer], key: _Buffer | None = None, *, threads: int | None = None
) -> list[bytes]: ...
def crc64nvme(data: _Buffer) -> int: ...
def crc64_join(a: int, b: int, b_bytes: int) -> int: ...
