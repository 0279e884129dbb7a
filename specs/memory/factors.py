"""How much memory do Kronecker factors take? Two matrices a layer and their inverses, and what a step makes of them."""

from __future__ import annotations

from collections.abc import Mapping

from lpc.specs.memory.sizes import WIDTHS
from lpc.specs.plan.kernel import TensorType
from lpc.specs.plan.plan import Factored, Optimizer

COUNT = 4  # bytes of a layer's number of steps


def kept_for_factors(optimizer: Optimizer, types: Mapping[str, TensorType]) -> int:
    """Return the bytes of all factors and their inverses that an optimizer keeps."""
    return sum(2 * sum(_factors(layer, types)) + COUNT for layer in optimizer.factors)


def made_by_factors(optimizer: Optimizer, types: Mapping[str, TensorType]) -> int:
    """Return the most bytes that a step makes for one layer: some like its gradient, or two like a factor.

    Nothing where the optimizer takes no factors.
    """
    made = [
        max((2 + _copies(optimizer, layer)) * _joined(layer, types), 2 * max(_factors(layer, types)))
        for layer in optimizer.factors
    ]
    return max(made, default=0)


def _copies(optimizer: Optimizer, layer: Factored) -> bool:
    """Is a layer's gradient put together from parts, or with a decay?"""
    decays = any({**optimizer.options, **g.options}.get("weight_decay") for g in optimizer.groups)
    return bool(layer.bias) or decays


def _factors(layer: Factored, types: Mapping[str, TensorType]) -> tuple[int, int]:
    width = WIDTHS[types[layer.weight].dtype]
    return layer.inputs * layer.inputs * width, layer.outputs * layer.outputs * width


def _joined(layer: Factored, types: Mapping[str, TensorType]) -> int:
    return layer.inputs * layer.outputs * WIDTHS[types[layer.weight].dtype]
