"""How cases of a plugin's suite are shown, one after the other."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dwkernel.cli.output import Output
    from dwkernel.conformance.plugins import Result

__all__ = ["Results"]

_STYLES = {"ok": "green", "FAILED": "bold red", "left out": "dim"}
# A case that takes so long is worth a word.
_SLOW_S = 2.0


class Results:
    """Shows results for people; with JSON nothing."""

    def __init__(self, out: Output) -> None:
        """Show nothing yet."""
        self._out = out
        self._left_out: dict[str, list[str]] = {}

    @contextlib.contextmanager
    def waiting(self, name: str, number: int, total: int) -> Iterator[None]:
        """Say on a terminal what is under way: a case that hangs takes a minute."""
        notes = self._out.notes
        if self._out.as_json or not notes.is_terminal or notes.is_dumb_terminal:
            yield
            return
        text = f"{number} of {total}: {_shown(name)} …"
        notes.file.write(f"\r{text[: notes.width - 1]}\x1b[K")
        notes.file.flush()
        try:
            yield
        finally:
            notes.file.write("\r\x1b[K")
            notes.file.flush()

    def show(self, result: Result) -> None:
        """Show how a case went; what was left out comes at the end."""
        name = _shown(result.name)
        if result.status == "left out":
            self._left_out.setdefault(result.text, []).append(name)
            return
        took = f" ({result.seconds:.1f} s)" if result.seconds >= _SLOW_S else ""
        text = f"{name}{took}{': ' if result.text else ''}{result.text}"
        self._line("ok" if result.status == "passed" else "FAILED", text)
        if result.advice:
            self._line("", result.advice)

    def end(self) -> None:
        """Say once for each reason what was left out."""
        for reason, names in self._left_out.items():
            self._line("left out", f"{', '.join(names)}: {reason}")

    def _line(self, mark: str, text: str) -> None:
        if self._out.as_json:
            return
        line = Text.assemble((f"{mark:<8}", _STYLES.get(mark, "")), f"  {self._out.shown(text)}")
        self._out.console.print(line)


def _shown(name: str) -> str:
    return name.replace("_", " ")
