"""What is the step of a block between auxiliary variables? Its slopes by the variables it reads, and its weights' own.

Everything is traced as one graph, so that all evaluations of a block in a step draw the same noise. A slope is the
derivative of all terms of the block by one variable: its losses, and the penalties of what it computes. The terms that
are a variable's own (its penalty as it pulls, and |h|) are a slope apart, its anchor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from lpc.compiler.capture.joint import (
    Outcome,
    Slot,
    Step,
    cotangent_slot,
    seed_slot,
    state_slot,
    value_slot,
)
from lpc.compiler.capture.tracing import LabelledRun
from lpc.compiler.groups import weighing
from lpc.compiler.layer_solver import solved_state
from lpc.compiler.local_loss import LocalLoss
from lpc.compiler.localize import Arrival
from lpc.compiler.penalties import distance, magnitude
from lpc.compiler.variables import SCALED, WEIGHED, Factor, Variable, law_name, penalty_names
from lpc.specs.term import Term

SLOPE, ANCHOR, MEMORY, PULL = "slope", "anchor", "memory", "pull"


def slope_slot(kind: str, variable: Variable) -> Slot:
    """Return where a slope of a variable goes: that of a block's terms, or that of its own."""
    return Slot("slope", f"{kind}_{variable.value}", variable.name)


def pull_slot(arrival: Arrival) -> Slot:
    """Return where what variables are solved for comes back over a gradient link: the cotangent of their objective."""
    slot = cotangent_slot(arrival)
    return Slot("cotangent", f"{PULL}{slot.bundle.removeprefix('d')}", slot.source)


def before(variable: Variable) -> str:
    """Return what an anchor reads of the block before a variable: what that computes now."""
    return f"{variable.value}.made"


