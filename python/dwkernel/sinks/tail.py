"""What files of lines hold already: their ends, looked at from behind."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from dwkernel._native import Message

__all__ = ["HEAD_BYTES", "Line", "Written", "backward", "whole_bytes"]

_BLOCK_BYTES = 256 << 10
# Of a line only its beginning is looked at.
HEAD_BYTES = 1024
# Lines that are looked through for what comes again, at most: more than a consumer has out.
_LOOK_LINES_MAX = 131_072


class Line(NamedTuple):
    """Which message a line has."""

    sequence: int
    id: str


def backward(path: Path) -> Iterator[bytes]:
    """Yield the beginnings of a file's whole lines, the last one first."""
    with path.open("rb") as file:
        position = file.seek(0, os.SEEK_END)
        head: bytes | None = None  # the beginning, as far as it is known, of the line behind
        while position > 0:
            size = min(_BLOCK_BYTES, position)
            position -= size
            file.seek(position)
            pieces = file.read(size).split(b"\n")
            if head is not None:
                pieces[-1] = (pieces[-1] + head)[:HEAD_BYTES]
                yield from (piece[:HEAD_BYTES] for piece in reversed(pieces[1:]))
            else:
                # Behind the last line's end is nothing, or what was torn.
                if len(pieces) == 1:
                    continue
                yield from (piece[:HEAD_BYTES] for piece in reversed(pieces[1:-1]))
            head = pieces[0][:HEAD_BYTES]
        if head is not None:
            yield head


def whole_bytes(path: Path) -> int:
    """Return where the last whole line of a file ends; what a power cut left as zeros is none."""
    with path.open("rb") as file:
        end = position = file.seek(0, os.SEEK_END)
        while position > 0:
            size = min(_BLOCK_BYTES, position)
            position -= size
            file.seek(position)
            block = file.read(size)
            while (found := block.rfind(b"\n")) != -1:
                begin = block.rfind(b"\n", 0, found) + 1
                if b"\0" not in block[begin:found]:
                    return position + found + 1
                block = block[:begin]
            end = position
        return end


def line_of(head: bytes, pattern: re.Pattern[bytes]) -> Line | None:
    """Return which message a line has, from its beginning."""
    found = pattern.match(head)
    if found is None:
        return None
    try:
        return Line(int(found["sequence"]), json.loads(b'"%s"' % found["id"]))
    except ValueError:
        return None


class Written:
    """Which messages files hold, as far as messages come again.

    Messages come in the order of their stream, so one with a higher number than the last line's is
    new. For any other the lines are looked through from behind, down to its number, and what counts
    is its id: after a stream was made anew its numbers begin again, and the messages are others.
    """

    def __init__(self, files: Callable[[], Iterable[Path]], pattern: re.Pattern[bytes]) -> None:
        """Look through `files()`, the newest first."""
        self._files = files
        self._pattern = pattern
        self._ids: set[str] = set()
        self._down_to: int | None = None
        self.last = next((line for line in self._lines()), None)

    def holds(self, message: Message) -> bool:
        """Return whether a message is there."""
        sequence = message.sequence
        if self.last is None or sequence is None or sequence > self.last.sequence:
            return False
        if self._down_to is None or sequence < self._down_to:
            self._look(sequence)
        return message.id in self._ids

    def wrote(self, sequence: int | None, message_id: str) -> None:
        """Hear that a message is there now."""
        if sequence is not None:
            self.last = Line(sequence, message_id)
        # Looked through anew, should it come once more.
        self._ids, self._down_to = set(), None

    def _look(self, sequence: int) -> None:
        self._ids, self._down_to = set(), sequence
        for count, line in enumerate(self._lines()):
            if line.sequence < sequence or count >= _LOOK_LINES_MAX:
                return
            self._ids.add(line.id)

    def _lines(self) -> Iterator[Line]:
        for path in self._files():
            for head in backward(path):
                line = line_of(head, self._pattern)
                if line is not None:  # what was damaged counts as not there
                    yield line
