"""Which values do parameters move? All that are computed from one; others are the same whatever a network learned."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves


def learned(network: fx.GraphModule) -> frozenset[str]:
    """Return the nodes whose tensors depend on a parameter's. A mask, or what is made of inputs alone, does not."""
    known: frozenset[str] | None = network.meta.get("learned")
    if known is None:
        known = network.meta["learned"] = _learned(network)
    return known


def _learned(network: fx.GraphModule) -> frozenset[str]:
    found: set[str] = set()
    for node in network.graph.nodes:
        moved = _reads_parameters(network, node) or any(n.name in found for n in node.all_input_nodes)
        if moved and _has_tensors(node):  # its shape or dtype alone is nothing that weights move
            found.add(node.name)
    return frozenset(found)


def _reads_parameters(network: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return any(True for _ in network.get_submodule(str(node.target)).parameters())
    return node.op == "get_attr" and isinstance(_attribute(network, str(node.target)), nn.Parameter)


def _has_tensors(node: fx.Node) -> bool:
    return any(isinstance(value, Tensor) for value in tree_leaves(node.meta.get("val")))


def _attribute(network: fx.GraphModule, target: str) -> Any:
    owner, _, name = target.rpartition(".")
    return getattr(network.get_submodule(owner), name)
