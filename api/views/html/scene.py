"""Where does everything stand on the page? Nested graphs with places, each stored once however often it occurs.

A graph is `{w, h, nodes, edges}`; a node has its middle `x`, its top `y`, its size `w`, `h`, a title `n`, a detail `t`,
a kind `k`, operations `f`, and the number `g` of the graph inside it. Runs of equal blocks or modules are folded into a
node of kind `fold`, whose graph holds them one by one. Positions are whole pixels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import groupby
from typing import Any

import networkx as nx

from lpc.layout import layered
from lpc.plan import Plan
from lpc.specs.flops import kernel_flops
from lpc.specs.memory.sizes import Lengths
from lpc.views.html.tree import Graph, Member, inside
from lpc.views.units import count, size

Node = dict[str, Any]
Edge = dict[str, Any]
FOLDED = 3  # equal neighbours in a row, from which on they are one
TITLE, DETAIL, GLYPH = 13.0, 11.0, 0.62  # sizes of fonts, and the mean width of a glyph in them
PADDING, LINE = 11.0, 15.0


@dataclass
class Scene:
    """Graphs by number. `known` finds one that is there already, `forms` tells which are equal but for their names."""

    graphs: list[dict[str, Any]] = field(default_factory=list)
    known: dict[str, int] = field(default_factory=dict)
    forms: list[str] = field(default_factory=list)

    def add(self, nodes: list[Node], edges: list[Edge]) -> int:
        """Return the number of a graph, which is folded, laid out and stored if it is new."""
        key = json.dumps([nodes, edges], sort_keys=True)
        if key not in self.known:
            self.known[key] = self.store(*self.folded(nodes, edges), self.form(nodes, edges))
        return self.known[key]

    def store(self, nodes: Sequence[Node], edges: Sequence[Edge], form: str) -> int:
        self.graphs.append(_placed(nodes, edges))
        self.forms.append(form)
        return len(self.graphs) - 1

    def form(self, nodes: Sequence[Node], edges: Sequence[Edge]) -> str:
        """Return what graphs have in common that differ in the names of modules and values alone."""
        told = [[n["n"] if n["k"] == "op" else "", n["k"], self.likeness(n, "")] for n in nodes]
        return sha256(json.dumps([told, [[e["a"], e["b"]] for e in edges]]).encode()).hexdigest()

    def likeness(self, node: Node, otherwise: object) -> object:
        """What equal neighbours have in common; a node without a graph has nothing."""
        return [self.forms[node["g"]], node["t"], node.get("f")] if "g" in node else otherwise

    def inner(self, graph: Graph) -> int:
        """Store the graph of a block or a module, the innermost first."""
        nodes = [self.member(member) for member in graph.members]
        return self.add(nodes, [{"a": a, "b": b} for a, b in graph.edges])

    def member(self, member: Member) -> Node:
        node: Node = {"n": member.title, "t": member.detail, "k": member.kind}
        node |= {"f": member.flops} if member.flops else {}
        return node | ({"g": self.inner(member.inner)} if member.inner is not None else {})

    def folded(self, nodes: list[Node], edges: list[Edge]) -> tuple[list[Node], list[Edge]]:
        """Put runs of equal nodes, each of which has a graph, into one node."""
        runs = [list(run) for _, run in groupby(range(len(nodes)), lambda index: self.likeness(nodes[index], index))]
        if all(len(run) < FOLDED for run in runs) or len(runs) == 1:
            return nodes, edges
        groups = [part for run in runs for part in ([run] if len(run) >= FOLDED else [[one] for one in run])]
        place = {index: number for number, group in enumerate(groups) for index in group}
        made = [nodes[group[0]] if len(group) == 1 else self.fold(group, nodes, edges) for group in groups]
        kept: dict[tuple[int, int], Edge] = {}
        for edge in edges:
            ends = place[edge["a"]], place[edge["b"]]
            if ends[0] != ends[1]:
                kept.setdefault(ends, {**edge, "a": ends[0], "b": ends[1]})
        return made, list(kept.values())

    def fold(self, group: Sequence[int], nodes: Sequence[Node], edges: Sequence[Edge]) -> Node:
        place = {index: number for number, index in enumerate(group)}
        inside = [{**e, "a": place[e["a"]], "b": place[e["b"]]} for e in edges if e["a"] in place and e["b"] in place]
        first, last = nodes[group[0]], nodes[group[-1]]
        held = [nodes[index] for index in group]
        return {
            "n": f"{first['n']} … {last['n']}", "t": f"{len(group)} equal", "k": "fold", "c": len(group),
            "f": sum(node.get("f", 0) for node in held), "g": self.store(held, inside, self.form(held, inside)),
        }  # fmt: skip


def scene(plan: Plan, lengths: Lengths) -> dict[str, Any]:
    """Return a plan's graphs and the number of the outermost, which has blocks, inputs, readouts and the output."""
    found, kernels = Scene(), plan.data.kernels["native"]
    data = plan.data.partition
    nodes: list[Node] = [{"n": name, "t": "input", "k": "in"} for name in data["graph"]["inputs"]]
    place = {f"input {node['n']}": index for index, node in enumerate(nodes)}
    for node in data["nodes"]:
        place[node["id"]] = len(nodes)
        nodes.append(_block(found, node, kernels.get(f"{node['id']}.predict"), lengths))
    edges: list[Edge] = [{"a": place[f"input {n}"], "b": place[b["id"]]} for b in data["nodes"] for n in b["reads"]]
    edges += [_boundary(edge, place) for edge in data["edges"]]
    if data["graph"].get("output_block") in place:
        edges.append({"a": place[data["graph"]["output_block"]], "b": len(nodes)})
        nodes.append({"n": "output", "t": str(data["graph"].get("output", "")), "k": "out"})
    for name, readout in plan.spec.readouts.items():
        edges += [{"a": place[one], "b": len(nodes), "link": "stop"} for one in readout.from_ if one in place]
        nodes.append({"n": name, "t": "readout", "k": "block", "b": name})
    return {"root": found.add(nodes, edges), "graphs": found.graphs}


