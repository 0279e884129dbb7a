"""How does a partition leave as a graph? GraphML, DOT, JSON and SVG of a PartitionGraph; no torch needed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import networkx as nx

from lpc.drawing import to_svg

__all__ = ["from_data", "from_json", "to_dot", "to_graphml", "to_json", "to_svg"]

SCALARS = (bool, int, float, str)


def from_data(data: Mapping[str, Any]) -> nx.DiGraph[str]:
    """Return the PartitionGraph of a plan's `partition`, which is networkx node-link data; links are text."""
    return nx.DiGraph(nx.node_link_graph(dict(data), edges="edges"))


def to_json(graph: nx.DiGraph[str]) -> str:
    """Return node-link JSON; `from_json` reads it back, with lists for tuples and text for links."""
    return json.dumps(nx.node_link_data(graph, edges="edges"), default=str, indent=1)


def from_json(text: str) -> nx.DiGraph[str]:
    """Return the graph that `to_json` wrote."""
    return from_data(json.loads(text))


def to_graphml(graph: nx.DiGraph[str]) -> str:
    """Return GraphML. Its attributes are scalars: lists and mappings become JSON text, links their text."""
    flat: nx.DiGraph[str] = nx.DiGraph(**_flat(graph.graph))
    flat.add_nodes_from((block, _flat(attributes)) for block, attributes in graph.nodes(data=True))
    flat.add_edges_from((one, other, _flat(data)) for one, other, data in graph.edges(data=True))
    return "\n".join(nx.generate_graphml(flat, encoding="utf-8")) + "\n"


def to_dot(graph: nx.DiGraph[str]) -> str:
    """Return Graphviz text: a box for each block, a dashed arrow for `stop`, a solid one for other links."""
    lines = ["digraph partition {", '  node [shape=box, style=rounded, fontname="sans-serif"];']
    for block, data in graph.nodes(data=True):
        label = f"{block}\n{data['num_parameters']} parameters\n{data['flops']} flops"
        lines.append(f"  {_quoted(block)} [label={_quoted(label)}];")
    for one, other, data in graph.edges(data=True):
        label = "\n".join(f"{t['name']} {t['dtype']}{t['shape']}" for t in data["tensors"])
        style = "dashed" if str(data["link"]) == "stop" else "solid"
        lines.append(f"  {_quoted(one)} -> {_quoted(other)} [label={_quoted(label)}, style={style}];")
    return "\n".join([*lines, "}", ""])


def _flat(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _scalar(value) for key, value in attributes.items() if value is not None}


def _scalar(value: Any) -> bool | int | float | str:
    if isinstance(value, SCALARS):
        return value
    return json.dumps(value, default=str) if isinstance(value, tuple | list | dict) else str(value)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
