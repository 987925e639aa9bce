"""Reading a file that may be anything by now."""

from __future__ import annotations

import errno
import os
import stat

__all__ = ["read_plain"]


def read_plain(path: str | os.PathLike[str], bytes_max: int) -> tuple[bytes, int]:
    """Return a plain file's content and mode; of one that is too long a byte more than `bytes_max`.

    Raises:
        OSError: it cannot be read, or is no plain file

    """
    # Not blocking: a pipe in its place must not hang who reads.
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is no plain file")
        with os.fdopen(handle, "rb", closefd=False) as file:
            return file.read(bytes_max + 1), mode
    finally:
        os.close(handle)
