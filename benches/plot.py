"""The ratios of a run as one drawing: bars on a scale of powers of two, from a line at 1."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benches.duel import Row

_LEFT, _WIDTH, _RIGHT, _STEP = 400, 460, 110, 24
_COLOURS = {"met": "#1c8a55", "missed": "#d9422f", "none": "#5b95f5"}


def drawing(rows: Sequence[Row], title: str) -> str:
    """Return an SVG. Green and red say whether a goal (the thin mark) is met; blue has none."""
    bars = [
        (f"{row.what} : {peer}", ratio, row.goals.get(peer))
        for row in rows
        for peer, ratio in row.ratios().items()
    ]
    ends = [value for _, ratio, goal in bars for value in (ratio, goal or ratio)] or [1.0]
    low = math.floor(math.log2(min(*ends, 0.5)))
    high = math.ceil(math.log2(max(*ends, 2.0)))

    def x(value: float) -> float:
        return _LEFT + (math.log2(value) - low) / (high - low) * _WIDTH

    height = _STEP * len(bars) + 70
    parts = [_text(12, 22, title, weight="bold")]
    for power in range(low, high + 1):
        at, label = x(2.0**power), f"{2.0**power:g}"
        parts.append(_line(at, 40, height - 14, "#9aa5b1" if power else "#16202c"))
        parts.append(_text(at, 36, label, anchor="middle"))
    for number, (label, ratio, goal) in enumerate(bars):
        y = 46 + number * _STEP
        how = "none" if goal is None else "met" if ratio >= goal else "missed"
        left, right = sorted((x(1.0), x(ratio)))
        parts.append(_text(_LEFT - 10, y + 13, label, anchor="end"))
        parts.append(
            f'<rect x="{left:.1f}" y="{y}" width="{max(right - left, 1):.1f}" height="16" '
            f'fill="{_COLOURS[how]}"/>'
        )
        if goal is not None:
            parts.append(_line(x(goal), y - 3, y + 19, "#16202c", width=2))
        parts.append(_text(_LEFT + _WIDTH + 10, y + 13, f"{ratio:.2f} x"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + _RIGHT} {height}" '
        f'font-family="system-ui, sans-serif" font-size="13">'
        f'<rect width="100%" height="100%" fill="#ffffff"/>{"".join(parts)}</svg>\n'
    )


def _text(x: float, y: float, content: str, anchor: str = "start", weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" '
        f'fill="#16202c">{html.escape(content)}</text>'
    )


def _line(x: float, top: float, bottom: float, colour: str, width: int = 1) -> str:
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}" stroke="{colour}" '
        f'stroke-width="{width}"/>'
    )
