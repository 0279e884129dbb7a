"""Does solving the variables come to anything? Movements below the numbers' resolution, steps that grow, idle weights.

Jacobians and derivatives of a sample's loss are taken as 1: what is told is an order of magnitude. By the mean over
all elements each layer multiplies what arrives by 2 s / (B D), with s the effective step, B samples and D elements.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from lpc.compiler.capture.types import dtype_of
from lpc.compiler.localize import LocalProblem
from lpc.compiler.optimizer_class import optimizer_class
from lpc.compiler.variables import Factor, Penalty, Variable, Variables
from lpc.specs import signatures
from lpc.specs.model import Spec
from lpc.specs.plan.kernel import TensorType
from lpc.specs.plan.optimizers import is_class
from lpc.specs.plan.plan import PERSISTENT
from lpc.specs.term import Term

TRIED = 100  # steps after which a step size that is too large has shown itself


def doubts(
    spec: Spec, variables: Variables, problems: Mapping[str, LocalProblem], types: Mapping[str, TensorType]
) -> list[str]:
    """Return warnings about variables; `types` are those of their values, batch axis first."""
    resolution = torch.finfo(dtype_of(spec.run.dtype)).eps
    found = []
    for name, moved in movements(spec.batch_size, variables, problems, types).items():
        variable = variables.every[name]
        if moved < resolution:
            found.append(
                f"the variable {variable.name} moves by about {moved:.0e} of its size, less than {spec.run.dtype} can"
                " tell: block `" + variable.producer + "` hardly learns; `reduction=sum` does not shrink what arrives"
            )
        if _grows(variable, spec.batch_size, types[name], variables.sweeps):
            found.append(f"the variable {variable.name} diverges: its optimizer's step is too large for its penalty")
        if _overshoots(variables, variable, problems[variable.producer], spec.batch_size, types[name]):
            found.append(
                f"block `{variable.producer}` moves away from {variable.name}, to which it is fitted several times:"
                f" a bias alone counts {_positions(types[name])} positions in its penalty, and a step of its"
                " optimizer is too large for that; lower its rate, or the weight of the penalty"
            )
    return found


def _overshoots(
    variables: Variables, variable: Variable, problem: LocalProblem, batch: int, kind: TensorType
) -> bool:
    """Do weights that are fitted to the same variable again and again move away from it?

    The penalty's curvature along a bias of the block's output, the same at all positions of a map, is 2 w times their
    number (sum); that of other weights comes on top. One step towards a variable that is solved anew each time is no
    such fit: it begins where the weights are.
    """
    optimizer = problem.optimizer
    if optimizer is None or variable.penalty.name != "squared" or is_class(optimizer.name):
        return False
    if not (variables.cached and variables.refresh > 1) and optimizer.steps == 1:
        return False
    weight = problem.consistency.weight
    weight = _number(variable.penalty.weight) if weight is None else weight
    share = {"sum": 1.0, "sample": 1.0, "mean": float(batch)}[variable.penalty.reduction]
    bend = 2.0 * weight * _share(variable.penalty, batch, kind) * share * _positions(kind)
    return _leaves(optimizer.name, optimizer.options, bend)


def _positions(kind: TensorType) -> int:
    """Return how many elements of a sample a bias moves: the places of a map, or of a sequence's features."""
    axes = [int(axis) for axis in kind.shape[1:] if not isinstance(axis, str)]
    return math.prod(axes[1:] if len(axes) > 2 else axes[:-1])


def idle_weights(variables: Variables, problems: Mapping[str, LocalProblem]) -> list[str]:
    """Return notes about a penalty's weight that does the same as a learning rate: one variable, one step."""
    if len(variables.every) != 1 or variables.cached or variables.sweeps > 1:
        return []
    (variable,) = variables.every.values()
    optimizer = problems[variable.producer].optimizer
    if variable.steps > 1 or variable.l1 or optimizer is None or optimizer.name != "sgd":
        return []
    return [f"the weight of {variable.name} only rescales the learning rate of block `{variable.producer}`"]


def idle_memories(variables: Variables) -> list[str]:
    """Return notes about optimizers that are to persist and have nothing to remember."""
    plain = [v for v in variables.every.values() if v.optimizer == "sgd" and not v.options.get("momentum")]
    return [
        f"`state=persistent` of {v.name} changes nothing: `sgd` without momentum remembers nothing"
        for v in plain
        if v.state == PERSISTENT
    ]


def movements(
    batch: int, variables: Variables, problems: Mapping[str, LocalProblem], types: Mapping[str, TensorType]
) -> dict[str, float]:
    """Return about how far each variable moves, in the elements' own size."""
    found: dict[str, float] = {}
    for name in reversed(list(variables.every)):
        variable = variables.every[name]
        slope = max(_slopes(variable, batch, problems, types, found), default=0.0) * _scale(variable)
        found[name] = _moved(variable, slope)
    return found


def _slopes(
    variable: Variable, batch: int, problems: Mapping[str, LocalProblem],
    types: Mapping[str, TensorType], moved: Mapping[str, float],
) -> Iterator[float]:  # fmt: skip
    joined = [b for c in variable.consumers if (g := problems[c].group) is not None for b in g.after(c)]
    for block in dict.fromkeys((*variable.consumers, *joined)):
        if problems[block].losses:
            yield 1.0 / batch if variable.penalty.reduction == "mean" else 1.0
        for made in problems[block].makes:
            bend = 2.0 * _number(made.penalty.weight) * _share(made.penalty, batch, types[made.value])
            yield bend * moved[made.value]


def _share(penalty: Penalty, batch: int, kind: TensorType) -> float:
    """What one element counts in a penalty."""
    size = math.prod(int(axis) for axis in kind.shape[1:] if not isinstance(axis, str)) or 1
    return {"sum": 1.0, "sample": 1.0 / size, "mean": 1.0 / (batch * size)}[penalty.reduction]


def _scale(variable: Variable) -> float:
    return _number(variable.scale) / (_number(variable.penalty.weight) if variable.divides else 1.0)


def _number(factor: Factor) -> float:
    """Return a factor at the first step."""
    return float(signatures.PENALTY_WEIGHTS[factor.name].bind(factor)["start"]) if isinstance(factor, Term) else factor


def _moved(variable: Variable, slope: float) -> float:
    """Return how far the optimizer goes along a slope that stays as it is."""
    value = torch.zeros(1, dtype=torch.float64)
    optimizer = optimizer_class(variable.optimizer)([value], **variable.options)
    for _ in range(variable.steps):
        value.grad = torch.full((1,), slope, dtype=torch.float64)
        optimizer.step()
    return abs(float(value))


def _grows(variable: Variable, batch: int, kind: TensorType, sweeps: int) -> bool:
    """Does the optimizer move away from what pulls it, if nothing else does?"""
    if not variable.anchor or variable.steps * sweeps == 1 or variable.penalty.name != "squared":
        return False
    bend = 2.0 * _number(variable.penalty.weight) * _share(variable.penalty, batch, kind) * _scale(variable)
    return _leaves(variable.optimizer, variable.options, bend)


def _leaves(name: str, options: Mapping[str, Any], bend: float) -> bool:
    """Does an optimizer move away from the bottom of a parabola?"""
    value = torch.ones(1, dtype=torch.float64)
    optimizer = optimizer_class(name)([value], **options)
    for _ in range(TRIED):
        value.grad = bend * value.clone()
        optimizer.step()
    return not abs(float(value)) <= 2.0
