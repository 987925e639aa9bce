"""What goes between the kernel and a plugin's process: plain data, cut into packets.

Both sides are hostile to each other here: whatever is read is bounded in depth, in length and in
the number of values before anything is made of it, and only built-in types come out. The child has
nothing but the standard library, and this file.

A value is a tag and what follows (integers little-endian):

    N | T | F                  None, True, False
    i  8 bytes, signed         int
    d  8 bytes, IEEE 754       float
    s  u32 length, UTF-8       str
    b  u32 length              bytes
    l  u32 count, values       list
    m  u32 count, (u32 length, UTF-8, value) each   dict

A packet is one message of a SOCK_SEQPACKET socket: kind u8, nothing u8, part u16, parts u16,
number u32, then up to `PART_BYTES`. Every part but the last is full, so a message has one cut only.
"""

from __future__ import annotations

import struct
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Plain = Any
"""None, bool, int of 64 bits, float, str, bytes, and lists and dicts (keys: str) of these."""

# A packet of this length needs no contiguous pages of a higher order in the kernel.
PART_BYTES = 65_536
PARTS_MAX = 65_535
DEPTH_MAX = 32
VALUES_MAX = 1_000_000

CALL, ANSWER, ERROR, EVENT, CANCEL, PING, PONG, READY, STOP, HELLO, CONFINED = range(1, 12)

_HEADER = struct.Struct("<BBHHI")
HEADER_BYTES = _HEADER.size
PACKET_BYTES = HEADER_BYTES + PART_BYTES
_COUNT = struct.Struct("<I")
_TAGGED = struct.Struct("<cI")
_INT = struct.Struct("<q")
_FLOAT = struct.Struct("<d")
_TAGGED_INT = struct.Struct("<cq")
_TAGGED_FLOAT = struct.Struct("<cd")
_COUNT_MAX = 0xFFFF_FFFF
_TAG_INT, _TAG_FLOAT = b"id"


class WireError(ValueError):
    """What came is no message, or what should go can't be one."""


def encode(value: Plain, bytes_max: int) -> bytes:
    """Return a value's bytes, at most `bytes_max`.

    Raises:
        WireError: something in it is not plain, too deep, too much or too long

    """
    out: list[bytes] = []
    _put(value, out, 0)
    data = b"".join(out)
    if len(data) > bytes_max:
        text = f"the message has {len(data)} bytes, and {bytes_max} are allowed"
        raise WireError(text)
    return data


def _put(value: Plain, out: list[bytes], depth: int) -> None:
    put = _PUTS.get(type(value))
    if put is None:
        text = f"{type(value).__name__} is no plain data"
        raise WireError(text)
    if depth > DEPTH_MAX:
        text = f"it is nested more than {DEPTH_MAX} deep"
        raise WireError(text)
    if len(out) > 2 * VALUES_MAX:
        raise WireError(_TOO_MANY)
    put(value, out, depth)


_TOO_MANY = f"it holds more than {VALUES_MAX} values"


def _put_none(_value: None, out: list[bytes], _depth: int) -> None:
    out.append(b"N")


def _put_bool(value: bool, out: list[bytes], _depth: int) -> None:
    out.append(b"T" if value else b"F")


def _put_int(value: int, out: list[bytes], _depth: int) -> None:
    try:
        out.append(_TAGGED_INT.pack(b"i", value))
    except struct.error:
        text = "an int has more than 64 bits"
        raise WireError(text) from None


def _put_float(value: float, out: list[bytes], _depth: int) -> None:
    out.append(_TAGGED_FLOAT.pack(b"d", value))


def _put_str(value: str, out: list[bytes], _depth: int) -> None:
    data = _utf8(value)
    out.append(_TAGGED.pack(b"s", len(data)))
    out.append(data)


