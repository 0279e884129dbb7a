"""What should an evaluation tell? Losses and metrics of all blocks, of the network in evaluation, in eager mode."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from lpc.compiler.build import Build
from lpc.compiler.eager import evaluate
from lpc.compiler.local_loss import judge
from lpc.compiler.localize import LocalProblem

Tensors = Mapping[str, Tensor]


def evaluated(build: Build, state: Tensors, batch: Tensors, noise: Tensors) -> dict[str, Tensor]:
    """Return the losses and metrics that evaluation records, as `block.name`, of blocks that judge by themselves."""
    assert build.traced is not None
    assert build.graph is not None
    values, replay = evaluate(build.traced, build.graph, state, batch, noise)
    found: dict[str, Tensor] = {}
    for block, problem in build.problems.items():
        if not problem.losses:
            continue
        problem.heads.train(False)
        targets = {loss.name: {**values, **batch}[loss.target["eval"]] for loss in problem.losses if loss.target}
        replay.counts.clear()
        with replay:
            feature = values[problem.feature["eval"]]
            own = head_state(problem, state, build.traced.tied)
            judged = judge(block, problem.losses, problem.heads, own, feature, targets, replay.at)
        named = {name: one.value for name, one in judged.items()} | problem.measured(judged, build.spec.run.metrics)
        found |= {f"{block}.{name}": value for name, value in named.items()}
    return found


def head_state(problem: LocalProblem, state: Tensors, tied: Mapping[str, str]) -> dict[str, Tensor]:
    """Return the tensors of a block's heads, by their names there."""
    own = {name: problem.heads.source(problem.block, name) for name in problem.heads.state()}
    return {name: state[tied.get(there, there)] for name, there in own.items()}
