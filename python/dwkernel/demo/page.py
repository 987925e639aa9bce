"""The demo's report: one HTML page without script, for light and dark and paper."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from dwkernel.demo import svg
from dwkernel.units import format_duration, format_size

if TYPE_CHECKING:
    from dwkernel.demo.shards import ShardMap
    from dwkernel.demo.story import Story

_DATA_SHARDS = 4

STYLE = """
:root { color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --ink: #16202c; --soft: #5c6b7c; --line: #e1e6ec;
    --track: #eef1f5;
  --data: #2f6fde; --parity: #8fb4f4; --bad: #d9422f; --good: #1c8a55; --warm: #c77d11; }
@media (prefers-color-scheme: dark) { :root {
  --page: #0f141a; --card: #171e26; --ink: #e6ecf3; --soft: #93a3b5; --line: #27313c;
    --track: #212a34;
  --data: #5b95f5; --parity: #2f558f; --bad: #f0705e; --good: #46c286; --warm: #e3a64a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); line-height: 1.5;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1000px; margin: 0 auto; padding: 48px 20px 80px; }
h1 { font-size: 34px; line-height: 1.15; letter-spacing: -0.02em; margin: 0 0 10px; }
h2 { font-size: 20px; letter-spacing: -0.01em; margin: 0 0 4px; }
p { margin: 0 0 14px; } .soft { color: var(--soft); }
.lead { font-size: 18px; color: var(--soft); max-width: 46em; margin-bottom: 28px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
    padding: 24px 28px;
  margin-top: 22px; break-inside: avoid; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 14px; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
    padding: 14px 18px; }
.tile b { display: block; font-size: 25px; letter-spacing: -0.02em;
    font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 14px; }
ul.proofs { list-style: none; margin: 10px 0 0; padding: 0; }
ul.proofs li { display: flex; gap: 14px; padding: 11px 0; border-top: 1px solid var(--line); }
ul.proofs li:first-child { border-top: 0; }
.mark { flex: none; width: 26px; height: 26px; border-radius: 50%; display: grid;
    place-items: center;
  font-weight: 700; color: var(--card); background: var(--good); font-size: 15px; }
.mark.no { background: var(--bad); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums;
    margin-top: 8px; }
td, th { text-align: left; padding: 9px 12px 9px 0; border-top: 1px solid var(--line);
    vertical-align: top; }
thead th { border-top: 0; color: var(--soft); font-weight: 500; font-size: 14px; }
td.n, th.n { text-align: right; white-space: nowrap; }
td small { color: var(--soft); display: block; font-size: 13px; }
svg { width: 100%; height: auto; display: block; margin-top: 12px; overflow: visible; }
svg text { fill: var(--ink); font: 14px system-ui, sans-serif;
    font-variant-numeric: tabular-nums; }
svg .label { fill: var(--soft); } svg .value { font-weight: 600; } svg .gone { fill: var(--bad); }
h3 { font-size: 15px; font-weight: 600; margin: 22px 0 0; }
.key { display: flex; flex-wrap: wrap; gap: 18px; color: var(--soft); font-size: 14px;
    margin-top: 6px; }
.key i { display: inline-block; width: 12px; height: 12px; border-radius: 3px;
    margin-right: 7px; }
footer { color: var(--soft); font-size: 14px; margin-top: 30px; }
.plot { overflow-x: auto; }
@media (max-width: 700px) { main { padding: 28px 12px 60px; } section { padding: 18px 16px; }
  .plot svg { min-width: 640px; } /* its words stay readable; it is moved sideways */
  thead { display: none; } tbody tr { display: grid; grid-template-columns: 1fr auto;
    border-top: 1px solid var(--line); padding: 8px 0; }
  tbody td { border: 0; padding: 2px 0; } tbody td:first-child { grid-column: 1 / -1; }
  td.n { text-align: left; } td.n:last-child { text-align: right; } }
@media print { body { background: #fff; } section, .tile { border-color: #ccc; } }
"""

_WHEN = {
    "before": "Before: every shard in its place",
    "during": "During: one drive deleted, bytes flipped on another",
    "after": "After: rebuilt onto a new drive, damage repaired",
}


def render(story: Story, maps: list[tuple[str, ShardMap]]) -> str:
    """Return the page."""
    body = "".join(
        [
            _head(story),
            _tiles(story),
            _proofs(story),
            _stripes(maps),
            _throughput(story),
            _capacity(story),
            _steps(story),
            _foot(story),
        ]
    )
    return document("dwkernel demo", body)


def document(title: str, body: str) -> str:
    """Return a whole page around `body`."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )


def section(title: str, lead: str, content: str) -> str:
    """Return a card with a heading."""
    lead = f'<p class="soft">{html.escape(lead)}</p>' if lead else ""
    return f"<section><h2>{html.escape(title)}</h2>{lead}{content}</section>"


def _head(story: Story) -> str:
    good = "Nothing was lost." if story.proved else "Something did not hold."
    text = (
        f"{story.files:,} real files were stored on six drives at 4+2. One drive was deleted, "
        "bytes were flipped on another, a writer was killed in the middle of its work. "
        "What was read after each of that was compared with the originals by digest."
    )
    return f'<h1>{good}</h1><p class="lead">{html.escape(text)}</p>'


def _tiles(story: Story) -> str:
    held = sum(proof.held for proof in story.proofs)
    total = sum(step.seconds for step in story.steps)
    tiles = [
        (f"{held} of {len(story.proofs)}", "claims proved"),
        (f"{story.files:,}", "files"),
        (format_size(story.bytes), "of content"),
        (format_duration(total), "all told"),
    ]
    cells = "".join(
        f'<div class="tile"><b>{html.escape(big)}</b><span>{html.escape(small)}</span></div>'
        for big, small in tiles
    )
    return f'<div class="tiles">{cells}</div>'


def _proofs(story: Story) -> str:
    items = "".join(
        f'<li><span class="mark{"" if proof.held else " no"}">{"✓" if proof.held else "✗"}</span>'
        f"<div>{html.escape(proof.claim[:1].upper() + proof.claim[1:])}"
        f'<div class="soft">{html.escape(proof.text)}</div></div></li>'
        for proof in story.proofs
    )
    return section("What was proved", "", f'<ul class="proofs">{items}</ul>')


def _stripes(maps: list[tuple[str, ShardMap]]) -> str:
    key = "".join(
        f'<span><i style="background:var(--{colour})"></i>{text}</span>'
        for colour, text in (
            ("data", "data shard"),
            ("parity", "parity shard"),
            ("bad", "damaged shard"),
            ("track", "no shard"),
        )
    )
    drawings = []
    for when, shown in maps:
        columns = svg.sampled(shown.stripes)
        title = _WHEN[when]
        shares = f"{len(columns)} of {len(shown.stripes)} stripes"
        drawings.append(f'<h3>{html.escape(title)} <span class="soft">· {shares}</span></h3>')
        drawings.append(svg.stripe_map(shown, columns, _DATA_SHARDS, title))
    lead = (
        "Rows are drives, columns are stripes. Any four of a stripe's six shards hold its content. "
        "A stripe that was written while a drive was gone lies on the five others."
    )
    return section(
        "Where the stripes lie", lead, f'<div class="key">{key}</div>{"".join(drawings)}'
    )


def _throughput(story: Story) -> str:
    rows = [
        svg.Bar(step.name, step.rate, f"{format_size(int(step.rate))}/s", _colour(step.name))
        for step in story.steps
        if step.rate
    ]
    lead = "Content per second, as a program sees it; thousands of small files are in it."
    return section("Throughput of each step", lead, svg.bars(rows, "throughput"))


def _colour(name: str) -> str:
    if "rebuild" in name or "scrub" in name:
        return "good"
    return "warm" if "damage" in name or "away" in name else "data"


def _capacity(story: Story) -> str:
    rows = [
        svg.Bar(drive, shards + rest, format_size(shards + rest), "data")
        for drive, shards, rest in story.capacity
    ]
    shards = sum(drive[1] for drive in story.capacity)
    rest = sum(drive[2] for drive in story.capacity)
    factor = (shards + rest) / story.bytes if story.bytes else 0
    rows.append(svg.Bar("content", story.bytes, format_size(story.bytes), "good"))
    lead = (
        f"{format_size(shards)} in shards and {format_size(rest)} in journals, whose room is laid "
        f"out in advance, on six drives for {format_size(story.bytes)} of content: {factor:.2f} "
        "times as much all told, for the loss of any two. What was stored last may lie in the "
        "journals still, on three drives."
    )
    return section("Capacity", lead, svg.bars(rows, "capacity", label_width=90))


def _steps(story: Story) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(step.name)}<small>{html.escape(step.text)}</small></td>"
        f'<td class="n">{format_duration(step.seconds)}</td>'
        f'<td class="n">{format_size(int(step.rate)) + "/s" if step.rate else ""}</td></tr>'
        for step in story.steps
    )
    table = (
        '<table><thead><tr><th>step</th><th class="n">took</th><th class="n">content</th></tr>'
        "</thead>"
        f"<tbody>{rows}</tbody></table>"
    )
    return section("Step by step", "", table)


def _foot(story: Story) -> str:
    parts = " · ".join(html.escape(f"{name} {value}") for name, value in story.machine.items())
    return f"<footer>{parts}</footer>"
