"""The kind `codec`."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING, Any

from dwkernel.conformance.plugins.core import Cases, LeftOut, Subject, hold
from dwkernel.conformance.plugins.drives import together

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CASES"]

CASES = Cases("codec")
_NAME = re.compile(r"[a-z0-9-]{1,32}")
_SIZES = (0, 1, 2, 3, 255, 256, 257, 4095, 4096, 4097, 65_535, 65_536, 65_537, 1 << 20)
_LARGEST = 16 << 20


def _contents() -> Iterator[bytes]:
    """Yield contents of all lengths at edges: equal bytes, text, noise."""
    chance = random.Random(1)  # noqa: S311 - it chooses test data
    for size in _SIZES:
        yield bytes(size)
        yield (b"some words, " * (size // 12 + 1))[:size]
        yield chance.randbytes(size)


@CASES.claim("Give it a name of 1 to 32 of a-z, 0-9 and '-', the same in all versions.")
def its_name_can_be_stored(subject: Subject) -> None:
    """Its name is 1 to 32 of `a-z 0-9 -`."""
    with subject.running() as running, running.used() as it:
        name = it.name
        hold(isinstance(name, str) and _NAME.fullmatch(name), f"its name is {name!r}")


@CASES.claim("Mend encode or decode for that length: mind empty input, and whole blocks.")
def what_is_decoded_is_what_was_encoded(subject: Subject) -> None:
    """`decode(encode(data), len(data)) == data` for all lengths at edges, up to 16 MiB."""
    with subject.running() as running, running.used() as it:
        for content in (*_contents(), bytes(_LARGEST)):
            packed = it.encode(content)
            hold(isinstance(packed, bytes), f"encode returned {type(packed).__name__}, not bytes")
            found = it.decode(packed, len(content))
            hold(isinstance(found, bytes), f"decode returned {type(found).__name__}, not bytes")
            hold(found == content, f"{len(content)} bytes came back as {len(found)} other ones")


@CASES.claim("Take what has the buffer protocol: bytes(data) or memoryview(data) does.")
def it_takes_any_buffer_and_leaves_it_alone(subject: Subject) -> None:
    """A bytearray and a slice of a memoryview are encoded as bytes are, and not changed."""
    content = b"some words, " * 100
    with subject.running() as running, running.used() as it:
        for given in (bytearray(content), memoryview(b"x" + content)[1:]):
            packed: Any = it.encode(given)
            hold(bytes(given) == content, "encode changed its input")
            for back in (bytearray(packed), memoryview(packed)):
                hold(it.decode(back, len(content)) == content, "it came back as something else")


@CASES.claim("Give expands_by_max as it is, or store what does not shrink as it is.")
def it_adds_no_more_than_it_says(subject: Subject) -> None:
    """What is encoded is never longer than what was given and `expands_by_max` bytes."""
    most = subject.samples.expands_by_max
    if most is None:
        raise LeftOut("expands_by_max is not given")  # noqa: TRY003 - told
    with subject.running() as running, running.used() as it:
        for content in _contents():
            added = len(it.encode(content)) - len(content)
            hold(added <= most, f"{len(content)} bytes became {added} bytes longer")


@CASES.claim("Keep what a call needs in the call, or guard it with a lock.")
def many_threads_encode_at_once(subject: Subject) -> None:
    """Eight threads encode and decode at once, and each gets its own content."""
    with subject.running() as running, running.used() as it:

        def work(number: int) -> None:
            content = bytes([number]) * 5000 + random.Random(number).randbytes(2000)  # noqa: S311 - data
            for _ in range(20):
                hold(it.decode(it.encode(content), len(content)) == content, "contents are mixed")

        together(work)


@CASES.claim("Raise in decode if what it made is not `length` bytes long.")
def what_is_damaged_is_noticed_or_has_its_length(subject: Subject) -> None:
    """From damaged bytes `decode` returns `length` bytes, or raises: nothing else."""
    content = b"some words, " * 50
    chance = random.Random(2)  # noqa: S311 - it chooses test data
    with subject.running() as running, running.used() as it:
        whole = it.encode(content)
        for turn in range(60):
            torn = bytearray(whole)
            torn[chance.randrange(len(torn))] ^= 1 << chance.randrange(8)
            damaged = bytes(torn) if turn % 2 else whole[: turn * len(whole) // 60]
            try:
                found = it.decode(damaged, len(content))
            except Exception:  # noqa: BLE001, S112 - anything raised means damage
                continue
            hold(len(found) == len(content), f"{len(content)} bytes came back as {len(found)}")