def _block(found: Scene, node: Mapping[str, Any], kernel: Any, lengths: Lengths) -> Node:
    detail = f"{count(node['num_parameters'])} parameters · {count(node['flops'])} flops"
    block: Node = {"n": node["id"], "t": detail, "k": "block", "b": node["id"]}
    if kernel is None or not kernel.nodes:
        return block
    shared, graph = inside(kernel, kernel_flops(kernel, {**lengths, "B": 1}))
    return block | {"p": ".".join(shared), "f": node["flops"], "g": found.inner(graph)}


def _boundary(edge: Mapping[str, Any], place: Mapping[str, int]) -> Edge:
    tensors = [f"{t['name']} {'×'.join(map(str, t['shape'])) or '1'} · {size(t['bytes'])}" for t in edge["tensors"]]
    more = [f"and {len(tensors) - 2} more"] if len(tensors) > 3 else tensors[2:]
    return {"a": place[edge["source"]], "b": place[edge["target"]], "link": str(edge["link"]), "l": tensors[:2] + more}


def _placed(nodes: Sequence[Node], edges: Sequence[Edge]) -> dict[str, Any]:
    """Lay a graph out from top to bottom; an edge against the order of the program is drawn backwards."""
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(str(index) for index in range(len(nodes)))
    ends = [(str(min(edge["a"], edge["b"])), str(max(edge["a"], edge["b"]))) for edge in edges]
    graph.add_edges_from(ends)
    sizes = {str(index): _size(node) for index, node in enumerate(nodes)}
    labels = {(a, b): _label(edge) for (a, b), edge in zip(ends, edges, strict=True)}
    layout = layered(graph, sizes, labels)
    boxes = [layout.boxes[str(index)] for index in range(len(nodes))]
    return {
        "w": round(layout.width), "h": round(layout.height),
        "nodes": [
            {**node, "x": round(box.x), "y": round(box.y), "w": round(sizes[str(i)][0]), "h": round(box.height)}
            for i, (node, box) in enumerate(zip(nodes, boxes, strict=True))
        ],
        "edges": [
            {**edge, "p": [v for cell in layout.chains[a, b] for v in _points(cell)]}
            for edge, (a, b) in zip(edges, ends, strict=True)
        ],
    }  # fmt: skip


def _points(cell: Any) -> list[int]:
    """The top of a cell that an edge passes, and its bottom where that is elsewhere."""
    ends = [cell.y, cell.y + cell.height] if cell.height else [cell.y]
    return [value for y in ends for value in (round(cell.x), round(y))]


def _size(node: Node) -> tuple[float, float]:
    width = max(len(node["n"]) * TITLE, len(node["t"]) * DETAIL) * GLYPH + 2 * PADDING + (14 if "g" in node else 0)
    return round(max(width, 40.0)), PADDING + (2 if node["t"] else 1) * LINE + 4


def _label(edge: Edge) -> tuple[float, float]:
    lines = _told(edge)
    return max((len(line) for line in lines), default=0) * DETAIL * GLYPH + 12, len(lines) * (DETAIL + 3)


def _told(edge: Edge) -> list[str]:
    link = str(edge.get("link", "stop"))
    return [*([] if link in ("stop", "gradient") else [link]), *edge.get("l", ())]
