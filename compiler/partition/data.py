"""How is a PartitionGraph plain data? As networkx's node-link form with terms as text: JSON in a plan."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import networkx as nx


def to_data(graph: nx.DiGraph[str]) -> dict[str, Any]:
    """Return a partition as JSON values: tuples become lists, links their text; equal graphs, equal data."""
    data: dict[str, Any] = json.loads(json.dumps(nx.node_link_data(graph, edges="edges"), default=str))
    return data


def from_data(data: Mapping[str, Any]) -> nx.DiGraph[str]:
    """Return the graph that `to_data` wrote down; `to_data(from_data(d)) == d`."""
    return nx.DiGraph(nx.node_link_graph(dict(data), edges="edges"))
