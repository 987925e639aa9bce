# The compiled module, checked against it by stubtest; docstrings are in the module itself.

from collections.abc import Iterable

from typing_extensions import Buffer

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
def blake3(data: Buffer, key: Buffer | None = None) -> bytes: ...
def blake3_many(buffers: Iterable[Buffer], key: Buffer | None = None) -> list[bytes]: ...
def crc64nvme(data: Buffer) -> int: ...
def crc64_join(a: int, b: int, b_bytes: int) -> int: ...
