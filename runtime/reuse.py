"""How does a node write over one of its arguments? By a function that does so where the layouts are alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lpc.specs.plan.kernel import Kernel
from lpc.specs.plan.overwrite import overwritten

aten = torch.ops.aten

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


def _subtract_from_first(a: Tensor, b: Any) -> Tensor:
    return a.sub_(b) if _alike(a, b) else torch.sub(a, b)


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

# Operator -> position of the argument that is written over -> what does it.
IN_PLACE: Mapping[str, Mapping[int, Elementwise]] = {
    "aten.relu.default": {0: torch.relu_},
    "aten.tanh.default": {0: _tanh},
    "aten.sigmoid.default": {0: _sigmoid},
    "aten.add.Tensor": {0: _add_to_first, 1: _add_to_second},
    "aten.sub.Tensor": {0: _subtract_from_first},
    "aten.threshold_backward.default": {0: _threshold_backward},
    "aten.tanh_backward.default": {0: _tanh_backward},
}


def reuses(kernel: Kernel) -> dict[str, Elementwise]:
    """Return {node: the function that runs it in place} for the nodes that may write over an argument."""
    operators = {node.name: node.op for node in kernel.nodes}
    return {name: IN_PLACE[operators[name]][position] for name, position in overwritten(kernel).items()}
