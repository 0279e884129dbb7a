"""Does a block compute the same in training and in evaluation? Where it does, one trace gives the kernels of both."""

from __future__ import annotations

from lpc.compiler.blocks import BlockModule
from lpc.compiler.estimator import BACKPROP
from lpc.compiler.frontend.indifferent import same_graphs
from lpc.compiler.localize import LocalProblem


def same_in_both(train: BlockModule, evaluation: BlockModule, problem: LocalProblem) -> bool:
    """Have a block's forward, losses and metrics the same operators on the same values in both modes?

    Asked only of plain backpropagation: other estimators, targets, variables and splits rewrite what a step computes.
    """
    rewritten = problem.target is not None or problem.split is not None or problem.makes or problem.reads
    if problem.estimator.name != BACKPROP or rewritten:
        return False
    if (train.inputs, train.outputs) != (evaluation.inputs, evaluation.outputs):
        return False
    compared = all(loss.target.get("train") == loss.target.get("eval") for loss in problem.losses)
    if not compared or problem.feature["train"] != problem.feature["eval"]:
        return False
    return same_graphs(train.module, evaluation.module, list(problem.heads.modules.values()))
