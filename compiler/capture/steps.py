"""Which local step has a block? One kind for each estimator of gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lpc.compiler.blocks import BlockModule
from lpc.compiler.capture.aligned import AlignedStep
from lpc.compiler.capture.difference import DifferenceStep
from lpc.compiler.capture.factors import FactorStep
from lpc.compiler.capture.forward import ForwardStep
from lpc.compiler.capture.joint import CaptureTarget, Inputs, LocalGraph, Step
from lpc.compiler.capture.relaxed import VariableStep
from lpc.compiler.capture.split import SplitStep
from lpc.compiler.capture.target import TargetStep
from lpc.compiler.estimator import ALIGNMENT, BACKPROP, FORWARD
from lpc.compiler.localize import LocalProblem

STEPS: Mapping[str, type[Step]] = {BACKPROP: Step, FORWARD: ForwardStep, ALIGNMENT: AlignedStep}


def trace_training(
    problem: LocalProblem,
    block: BlockModule,
    types: Inputs,
    metrics: Sequence[str],
    aliases: Mapping[str, str],
    differentiable: frozenset[str],
    target: CaptureTarget,
) -> LocalGraph:
    """Trace forward, losses, metrics, parameter gradients and input cotangents of one block.

    `differentiable` are the outside values whose producers want a cotangent. `aliases` maps tied parameter
    names to the canonical one.
    """
    kind = STEPS[problem.estimator.name]
    if problem.target is not None:
        kind = DifferenceStep if problem.target.differs else TargetStep
    if problem.around:
        kind = VariableStep
    if problem.factored:
        kind = FactorStep
    if problem.split is not None:
        kind = SplitStep
    step = kind(problem, block, types, tuple(metrics), aliases, target, differentiable)
    return step.trace("train")
