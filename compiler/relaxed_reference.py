"""What should a step with auxiliary variables do? The rule of the method in eager mode, on the whole network.

Independent of capture, schedule and runtime: every boundary with a variable is read as a leaf, the sum of all terms is
written down, and torch.optim steps the leaves along its derivatives. Only the terms that a variable is solved for
depend on it, so that nothing needs to be cut apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import networkx as nx
import torch
import torch.nn.functional as F
from torch import Tensor

from lpc.compiler.eager import Walk, head_parameters, total
from lpc.compiler.frontend.trace import Traced
from lpc.compiler.layer_reference import solve_by_hand
from lpc.compiler.layer_solver import LayerSolver
from lpc.compiler.local_loss import LocalLoss
from lpc.compiler.localize import LocalProblem
from lpc.compiler.optimizer_class import optimizer_class
from lpc.compiler.reference import Reference
from lpc.compiler.variables import Factor, Penalty, Variable, Variables, penalty_names
from lpc.specs.plan.plan import PERSISTENT
from lpc.specs.term import Term

Values = Mapping[str, Tensor]


def relaxed_reference(
    traced: Traced,
    graph: nx.DiGraph[str],
    problems: Mapping[str, LocalProblem],
    variables: Variables,
    state: Mapping[str, Tensor],
    batch: Mapping[str, Tensor],
    noise: Mapping[str, Tensor],
) -> Reference:
    """Run the first step of a run; arguments as in `reference_step`."""
    wanted = {n for p in problems.values() for n in (*p.trainable, *head_parameters(p))}
    leaves = {n: t.detach().clone().requires_grad_(n in wanted) for n, t in state.items()}
    step = _Step(Walk(traced, graph, problems, leaves, noise), leaves, variables, batch)
    gradients, losses = step.run()
    buffers = {n: t.detach() for n, t in leaves.items() if n not in wanted}
    return Reference(gradients, losses, buffers, step.forward["output"].detach(), step.forward)


@dataclass
class _Point:
    """The network at some values of its variables: all nodes' values, own losses by block, distances by variable."""

    values: Mapping[str, Any]
    losses: dict[tuple[str, str], Tensor] = field(default_factory=dict)
    distances: dict[str, Tensor] = field(default_factory=dict)


