"""How is the problem of a target solved at once? Formulas for the way from the weights to the solution.

The problem of a layer with rows X and residual R at the weights W: s/2 |X D + R|^2 + |D|^2 / (2 prox) for `squared`,
the sum of D_F for `matching`; s is 1, or what the reduction divides by. Every solver returns -D, [inputs, outputs]: a
gradient step with rate 1 goes there. Sources: LocoProp (arXiv 2106.06199), ProxProp (arXiv 1706.04638).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lpc.compiler.losses.matching import Transfer

REFINEMENTS = 2
HALVINGS = 12
SMALL = 1e-12  # of a sum, by which rounding may raise it
SLOPE = 1e-4  # of a step's first-order gain, which it must reach (Armijo)


@dataclass(frozen=True)
class Problem:
    """One layer's problem in numbers: `rates` are those of plain gradient steps, `prox` infinite for none."""

    rows: Tensor
    residual: Tensor
    scale: float | Tensor
    prox: float
    rates: tuple[float, ...] = ()
    iterations: int = 1
    wide: bool = False  # more inputs than rows: the smaller system is that of the rows

    @property
    def pull(self) -> float:
        return 0.0 if self.prox == float("inf") else 1.0 / self.prox


def exact(problem: Problem) -> Tensor:
    """(s X'X + 1/prox)^-1 s X'R, by the smaller of the two systems; without prox the one of least norm."""
    if problem.pull == 0.0:
        return _least_norm(problem)
    x, r = problem.rows, problem.residual
    if problem.wide:
        system = problem.scale * (x @ x.t()) + problem.pull * _eye(x, 0)
        return problem.scale * (x.t() @ _solved(system, r))
    system = problem.scale * (x.t() @ x) + problem.pull * _eye(x, 1)
    return _solved(system, problem.scale * (x.t() @ r))


def closed_form(problem: Problem) -> Tensor:
    """V phi V' s X'R with X'X = V lambda V'; after a step h, phi is phi (1 - h (s lambda + 1/prox)) + h."""

    def steps(values: Tensor) -> Tensor:
        phi = torch.zeros_like(values)
        for rate in problem.rates:
            phi = phi * (1.0 - rate * (problem.scale * values + problem.pull)) + rate
        return problem.scale * phi

    return _filtered(problem, steps, problem.residual)


def cg(problem: Problem) -> Tensor:
    """Conjugate gradients on (s X'X + 1/prox) D = s X'R, from 0, all columns as one vector."""
    x, scale = problem.rows, problem.scale
    left = scale * (x.t() @ problem.residual)
    found, way, size = torch.zeros_like(left), left, (left * left).sum()
    for _ in range(problem.iterations):
        turned = scale * (x.t() @ (x @ way)) + problem.pull * way
        curvature = (way * turned).sum()
        alpha = torch.where(curvature > 0, size / curvature, torch.zeros_like(size))
        found, left = found + alpha * way, left - alpha * turned
        new = (left * left).sum()
        way = left + torch.where(size > 0, new / size, torch.zeros_like(size)) * way
        size = new
    return found


SOLVERS: Mapping[str, Callable[[Problem], Tensor]] = {"exact": exact, "closed_form": closed_form, "cg": cg}


def newton(problem: Problem, f: Transfer, start: Tensor, towards: Tensor, gone: Tensor) -> Tensor:
    """Return the Newton step of s sum(F(A) - T A) + |W - W0|^2 / (2 prox), halved until the sum falls.

    `start` is A [rows, outputs], `gone` W - W0. Outputs are problems of their own, unless f couples them (softmax).
    """
    gradient = problem.scale * (problem.rows.t() @ problem.residual) + problem.pull * gone
    way = (_coupled if f.slope is None else _apart)(problem, f, start, gradient)
    moved = problem.rows @ way
    axes = (0,) if f.slope is not None else (0, 1)

    def total(share: float) -> Tensor:
        a = start - share * moved
        potential = f.potential(a) if f.slope is not None else f.potential(a)[:, None]
        linear = (towards * a).sum(axes)
        near = (gone - share * way).square().sum(axes) * (problem.pull / 2)
        return problem.scale * (potential.sum(axes) - linear) + near

    best, gain = total(0.0), (gradient * way).sum(axes)
    share, found = torch.zeros_like(best), torch.zeros_like(best, dtype=torch.bool)
    for power in range(HALVINGS):
        fits = total(0.5**power) <= best - SLOPE * 0.5**power * gain + SMALL * (1.0 + best.abs())
        share = torch.where(fits & ~found, torch.full_like(share, 0.5**power), share)
        found = found | fits
    return share * way


def _apart(problem: Problem, f: Transfer, start: Tensor, gradient: Tensor) -> Tensor:
    assert f.slope is not None, "a transfer of single elements"
    x = problem.rows
    weighted = f.slope(start).t()[:, None, :] * x.t()  # [outputs, inputs, rows]
    hessians = problem.scale * (weighted @ x) + problem.pull * _eye(x, 1)
    return _solved(hessians, gradient.t()[:, :, None])[:, :, 0].t()


def _coupled(problem: Problem, f: Transfer, start: Tensor, gradient: Tensor) -> Tensor:
    """Softmax's derivative is diag(p) - p p' in each row."""
    x, p = problem.rows, f.f(start)
    size = x.shape[1] * p.shape[1]
    jacobians = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    pairs = (x[:, :, None] * x[:, None, :]).flatten(1)  # [rows, inputs * inputs]
    blocks = (pairs.t() @ jacobians.flatten(1)).reshape(x.shape[1], x.shape[1], p.shape[1], p.shape[1])
    hessian = problem.scale * blocks.permute(0, 2, 1, 3).reshape(size, size)
    pulled = hessian + problem.pull * torch.eye(size, dtype=x.dtype, device=x.device)
    return _solved(pulled, gradient.reshape(size, 1)).reshape(gradient.shape)


def _least_norm(problem: Problem) -> Tensor:
    """The pseudo-inverse's solution, by the eigenvalues of the smaller Gram matrix, refined against rounding."""

    def inverse(values: Tensor) -> Tensor:
        bound = values.amax() * values.shape[0] * torch.finfo(values.dtype).eps
        return torch.where(values > bound, 1.0 / values, torch.zeros_like(values))

    found = _filtered(problem, inverse, problem.residual)
    for _ in range(REFINEMENTS):
        found = found + _filtered(problem, inverse, problem.residual - problem.rows @ found)
    return found


def _filtered(problem: Problem, phi: Callable[[Tensor], Tensor], residual: Tensor) -> Tensor:
    """Return V phi(lambda) V' X'R, by X'X or X X', whichever is smaller."""
    x = problem.rows
    values, vectors = torch.linalg.eigh(x @ x.t() if problem.wide else x.t() @ x)
    right = residual if problem.wide else x.t() @ residual
    turned: Tensor = vectors @ (phi(values)[:, None] * (vectors.t() @ right))
    return x.t() @ turned if problem.wide else turned


def _solved(system: Tensor, right: Tensor) -> Tensor:
    """Solve a positive definite system, or a batch of them."""
    return torch.cholesky_solve(right, torch.linalg.cholesky_ex(system).L)


def _eye(x: Tensor, axis: int) -> Tensor:
    return torch.diag_embed(torch.ones_like(x[:, 0] if axis == 0 else x[0]))
