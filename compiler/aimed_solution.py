"""What should a solver by formula return? The solution found in another way: least squares, explicit steps, autograd.

A part of the reference that `lpc verify` compares with; independent of capture, schedule and runtime.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from lpc.compiler.capture.design import Design
from lpc.compiler.capture.solvers import HALVINGS, SLOPE, SMALL
from lpc.compiler.targets import SQUARED, Target


def solution(
    target: Target, design: Design, x: Tensor, start: Tensor, left: Tensor, state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the way from a solution back to the weights, by parameter.

    `x` is the layer's input, `start` its output A, `left` the residual, divided as the loss is; `state` the weights.
    """
    rows, a, r = design.rows(x), design.columns(start), design.columns(left)
    counts = {"sum": 1, "mean": start.numel(), "batchmean": start.shape[0]}[target.reduction]
    if target.loss == SQUARED or target.f.name == "linear":
        return design.part(LINEAR[target.solver.name](target, rows, r, 1.0 / counts), state)
    towards = target.f.f(a) - r * counts
    return design.part(_newton(target, rows, a, towards, 1.0 / counts), state)


def _exact(target: Target, x: Tensor, r: Tensor, scale: float) -> Tensor:
    """Least squares on the rows and, under them, the pull; r is scaled already."""
    if math.isinf(target.formula.prox):
        limit: Tensor = torch.linalg.pinv(x) @ (r / scale)
        return limit
    below = torch.eye(x.shape[1]) / math.sqrt(target.formula.prox)
    rows = torch.cat([math.sqrt(scale) * x, below])
    right = torch.cat([r / math.sqrt(scale), torch.zeros(x.shape[1], r.shape[1])])
    found: Tensor = torch.linalg.lstsq(rows, right).solution
    return found


def _steps(target: Target, x: Tensor, r: Tensor, scale: float) -> Tensor:
    way = torch.zeros(x.shape[1], r.shape[1])
    for rate in target.formula.rates:
        way = way + rate * (x.T @ (r - scale * x @ way) - way / target.formula.prox)
    return way


def _conjugate(target: Target, x: Tensor, r: Tensor, scale: float) -> Tensor:
    """Textbook conjugate gradients on one vector, with the matrix of all columns."""
    pull = 0.0 if math.isinf(target.formula.prox) else 1.0 / target.formula.prox
    system = scale * x.T @ x + pull * torch.eye(x.shape[1])
    right = x.T @ r
    found, rest = torch.zeros_like(right), right.clone()
    way = rest.clone()
    for _ in range(target.formula.iterations):
        size = (rest * rest).sum()
        if size == 0:
            break
        alpha = size / (way * (system @ way)).sum()
        found, rest = found + alpha * way, rest - alpha * (system @ way)
        way = rest + (rest * rest).sum() / size * way
    return found


LINEAR: Mapping[str, Callable[[Target, Tensor, Tensor, float], Tensor]] = {
    "exact": _exact, "closed_form": _steps, "cg": _conjugate,
}  # fmt: skip


def _newton(target: Target, x: Tensor, a: Tensor, towards: Tensor, scale: float) -> Tensor:
    """One step of Newton's method from the weights, by second derivatives that autograd finds."""
    f, pull = target.f, 1.0 / target.formula.prox

    def objective(way: Tensor, columns: slice) -> Tensor:
        moved = a[:, columns] - x @ way
        fits = f.potential(moved).sum() - (towards[:, columns] * moved).sum()
        return scale * fits + pull * way.square().sum() / 2

    alone = [slice(j, j + 1) for j in range(a.shape[1])] if f.slope is not None else [slice(None)]
    return torch.cat([_step(lambda way, c=c: objective(way, c), x.shape[1], a[:, c].shape[1]) for c in alone], 1)  # type: ignore[misc]


def _step(objective: Callable[[Tensor], Tensor], inputs: int, outputs: int) -> Tensor:
    size, zero = inputs * outputs, torch.zeros(inputs, outputs)
    gradient: Tensor = torch.autograd.functional.jacobian(objective, zero)  # type: ignore[no-untyped-call]
    hessian: Tensor = torch.autograd.functional.hessian(objective, zero)  # type: ignore[no-untyped-call]
    way: Tensor = -torch.linalg.solve(hessian.reshape(size, size), gradient.reshape(size)).reshape(inputs, outputs)
    best, gain = objective(zero), -(gradient * way).sum()
    for power in range(HALVINGS):
        share = 0.5**power
        if objective(share * way) <= best - SLOPE * share * gain + SMALL * (1.0 + best.abs()):
            return share * way
    return zero
