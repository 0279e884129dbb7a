"""What is the step of a block whose target's problem is solved by formula? One kernel: the way to the solution."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lpc.compiler.capture.design import Design, InputRun, design_of
from lpc.compiler.capture.gram import GramStep
from lpc.compiler.capture.joint import CaptureTarget, Inputs, LocalGraph, Slot, state_slot
from lpc.compiler.capture.moments import anchor_slot
from lpc.compiler.capture.solvers import SOLVERS, Problem, newton
from lpc.compiler.capture.target import Leading, SolveStep, target_slot
from lpc.compiler.targets import SQUARED


class FormulaStep(SolveStep):
    """Minus the way from the weights to the solution, as a gradient; Newton's method takes several such steps."""

    run: InputRun

    def collect(self, mode: str) -> None:
        super().collect(mode)
        if self.goal.formula.repeats:
            for name in self.problem.trainable:
                tensor = self.network_state()[self.known(name)]
                self.arguments.add(anchor_slot(self.goal, name), tensor.dtype, tensor.shape)

    def interpreter(self, bound: object) -> InputRun:
        self.run = InputRun(self.block.module, self.goal.node)
        return self.run

    def train(self, tensors: dict[Slot, Tensor]) -> list[Tensor]:
        tensors = self.thin(tensors)
        trained = {self.known(name): name for name in self.problem.trainable}
        layer = next(n for n in self.block.module.graph.nodes if n.name == self.goal.node)
        design = design_of(self.block.module, layer, trained)
        with torch.no_grad():
            a = self.forward(tensors, dict(tensors), "train").outputs[self.goal.node]
            state = {name: tensors[state_slot(name)] for name in self.problem.trainable}
            way = self.way(design, tensors, state, a)
        found = design.part(way, state)
        self.results += [Slot("gradients", "gradients", name) for name in found]
        return list(found.values())

    def way(self, design: Design, tensors: dict[Slot, Tensor], state: dict[str, Tensor], a: Tensor) -> Tensor:
        formula, f = self.goal.formula, self.goal.f
        start, towards = design.columns(a), design.columns(tensors[target_slot(self.goal)])
        rows = design.rows(self.run.input)
        scale = self.scale(a, rows)
        problem = Problem(
            rows, f.f(start) - towards, scale, formula.prox, formula.rates, formula.iterations, formula.wide
        )
        if self.goal.loss == SQUARED or f.name == "linear":
            return SOLVERS[self.goal.solver.name](problem)
        anchor = {n: tensors[anchor_slot(self.goal, n)] for n in state}
        return newton(problem, f, start, towards, design.join(state) - design.join(anchor))

    def scale(self, a: Tensor, rows: Tensor) -> float | Tensor:
        if self.goal.reduction == "sum":
            return 1.0
        return torch.ones_like(rows[0, 0]) / (a.numel() if self.goal.reduction == "mean" else a.shape[0])


def trace_solve(
    leading: Leading, types: Inputs, aliases: Mapping[str, str], target: CaptureTarget
) -> LocalGraph:
    """Trace the gradient of a block's local problem at any weights, or the way to its solution."""
    goal = leading.problem.target
    assert goal is not None, "a block with a target"
    kind = FormulaStep if goal.formula.known else GramStep if goal.by_moments else SolveStep
    return kind(leading.problem, leading.block, types, (), aliases, target, frozenset()).trace("train")