def _put_bytes(value: bytes | bytearray | memoryview, out: list[bytes], _depth: int) -> None:
    data = value if type(value) is bytes else bytes(value)
    if len(data) > _COUNT_MAX:
        text = "bytes are longer than 4 GiB"
        raise WireError(text)
    out.append(_TAGGED.pack(b"b", len(data)))
    out.append(data)


def _put_list(value: list[Plain] | tuple[Plain, ...], out: list[bytes], depth: int) -> None:
    if len(value) > VALUES_MAX:
        raise WireError(_TOO_MANY)
    out.append(_TAGGED.pack(b"l", len(value)))
    for item in value:
        _put(item, out, depth + 1)


def _put_dict(value: dict[str, Plain], out: list[bytes], depth: int) -> None:
    if len(value) > VALUES_MAX:
        raise WireError(_TOO_MANY)
    out.append(_TAGGED.pack(b"m", len(value)))
    for key, item in value.items():
        if type(key) is not str:
            text = f"a key is a {type(key).__name__}: keys are str"
            raise WireError(text)
        data = _utf8(key)
        out.append(_COUNT.pack(len(data)))
        out.append(data)
        _put(item, out, depth + 1)


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        reason = "a str has a lone surrogate: it has no UTF-8"
        raise WireError(reason) from None


_PUTS: dict[type, Callable[[Any, list[bytes], int], None]] = {
    type(None): _put_none,
    bool: _put_bool,
    int: _put_int,
    float: _put_float,
    str: _put_str,
    bytes: _put_bytes,
    bytearray: _put_bytes,
    memoryview: _put_bytes,
    list: _put_list,
    tuple: _put_list,
    dict: _put_dict,
}


def decode(data: bytes) -> Plain:
    """Return the value of bytes that may come from an enemy.

    Raises:
        WireError: they are no value, or one that is too deep or holds too much

    """
    try:
        value, at = _get(data, 0, 0, [VALUES_MAX])
    except (struct.error, UnicodeDecodeError, IndexError):
        text = "the message is cut off or is no data"
        raise WireError(text) from None
    if at != len(data):
        text = f"{len(data) - at} bytes follow the message"
        raise WireError(text)
    return value


def _get(data: bytes, at: int, depth: int, left: list[int]) -> tuple[Plain, int]:
    tag = data[at]
    at += 1
    if tag in _SINGLE:
        return _SINGLE[tag], at
    if tag == _TAG_INT:
        return _INT.unpack_from(data, at)[0], at + 8
    if tag == _TAG_FLOAT:
        return _FLOAT.unpack_from(data, at)[0], at + 8
    get = _GETS.get(tag)
    if get is None:
        text = f"there is no tag {tag}"
        raise WireError(text)
    return get(data, at, depth, left)


_SINGLE: dict[int, bool | None] = {0x4E: None, 0x54: True, 0x46: False}


def _piece(data: bytes, at: int) -> tuple[bytes, int]:
    (length,) = _COUNT.unpack_from(data, at)
    at += 4
    end = at + length
    if end > len(data):
        text = "a length leads past the end"
        raise WireError(text)
    return data[at:end], end


def _get_bytes(data: bytes, at: int, _depth: int, _left: list[int]) -> tuple[Plain, int]:
    return _piece(data, at)


def _get_str(data: bytes, at: int, _depth: int, _left: list[int]) -> tuple[Plain, int]:
    piece, at = _piece(data, at)
    return piece.decode(), at


def _count(data: bytes, at: int, depth: int, left: list[int]) -> tuple[int, int]:
    """Read a count that the rest of the message, the depth and the budget can bear."""
    (count,) = _COUNT.unpack_from(data, at)
    left[0] -= count
    if left[0] < 0 or count > len(data) - at:
        text = "a count is larger than the message or than what is allowed"
        raise WireError(text)
    if depth >= DEPTH_MAX:
        text = f"it is nested more than {DEPTH_MAX} deep"
        raise WireError(text)
    return count, at + 4