@dataclass
class VariableStep(Step):
    """Traces what a block does in a step with auxiliary variables."""

    distances: dict[str, Tensor] = field(default_factory=dict)
    watched: Watched | None = None

    def collect(self, mode: str) -> None:
        super().collect(mode)
        if mode != "train":
            return
        for variable in self.problem.makes:
            self.arguments.add(value_slot(variable.name), *self.types.values[variable.value])
        for name in self.penalty_names().values():
            self.arguments.add(seed_slot(name), torch.get_default_dtype(), ())
        for variable in self.anchored():
            self.arguments.add(value_slot(before(variable)), *self.types.values[variable.value])
        for arrival in self.pulled():
            self.arguments.add(pull_slot(arrival), *self.types.values[arrival.value])
        for variable in (*self.problem.makes, *self.problem.reads, *self.heading()):
            dtype = self.types.values[variable.value][0]
            for name in variable.laws:
                self.arguments.add(value_slot(name), dtype, ())
        rule = self.problem.layer_solver
        for name, shape in rule.kept.items() if rule is not None else ():
            self.keep(name, torch.zeros(shape, dtype=self.types.values[self.problem.makes[0].value][0]))

    def interpreter(self, bound: Mapping[Slot, Tensor]) -> LabelledRun:
        if self.problem.layer_solver is None:
            return super().interpreter(bound)
        self.watched = Watched(self.block.module)
        self.watched.node = self.problem.layer_solver.node
        return self.watched

    def penalty_names(self) -> dict[str, str]:
        """Return what the block's penalties are called, by the variable's value."""
        return penalty_names(self.problem.makes, self.problem.losses)

    def anchored(self) -> list[Variable]:
        """Return the variables whose own terms this block sees to: those that it is the first to read."""
        block = self.problem.block
        return [v for v in self.problem.reads if v.pulls and v.consumers[0] == block]

    def pulled(self) -> tuple[Arrival, ...]:
        """Return what comes back to a piece of a group that variables move, beside the weights' cotangents."""
        return self.problem.receives if self.problem.moves else ()

    def heading(self) -> tuple[Variable, ...]:
        """Return a variable by whose objective the block's terms are weighed; in a group all weigh them alike."""
        own = self.problem.reads or (self.problem.group.reads if self.problem.moves and self.problem.group else ())
        return own[:1]

    def upstream(self) -> list[Arrival]:
        """Return what a piece of a group sends back: of each value that came over a gradient link."""
        return [Arrival(v, self.problem.block) for v in self.block.inputs if v in self.differentiable]

    def trainable_slots(self) -> list[Slot]:
        return list(dict.fromkeys([*super().trainable_slots(), *(value_slot(v.value) for v in self.problem.reads)]))

    def forward(self, tensors: dict[Slot, Tensor], bound: dict[Slot, Tensor], mode: str) -> Outcome:
        outcome = super().forward(tensors, bound, mode)
        if mode == "train":
            self.fit(outcome, bound)
        return outcome

    def fit(self, outcome: Outcome, bound: dict[Slot, Tensor]) -> None:
        """Add what the weights minimise beside the block's losses: the distances to its variables."""
        names, consistency = self.penalty_names(), self.problem.consistency
        for index, variable in enumerate(self.problem.makes):
            output, penalty = outcome.outputs[variable.value], variable.penalty
            self.distances[variable.value] = raw = distance(penalty, output, bound[value_slot(variable.name)])
            weight = self.factor(variable, WEIGHED, bound) if consistency.weight is None else consistency.weight
            value = _times(raw if penalty.reduction == "mean" else raw / output.shape[0], weight)
            if consistency.l1 and not index:
                value = value + consistency.l1 * self.weights_magnitude(variable, bound)
            outcome.losses[names[variable.value]] = value
            outcome.objective = outcome.objective + value.detach()

    def weights_magnitude(self, variable: Variable, bound: dict[Slot, Tensor]) -> Tensor:
        weights = [bound[state_slot(n)] for n in self.problem.trainable]
        mean = variable.penalty.reduction == "mean"
        found = [w.abs().mean() if mean else w.abs().sum() for w in weights if w.dim() > 1]
        return sum(found, torch.zeros(()))

    def factor(self, variable: Variable, kind: str, bound: dict[Slot, Tensor]) -> float | Tensor:
        """Return a factor of a variable: a number, or what its law says at this step."""
        given: Factor = variable.penalty.weight if kind == WEIGHED else variable.scale
        return bound[value_slot(law_name(variable, kind))] if isinstance(given, Term) else given

    # Derivatives

    def gradients(self, tensors: dict[Slot, Tensor], bound: dict[Slot, Tensor], outcome: Outcome) -> list[Tensor]:
        values = self.slopes(tensors, bound, outcome)
        values += self.pulls(tensors, bound, outcome)
        values += [self.anchor(v, bound) for v in self.anchored()]
        values += self.memorised(tensors)
        return values + self.weight_gradients(tensors, bound, outcome)

    def slopes(self, tensors: dict[Slot, Tensor], bound: dict[Slot, Tensor], outcome: Outcome) -> list[Tensor]:
        """Return the derivatives of the block's terms by the variables that it reads and that some term depends on.

        Variables whose objectives weigh the terms alike share one backward pass: a readout may read thousands.
        """
        alike: dict[tuple[object, ...], list[Variable]] = {}
        for variable in self.problem.reads:
            alike.setdefault(weighing(variable), []).append(variable)
        found: dict[str, Tensor] = {}
        for variables in alike.values():
            found |= self.slopes_of(variables[0], [v.value for v in variables], tensors, bound, outcome)
        reached = [variable for variable in self.problem.reads if variable.value in found]
        self.results += [slope_slot(SLOPE, variable) for variable in reached]
        return [found[variable.value] for variable in reached]

    def pulls(self, tensors: dict[Slot, Tensor], bound: dict[Slot, Tensor], outcome: Outcome) -> list[Tensor]:
        """Return the same derivatives by what came over gradient links from pieces that variables move."""
        group, sent = self.problem.group, self.upstream()
        if group is None or not self.problem.moves:
            return []
        moved = {v for a, b, values in group.links if b == self.problem.block and group.moves(a) for v in values}
        sent = [arrival for arrival in sent if arrival.value in moved]
        if not sent:
            return []
        (heading,) = self.heading()
        found = self.slopes_of(heading, [arrival.value for arrival in sent], tensors, bound, outcome)
        self.results += [pull_slot(arrival) for arrival in sent if arrival.value in found]
        return [found[arrival.value] for arrival in sent if arrival.value in found]

    def slopes_of(
        self, variable: Variable, values: list[str],
        tensors: dict[Slot, Tensor], bound: dict[Slot, Tensor], outcome: Outcome,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Return the derivatives of all terms, weighed as by a variable's objective, by values that the block reads."""
        leaves = [bound[value_slot(value)] for value in values]
        size = leaves[0].shape[0]
        scale, names = self.objective_scale(variable, bound), self.penalty_names()
        roots = []
        for loss in self.problem.losses:
            root = outcome.losses[loss.name]
            seed = _times(tensors[seed_slot(loss.name)].to(root.dtype), scale)
            summed = variable.penalty.reduction != "mean" and not _is_sum(loss)
            roots.append((root, seed * size if summed else seed))
        for made in self.problem.makes:
            root = self.distances[made.value]
            weight = _times(tensors[seed_slot(names[made.value])].to(root.dtype), self.factor(made, WEIGHED, bound))
            roots.append((root, _times(weight, scale)))
        roots += [(outcome.outputs[a.value], tensors[pull_slot(a)]) for a in self.pulled()]
        roots = [(root, cotangent) for root, cotangent in roots if root.requires_grad]
        if not roots:
            return {}
        found = torch.autograd.grad(
            [r for r, _ in roots], leaves, [c for _, c in roots], allow_unused=True, retain_graph=True
        )
        reached: list[tuple[str, Tensor | None]] = list(zip(values, found, strict=True))
        return {value: slope.detach() for value, slope in reached if slope is not None}

    def anchor(self, variable: Variable, bound: dict[Slot, Tensor]) -> Tensor:
        """Return the derivative of a variable's own terms."""
        leaf, penalty = bound[value_slot(variable.value)], variable.penalty
        terms: list[Tensor] = []
        if variable.anchor:
            pull = distance(penalty, leaf, bound[value_slot(before(variable))])
            terms.append(_times(pull, self.factor(variable, WEIGHED, bound)))
        if variable.l1:
            terms.append(variable.l1 * magnitude(penalty, leaf))
        total = _times(sum(terms[1:], terms[0]), self.objective_scale(variable, bound))
        (found,) = torch.autograd.grad([total], [leaf])
        self.results.append(slope_slot(ANCHOR, variable))
        return found.detach()

    def memorised(self, tensors: dict[Slot, Tensor]) -> list[Tensor]:
        """Return a layer's weights that follow from this batch by a formula, and what it keeps for the next."""
        rule = self.problem.layer_solver
        if rule is None:
            return []
        seen = self.watched.seen if self.watched is not None else None
        assert seen is not None, "the layer has run"
        code = tensors[value_slot(self.problem.makes[0].name)]
        names = [self.aliases.get(name, name) for name in (*rule.kept, *rule.weights)]
        old = [tensors[state_slot(name)] for name in names]
        found = solved_state(rule, seen.detach().flatten(0, -2), code.flatten(0, -2), old)
        self.results += [Slot("buffers", MEMORY, name) for name in names]
        return list(found.values())

    def objective_scale(self, variable: Variable, bound: dict[Slot, Tensor]) -> float | Tensor:
        """Return the factor of everything that a variable minimises."""
        scale = self.factor(variable, SCALED, bound)
        return scale / self.factor(variable, WEIGHED, bound) if variable.divides else scale

    def weight_gradients(
        self, tensors: dict[Slot, Tensor], bound: dict[Slot, Tensor], outcome: Outcome
    ) -> list[Tensor]:
        """Return the gradients of the terms' batch means, by what the block trains and gets over gradient links."""
        summed = any(v.penalty.reduction != "mean" for v in self.problem.around)
        size = next(iter(outcome.outputs.values())).shape[0]
        roots = []
        for loss in self.problem.losses:
            value = outcome.losses[loss.name]
            roots.append((value / size if summed and _is_sum(loss) else value, tensors[seed_slot(loss.name)]))
        roots += [(outcome.losses[name], tensors[seed_slot(name)]) for name in self.penalty_names().values()]
        roots += [(outcome.outputs[a.value], tensors[cotangent_slot(a)]) for a in self.problem.receives]
        trained = [*map(state_slot, self.problem.trainable), *self.head_slots()]
        targets = {slot: Slot("gradients", "gradients", slot.source) for slot in trained}
        targets |= {value_slot(arrival.value): cotangent_slot(arrival) for arrival in self.upstream()}
        slots = list(targets)
        roots = [(root, seed.to(root.dtype)) for root, seed in roots if root.requires_grad]
        if not roots or not slots:
            return []
        leaves, cotangents = [bound[slot] for slot in slots], [c for _, c in roots]
        found = torch.autograd.grad(
            [r for r, _ in roots], leaves, cotangents, allow_unused=True, retain_graph=True
        )
        missed = [s for s, g in zip(slots, found, strict=True) if g is None]
        self.unreached += [s.source for s in missed if s in trained]
        kept = [(s, g.detach()) for s, g in zip(slots, found, strict=True) if g is not None]
        self.results += [targets[s] for s, _ in kept]
        return [g for _, g in kept]


class Watched(LabelledRun):
    """Remembers what one layer is given."""

    node = ""
    seen: Tensor | None = None

    def run_node(self, n: fx.Node) -> Any:
        if n.name == self.node:
            (self.seen,) = self.fetch_args_kwargs_from_env(n)[0]
        return super().run_node(n)


def _times(value: Tensor, factor: float | Tensor) -> Tensor:
    return value if isinstance(factor, float) and factor == 1.0 else value * factor


def _is_sum(loss: LocalLoss) -> bool:
    return loss.options.get("reduction") == "sum"