class _Step:
    def __init__(
        self, walk: Walk, leaves: dict[str, Tensor], variables: Variables, batch: Mapping[str, Tensor]
    ) -> None:
        self.walk, self.leaves, self.variables, self.batch = walk, leaves, variables, batch
        self.problems = walk.problems
        self.size = len(next(iter(batch.values())))
        self.forward: Mapping[str, Any] = {}
        self.known: dict[str, dict[str, Any]] = {}  # by the optimizers of variables, as they ended

    def run(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the gradients of the weights, and the losses as they are recorded."""
        every, names = self.variables, list(self.walk.graph.nodes)
        sources = [b for b in names if any(v.producer == b for v in every.every.values())]
        first = self.point({}, sources if every.cached else names, moves=every.moving or not every.cached)
        self.forward = first.values
        begun = {v: first.values[v].detach() for v in every.every}
        found = {v: value.clone() for v, value in begun.items()}
        for sweep in range(every.sweeps):
            self.sweep(found, fresh=sweep == 0 and not every.cached)
        last = self.point(
            begun if every.forward_input else found, names, moves=every.cached or every.moving, targets=found
        )
        told = last if every.cached else first
        losses = {f"{b}.{name}": value.detach() for (b, name), value in told.losses.items()}
        objectives = self.objectives(last)
        losses |= {name: value.detach() for name, value in objectives.items() if name not in losses}
        gradients = self.gradients(last, objectives)
        for problem in self.problems.values():
            if problem.layer_solver is not None:
                self.solve_layer(problem.layer_solver, last, found)
        return gradients, losses

    # Points

    def point(
        self, read: Values, evaluated: list[str], moves: bool, targets: Values | None = None
    ) -> _Point:
        """Run the network with variables read in place of what blocks compute; some blocks' buffers may move."""
        graph = self.walk.graph

        def crossing(name: str, value: Tensor) -> Tensor:
            if name in read and name in self.variables.every:
                return read[name]
            first: Tensor = self.forward.get(name, value)  # what no variable replaces stays as it was first made
            return first.detach()

        kept = {n for b in evaluated if moves for n in graph.nodes[b]["buffers"]}
        before = {n: t for n, t in self.leaves.items() if not t.requires_grad}
        self.leaves.update({n: t.clone() for n, t in before.items()})  # autograd may still look at the old ones
        edges = [(a, b) for a, b, data in graph.edges(data=True) if data["link"].name != "gradient"]
        values = self.walk.once(self.batch, dict.fromkeys(edges, crossing), moves=True)
        self.leaves.update({n: t for n, t in before.items() if n not in kept})
        point = _Point(values)
        for block, problem in self.problems.items():
            if problem.losses:
                found = self.walk.losses(problem, values[problem.feature["train"]], values, self.batch)
                point.losses |= {(block, name): value for name, value in found.items()}
        for name, variable in self.variables.every.items():
            target = (targets or read).get(name)
            if target is not None:
                point.distances[name] = _distance(variable.penalty, target, values[name])
        return point

    # Variables

    def sweep(self, found: dict[str, Tensor], fresh: bool) -> None:
        """Solve the variables in place of `found`; `fresh` ones are what their blocks have computed."""
        backward = list(self.variables.every.values())[::-1]
        groups = [backward] if self.variables.sweep == "jacobi" else [[v] for v in backward]
        for group in groups:
            self.solve(group, found, fresh)

    def solve(self, group: list[Variable], found: dict[str, Tensor], fresh: bool) -> None:
        """Step some variables together while the others stay; what pulls them is computed anew where it has moved."""
        leaves = {v.value: found[v.value].clone().requires_grad_() for v in group}
        optimizers = [self.optimizer(v, leaves[v.value]) for v in group]
        jacobi, moving = self.variables.sweep == "jacobi", self.variables.moving
        consumers = [b for v in group for b in v.consumers]
        pulling = list(dict.fromkeys(v.producer for v in group if v.anchor))
        for turn in range(group[0].steps):
            anew = pulling if not (fresh and turn == 0) and (jacobi or turn == 0) else []
            if moving:
                for block in anew:
                    self.point({**found, **leaves}, [block], moving)
                for block in consumers[:-1]:
                    self.point({**found, **leaves}, [block], moving)
            point = self.point({**found, **leaves}, consumers[-1:], moving)
            for variable in group:
                leaves[variable.value].grad = self.slope(variable, leaves[variable.value], point)
            for optimizer in optimizers:
                optimizer.step()
        for variable, optimizer in zip(group, optimizers, strict=True):
            self.known[variable.name] = optimizer.state[leaves[variable.value]]
        found.update({name: leaf.detach() for name, leaf in leaves.items()})

    def optimizer(self, variable: Variable, leaf: Tensor) -> torch.optim.Optimizer:
        """Return a variable's optimizer, which may know what it did in the sweep before."""
        made = optimizer_class(variable.optimizer)([leaf], **variable.options)
        if variable.state == PERSISTENT and variable.name in self.known:
            made.state[leaf] = self.known[variable.name]
        return made

    def slope(self, variable: Variable, leaf: Tensor, point: _Point) -> Tensor:
        """Return the derivative of all terms by one variable."""
        mean = variable.penalty.reduction == "mean"
        terms = []
        for (block, name), value in point.losses.items():
            loss = next(one for one in self.problems[block].losses if one.name == name)
            terms.append(value if mean or _is_sum(loss) else value * self.size)
        terms += [
            _number(self.variables.every[name].penalty.weight) * value
            for name, value in point.distances.items()
            if name != variable.value
        ]
        made = point.values[variable.value].detach()
        if variable.anchor:
            terms.append(_number(variable.penalty.weight) * _distance(variable.penalty, leaf, made))
        terms.append(variable.l1 * _magnitude(variable.penalty, leaf))
        scale = _number(variable.scale) / (_number(variable.penalty.weight) if variable.divides else 1.0)
        (found,) = torch.autograd.grad(scale * total(terms), [leaf], retain_graph=True, allow_unused=True)
        return torch.zeros_like(leaf) if found is None else found

    # Weights

    def objectives(self, point: _Point) -> dict[str, Tensor]:
        """Return what the weights minimise, by the name under which it is recorded."""
        found: dict[str, Tensor] = {}
        for block, problem in self.problems.items():
            summed = any(v.penalty.reduction != "mean" for v in problem.around)
            for loss in problem.losses:
                value = point.losses[block, loss.name]
                found[f"{block}.{loss.name}"] = value / self.size if summed and _is_sum(loss) else value
            for index, (name, called) in enumerate(penalty_names(problem.makes, problem.losses).items()):
                found[f"{block}.{called}"] = self.fit(problem, name, point) + (0.0 if index else self.shrink(problem))
        return found

    def fit(self, problem: LocalProblem, name: str, point: _Point) -> Tensor:
        penalty = self.variables.every[name].penalty
        weight = _number(penalty.weight) if problem.consistency.weight is None else problem.consistency.weight
        value = weight * point.distances[name]
        return value if penalty.reduction == "mean" else value / self.size

    def shrink(self, problem: LocalProblem) -> Tensor:
        """Return the factor of |W| times it."""
        weights = [self.leaves[n] for n in problem.trainable if self.leaves[n].dim() > 1]
        mean = problem.makes[0].penalty.reduction == "mean"
        return problem.consistency.l1 * total([w.abs().mean() if mean else w.abs().sum() for w in weights])

    def gradients(self, point: _Point, objectives: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return each weight's gradient: blocks depend on others over gradients alone, so that one sum serves all."""
        wanted = {n: t for n, t in self.leaves.items() if t.requires_grad}
        objective = total(list(objectives.values()))
        found = torch.autograd.grad(objective, list(wanted.values()), allow_unused=True)
        return {n: g for n, g in zip(wanted, found, strict=True) if g is not None}

    def solve_layer(self, rule: LayerSolver, point: _Point, found: Values) -> None:
        """Write a layer's weights as its formula has them, and what it keeps."""
        nodes = {n.name: n for n in self.walk.traced.train.graph.nodes}
        variable = next(v for v in self.variables.every.values() if v.producer == rule.block)
        inputs = point.values[nodes[rule.node].all_input_nodes[0].name].detach().flatten(0, -2)
        solve_by_hand(rule, self.leaves, inputs, found[variable.value].flatten(0, -2))


_DISTANCES: dict[str, Callable[[Penalty, Tensor], Tensor]] = {
    "squared": lambda penalty, difference: difference**2,
    "huber": lambda penalty, difference: F.huber_loss(
        difference, torch.zeros_like(difference), reduction="none", delta=penalty.delta
    ),
}


def _distance(penalty: Penalty, one: Tensor, other: Tensor) -> Tensor:
    return _reduced(penalty, _DISTANCES[penalty.name](penalty, one - other))


def _magnitude(penalty: Penalty, value: Tensor) -> Tensor:
    return _reduced(penalty, value.abs())


def _reduced(penalty: Penalty, elements: Tensor) -> Tensor:
    if penalty.reduction == "mean":
        return elements.mean()
    flat = elements.flatten(1)
    return (flat.mean(1) if penalty.reduction == "sample" else flat.sum(1)).sum()


def _number(factor: Factor) -> float:
    """Return a factor at the first step."""
    if isinstance(factor, Term):
        return float(factor.kwargs.get("start", factor.args[0] if factor.args else 0.0))  # type: ignore[arg-type]
    return factor


def _is_sum(loss: LocalLoss) -> bool:
    return loss.options.get("reduction") == "sum"
