"""Which nodes does a traced graph need? Reads of parameters at their readers, and nothing unread."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

IN_PLACE = frozenset(
    getattr(operator, name) for name in dir(operator) if name.startswith("i") and hasattr(operator, f"__{name}__")
)
_NOT_IN_PLACE = frozenset({operator.invert, operator.is_, operator.index, operator.inv})


def split_fetches(graph: fx.Graph) -> None:
    """Give every reader of a parameter or buffer a `get_attr` of its own, at its site, in place.

    A parameter that two modules share then crosses no boundary between them.
    """
    for node in [n for n in graph.nodes if n.op == "get_attr"]:
        for user in list(node.users):
            _fetch_for(graph, node, user)
        graph.erase_node(node)


def remove_dead(graph: fx.Graph, module: torch.nn.Module) -> None:
    """Remove nodes that nobody reads and that change nothing, in place."""
    for node in reversed(list(graph.nodes)):
        if not node.users and not _matters(node, module):
            graph.erase_node(node)


def _fetch_for(graph: fx.Graph, node: fx.Node, user: fx.Node) -> None:
    with graph.inserting_before(user):
        own = graph.create_node("get_attr", node.target)
    own.meta = dict(node.meta)
    if user.op != "output":
        own.meta.update({key: user.meta[key] for key in ("path", "call", "scopes", "place") if key in user.meta})
    user.replace_input_with(node, own)


def _matters(node: fx.Node, module: torch.nn.Module) -> bool:
    if node.op in ("placeholder", "output"):
        return True
    if node.op == "call_module":
        part = module.get_submodule(str(node.target))
        return part.training and any(True for _ in part.buffers())
    if node.op == "call_method":
        return str(node.target).endswith("_") and not str(node.target).endswith("__")
    return node.op == "call_function" and _changes(node)


def _changes(node: fx.Node) -> bool:
    target: Any = node.target
    if target is operator.setitem or (target in IN_PLACE and target not in _NOT_IN_PLACE):
        return True
    name = getattr(target, "__name__", "")
    named = name.endswith("_") and not name.endswith("__")
    return named or bool(node.kwargs.get("inplace")) or "out" in node.kwargs or node.is_impure()
