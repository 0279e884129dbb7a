"""Who computed when? A line for each rank and a box for each stretch of a step, in one SVG."""

from __future__ import annotations

from collections.abc import Sequence

from chart import COLOURS, STYLE, text

from lpc.runtime.tracing import COMPUTES, Span

WIDTH, LEFT, TOP, ROW = 900, 70, 60, 34


def drawing(ranks: Sequence[Sequence[Span]], title: str) -> str:
    """Return an SVG of what ranks computed; a box's colour is its step's, what is empty was waiting."""
    spans = [span for own in ranks for span in own]
    start, end = min(span.start for span in spans), max(span.start + span.seconds for span in spans)
    scale, height = (WIDTH - LEFT - 20) / (end - start), TOP + ROW * len(ranks) + 40
    body = [f'<rect class="paper" width="{WIDTH}" height="{height}"/>', text(LEFT, 24, title, "title")]
    for rank, own in enumerate(ranks):
        y = TOP + ROW * rank
        body.append(text(LEFT - 8, y + 17, f"rank {rank}", anchor="end"))
        for span in own:
            if span.kind == COMPUTES:
                x, width = LEFT + (span.start - start) * scale, max(span.seconds * scale, 0.2)
                place = f'x="{x:.1f}" y="{y}" width="{width:.1f}" height="24"'
                named = f"<title>step {span.step}: {span.name}, {1e3 * span.seconds:.2f} ms</title>"
                body.append(f'<rect {place} fill="{COLOURS[span.step % len(COLOURS)]}">{named}</rect>')
    foot = f"{1e3 * (end - start):.0f} ms; a colour for each step; empty: waiting or sending"
    body.append(text(LEFT, height - 14, foot))
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    inside = "\n".join(body)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<style>{STYLE}</style>\n{inside}\n</svg>\n'
