"""How is a difference told? In text, as plain data, and as a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from html import escape
from importlib.resources import files
from typing import Any, NamedTuple

from rich.console import RenderableType
from rich.markup import escape as marked

from lpc.difference import Difference
from lpc.views.tables import table
from lpc.views.units import count, size

UNITS = {"flops": count, "traffic": size, "memory": size, "resident": size}
MEANINGS = {"flops": "operations", "traffic": "crosses boundaries", "memory": "peak memory", "resident": "stays"}


class Part(NamedTuple):
    """One part of the difference as a table of texts."""

    title: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]


def shown(found: Difference) -> Iterator[RenderableType]:
    """Yield a table for each part that differs, then the lines of the specs."""
    if found.same:
        yield "the plans are the same, byte for byte"
        return
    for part in parts(found):
        yield f"{part.title}"
        made = table(*part.head)
        for row in part.rows:
            made.add_row(*map(marked, row))
        yield made
        yield ""
    yield "spec\n" + "\n".join(found.spec) if found.spec else "the specs are the same"


def plain(found: Difference) -> dict[str, Any]:
    """Return everything as plain data."""
    return asdict(found)


def page(found: Difference) -> str:
    """Return a page that holds everything and loads nothing."""
    style = files("lpc.views.html").joinpath("style.css").read_text(encoding="utf-8")
    title = escape(f"{found.names[0]} and {found.names[1]}")
    tables = "".join(map(_html, parts(found))) or "<p>No figure differs.</p>"
    spec = f"<h3>spec</h3><pre>{''.join(map(_line, found.spec))}</pre>" if found.spec else ""
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{title} · lpc diff</title><style>{style}{EXTRA}</style></head>"
        f'<body><header><h1>{title}</h1></header><main><section id="panel">{tables}{spec}</section></main>'
        "</body></html>\n"
    )


EXTRA = """
@media (prefers-color-scheme: dark) { :root { --paper: #141a22; --side: #1a222c; --ink: #e6ebf2; --soft: #9fadbf; } }
.added { color: #1a7f37; } .gone { color: #cf222e; }
"""


def parts(found: Difference) -> list[Part]:
    """Return the parts in which something differs, as tables of texts."""
    every = [
        Part("blocks", ("", "blocks"), [(word, ", ".join(names)) for word, names in found.blocks.items()]),
        Part("moved between blocks", ("before", "after", "parameters"),
             [(m.before or "-", m.after or "-", _names(m.parameters)) for m in found.moved]),
        Part("links", ("boundary", "before", "after"), [(n, a or "-", b or "-") for n, (a, b) in found.links.items()]),
        Part("gradients", ("block", "gained from", "lost from", "parameters"),
             [(g.block, _names(g.gained), _names(g.lost), _names(g.parameters)) for g in found.gradients]),
        Part("optimizers", ("block", "before", "after"),
             [(n, a or "-", b or "-") for n, (a, b) in found.optimizers.items()]),
        Part("operations of a step", ("block", "before", "after", ""),
             [(n, count(a), count(b), _ratio(a, b)) for n, (a, b) in found.flops.items()]),
        Part("most held by a block's instructions", ("block", "before", "after", ""),
             [(n, size(a), size(b), _ratio(a, b)) for n, (a, b) in found.memory.items()]),
        Part("a step", ("", "before", "after", ""), [
            (MEANINGS[n], UNITS[n](a), UNITS[n](b), _ratio(a, b)) for n, (a, b) in found.totals.items() if a != b
        ]),
    ]  # fmt: skip
    return [part for part in every if part.rows]


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{names[0]}, ... {names[-1]} ({len(names)})"


def _ratio(before: int, after: int) -> str:
    return f"{100 * (after - before) / before:+.1f} %" if before else "new"


def _html(part: Part) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in part.head)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in part.rows)
    return f"<h3>{escape(part.title)}</h3><table><tr>{head}</tr>{rows}</table>"


def _line(line: str) -> str:
    kind = {"+": "added", "-": "gone"}.get(line[:1], "soft")
    return f'<span class="{kind}">{escape(line)}</span>\n'
