"""What should the first gradient towards a target be? Autograd to the pre-activation, and from there to the weights.

A part of the reference that `lpc verify` compares with; independent of capture, schedule and runtime.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from lpc.compiler.aimed_solution import solution
from lpc.compiler.capture.design import design_of
from lpc.compiler.localize import LocalProblem
from lpc.compiler.targets import Target


def aimed(
    network: fx.GraphModule, tied: Mapping[str, str], problems: Mapping[str, LocalProblem],
    leaves: Mapping[str, Tensor], values: Mapping[str, Any], objective: Tensor,
) -> dict[str, Tensor]:  # fmt: skip
    """Return for each parameter of a block with a target the gradient of its local problem, at the present weights.

    `values` are those of all nodes by name, `objective` the sum of all losses, as far as links let them pass.
    """
    found: dict[str, Tensor] = {}
    for problem in problems.values():
        if problem.target is None or problem.target.differs or not problem.trainable:
            continue
        start = values[problem.target.node]
        (arrived,) = torch.autograd.grad(objective, [start], retain_graph=True)
        left = _residual(problem.target, start.detach(), arrived)[:: problem.target.every]
        own = [leaves[name] for name in problem.trainable]
        if problem.by_formula:
            found.update(_solved(network, tied, problem, leaves, values, left))
            continue
        everywhere = torch.zeros_like(start)
        everywhere[:: problem.target.every] = left
        gradients = torch.autograd.grad([start], own, [everywhere], retain_graph=True, allow_unused=True)
        found.update({n: g for n, g in zip(problem.trainable, gradients, strict=True) if g is not None})
    return found


def _solved(
    network: fx.GraphModule, tied: Mapping[str, str], problem: LocalProblem,
    leaves: Mapping[str, Tensor], values: Mapping[str, Any], left: Tensor,
) -> dict[str, Tensor]:  # fmt: skip
    target = problem.target
    assert target is not None, "a block with a target"
    node = next(n for n in network.graph.nodes if n.name == target.node)
    names = dict(network.named_parameters(remove_duplicate=False))
    design = design_of(network, node, {n: tied.get(n, n) for n in names if tied.get(n, n) in problem.trainable})
    state = {name: leaves[name].detach() for name in problem.trainable}
    x, start = (values[name].detach()[:: target.every] for name in (node.all_input_nodes[0].name, target.node))
    return solution(target, design, x, start, left, state)


def _residual(target: Target, start: Tensor, arrived: Tensor) -> Tensor:
    """Return (f(A) - T), divided as the local loss is."""
    way = arrived
    if target.natural:
        rows = arrived.movedim(1, -1) if arrived.dim() == 4 else arrived
        flat = rows.reshape(-1, rows.shape[-1])
        second = arrived.shape[0] * flat.T @ flat + target.damping * torch.eye(flat.shape[1])
        turned = (flat @ torch.linalg.inv(second)).reshape(rows.shape)
        way = turned.movedim(-1, 1) if arrived.dim() == 4 else turned
    value = target.f.f(start)
    towards = value - target.step * way
    if target.clips:
        towards = towards.clamp(target.f.low, target.f.high)
    samples = len(start[:: target.every])
    counts = {"sum": 1, "mean": start[0].numel() * samples, "batchmean": samples}
    return (value - towards) / counts[target.reduction]
