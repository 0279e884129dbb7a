"""How does a plan leave for Model Explorer? Its operators as nodes, in namespaces of blocks and modules, as JSON.

The format is that of https://github.com/google-ai-edge/model-explorer (a graph collection); no torch needed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from lpc.plan import Plan
from lpc.specs.flops import kernel_flops
from lpc.specs.plan.kernel import Kernel
from lpc.views.html.tree import Item, items_of


def to_model_explorer(plan: Plan) -> str:
    """Return the operators of prediction, block by block, with types, operations and what each reads."""
    makers: dict[str, str] = {}
    nodes: list[dict[str, Any]] = []
    for name in plan.data.partition["graph"]["inputs"]:
        makers[name] = f"input {name}"
        nodes.append({"id": makers[name], "label": name, "namespace": "", "attrs": [], "incomingEdges": []})
    for block in plan.data.partition["nodes"]:
        kernel = plan.data.kernels["native"].get(f"{block['id']}.predict")
        if kernel is not None:
            nodes += _nodes(kernel, dict(kernel_flops(kernel, plan.lengths(1))), makers)
    graph = {"id": plan.spec.name, "nodes": nodes}
    return json.dumps({"label": plan.spec.name, "graphs": [graph]}, indent=1) + "\n"


def _nodes(kernel: Kernel, flops: dict[str, int], makers: dict[str, str]) -> Iterator[dict[str, Any]]:
    own: dict[str, str] = {}
    for item in items_of(kernel, flops):
        if item.kind == "in":
            own[item.name] = makers.get(item.name, item.name)
        elif item.kind == "out":
            makers.update((item.title, own[source]) for source in item.sources[:1])
        else:
            own[item.name] = f"{kernel.block}/{item.name}"
            yield _node(kernel.block, item, own)


def _node(block: str, item: Item, own: dict[str, str]) -> dict[str, Any]:
    attributes = [{"key": "type", "value": item.detail}]
    attributes += [{"key": "flops", "value": str(item.flops)}] if item.flops else []
    sources = [own[source] for source in item.sources if source in own]
    return {
        "id": own[item.name],
        "label": item.title,
        "namespace": "/".join((block, *item.path)),
        "attrs": attributes,
        "incomingEdges": [
            {"sourceNodeId": source, "sourceNodeOutputId": "0", "targetNodeInputId": str(index)}
            for index, source in enumerate(sources)
        ],
    }
