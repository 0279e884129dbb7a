"""How do several curves look? Lines in one SVG, on a logarithmic axis, each named where it ends."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 64, 150, 44, 48
COLOURS = ("#c1272d", "#e07b00", "#0f7b3f", "#2f6fb3", "#7a4fb5", "#8a5a2b", "#d1458f", "#4c8f8c", "#7d7d2b", "#5b6878")
SPACE = 15.0  # between names

STYLE = """
  text { font-family: system-ui, "Segoe UI", Helvetica, Arial, "DejaVu Sans", sans-serif; }
  text { font-size: 12px; fill: #3b4654; } .title { font-size: 15px; font-weight: 600; }
  .paper { fill: #ffffff; } .grid { stroke: #dfe5ec; } .line { fill: none; stroke-width: 2; }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #141a22; } text { fill: #c5cfdb; } .grid { stroke: #2d3846; }
  }
"""


def chart(curves: Mapping[str, Points], title: str, across: str, up: str, limits: tuple[float, float]) -> str:
    """Return an SVG of curves by name, each a sequence of (x, y > 0); what is above the `limits` of y is left out."""
    low, high = limits
    shown = {name: [(x, y) for x, y in points if low <= y <= high] for name, points in curves.items()}
    most = max((x for points in shown.values() for x, _ in points), default=1.0)

    def place(x: float, y: float) -> tuple[float, float]:
        share = math.log(y / low) / math.log(high / low)
        return LEFT + x / most * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    body = [f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}"/>', text(LEFT, 24, title, "title")]
    for y in _steps(low, high):
        height = place(0, y)[1]
        body.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{height:.1f}" y2="{height:.1f}"/>')
        body.append(text(LEFT - 8, height + 4, f"{y:g}", anchor="end"))
    body += [text(place(x, low)[0], HEIGHT - BOTTOM + 18, f"{x:g}", anchor="middle") for x in _marks(most)]
    body.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, across, anchor="middle"))
    body.append(text(LEFT, TOP - 4, up))
    ends = []
    for colour, (name, points) in zip(_colours(len(shown)), shown.items(), strict=True):
        if points:
            placed = [place(x, y) for x, y in points]
            line = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
            body.append(f'<polyline class="line" stroke="{colour}" points="{line}"/>')
            ends.append((placed[-1], name, colour))
    body += _names(ends)
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    inside = "\n".join(body)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<style>{STYLE}</style>\n{inside}\n</svg>\n'


def _names(ends: Sequence[tuple[tuple[float, float], str, str]]) -> list[str]:
    """Write names beside the ends of lines, pushed down where they would overlap."""
    body, last = [], -math.inf
    for (x, y), name, colour in sorted(ends, key=lambda end: end[0][1]):
        last = max(y, last + SPACE)
        ends_at = f'x2="{WIDTH - RIGHT + 8}" y2="{last:.1f}"'
        body.append(f'<line x1="{x:.1f}" y1="{y:.1f}" {ends_at} stroke="{colour}" opacity="0.4"/>')
        body.append(f'<circle cx="{WIDTH - RIGHT + 12}" cy="{last:.1f}" r="4" fill="{colour}"/>')
        body.append(text(WIDTH - RIGHT + 20, last + 4, name))
    return body


def _steps(low: float, high: float) -> list[float]:
    """Return round numbers for a logarithmic axis."""
    tens = [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    return [m * ten for ten in tens for m in (1, 1.5, 2, 3, 4, 5, 6, 8) if low <= m * ten <= high]


def _marks(most: float) -> list[float]:
    """Return round numbers from 0 to `most`."""
    step = 10.0 ** math.floor(math.log10(most))
    step = next(step * share for share in (0.1, 0.2, 0.5, 1.0) if most / (step * share) <= 12)
    return [step * i for i in range(int(most / step) + 1)]


def _colours(count: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{named}>{escape(words)}</text>'
