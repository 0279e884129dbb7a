"""Which solver has a block with a target? What its formula needs of the spec, and the optimizer that goes its way."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lpc.compiler.inner import outer_of
from lpc.compiler.optimizer_class import named
from lpc.compiler.rules import stated, stated_at
from lpc.specs import signatures
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.model import Schedule, Spec
from lpc.specs.plan.laws import inner_factor
from lpc.specs.plan.plan import Optimizer, ParameterGroup
from lpc.specs.term import Term

NEWTON_STEPS = 30
BY_FORMULA = frozenset({"exact", "closed_form", "cg"})
UNUSED = frozenset({"exact", "cg", "fixed_point"})  # solvers that no rate of the optimizer enters
SMALL_PROBLEM = 2**27  # numbers in the second derivatives of Newton's method


@dataclass(frozen=True)
class Formula:
    """What a solver by formula needs besides the problem; nothing is `known` where gradient steps solve it.

    `repeats`: Newton's method, whose steps go back to the weights before the batch. `rates` are those of `closed_form`.
    `wide`: the layer has more inputs than a batch has rows, so that the system of the rows is the smaller one.
    """

    known: bool = False
    repeats: bool = False
    prox: float = math.inf
    rates: tuple[float, ...] = ()
    iterations: int = 1
    wide: bool = False


def formula(
    spec: Spec, block: str, linear: bool, start: Tensor, weight: Tensor | None, bias: bool, samples: int
) -> Formula:
    """Return what the solver of a block needs. Raises LpcError (0436) for one that does not fit.

    `linear` tells whether the local loss is a square, of so many `samples`; `start` is like the pre-activation,
    `weight` like the weights.
    """
    solver = stated(spec, block, "solver") or Term("gradient")
    if solver.name not in BY_FORMULA:
        if solver.name == "fixed_point" and not _has_prox(spec, block):
            raise misfit(spec, block, "`fixed_point` is drawn to the weights before the batch by `prox`, and has none")
        return Formula()
    if not linear and solver.name != "exact":
        raise misfit(spec, block, f"`{solver}` solves linear equations, and the loss `matching` leads to none")
    prox = stated(spec, block, "prox") or math.inf
    if not linear and math.isinf(prox):
        raise misfit(spec, block, "without `prox` a matching loss may have no minimum")
    size, inputs = (weight.shape[0], weight[0].numel() + bias) if weight is not None else (1, 1)
    if not linear and size * inputs * inputs > SMALL_PROBLEM:
        message = f"Newton's method would need {size} matrices of {inputs} x {inputs}; use `gradient` steps with `prox`"
        raise misfit(spec, block, message)
    positions = math.prod(int(s) for s in start.shape[1:]) // size
    return Formula(
        True,
        not linear,
        prox,
        _rates(spec, block) if solver.name == "closed_form" else (),
        int(signatures.SOLVERS["cg"].bind(solver)["iterations"]) if solver.name == "cg" else 1,
        samples * positions < inputs,
    )


def formula_optimizer(spec: Spec, block: str, names: Sequence[str], repeats: bool) -> Optimizer:
    """Return what takes the way that a formula finds, a gradient of rate 1: plain steps, and the outer optimizer."""
    outer, options = outer_of(spec, block)
    group = ParameterGroup(tuple(names))
    steps = NEWTON_STEPS if (stated(spec, block, "steps") or 1) == 1 else int(stated(spec, block, "steps"))
    return Optimizer(
        block, "sgd", {"lr": 1.0}, (group,), steps=steps if repeats else 1, outer=outer, outer_options=options
    )


def idle_optimizers(spec: Spec, blocks: Iterable[str]) -> list[str]:
    """Return notes about optimizers that `learn` states and a solver by formula does not use."""
    solvers = {block: stated(spec, block, "solver") for block in blocks if stated(spec, block, "optimizer")}
    return [
        f"block {block}: `solver: {solver}` takes no step of `optimizer`; its value is not used"
        for block, solver in solvers.items()
        if solver is not None and solver.name in UNUSED
    ]


def fixed_point_term(spec: Spec, block: str) -> Term | None:
    """Return the optimizer that W = W0 - prox * gradient(W) is: steps of rate prox, pulled to W0."""
    solver = stated(spec, block, "solver")
    if solver is None or solver.name != "fixed_point":
        return None
    return Term("sgd", (), {"lr": stated(spec, block, "prox")})


def _rates(spec: Spec, block: str) -> tuple[float, ...]:
    """The rates of the plain steps that `closed_form` stands for."""
    term: Term | None = stated(spec, block, "optimizer")
    schedule: Schedule | None = stated(spec, block, "schedule")
    name, options = named(term) if term is not None else ("", {})
    rate = options.get("lr")
    if name != "sgd" or set(options) != {"lr"} or not isinstance(rate, int | float):
        raise misfit(spec, block, "`closed_form` is that of plain steps: write `optimizer: sgd(lr=...)`")
    if schedule is not None and (schedule.warmup or schedule.then.name != "constant"):
        raise misfit(spec, block, "`closed_form` has the same rates in every batch, and `schedule` changes them")
    count = stated(spec, block, "steps") or 1
    law = schedule.inner if schedule is not None else Term("constant")
    return tuple(rate * inner_factor(law, k, count) for k in range(count))


def _has_prox(spec: Spec, block: str) -> bool:
    return math.isfinite(stated(spec, block, "prox") or math.inf)


def misfit(spec: Spec, block: str, reason: str) -> LpcError:
    """Return the error that a solver does not fit its block (0436)."""
    message = f"the solver of block `{block}` does not fit: {reason}"
    return LpcError(Diagnostic("0436", message, span=stated_at(spec, block, "solver")))


def weights_of(parameters: Mapping[str, Any], names: Sequence[str]) -> tuple[Tensor | None, bool]:
    """Return a layer's matrix or kernel among its trained parameters, and whether there is a bias."""
    found = [parameters[n] for n in names]
    return next((p for p in found if p.dim() > 1), None), any(p.dim() == 1 for p in found)
