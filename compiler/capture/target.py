"""What is the step of a block that learns by a target? The target from what comes back, and the way towards it.

The block's graph is cut at its pre-activation A: G = dL/dA is the gradient of everything behind, the target T = f(A) -
step G. Gradients of the local problem are products of the residual f(A') - T with the derivatives of A' by the
parameters, never by f: that is what a matching loss is for. At A' = A the residual is step G.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

from lpc.compiler.blocks import BlockModule, extract
from lpc.compiler.capture.design import design_of
from lpc.compiler.capture.joint import (
    Outcome,
    Slot,
    Step,
    cotangent_slot,
    state_slot,
    value_slot,
)
from lpc.compiler.capture.lower import ancestors
from lpc.compiler.capture.moments import anchor_slot, first_slot, moment_slots, moments
from lpc.compiler.capture.tracing import LabelledRun
from lpc.compiler.local_loss import LocalModules
from lpc.compiler.localize import Arrival, LocalProblem
from lpc.compiler.targets import Target


class CutRun(LabelledRun):
    """Runs a block's graph; what follows the node `cut` reads a leaf in its place."""

    def __init__(self, module: fx.GraphModule, cut: str) -> None:
        super().__init__(module)
        self.cut = cut
        self.attached: Tensor
        self.leaf: Tensor
        self.input: Tensor  # of the layer

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.name != self.cut:
            return result
        self.input = self.env[n.all_input_nodes[0]]
        self.attached, self.leaf = result, result.detach().requires_grad_()
        return self.leaf


class TargetStep(Step):
    """Forward, losses, what leaves for blocks before, the target, and the first gradient of the local problem."""

    run: CutRun
    shares = True  # the target is made of the block's own activation

    @property
    def goal(self) -> Target:
        assert self.problem.target is not None, "the step of a block with a target"
        return self.problem.target

    def interpreter(self, bound: Mapping[Slot, Tensor]) -> LabelledRun:
        self.run = CutRun(self.block.module, self.goal.node)
        return self.run

    def gradients(
        self, tensors: dict[Slot, Tensor], bound: dict[Slot, Tensor], outcome: Outcome
    ) -> list[Tensor]:
        """Return cotangents of the inputs, the target and the first gradient."""
        pairs = [pair for found in self.roots(tensors, outcome).values() for pair in found]
        leaves = {v: bound[value_slot(v)] for v in self.block.inputs if v in self.differentiable}
        arrived, *_ = _grad(pairs, [self.run.leaf]) if pairs else [None]
        if arrived is None:
            self.unreached += self.problem.trainable
            return []
        attached = self.run.attached
        back = [*pairs, (attached, arrived)] if attached.requires_grad else pairs
        values = []
        for (value, _), cotangent in zip(leaves.items(), _grad(back, list(leaves.values())), strict=True):
            if cotangent is not None:
                self.results.append(cotangent_slot(Arrival(value, self.problem.block)))
                values.append(cotangent.detach())
        towards = target_of(self.goal, attached.detach(), arrived)
        left = thinned(self.goal, residual(self.goal, attached.detach(), towards, arrived))
        if self.goal.by_moments:
            return values + self.moments(tensors, bound, left)
        self.results.append(target_slot(self.goal))
        values.append(towards.detach())
        return values + (self.anchors(tensors) if self.goal.formula.known else self.first(bound, left))

    def moments(self, tensors: dict[Slot, Tensor], bound: dict[Slot, Tensor], left: Tensor) -> list[Tensor]:
        """Return the first gradient, and what later steps need of the batch in place of the target."""
        known = {self.aliases.get(n, n): n for n in self.network_state()}
        layer = next(n for n in self.block.module.graph.nodes if n.name == self.goal.node)
        design = design_of(self.block.module, layer, {known[name]: name for name in self.problem.trainable})
        x, start = (thinned(self.goal, t.detach()) for t in (self.run.input, self.run.attached))
        found = moments(self.goal, design, x, start)
        self.results += moment_slots(self.goal)
        values = [found.pairs, found.sums, found.count]
        first = self.first(bound, left)
        values += first
        for name, gradient in zip(self.problem.trainable, first, strict=True):
            self.results += [anchor_slot(self.goal, name), first_slot(self.goal, name)]
            values += [tensors[state_slot(name)] * 1.0, gradient]
        return values

    def anchors(self, tensors: dict[Slot, Tensor]) -> list[Tensor]:
        """Return copies of the weights before the batch, where steps that move them go back to them."""
        names = self.problem.trainable if self.goal.formula.repeats else ()
        self.results += [anchor_slot(self.goal, name) for name in names]
        return [tensors[state_slot(name)] * 1.0 for name in names]

    def first(self, bound: Mapping[Slot, Tensor], left: Tensor) -> list[Tensor]:
        slots = [state_slot(name) for name in self.problem.trainable]
        attached = thinned(self.goal, self.run.attached)
        found = _grad([(attached, reduced(self.goal, left))], [bound[slot] for slot in slots])
        return kept(self, slots, found)


