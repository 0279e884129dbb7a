"""Do the stages of a step with auxiliary variables cost what their formulas say, and torch counts?"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import lpc

BATCH = 8
SPEC = """
network:
  inputs: {{x: [6]}}
  layers: [f1: linear(7), t1: tanh, f2: linear(5), t2: tanh, f3: linear(4), t3: tanh, f4: linear(3)]
data: none
fields: {{y: {{shape: [], dtype: int64}}}}
recipe: {}
run: {{epochs: 1}}
"""
BLOCKS = "blocks={b1: [f1, t1], b2: [f2, t2, f3, t3], b3: f4}"


def modules() -> list[nn.Sequential]:
    """The same blocks in plain torch."""
    tanh = nn.Tanh()
    return [
        nn.Sequential(nn.Linear(6, 7), tanh),
        nn.Sequential(nn.Linear(7, 5), tanh, nn.Linear(5, 4), tanh),
        nn.Sequential(nn.Linear(4, 3)),
    ]


def counted(run: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def costs() -> tuple[list[int], list[int], list[int]]:
    """Return by block what torch counts of F, of F + I, and of F + I- + G."""
    forward, slope, weights = [], [], []
    for block in modules():
        x = torch.randn(BATCH, block[0].in_features)
        forward.append(counted(lambda: block(x)))  # noqa: B023
        weights.append(counted(lambda: block(x).sum().backward()))  # noqa: B023
        block.requires_grad_(False)
        slope.append(counted(lambda: block(x.clone().requires_grad_()).sum().backward()))  # noqa: B023
    return forward, slope, weights


def batch() -> dict[str, torch.Tensor]:
    index = torch.arange(BATCH)
    return {"x": torch.randn(BATCH, 6), "y": torch.zeros(BATCH, dtype=torch.int64), "index": index}


def step_of(plan: lpc.Plan) -> int:
    """Return what torch counts while a step of the plan runs, its second one."""
    trainer, given = lpc.Trainer(plan, device="cpu"), batch()
    trainer.step(given)
    return counted(lambda: trainer.step(given))


@pytest.mark.parametrize("steps", [1, 4])
def test_stages_of_blockprop(steps: int) -> None:
    """init: sum of F; variables: n (F + I); weights: F + I- + G, and the first block's F is that of the init."""
    forward, slope, weights = costs()
    plan = lpc.build(SPEC.format(f"blockprop({BLOCKS}, steps={steps})"))
    cost = plan.stages(BATCH, devices=3)
    assert cost is not None
    found = cost.stages
    assert list(found.init.values()) == forward[:2]
    assert (found.solution["b2"], found.solution["b3"]) == (steps * slope[1], steps * slope[2])
    assert list(found.alone.values()) == weights
    assert list(found.weights.values()) == [weights[0] - forward[0], *weights[1:]]
    parts = sum(sum(part.values()) for part in (found.init, found.solution, found.weights))
    assert parts == plan.cost(BATCH).flops == step_of(plan)
    before = sum(forward[:2]) + steps * (slope[1] + slope[2])
    first, second, third = cost.rows
    assert first.path == parts
    assert third.path == before + max(found.weights.values())
    assert third.seldom == before / 5 + max(weights)
    assert (first.messages, second.messages, third.messages) == (0, 2, 4)  # each variable there, and back once solved
    assert first.path >= second.path >= third.path


def test_stages_with_a_cache() -> None:
    """Nothing but the weights where no sample is due; first values belong to first visits."""
    forward, slope, weights = costs()
    plan = lpc.build(SPEC.format(f"blockprop_cached({BLOCKS}, refresh=3)"))
    cost = plan.stages(BATCH, devices=3)
    assert cost is not None
    assert cost.period == cost.stages.period == 3
    assert list(cost.stages.weights.values()) == list(cost.stages.alone.values()) == weights
    assert sum(cost.stages.weights.values()) == step_of(plan)  # at the second visit none is due
    assert sum(cost.stages.init.values()) == sum(forward[:2])
    assert cost.stages.solution["b3"] == slope[2]


def test_what_solves_together_is_divided() -> None:
    plan = lpc.build(SPEC.format("mac"))
    cost = plan.stages(BATCH, devices=2)
    assert cost is not None
    assert cost.stages.together
    assert cost.rows[1].path < cost.rows[0].path


def test_a_plan_without_variables_has_no_stages() -> None:
    assert lpc.build(SPEC.format("backprop")).stages(BATCH) is None
