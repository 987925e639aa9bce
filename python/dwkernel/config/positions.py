r"""Where keys and values stand in a text of TOML. The text is valid: `tomllib` has read it.

>>> found = scan("[limits]\nrate = 5 # slow\n")
>>> entry = found.entries[("limits", "rate")]
>>> found.place(entry.key), found.text[slice(*entry.value)]
((2, 1), '5')

Source: TOML 1.0.0, toml.io/en/v1.0.0.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field

__all__ = ["Entry", "Head", "Path", "Positions", "scan"]

Path = tuple[str | int, ...]
"""Keys from the top; an int is the index in an array of tables."""

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{0,2})'
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:\\.|[^"\\])*"'
    r"|'[^']*'",
    re.DOTALL,
)
# A date and a time may have a space between them.
_SCALAR = re.compile(r"\d{4}-\d\d-\d\d \d\d[^\s,\]}#]*|[^\s,\]}#]+")


@dataclass(frozen=True)
class Entry:
    """A key with its value: offsets in the text."""

    key: int
    value: tuple[int, int]
    # Of an inline table: it cannot be continued on a line of its own.
    is_inline: bool


@dataclass
class Head:
    """A table's header and where what stands under it ends; the first one is the top's."""

    path: Path
    start: int
    end: int


@dataclass
class Positions:
    """What `scan` found."""

    text: str
    entries: dict[Path, Entry] = field(default_factory=dict)
    heads: list[Head] = field(default_factory=list)

    def place(self, offset: int) -> tuple[int, int]:
        """Return line and column, from 1 on, in characters."""
        line = self.text.count("\n", 0, offset) + 1
        return line, offset - (self.text.rfind("\n", 0, offset) + 1) + 1


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.found = Positions(text)
        # How many tables an array of tables has so far.
        self.arrays: dict[Path, int] = {}

    def run(self) -> Positions:
        head = Head((), 0, 0)
        self.found.heads.append(head)
        at = self.blank(0)
        while at < len(self.text):
            if self.text[at] == "[":
                head, at = self.header(at)
                self.found.heads.append(head)
            else:
                at = self.pair(at, head.path, is_inline=False)
            head.end = self.line_end(at)
            at = self.blank(at)
        return self.found

    def blank(self, at: int) -> int:
        found = _BLANK.match(self.text, at)
        return found.end() if found else at

    def space(self, at: int) -> int:
        found = _SPACE.match(self.text, at)
        return found.end() if found else at

    def line_end(self, at: int) -> int:
        """Return where the next line begins."""
        end = self.text.find("\n", at)
        return len(self.text) if end == -1 else end + 1

    def key(self, at: int) -> tuple[list[str], int]:
        """Read a dotted key; return its parts and where it ends."""
        parts: list[str] = []
        while True:
            at = self.space(at)
            if self.text[at] in "\"'":
                end = _match(_STRING, self.text, at)
                parts.append(tomllib.loads(f"v={self.text[at:end]}")["v"])
            else:
                end = _match(_BARE, self.text, at)
                parts.append(self.text[at:end])
            at = self.space(end)
            if not self.text.startswith(".", at):
                return parts, end
            at += 1

    def header(self, start: int) -> tuple[Head, int]:
        is_array = self.text.startswith("[[", start)
        parts, at = self.key(start + 1 + is_array)
        path: Path = ()
        for index, part in enumerate(parts):
            path = (*path, part)
            is_last = index == len(parts) - 1
            if is_array and is_last:
                self.arrays[path] = self.arrays.get(path, 0) + 1
            if path in self.arrays:
                path = (*path, self.arrays[path] - 1)
        at = self.space(at) + 1 + is_array
        return Head(path, start, at), at

    def pair(self, start: int, under: Path, *, is_inline: bool) -> int:
        parts, at = self.key(start)
        at = self.space(at) + 1
        path = (*under, *parts)
        begin = self.space(at)
        end = self.value(begin, path)
        self.found.entries[path] = Entry(start, (begin, end), is_inline)
        return end

    def value(self, at: int, path: Path | None) -> int:
        """Skip a value; of inline tables note the keys, unless they stand in an array."""
        first = self.text[at]
        if first == "[":
            return self.array(at)
        if first == "{":
            return self.inline(at, path)
        return _match(_STRING if first in "\"'" else _SCALAR, self.text, at)

    def array(self, at: int) -> int:
        at = self.blank(at + 1)
        while self.text[at] != "]":
            at = self.value(at, None) if self.text[at] != "," else at + 1
            at = self.blank(at)
        return at + 1

    def inline(self, at: int, path: Path | None) -> int:
        at = self.blank(at + 1)
        while self.text[at] != "}":
            if self.text[at] == ",":
                at += 1
            elif path is None:
                _, at = self.key(at)
                at = self.value(self.space(self.space(at) + 1), None)
            else:
                at = self.pair(at, path, is_inline=True)
            at = self.blank(at)
        return at + 1


def _match(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    if found is None:
        message = f"no TOML at {at}: scan reads only what tomllib has read"
        raise ValueError(message)
    return found.end()


def scan(text: str) -> Positions:
    """Return where everything stands in a valid text."""
    return _Scanner(text).run()
