"""What should blocks learn from targets that inverses carry? Lee et al. 2015, layer by layer, on eager values.

A part of the reference that `lpc verify` compares with; independent of capture, schedule and runtime.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lpc.compiler.eager import Boundary, Crossing, Walk, stopped
from lpc.compiler.localize import LocalProblem
from lpc.compiler.targets import Carrying

Values = Mapping[str, Any]


def noisy(walk: Walk, problem: LocalProblem, batch: Mapping[str, Tensor], values: Values) -> tuple[Tensor, Values]:
    """Return what a block computes of its input with noise on it, and all values with that input among them.

    The network runs once more with the same masks; only this block reads the other input.
    """
    assert problem.target is not None, "a block with a target"
    carrying = problem.target.carrying
    assert carrying is not None, "targets go on over the block"
    beside = replace(walk, watched=frozenset(), kept={})
    there = values[carrying.read].detach()
    loss = next(loss for loss in problem.losses if loss.name == carrying.inverse)
    if loss.options["noise"]:
        with beside.replay, beside.replay.at(f"{problem.block}.{loss.name}"):
            there = there + float(loss.options["noise"]) * torch.randn_like(there)
    before = list(walk.graph.predecessors(problem.block))
    crossings: dict[Boundary, Crossing] = dict.fromkeys(walk.graph.edges, stopped)
    crossings |= {(a, problem.block): lambda name, value: there if name == carrying.read else value for a in before}
    again = beside.once(batch, crossings)[problem.target.node]
    return again.detach(), {**values, carrying.read: there}


def handed_on(problems: Mapping[str, LocalProblem]) -> frozenset[str]:
    """Return the values that blocks with such targets hand on."""
    return frozenset(p.target.node for p in problems.values() if p.target is not None and p.target.differs)


def differenced(walk: Walk, objective: Tensor) -> dict[str, Tensor]:
    """Return the gradients of all |f(x) - target|^2 by weights, from the last block to the first.

    `objective` is the sum of all losses of the forward pass that `walk.kept` is of.
    """
    found: dict[str, Tensor] = {}
    targets: dict[str, Tensor] = {}  # of the values that blocks hand on
    for problem in reversed(list(walk.problems.values())):
        aim = problem.target
        if aim is None or not aim.differs or not problem.trainable:
            continue
        h = walk.kept[aim.node]
        if aim.node not in targets:  # what reads it gives a gradient
            (gradient,) = torch.autograd.grad(objective, [h], retain_graph=True)
            targets[aim.node] = h.detach() - aim.step * gradient
        target = targets[aim.node]
        counts = {"sum": 1, "mean": h.numel(), "batchmean": h.shape[0]}
        distance = (h - target).square().sum() / counts[aim.reduction]
        own = [walk.leaves[name] for name in problem.trainable]
        gradients = torch.autograd.grad(distance, own, retain_graph=True, allow_unused=True)
        found |= {n: g for n, g in zip(problem.trainable, gradients, strict=True) if g is not None}
        if aim.carrying is not None:
            x = walk.kept[aim.carrying.read].detach()
            back = [_inverse(walk, problem, aim.carrying, value).reshape(x.shape) for value in (h.detach(), target)]
            targets[aim.carrying.read] = x - back[0] + back[1]
    return found


def _inverse(walk: Walk, problem: LocalProblem, carrying: Carrying, value: Tensor) -> Tensor:
    prefix = f"heads.{problem.block}."
    state = {n.removeprefix(prefix): t.detach().clone() for n, t in walk.leaves.items() if n.startswith(prefix)}
    problem.heads.train(True)
    return problem.heads.call(carrying.inverse, state, value)
