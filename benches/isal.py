"""libisal2, as Debian has it, through cffi: the yardstick that is one install away."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from benches.peers import module

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

_DECLARATIONS = """
void ec_init_tables(int k, int rows, unsigned char *matrix, unsigned char *tables);
void ec_encode_data(int length, int k, int rows, unsigned char *tables,
                    unsigned char **data, unsigned char **coding);
void gf_gen_cauchy1_matrix(unsigned char *matrix, int shards, int k);
int gf_invert_matrix(unsigned char *matrix, unsigned char *inverse, int n);
"""


@functools.cache
def _library() -> tuple[Any, Any] | None:
    """Return cffi and the library, or None with a line that says why."""
    cffi = module("cffi")
    if cffi is None:
        return None
    ffi = cffi.FFI()
    ffi.cdef(_DECLARATIONS)
    try:
        return ffi, ffi.dlopen("libisal.so.2")
    except OSError as error:
        print(f"without libisal2 (Debian: libisal2): {error}")
        return None


def encoder(shards: np.ndarray, k: int) -> Callable[[], object] | None:
    """Return what computes the parity rows of `shards` in place, tables made before."""
    found = _library()
    if found is None:
        return None
    ffi, library = found
    count, length = shards.shape
    matrix = ffi.new("unsigned char[]", count * k)
    library.gf_gen_cauchy1_matrix(matrix, count, k)
    tables = ffi.new("unsigned char[]", 32 * k * (count - k))
    library.ec_init_tables(k, count - k, matrix + k * k, tables)
    rows = [ffi.from_buffer("unsigned char[]", row) for row in shards]
    data, parity = (ffi.new("unsigned char *[]", part) for part in (rows[:k], rows[k:]))

    def encode() -> object:
        library.ec_encode_data(length, k, count - k, tables, data, parity)
        return rows

    return encode


def decoder(shards: np.ndarray, k: int) -> Callable[[], object] | None:
    """Return what computes the first rows from the last `k`, matrix and tables made each time."""
    found = _library()
    if found is None:
        return None
    ffi, library = found
    count, length = shards.shape
    lost = count - k
    matrix = ffi.new("unsigned char[]", count * k)
    library.gf_gen_cauchy1_matrix(matrix, count, k)
    rows = [ffi.from_buffer("unsigned char[]", row) for row in shards]
    present, wanted = (ffi.new("unsigned char *[]", part) for part in (rows[lost:], rows[:lost]))
    left = ffi.new("unsigned char[]", k * k)
    inverse = ffi.new("unsigned char[]", k * k)
    tables = ffi.new("unsigned char[]", 32 * k * lost)

    def decode() -> object:
        ffi.memmove(left, matrix + lost * k, k * k)
        library.gf_invert_matrix(left, inverse, k)
        library.ec_init_tables(k, lost, inverse, tables)
        library.ec_encode_data(length, k, lost, tables, present, wanted)
        return rows

    return decode
