"""Draws what ``growth.py`` has measured: ``python curves.py .cache/bench/growth.json docs/pictures/growth.svg``.

One panel an axis: CPU microseconds a task against what grows, PostgreSQL's and the scheduler's. SVG by hand, readable in light and dark.
"""

import json
import math
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

WIDTH, HEIGHT = 300, 190  # of a panel
LEFT, RIGHT, TOP, BOTTOM = 34, 14, 40, 40
COLUMNS = 3
STYLE = """
text { font: 11px system-ui, sans-serif; fill: #3b4252 } .title { font-size: 13px; font-weight: 600 } .note { fill: #6b7280 }
.grid { stroke: #d8dee9 } .postgres { stroke: #2f6fb3; fill: #2f6fb3 } .scheduler { stroke: #b4631b; fill: #b4631b }
polyline { fill: none !important; stroke-width: 2 } .back { fill: #ffffff }
@media (prefers-color-scheme: dark) {
  text { fill: #e5e9f0 } .note { fill: #9aa4b5 } .grid { stroke: #3b4252 } .back { fill: #14181f }
  .postgres { stroke: #7ab2ec; fill: #7ab2ec } .scheduler { stroke: #eca45f; fill: #eca45f }
}"""


def main() -> None:
    """Read the figures, write the picture."""
    source, target = map(Path, sys.argv[1:])
    document = json.loads(source.read_text(encoding="utf-8"))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(picture(document), encoding="utf-8")


def picture(document: dict[str, Any]) -> str:
    """All panels, and the machine that they were measured on."""
    axes = list(document["axes"].values())
    rows = math.ceil(len(axes) / COLUMNS)
    width, height = COLUMNS * WIDTH, rows * HEIGHT + 26
    panels = "".join(
        f'<g transform="translate({n % COLUMNS * WIDTH} {n // COLUMNS * HEIGHT})">{_panel(axis)}</g>' for n, axis in enumerate(axes)
    )
    note = f"CPU µs a drained task: PostgreSQL (blue, circles), scheduler (brown, squares). {document['machine']}, {document['at'][:10]}"
    if document["scale"] != 1:
        note += f", at a scale of {document['scale']:g}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"><title>What a task costs as other things grow'
        f'</title><style>{STYLE}</style><rect class="back" width="{width}" height="{height}"/>{panels}'
        f'<text class="note" x="{LEFT}" y="{height - 9}">{escape(note)}</text></svg>\n'
    )


def _panel(axis: dict[str, Any]) -> str:
    points = axis["points"]
    most = 10 * math.ceil(1.1 * max(point["postgres_us"] for point in points) / 10)
    places = _places([point["at"] for point in points])
    parts = [f'<text class="title" x="{LEFT}" y="18">{escape(axis["unit"])}</text>']
    parts.append(f'<text class="note" x="{LEFT}" y="33">last over first: {axis["ratio"]:.2f}</text>')
    for value in range(0, most + 1, 10 if most <= 50 else 20):
        y = _height(value, most)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="note" text-anchor="end" x="{LEFT - 5}" y="{y + 4:.1f}">{value}</text>')
    for x, point in zip(places, points, strict=True):
        parts.append(f'<text class="note" text-anchor="middle" x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}">{_short(point["at"])}</text>')
    for name in ("postgres", "scheduler"):
        spots = [(x, _height(point[f"{name}_us"], most)) for x, point in zip(places, points, strict=True)]
        parts.append(f'<polyline class="{name}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in spots)}"/>')
        parts += [_spot(name, x, y) for x, y in spots]
    return "".join(parts)


def _spot(name: str, x: float, y: float) -> str:
    if name == "postgres":
        return f'<circle class="{name}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
    return f'<rect class="{name}" x="{x - 2.5:.1f}" y="{y - 2.5:.1f}" width="5" height="5"/>'


def _places(values: Sequence[float]) -> list[float]:
    """Even steps: what grows by factors of ten is shown so, and the rest has few points."""
    step = (WIDTH - LEFT - RIGHT - 30) / max(1, len(values) - 1)
    return [LEFT + 15 + n * step for n in range(len(values))]


def _height(value: float, most: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / most


def _short(value: float) -> str:
    for size, word in ((1_000_000, "M"), (1_000, "k")):
        if value >= size:
            return f"{value / size:g}{word}"
    return f"{value:g}"


if __name__ == "__main__":
    main()
