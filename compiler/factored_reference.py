"""What should the Kronecker factors be? Sums of outer products, sample by sample, of what autograd leaves at a layer.

A part of the reference that `lpc verify` compares with; independent of capture, schedule and runtime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from lpc.compiler.factored import FactoredLayer
from lpc.compiler.localize import LocalProblem


def factors_of(
    network: fx.GraphModule, problems: Mapping[str, LocalProblem], outputs: Mapping[str, Tensor],
    values: Mapping[str, Any], objective: Tensor,
) -> dict[str, Tensor]:  # fmt: skip
    """Return the two factors of every layer by their outside names.

    `outputs` are the layers' own by node, `values` those of all nodes, `objective` the sum of what is descended.
    """
    nodes = {n.name: n for n in network.graph.nodes}
    found: dict[str, Tensor] = {}
    for layer in (layer for problem in problems.values() for layer in problem.factored):
        made = [outputs[layer.node]]
        slopes: Sequence[Tensor | None] = torch.autograd.grad(objective, made, retain_graph=True, allow_unused=True)
        arrived = slopes[0]
        if arrived is None:
            continue
        x = values[nodes[layer.node].all_input_nodes[0].name].detach()
        inputs, errors = layer.sizes.sources
        found[inputs] = _mean_of_products(_columns(layer, x), summed=True)
        found[errors] = _mean_of_products(_positions(layer, arrived * arrived.shape[0]), summed=False)
    return found


def _mean_of_products(rows: Tensor, summed: bool) -> Tensor:
    """Return the mean of outer products of [samples, positions, size] over samples, and a sum or mean of positions."""
    total = torch.stack([torch.einsum("pi,pj->ij", own, own) for own in rows]).mean(0)
    return total if summed else total / rows.shape[1]


def _positions(layer: FactoredLayer, a: Tensor) -> Tensor:
    """Return what is like a layer's output as [samples, positions, outputs]."""
    moved = a if layer.design.unfold is None else a.movedim(1, -1)
    return moved.reshape(len(a), -1, layer.sizes.outputs)


def _columns(layer: FactoredLayer, x: Tensor) -> Tensor:
    """Return a layer's input as [samples, positions, inputs]: of a convolution what its kernel covers."""
    unfold = layer.design.unfold
    rows = x.reshape(len(x), -1, x.shape[-1]) if unfold is None else _covered(x, **unfold)
    return rows if layer.design.bias is None else torch.cat([rows, torch.ones_like(rows[..., :1])], -1)


def _covered(
    x: Tensor, kernel_size: tuple[int, int], dilation: tuple[int, int], padding: tuple[int, int],
    stride: tuple[int, int],
) -> Tensor:  # fmt: skip
    wide = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    size = [(wide.shape[2 + i] - dilation[i] * (kernel_size[i] - 1) - 1) // stride[i] + 1 for i in (0, 1)]
    shifts = [
        wide[:, :, i * dilation[0] :: stride[0], j * dilation[1] :: stride[1]][:, :, : size[0], : size[1]]
        for i in range(kernel_size[0])
        for j in range(kernel_size[1])
    ]
    stacked = torch.stack(shifts, 2)  # [samples, channels, kernel, height, width]
    return stacked.flatten(1, 2).flatten(2).transpose(1, 2)
