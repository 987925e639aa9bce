"""The language between the kernel and a confined plugin, also as an enemy speaks it."""

from __future__ import annotations

import math
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from dwkernel.plugins.confined.dwkernel_inside import wire

MANY = 1 << 20

plain = some.recursive(
    some.none()
    | some.booleans()
    | some.integers(-(2**63), 2**63 - 1)
    | some.floats(allow_nan=False)
    | some.text(some.characters(exclude_categories=["Cs"]))
    | some.binary(),
    lambda inner: (
        some.lists(inner) | some.dictionaries(some.text(some.characters(codec="utf-8")), inner)
    ),
    max_leaves=30,
)


def same(left: Any, right: Any) -> bool:
    """Compare with types: True is not 1, and 1 is not 1.0."""
    if type(left) is not type(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return list(left) == list(right) and all(map(same, left.values(), right.values()))
    return bool(left == right)


@given(plain)
def test_what_is_plain_arrives_as_it_is_with_its_types(value: Any) -> None:
    assert same(wire.decode(wire.encode(value, MANY)), value)


@settings(max_examples=500)
@given(some.binary(max_size=200))
def test_any_bytes_are_a_value_or_an_error(data: bytes) -> None:
    try:
        value = wire.decode(data)
    except wire.WireError:
        return
    assert same(wire.decode(wire.encode(value, MANY)), value) or _has_nan(value)


def _has_nan(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_has_nan, value))
    if isinstance(value, dict):
        return any(map(_has_nan, value.values()))
    return isinstance(value, float) and math.isnan(value)


@settings(max_examples=300)
@given(plain, some.data())
def test_a_message_that_was_cut_or_changed_is_a_value_or_an_error(value: Any, data: Any) -> None:
    good = bytearray(wire.encode(value, MANY))
    place = data.draw(some.integers(0, len(good) - 1))
    good[place] ^= data.draw(some.integers(1, 255))
    for attempt in (bytes(good), bytes(good[:place])):
        try:
            wire.decode(attempt)
        except wire.WireError:
            continue


@pytest.mark.parametrize("cut", [1, 3, 5])
def test_a_message_that_is_cut_off_is_an_error(cut: int) -> None:
    with pytest.raises(wire.WireError):
        wire.decode(wire.encode(["text", 1], MANY)[:-cut])


def test_a_bomb_of_depth_or_of_counts_is_refused_before_it_goes_off() -> None:
    one = b"l" + struct.pack("<I", 1)
    with pytest.raises(wire.WireError, match="deep"):
        wire.decode(one * 100_000 + b"N")
    with pytest.raises(wire.WireError, match="count"):
        wire.decode(b"l" + struct.pack("<I", 0xFFFF_FFFF) + b"N")
    many = wire.VALUES_MAX + 1
    with pytest.raises(wire.WireError, match="count"):
        wire.decode(b"l" + struct.pack("<I", many) + b"N" * many)
    half = b"l" + struct.pack("<I", many // 2) + b"N" * (many // 2)
    with pytest.raises(wire.WireError, match="count"):
        wire.decode(b"l" + struct.pack("<I", 2) + half * 2)


def test_as_deep_as_it_may_be_goes_and_deeper_does_not() -> None:
    value: Any = 1
    for _ in range(wire.DEPTH_MAX):
        value = [value]
    assert same(wire.decode(wire.encode(value, MANY)), value)
    with pytest.raises(wire.WireError, match="deep"):
        wire.encode([value], MANY)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(object(), id="object()"),
        {1: 2},
        2**63,
        -(2**63) - 1,
        "\ud800",
        {"\ud800": 1},
        {1, 2},
        [print],
        1j,
    ],
    ids=repr,
)
def test_what_is_not_plain_is_not_sent(value: Any) -> None:
    with pytest.raises(wire.WireError):
        wire.encode(value, MANY)


def test_what_only_inherits_from_plain_is_not_sent_as_it_would_arrive_as_another() -> None:
    class Text(str):
        __slots__ = ()

    with pytest.raises(wire.WireError, match="Text"):
        wire.encode(Text("a"), MANY)


def test_a_list_that_holds_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(wire.WireError, match="deep"):
        wire.encode(loop, MANY)


def test_a_key_that_comes_twice_is_an_error() -> None:
    key = struct.pack("<I", 1) + b"a" + b"N"
    with pytest.raises(wire.WireError, match="twice"):
        wire.decode(b"m" + struct.pack("<I", 2) + key * 2)


def whole(kind: int, number: int, payload: bytes) -> list[bytes]:
    return [b"".join(packet) for packet in wire.packets(kind, number, payload)]


@given(some.integers(0, 4 * wire.PART_BYTES + 1), some.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_parts_of_two_messages_come_together_in_any_order(length: int, chance: Any) -> None:
    first, second = bytes([1]) * length, bytes([2]) * (length // 2 + 70_000)
    parts = whole(wire.CALL, 1, first) + whole(wire.CALL, 2, second)
    chance.shuffle(parts)
    assembly = wire.Assembly(8 * MANY, 2)
    taken = [found for part in parts if (found := assembly.take(part)) is not None]
    assert sorted(taken) == [(wire.CALL, 1, first), (wire.CALL, 2, second)]


def header(part: int, parts: int, nothing: int = 0) -> bytes:
    return struct.pack("<BBHHI", wire.CALL, nothing, part, parts, 7)


FULL = b"x" * wire.PART_BYTES


@pytest.mark.parametrize(
    "packets",
    [
        [b""],
        [b"short"],
        [header(0, 1, nothing=1)],
        [header(0, 0)],
        [header(1, 1)],
        [header(0, 2) + b"not full"],
        [header(0, 1) + FULL + b"x"],
        [header(0, 60_000) + FULL],
        [header(15, 16) + b"x", header(15, 16) + b"x"],
        [header(0, 3) + FULL, header(1, 2) + b"x"],
        [header(0, 16) + FULL, *[header(part, 16) + FULL for part in range(1, 16)], header(0, 17)],
    ],
    ids=range(11),
)
def test_packets_that_do_not_go_together_are_an_error(packets: list[bytes]) -> None:
    assembly = wire.Assembly(16 * wire.PART_BYTES, 4)
    *before, last = packets
    for packet in before:
        assembly.take(packet)
    with pytest.raises(wire.WireError):
        assembly.take(last)


def test_no_more_messages_may_be_incomplete_than_calls_are_open() -> None:
    assembly = wire.Assembly(MANY, 2)
    for number in (1, 2):
        assembly.take(struct.pack("<BBHHI", wire.CALL, 0, 0, 2, number) + FULL)
    with pytest.raises(wire.WireError, match="incomplete"):
        assembly.take(struct.pack("<BBHHI", wire.CALL, 0, 0, 2, 3) + FULL)


def test_a_message_that_would_be_too_long_is_refused_at_its_first_part() -> None:
    assembly = wire.Assembly(2 * wire.PART_BYTES, 1)
    with pytest.raises(wire.WireError):
        assembly.take(header(0, 3) + FULL)
    with pytest.raises(wire.WireError, match="allowed"):
        wire.encode(bytes(200), 100)