class SolveStep(Step):
    """The gradient of the local problem at other weights: the block up to its pre-activation, and the target."""

    @property
    def goal(self) -> Target:
        assert self.problem.target is not None, "the step of a block with a target"
        return self.problem.target

    def known(self, name: str) -> str:
        """Return the name that the block's own module has for a parameter."""
        return next(n for n in self.network_state() if self.aliases.get(n, n) == name)

    def collect(self, mode: str) -> None:
        super().collect(mode)
        if not self.goal.by_moments:
            self.arguments.add(target_slot(self.goal), *self.types.values[self.goal.node])

    def thin(self, tensors: dict[Slot, Tensor]) -> dict[Slot, Tensor]:
        """Leave the problem's own samples of all that has samples."""
        values = self.types.values
        batched = {s for s in tensors if s.role == "input" and values[s.source][1][:1] == ("B",)}
        batched |= {target_slot(self.goal)} if not self.goal.by_moments else set()
        return {slot: thinned(self.goal, t) if slot in batched else t for slot, t in tensors.items()}

    def train(self, tensors: dict[Slot, Tensor]) -> list[Tensor]:
        tensors = self.thin(tensors)
        goal, slots = self.goal, [state_slot(name) for name in self.problem.trainable]
        with torch.enable_grad():
            bound = self.bind(tensors, frozenset(slots))
            with self.target.autocast():
                found = self.forward(tensors, bound, "train").outputs[goal.node]
        left = goal.f.f(found.detach()) - tensors[target_slot(goal)]
        return kept(self, slots, _grad([(found, reduced(goal, left))], [bound[slot] for slot in slots]))


@dataclass(frozen=True)
class Leading:
    """A block up to its pre-activation, as a problem that has no losses of its own."""

    problem: LocalProblem
    block: BlockModule


def leading(problem: LocalProblem, network: fx.GraphModule, nodes: Sequence[str]) -> Leading:
    """Cut a block off behind its pre-activation."""
    assert problem.target is not None, "a block with a target"
    by_name = {n.name: n for n in network.graph.nodes}
    needed = {n.name for n in ancestors([by_name[problem.target.node]])}
    own = [name for name in nodes if name in needed]
    plain = replace(problem, losses=(), receives=(), heads=LocalModules(), feedback=(), errors=False)
    return Leading(plain, extract(network, own, [problem.target.node]))


def target_slot(target: Target) -> Slot:
    """Return where a block's target goes; it is named after the loss that compares with it."""
    return Slot("target", "target", target.loss)


def target_of(target: Target, start: Tensor, gradient: Tensor) -> Tensor:
    """Return the target: f(A) - step G, or with the natural rule f(A) - step G S^-1."""
    moved = target.f.f(start) - target.step * direction(target, gradient)
    return target.f.clipped(moved) if target.clips else moved


def direction(target: Target, gradient: Tensor) -> Tensor:
    """Return G, or G S^-1 with S = B G'G + damping: rows are samples and positions, columns channels."""
    if not target.natural:
        return gradient
    spatial = gradient.dim() == 4
    rows = (gradient.movedim(1, -1) if spatial else gradient).flatten(0, -2)
    second = gradient.shape[0] * (rows.T @ rows)
    second = second + target.damping * torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)
    found: Tensor = torch.linalg.solve_ex(second, rows.T).result.T
    return found.reshape(gradient.movedim(1, -1).shape).movedim(-1, 1) if spatial else found.reshape(gradient.shape)


def residual(target: Target, start: Tensor, towards: Tensor, gradient: Tensor) -> Tensor:
    """Return f(A) - T, which is step G where nothing is clipped."""
    if target.clips:
        return target.f.f(start) - towards
    return target.step * direction(target, gradient)


def thinned(target: Target, t: Tensor) -> Tensor:
    """Return the samples that a local problem has, of what has them along its first axis."""
    return t if target.every == 1 else t[:: target.every]


def reduced(target: Target, left: Tensor) -> Tensor:
    """Return what a residual counts in the local loss: a sum, a mean over elements, or over samples."""
    if target.reduction == "sum":
        return left
    return left / (left.numel() if target.reduction == "mean" else left.shape[0])


def kept(step: Step, slots: list[Slot], found: list[Tensor | None]) -> list[Tensor]:
    """Register gradients as results; what has none is not reached."""
    pairs = list(zip(slots, found, strict=True))
    step.unreached += [slot.source for slot, g in pairs if g is None]
    step.results += [Slot("gradients", "gradients", slot.source) for slot, g in pairs if g is not None]
    return [g.detach() for _, g in pairs if g is not None]


def _grad(pairs: list[tuple[Tensor, Tensor]], leaves: list[Tensor]) -> list[Tensor | None]:
    if not leaves:
        return []
    roots, cotangents = [root for root, _ in pairs], [cotangent for _, cotangent in pairs]
    return list(torch.autograd.grad(roots, leaves, cotangents, allow_unused=True, retain_graph=True))
