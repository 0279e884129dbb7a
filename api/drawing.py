"""What does a partition look like at a glance? A PartitionGraph as one self-contained SVG drawing."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any
from xml.sax.saxutils import escape

import networkx as nx

from lpc.layout import Cell, Layout, layered
from lpc.views.units import count, size

MARGIN, PADDING = 24.0, 14.0
NAME, LINE, SMALL = 15.0, 12.0, 11.0  # font sizes
GLYPH = 0.58  # mean width of a glyph in font sizes: wide enough for the usual sans-serif fonts
TENSORS_SHOWN = 3

# Plain colours, because many viewers know neither custom properties nor media queries.
STYLE = """
  text { font-family: system-ui, "Segoe UI", Helvetica, Arial, "DejaVu Sans", sans-serif; }
  .paper { fill: #ffffff; }
  .name { font-size: 15px; font-weight: 600; fill: #1b2430; }
  .figure { font-size: 12px; fill: #5b6878; } .label { font-size: 11px; fill: #5b6878; }
  .block { fill: #f1f6fc; stroke: #2f6fb3; stroke-width: 1.5; }
  .outside { fill: none; stroke: #8a97a8; stroke-width: 1.2; }
  .arrow { fill: none; stroke: #2f6fb3; stroke-width: 1.6; } .plain { stroke: #8a97a8; }
  .stop { stroke-dasharray: 6 4; } .tip { fill: #2f6fb3; } .plaintip { fill: #8a97a8; }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #141a22; } .name { fill: #e6ebf2; } .figure, .label { fill: #9fadbf; }
    .block { fill: #202a36; stroke: #7db4ee; } .arrow { stroke: #7db4ee; } .tip { fill: #7db4ee; }
    .plain { stroke: #6d7b8d; } .plaintip { fill: #6d7b8d; }
  }
"""


def to_svg(graph: nx.DiGraph[str]) -> str:
    """Return an SVG: blocks with parameters, operations and activation bytes per sample, and what crosses.

    A dashed arrow is a `stop` link, a solid one carries gradient (any other link is named on its arrow); grey
    arrows come from the network's inputs and go to its output.
    """
    drawn = _with_outside(graph)
    texts = {node: _node_lines(node, data) for node, data in drawn.nodes(data=True)}
    labels = {(a, b): _edge_lines(data) for a, b, data in drawn.edges(data=True)}
    layout = layered(
        drawn,
        {node: _box_size(lines) for node, lines in texts.items()},
        {edge: _label_size(lines) for edge, lines in labels.items()},
    )
    body = [_arrow(drawn.edges[edge], edge, layout) for edge in drawn.edges]
    body += [_label(lines, layout.chains[edge][0]) for edge, lines in labels.items() if lines]
    body += [_box(lines, layout.boxes[node], node in graph) for node, lines in texts.items()]
    return _document(layout.width, layout.height, "\n".join(body))


def _with_outside(graph: nx.DiGraph[str]) -> nx.DiGraph[str]:
    """Add the network's inputs and output, which are no blocks, as nodes that no block can be named like."""
    drawn: nx.DiGraph[str] = nx.DiGraph()
    reads = {(f"input {name}", b) for b, data in graph.nodes(data=True) for name in data["reads"]}
    for name in graph.graph["inputs"]:
        drawn.add_node(f"input {name}", title=name)
    drawn.add_nodes_from(graph.nodes(data=True))
    drawn.add_edges_from(sorted(reads))
    drawn.add_edges_from(graph.edges(data=True))
    if graph.graph.get("output_block") is not None:
        drawn.add_node("output of network", title="output")
        drawn.add_edge(graph.graph["output_block"], "output of network")
    return drawn


def _node_lines(node: str, data: Mapping[str, Any]) -> list[str]:
    if "title" in data:
        return [data["title"]]
    return [
        node,
        f"{count(data['num_parameters'])} parameters",
        f"{count(data['flops'])} flops · {size(data['activation_bytes'])}",
    ]


def _edge_lines(data: Mapping[str, Any]) -> list[str]:
    tensors = data.get("tensors", ())
    lines = [_tensor(tensor) for tensor in tensors[:TENSORS_SHOWN]]
    if len(tensors) > TENSORS_SHOWN:
        lines.append(f"and {len(tensors) - TENSORS_SHOWN} more")
    link = str(data.get("link", "stop"))
    return lines if link in ("stop", "gradient") else [link, *lines]


def _tensor(tensor: Mapping[str, Any]) -> str:
    shape = "×".join(map(str, tensor["shape"])) or "1"
    return f"{tensor['name']} {shape} · {size(tensor['bytes'])}"


def _box_size(lines: list[str]) -> tuple[float, float]:
    figures = max((len(line) for line in lines[1:]), default=0) * LINE * GLYPH
    width = max(len(lines[0]) * NAME * GLYPH, figures) + 2 * PADDING
    return width, NAME + (len(lines) - 1) * (LINE + 5) + 2 * PADDING - (6 if len(lines) == 1 else 0)


def _label_size(lines: list[str]) -> tuple[float, float]:
    return max((len(line) for line in lines), default=0) * SMALL * GLYPH + 12, len(lines) * (SMALL + 3)


def _box(lines: list[str], cell: Cell, is_block: bool) -> str:
    left, kind, radius = (
        cell.x - cell.left,
        "block" if is_block else "outside",
        8 if is_block else cell.height / 2,
    )
    rect = (
        f'<rect class="{kind}" x="{left:.1f}" y="{cell.y:.1f}" width="{cell.left + cell.right:.1f}"'
        f' height="{cell.height:.1f}" rx="{radius:.1f}"/>'
    )
    top = cell.y + (cell.height - (len(lines) - 1) * (LINE + 5)) / 2 + NAME * 0.35
    texts = [
        f'<text class="{"figure" if i else "name"}" x="{cell.x:.1f}" y="{top + i * (LINE + 5):.1f}"'
        f' text-anchor="middle">{escape(line)}</text>'
        for i, line in enumerate(lines)
    ]
    return "\n".join([rect, *texts])


def _label(lines: list[str], cell: Cell) -> str:
    """Write an edge's tensors right of its line."""
    x, top = cell.x + 8, cell.y + SMALL
    return "\n".join(
        f'<text class="label" x="{x:.1f}" y="{top + i * (SMALL + 3):.1f}">{escape(line)}</text>'
        for i, line in enumerate(lines)
    )


def _arrow(data: Mapping[str, Any], edge: tuple[str, str], layout: Layout) -> str:
    """Draw a smooth line through the edge's cells, straight beside its label."""
    start, end = (layout.boxes[node] for node in edge)
    points = [(start.x, start.y + start.height)]
    for cell in layout.chains[edge]:
        points += [(cell.x, cell.y), (cell.x, cell.y + cell.height)]
    points.append((end.x, end.y - 8))
    path = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for (ax, ay), (bx, by) in pairwise(points):
        bend = (ay + by) / 2
        path += f" C{ax:.1f} {bend:.1f} {bx:.1f} {bend:.1f} {bx:.1f} {by:.1f}"
    line, tip = _classes(data)
    return (
        f'<path class="{line}" d="{path}"/>\n'
        f'<path class="{tip}" d="M{end.x:.1f} {end.y - 1:.1f} l-4.5 -9 h9 z"/>'
    )


def _classes(data: Mapping[str, Any]) -> tuple[str, str]:
    if "link" not in data:
        return "arrow plain", "plaintip"
    return ("arrow stop" if str(data["link"]) == "stop" else "arrow"), "tip"


def _document(width: float, height: float, body: str) -> str:
    wide, high = max(width, 300.0) + 2 * MARGIN, height + 2 * MARGIN + 34
    legend = height + MARGIN + 26
    box = f'viewBox="0 0 {wide:.0f} {high:.0f}" width="{wide:.0f}" height="{high:.0f}"'
    return f"""<svg xmlns="http://www.w3.org/2000/svg" {box} role="img">
<title>Partition of the network into blocks</title>
<style>{STYLE}</style>
<rect class="paper" width="{wide:.0f}" height="{high:.0f}"/>
<g transform="translate({MARGIN + max(300.0 - width, 0.0) / 2:.1f} {MARGIN:.1f})">
{body}
</g>
<g transform="translate({MARGIN:.1f} {legend:.1f})">
<path class="arrow" d="M0 0 h34"/><text class="label" x="42" y="4">gradient or other link</text>
<path class="arrow stop" d="M180 0 h34"/><text class="label" x="222" y="4">stop</text>
</g>
</svg>
"""
