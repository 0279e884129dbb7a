"""Which nodes may write over one of their arguments? Those that read last what the kernel itself has just made.

A kernel is functional, and large results that die at once cost page faults. Where such a result is dead after
an elementwise node and nothing else can share its memory, the node writes there. Every bit stays the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from lpc.runtime.operators import GETITEM
from lpc.specs.plan.kernel import Json, Kernel, Node

aten = torch.ops.aten

# Operators whose results are always new memory, in no case their argument's.
_FRESH = """
    add.Tensor addmm.default avg_pool2d.default avg_pool2d_backward.default bmm.default convolution.default
    convolution_backward.default gelu.default gelu_backward.default max_pool2d_with_indices.default
    max_pool2d_with_indices_backward.default mm.default mul.Tensor native_batch_norm.default
    native_batch_norm_backward.default _native_batch_norm_legit_functional.default native_layer_norm.default
    native_layer_norm_backward.default relu.default sigmoid.default sigmoid_backward.default tanh.default
    tanh_backward.default threshold_backward.default
"""
FRESH = frozenset(f"aten.{name}" for name in _FRESH.split())

Elementwise = Callable[..., Tensor]


def _alike(a: Tensor, b: Any) -> bool:
    """Would the result of a and b be laid out as either of them is? No broadcasting, promotion or reordering."""
    return isinstance(b, Tensor) and a.shape == b.shape and a.stride() == b.stride() and a.dtype == b.dtype


def _tanh(x: Tensor) -> Tensor:
    return x.tanh_() if x.is_floating_point() else torch.tanh(x)


def _sigmoid(x: Tensor) -> Tensor:
    return x.sigmoid_() if x.is_floating_point() else torch.sigmoid(x)


def _add_to_first(a: Tensor, b: Any) -> Tensor:
    return a.add_(b) if _alike(a, b) else torch.add(a, b)


def _add_to_second(a: Any, b: Tensor) -> Tensor:
    return b.add_(a) if _alike(b, a) else torch.add(a, b)


def _threshold_backward(gradient: Tensor, value: Tensor, threshold: float) -> Tensor:
    if not _alike(gradient, value):
        return aten.threshold_backward.default(gradient, value, threshold)  # type: ignore[no-any-return]
    return _threshold_into(gradient, value, threshold, grad_input=gradient)


def _tanh_backward(gradient: Tensor, value: Tensor) -> Tensor:
    if not _alike(gradient, value):
        return aten.tanh_backward.default(gradient, value)  # type: ignore[no-any-return]
    return _tanh_into(gradient, value, grad_input=gradient)


_threshold_into: Elementwise = aten.threshold_backward.grad_input._op
_tanh_into: Elementwise = aten.tanh_backward.grad_input._op

# Operator -> (number of arguments, position of the one that is written over, what does it), in order of preference.
IN_PLACE: Mapping[str, tuple[tuple[int, int, Elementwise], ...]] = {
    "aten.relu.default": ((1, 0, torch.relu_),),
    "aten.tanh.default": ((1, 0, _tanh),),
    "aten.sigmoid.default": ((1, 0, _sigmoid),),
    "aten.add.Tensor": ((2, 0, _add_to_first), (2, 1, _add_to_second)),
    "aten.threshold_backward.default": ((3, 0, _threshold_backward),),
    "aten.tanh_backward.default": ((2, 0, _tanh_backward),),
}


def reuses(kernel: Kernel, readers: Mapping[str, list[Node]]) -> dict[str, Elementwise]:
    """Return {node: the function that runs it in place} for the nodes that may write over an argument.

    `readers` are the nodes that read each value, in order.
    """
    kept = {port.value for bundle in kernel.results for port in bundle.ports}
    own = {name for name in _made(kernel, readers) if name not in kept}
    found: dict[str, Elementwise] = {}
    for node in kernel.nodes:
        for count, position, function in IN_PLACE.get(node.op, ()):
            if len(node.args) != count or node.kwargs:
                continue
            name = _name(node.args[position])
            if name in own and _reads_last(node, readers[name]):
                found[node.name] = function
                break
    return found


def _reads_last(node: Node, readers: list[Node]) -> bool:
    """Does `node` read the value last, and did nobody before it keep a view?"""
    return readers[-1] is node and all(reader.op in FRESH for reader in readers)


def _made(kernel: Kernel, readers: Mapping[str, list[Node]]) -> Iterator[str]:
    """Yield the values that are new memory: results of fresh operators, and items that are taken just once."""
    nodes = {node.name: node for node in kernel.nodes}
    for node in kernel.nodes:
        if node.op in FRESH:
            yield node.name
        elif node.op == GETITEM:
            source = nodes.get(_name(node.args[0]))
            if source is not None and source.op in FRESH:
                again = [r for r in readers[source.name] if r.op != GETITEM or r.args[1] == node.args[1]]
                if again == [node]:
                    yield node.name


def _name(value: Json) -> str:
    return str(value["ref"]) if isinstance(value, dict) and "ref" in value else ""