def _get_list(data: bytes, at: int, depth: int, left: list[int]) -> tuple[Plain, int]:
    count, at = _count(data, at, depth, left)
    items: list[Plain] = []
    for _ in range(count):
        item, at = _get(data, at, depth + 1, left)
        items.append(item)
    return items, at


def _get_dict(data: bytes, at: int, depth: int, left: list[int]) -> tuple[Plain, int]:
    count, at = _count(data, at, depth, left)
    items: dict[str, Plain] = {}
    for _ in range(count):
        key, at = _piece(data, at)
        item, at = _get(data, at, depth + 1, left)
        items[key.decode()] = item
    if len(items) != count:
        text = "a key comes twice"
        raise WireError(text)
    return items, at


_GETS: dict[int, Callable[[bytes, int, int, list[int]], tuple[Plain, int]]] = {
    0x73: _get_str,
    0x62: _get_bytes,
    0x6C: _get_list,
    0x6D: _get_dict,
}


def packets(kind: int, number: int, payload: bytes) -> Iterator[list[bytes | memoryview]]:
    """Yield a message's packets, each as the pieces that `sendmsg` takes."""
    parts = max(1, -(-len(payload) // PART_BYTES))
    if parts == 1:
        yield [_HEADER.pack(kind, 0, 0, 1, number), payload]
        return
    view = memoryview(payload)
    for part in range(parts):
        header = _HEADER.pack(kind, 0, part, parts, number)
        yield [header, view[part * PART_BYTES : (part + 1) * PART_BYTES]]


class Assembly:
    """Puts messages together again, of whom so many parts may be on their way at once."""

    def __init__(self, bytes_max: int, open_max: int) -> None:
        """Let messages of `bytes_max` through, `open_max` of them incomplete at a time."""
        self._parts_max = max(1, -(-bytes_max // PART_BYTES))
        self._bytes_max = bytes_max
        self._open_max = open_max
        self._open: dict[tuple[int, int], dict[int, memoryview]] = {}
        self._counts: dict[tuple[int, int], int] = {}
        self._lock = threading.Lock()

    def take(self, packet: bytes) -> tuple[int, int, bytes] | None:
        """Return kind, number and payload of the message that this packet completes, else None.

        Raises:
            WireError: no packet, or one that does not go with those before it

        """
        if len(packet) < HEADER_BYTES:
            text = f"a packet has {len(packet)} bytes, less than its header"
            raise WireError(text)
        kind, nothing, part, parts, number = _HEADER.unpack_from(packet)
        if nothing or not part < parts <= self._parts_max:
            text = f"part {part} of {parts} cannot be"
            raise WireError(text)
        piece = memoryview(packet)[HEADER_BYTES:]
        last = part == parts - 1
        if len(piece) > PART_BYTES or (not last and len(piece) < PART_BYTES):
            text = f"part {part} of {parts} has {len(piece)} bytes"
            raise WireError(text)
        if (parts - 1) * PART_BYTES + (len(piece) if last else 0) > self._bytes_max:
            text = f"the message has more than {self._bytes_max} bytes"
            raise WireError(text)
        if parts == 1:
            return kind, number, packet[HEADER_BYTES:]
        return self._join(kind, number, (part, parts), piece)

    def _join(
        self, kind: int, number: int, place: tuple[int, int], piece: memoryview
    ) -> tuple[int, int, bytes] | None:
        part, parts = place
        key = (kind, number)
        with self._lock:
            have = self._open.setdefault(key, {})
            if self._counts.setdefault(key, parts) != parts or part in have:
                text = f"part {part} of {parts} does not go with the others"
                raise WireError(text)
            if len(self._open) > self._open_max:
                text = f"more than {self._open_max} messages are incomplete"
                raise WireError(text)
            have[part] = piece
            if len(have) < parts:
                return None
            del self._open[key], self._counts[key]
        return kind, number, b"".join(have[index] for index in range(parts))
