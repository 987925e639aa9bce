"""What verbs on objects and containers give back."""

from __future__ import annotations

import io
import operator
import warnings
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from dwkernel import errors
from dwkernel._forgotten import OpenedAt
from dwkernel.reports import Report
from dwkernel.units import format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Buffer

    from dwkernel import _native
    from dwkernel.kernel import Kernel

__all__ = ["ContainerInfo", "Listing", "ObjectInfo", "Prefix", "Reader"]


_WHENCE = (io.SEEK_SET, io.SEEK_CUR, io.SEEK_END)
# As far as a file can be sought.
_SEEK_MAX = (1 << 63) - 1


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NEVER = datetime.min.replace(tzinfo=UTC)


def moment(unix_ns: int) -> datetime:
    """Return a moment, to the microsecond, in UTC."""
    # Each row of a listing asks for it; `fromtimestamp` and `replace` take several times as long.
    return _EPOCH + timedelta(microseconds=unix_ns // 1000)


@dataclass(frozen=True, slots=True)
class ObjectInfo(Report):
    """What is known of an object without reading it.

    Attributes:
        key: with its container.
        size: bytes.
        version: grows with each change and is never re-used.
        etag: opaque strong validator, for `if_match`.
        checksum: CRC-64/NVME of the whole object.
        content_type: what its writer said it is, or None.
        metadata: what its writer wanted kept with it.
        tags: labels to find it by.
        created: when this version was written.

    """

    key: str
    size: int
    version: int
    etag: str
    checksum: int
    content_type: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    created: datetime = _NEVER

    @classmethod
    def _of(cls, native: _native._ObjectTuple) -> ObjectInfo:
        return cls(*native[:-1], moment(native[-1]))

    @property
    def name(self) -> str:
        """The key without its container."""
        return self.key.split("/", 1)[1]

    @property
    def container(self) -> str:
        """The container's name."""
        return self.key.split("/", 1)[0]

    def __str__(self) -> str:
        """One line."""
        return f"{self.key}  {format_size(self.size)}  {self.created:%Y-%m-%d %H:%M:%S}Z"


@dataclass(frozen=True, slots=True)
class Prefix(Report):
    """At least one object whose key begins with `key`, rolled up behind a delimiter."""

    key: str

    def __str__(self) -> str:
        """The prefix itself."""
        return self.key


@dataclass(frozen=True, slots=True)
class ContainerInfo(Report):
    """What is known of a container.

    Attributes:
        name: its name.
        created: when it was made.
        options: as they were given to `create`.

    """

    name: str
    created: datetime
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """The name."""
        return self.name


class Listing:
    """A listing, fetched page by page while it is iterated; each iteration asks anew.

    What changes meanwhile is seen or not, never torn: each page is what was there in one moment.
    """

    def __init__(self, pages: Callable[[], Iterator[list[ObjectInfo | Prefix]]]) -> None:
        """Take what fetches the pages; use `Kernel.list`."""
        self._pages = pages

    def __iter__(self) -> Iterator[ObjectInfo | Prefix]:
        """Iterate in the order of UTF-8 bytes."""
        for page in self._pages():
            yield from page

    def pages(self) -> Iterator[list[ObjectInfo | Prefix]]:
        """Iterate by pages."""
        return self._pages()

    def keys(self) -> list[str]:
        """Return all keys."""
        return [entry.key for entry in self]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return {"entries": [entry.to_dict() for entry in self]}

    def __str__(self) -> str:
        """One line for each entry, the first twenty."""
        return "\n".join(str(entry) for entry in self._head()) or "(nothing)"

    __repr__ = __str__

    def _head(self, count: int = 20) -> Iterator[ObjectInfo | Prefix | str]:
        for index, entry in enumerate(self):
            if index == count:
                yield "…"
                return
            yield entry

    def _repr_html_(self) -> str:
        """Return a table of the first entries for notebooks."""
        from dwkernel.reports import table  # noqa: PLC0415 - a cycle at import time otherwise

        rows = []
        for entry in self._head():
            if isinstance(entry, ObjectInfo):
                rows.append(
                    (entry.key, format_size(entry.size), f"{entry.created:%Y-%m-%d %H:%M:%S}")
                )
            else:
                rows.append((str(entry), "", ""))
        return table(("key", "size", "created"), rows)


class Reader(io.RawIOBase):
    """Reads one version of an object, also after it was replaced or deleted.

    A seekable binary file. `read()` returns all that is left; wrap it in `io.BufferedReader` or
    `io.TextIOWrapper` as any other file. Every byte is verified before it is returned; reading from
    start to end in order verifies the whole object's checksum too. Threads may share it: each call
    has it alone, so each byte is handed out once and lines are whole. `read_range` has no position.
    One that nobody closed is closed when it is collected; a `ResourceWarning` says so unless it was
    read to its end, as by `kernel.get(key).read()`.

    Raises:
        Corrupt: `data.corrupt`
        State: `store.closed`, `store.forked`; `object.reading`: a signal handler came in between
            and reads, too
        Timeout: `context.deadline`

    """

    def __init__(
        self,
        native: _native.ObjectReader,
        info: ObjectInfo,
        caller: _native.Caller,
        timeout_s: float,
        kernel: Kernel | None = None,
    ) -> None:
        """Take an open object; use `Kernel.get`."""
        super().__init__()
        self._native = native
        self._caller = caller
        self._timeout_s = timeout_s
        # One that nobody else refers to any more is not closed while it is read from.
        self._kernel = kernel
        self._opened_at = OpenedAt()
        self.info = info
        self.name = info.key

    @property
    def mode(self) -> str:
        """As of a file that was opened for reading."""
        return "rb"

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        self._check()
        return self._native.position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move the position, also beyond the end; return it."""
        self._check()
        offset = operator.index(offset)
        position = None
        if abs(offset) <= _SEEK_MAX and whence in _WHENCE:
            position = self._native.seek(self._caller, self._timeout_s, offset, whence)
        if position is None:
            raise errors.new("object.range", f"cannot seek to {offset} from {whence}")
        return position

    def read(self, size: int | None = -1, /) -> bytes:
        """Read up to `size` bytes, or all that is left; fewer only at the end."""
        self._check()
        return self._native.read(self._caller, self._timeout_s, _wanted(size))

    def readall(self) -> bytes:
        """Read all that is left."""
        return self.read()

    def readinto(self, buffer: Buffer, /) -> int:
        """Fill a writable buffer; return how many bytes were left to fill it with."""
        self._check()
        return self._native.readinto(self._caller, self._timeout_s, buffer)

    def readline(self, size: int | None = -1, /) -> bytes:
        """Read up to the end of a line, and up to `size` bytes; nothing only at the end."""
        self._check()
        return self._native.readline(self._caller, self._timeout_s, _wanted(size))

    def peek(self, size: int = 0, /) -> bytes:
        """Return bytes ahead without moving the position: at least one unless at the end."""
        self._check()
        return self._native.peek(self._caller, self._timeout_s, max(0, _wanted(size)))

    def read_range(self, offset: int, length: int) -> bytes:
        """Read `length` bytes from `offset`; the position stays.

        Raises:
            Invalid: `object.range` if they do not lie within the object

        """
        self._check()
        if offset < 0 or length < 0 or offset + length > self.info.size:
            text = f"{length} bytes from {offset} do not lie in the {self.info.size} of {self.name}"
            raise errors.new("object.range", text, size=self.info.size)
        return self._native.read_range(self._caller, self._timeout_s, offset, length)

    def __getstate__(self) -> NoReturn:
        """Refuse to be copied or pickled, as any open file does.

        Raises:
            TypeError: always

        """
        message = f"cannot pickle or copy {self!r}: it is open"
        raise TypeError(message)

    def close(self) -> None:
        """Let the version go; what it kept may be collected. A second call does nothing.

        Waits for a read that another thread is in the middle of.
        """
        if not self.closed:
            self._native.close()
        super().close()

    # Bound now: at the end of the interpreter there may be no modules left.
    def __del__(self, warn: Callable[..., Any] = warnings.warn) -> None:
        """Close it if nobody did, and say so unless it was read to its end.

        Raises:
            ResourceWarning: where the program has made it an error

        """
        # One that could not even be made has no name.
        if self.closed or "name" not in self.__dict__:
            return
        try:
            if self._native.position < self.info.size:
                warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self._opened_at)
        finally:
            self.close()

    def __repr__(self) -> str:
        """Name the object."""
        return f"<dwkernel.Reader {self.name} {format_size(self.info.size)}>"

    def _check(self) -> None:
        if self.closed:
            raise errors.new("store.closed", f"the reader of {self.name} is closed")


def _wanted(size: int | None) -> int:
    """Return how many bytes are wanted, in 64 bits; less than 0 for all."""
    return -1 if size is None else max(-1, min(operator.index(size), _SEEK_MAX))
