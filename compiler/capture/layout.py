"""How are tensors laid out that go from kernel to kernel? Contiguously, which is how every kernel takes them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx
from torch._prims_common import is_contiguous_or_false

from lpc.specs.plan.kernel import Role

# What other kernels read; gradients, buffers and metrics go to readers that take any strides.
_HANDED: frozenset[Role] = frozenset({"output", "cotangent", "target"})


def lay_out(graph: fx.Graph, roles: Sequence[Role]) -> None:
    """Copy results that others read where a view, such as a transposition, left them in another order; in place.

    `roles` are those of the graph's results, in order.
    """
    output = graph.output_node()
    results = list(output.args[0])  # type: ignore[arg-type]
    for index, (role, node) in enumerate(zip(roles, results, strict=True)):
        if role in _HANDED and isinstance(node, fx.Node) and _is_in_another_order(node):
            results[index] = _copied(graph, output, node)
    output.args = (tuple(results),)


def _is_in_another_order(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return node.op != "placeholder" and isinstance(value, Tensor) and not is_contiguous_or_false(value)


def _copied(graph: fx.Graph, output: fx.Node, node: fx.Node) -> fx.Node:
    with graph.inserting_before(output):
        copy = graph.call_function(
            torch.ops.aten.clone.default, (node,), {"memory_format": torch.contiguous_format}
        )
    value: Tensor = node.meta["val"]
    copy.meta = {**node.meta, "val": value.new_empty(value.shape)}
    return copy
