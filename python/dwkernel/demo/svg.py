"""Plots as inline SVG: no script, no picture files, light and dark by the reader's own setting.

Colours are the page's CSS variables, so that one drawing serves both.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dwkernel.demo.shards import ShardMap

_WIDTH = 920
# More columns than that are thinner than a screen's dots.
_COLUMNS_MAX = 150


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: its label, its length, what is written at its end, and its colour's name."""

    label: str
    value: float
    text: str
    colour: str = "data"


def text(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> str:
    """Return a text."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">'
        f"{html.escape(content)}</text>"
    )


def rect(x: float, y: float, width: float, height: float, fill: str, more: str = "") -> str:
    """Return a rectangle in a colour of the page."""
    return (
        f'<rect x="{x:.2f}" y="{y:.2f}" width="{max(width, 0):.2f}" height="{height:.2f}" '
        f'fill="var(--{fill})" {more}/>'
    )


def drawing(height: float, parts: Sequence[str], title: str) -> str:
    """Return a whole drawing."""
    return (
        f'<div class="plot"><svg viewBox="0 0 {_WIDTH} {height:.0f}" role="img" '
        f'aria-label="{html.escape(title)}">'
        f"<title>{html.escape(title)}</title>{''.join(parts)}</svg></div>"
    )


def bars(rows: Sequence[Bar], title: str, label_width: float = 366) -> str:
    """Return horizontal bars on one scale."""
    most = max((row.value for row in rows), default=0) or 1
    room = _WIDTH - label_width - 130
    parts = []
    for index, row in enumerate(rows):
        y = index * 34
        parts.append(text(label_width - 14, y + 18, row.label, "label", "end"))
        parts.append(rect(label_width, y + 4, room, 20, "track", 'rx="4"'))
        length = max(row.value / most * room, 3 if row.value else 0)
        parts.append(rect(label_width, y + 4, length, 20, row.colour, 'rx="4"'))
        parts.append(text(label_width + room + 10, y + 19, row.text, "value"))
    return drawing(len(rows) * 34 + 2, parts, title)


def stripe_map(shown: ShardMap, columns: Sequence[str], data_shards: int, title: str) -> str:
    """Return drives as rows and stripes as columns; what should be there and is not is outlined."""
    left, row_height, gap = 64.0, 26.0, 5.0
    step = (_WIDTH - left - 4) / max(len(columns), 1)
    width = step - (1 if step > 3 else 0)  # noqa: PLR2004 - a line of one dot between wide columns
    parts = []
    for row, drive in enumerate(shown.drives):
        y = row * (row_height + gap)
        gone = not any((drive, stripe) in shown.cells for stripe in columns)
        parts.append(text(left - 12, y + 18, drive, "label", "end"))
        parts.append(rect(left, y, step * len(columns), row_height, "track", 'rx="3"'))
        if gone and columns:
            parts.append(text(left + 14, y + 18, "gone", "gone"))
        for column, stripe in enumerate(columns):
            index = shown.cells.get((drive, stripe))
            if index is None:
                continue
            harmed = (drive, stripe) in shown.damaged
            colour = "bad" if harmed else "data" if index < data_shards else "parity"
            parts.append(rect(left + column * step, y, width, row_height, colour))
    return drawing(len(shown.drives) * (row_height + gap), parts, title)


def sampled(stripes: Sequence[str]) -> list[str]:
    """Return as many stripes as a map can show, evenly taken."""
    if len(stripes) <= _COLUMNS_MAX:
        return list(stripes)
    return [stripes[index * len(stripes) // _COLUMNS_MAX] for index in range(_COLUMNS_MAX)]
