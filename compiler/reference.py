"""What should the gradients be? Plain autograd over the traced network, with `detach` at every stop boundary.

Independent of capture, schedule and runtime: an eager forward pass, the sum of all losses, one call of
`torch.autograd.grad`. A stop-gradient makes the sum of local losses equal to local learning. A value that is taught by
the output's error adds its product with that error's projection to the sum. Blocks that perturb are constants here,
and what they hand to others are leaves: what they learn from the leaves' gradients, `estimated` says. What blocks
with a target learn, `aimed` and `differenced` say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import networkx as nx
import torch
from torch import Tensor

from lpc.compiler.aimed import aimed
from lpc.compiler.backward_weights import BackwardWeights
from lpc.compiler.credit import horizon, passages
from lpc.compiler.difference_reference import differenced, handed_on, noisy
from lpc.compiler.eager import Boundary, Crossing, Walk, head_parameters, parameters_of, stopped, total
from lpc.compiler.estimated import Arriving, Estimation
from lpc.compiler.factored_reference import factors_of
from lpc.compiler.feedback import project
from lpc.compiler.frontend.trace import Traced
from lpc.compiler.localize import LocalProblem


@dataclass(frozen=True)
class Reference:
    """What one training step's forward and backward should give, by the plan's names."""

    gradients: dict[str, Tensor]
    losses: dict[str, Tensor]
    buffers: dict[str, Tensor]
    output: Tensor
    values: Mapping[str, Any]  # of all nodes, by name
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
    laws: Mapping[str, tuple[str, tuple[float, ...]]] = field(default_factory=dict)  # of the draws of masks, by site
    factors: Mapping[str, Tensor] = field(default_factory=dict)  # of layers, as the optimizers take them


def reference_step(
    traced: Traced,
    graph: nx.DiGraph[str],
    problems: Mapping[str, LocalProblem],
    shared: str,
    state: Mapping[str, Tensor],
    batch: Mapping[str, Tensor],
    noise: Mapping[str, Tensor],
    measures: Sequence[str] = (),
) -> Reference:
    """Run one step of the decomposed objective in eager mode.

    `state` and `batch` have torch's default dtype; `noise` fixes every random site by name. Raises KeyError for a site
    that `noise` lacks. `measures` names the metrics to be had.
    """
    wanted = _wanted(problems)
    leaves = {n: t.detach().clone().requires_grad_(n in wanted) for n, t in state.items()}
    handed = _Handed(graph, problems)
    around = BackwardWeights(graph, problems, leaves, noise).around
    borrowed = _borrowed(graph, shared)
    constants = {b: parameters_of(graph, b) if problems[b].estimator.perturbs else borrowed[b] for b in graph.nodes}
    walk = Walk(traced, graph, problems, leaves, noise, constants, handed.readers(), around, measures)
    walk.watched = frozenset(layer.node for problem in problems.values() for layer in problem.factored)
    walk.watched |= handed_on(problems)
    step = _Step(walk, batch, walk.forward(batch))
    sources = {n: leaves[n] for n in wanted if n in leaves}
    exact = step.gradients({**sources, **{_handed(v): leaf for v, leaf in handed.leaves.items()}})
    gradients = {n: g for n, g in exact.items() if n in sources}
    objective = total(list(step.losses.values()))
    gradients |= aimed(traced.train, traced.tied, problems, leaves, step.values, objective)
    gradients |= differenced(walk, objective)
    perturbing = {b: p for b, p in problems.items() if p.estimator.perturbs}
    if perturbing:
        sent = {v: [exact[_handed(v)]] if _handed(v) in exact else [] for v in handed.leaves}
        for value, cotangent in step.taught(perturbing):
            sent.setdefault(value, []).append(cotangent)
        arriving = Arriving({b: step.derivative(b) for b in perturbing}, sent)
        estimation = Estimation(traced, graph, perturbing, state, noise, borrowed)
        estimates = estimation.gradients(batch, arriving)
        gradients |= {n: gradients[n] + g if n in gradients else g for n, g in estimates.items()}
    buffers = {n: t.detach() for n, t in leaves.items() if n not in wanted}
    losses = {n: v.detach() for n, v in step.losses.items()}
    output = step.values["output"].detach()
    factors = factors_of(traced.train, problems, walk.kept, step.values, step.objective())
    return Reference(gradients, losses, buffers, output, step.values, walk.metrics, walk.replay.laws, factors)


def _wanted(problems: Mapping[str, LocalProblem]) -> list[str]:
    names: dict[str, None] = {}
    for problem in problems.values():
        names.update(dict.fromkeys((*problem.trainable, *head_parameters(problem))))
    return list(names)


def _borrowed(graph: nx.DiGraph[str], shared: str) -> dict[str, set[str]]:
    """Under `shared: owner`, a block that borrows a parameter sees it as a constant."""
    return {b: set(a.get("borrowed", ())) if shared == "owner" else set() for b, a in graph.nodes(data=True)}


def _handed(value: str) -> str:
    return f"{value}@"


@dataclass
class _Handed:
    """What blocks that perturb hand to others: leaves for those that backpropagate, constants for their like."""

    graph: nx.DiGraph[str]
    problems: Mapping[str, LocalProblem]
    leaves: dict[str, Tensor] = field(default_factory=dict)

    def readers(self) -> dict[Boundary, Crossing]:
        perturbs = {b for b, p in self.problems.items() if p.estimator.perturbs}
        return {(a, b): stopped if b in perturbs else self.leaf for a, b in passages(self.graph) if a in perturbs}

    def leaf(self, name: str, value: Tensor) -> Tensor:
        if not value.is_floating_point():
            return value
        if name not in self.leaves:
            self.leaves[name] = value.detach().requires_grad_()
        return self.leaves[name].clone()


class _Step:
    """The losses of one eager forward pass, and their derivatives."""

    def __init__(self, walk: Walk, batch: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        self.graph, self.problems, self.leaves, self.values = walk.graph, walk.problems, walk.leaves, values
        self.features: dict[str, Tensor] = {}
        self.losses: dict[str, Tensor] = {}
        for block, problem in self.problems.items():
            if problem.losses:
                feature, seen = values[problem.feature["train"]], values
                if problem.target is not None and problem.target.carrying is not None:  # its one loss is of the inverse
                    feature, seen = noisy(walk, problem, batch, values)
                self.features[block] = feature if feature.requires_grad else feature.detach().requires_grad_()
                found = walk.losses(problem, self.features[block], seen, batch)
                self.losses |= {f"{block}.{name}": value for name, value in found.items()}

    def gradients(self, sources: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the gradients of the objectives by those sources that they depend on."""
        lessons = [
            (self.values[value] * cotangent).sum()
            for value, cotangent in self.taught({b: p for b, p in self.problems.items() if not p.estimator.perturbs})
        ]
        gradients: dict[str, Tensor] = {}
        for names, objective in self.objectives(list(sources), total(lessons)):
            if objective.requires_grad:
                leaves = [sources[n] for n in names]
                found = torch.autograd.grad(objective, leaves, allow_unused=True, retain_graph=True)
                gradients |= {n: g for n, g in zip(names, found, strict=True) if g is not None}
        return gradients

    def objective(self) -> Tensor:
        """Return the sum of all that is descended where no link limits it."""
        taught = self.taught({b: p for b, p in self.problems.items() if not p.estimator.perturbs})
        lessons = [(self.values[value] * cotangent).sum() for value, cotangent in taught]
        return total([*self.losses.values(), *lessons])

    def objectives(self, names: list[str], lessons: Tensor) -> list[tuple[list[str], Tensor]]:
        """Return which sources descend which sum: all of them, or (`only=furthest`) each block its own."""
        if not any(problem.furthest for problem in self.problems.values()):
            return [(names, total(list(self.losses.values())) + lessons)] if names else []
        chain, reach = list(self.graph.nodes), horizon(self.graph)
        objectives = []
        for index, (block, problem) in enumerate(self.problems.items()):
            ahead = [b for b in chain[index : index + reach + 1] if self.problems[b].losses]
            for owned, source in ((problem.trainable, ahead[-1:]), (head_parameters(problem), [block])):
                terms = [self.losses[f"{b}.{loss.name}"] for b in source for loss in self.problems[b].losses]
                if owned and terms:
                    objectives.append(([n for n in owned if n in names], total(terms)))
        return objectives

    def derivative(self, block: str) -> Tensor | None:
        """Return the derivative of a block's own losses by its feature."""
        losses = [self.losses[f"{block}.{loss.name}"] for loss in self.problems[block].losses]
        if not losses:
            return None
        (found,) = torch.autograd.grad(total(losses), [self.features[block]], retain_graph=True)
        return found

    def taught(self, blocks: Mapping[str, LocalProblem]) -> list[tuple[str, Tensor]]:
        """Return the values of blocks that the output's error teaches, each with its projection."""
        lessons = [feedback for problem in blocks.values() for feedback in problem.feedback]
        error = self.derivative(self.graph.graph["output_block"]) if lessons else None
        if error is None:
            return []
        return [(f.value, project(error, self.leaves[f.state], self.values[f.value].detach())) for f in lessons]


