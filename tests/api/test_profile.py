"""Does a profile time what the plan does, and change nothing?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import lpc as api
from lpc.specs.plan.instructions import Free
from lpc.specs.plan.text import line

Command = Callable[..., Any]
SPEC = """
network: {inputs: {image: [1, 8, 8]}, layers: [flatten, fc1: linear(16), relu, fc2: linear(16), relu, out: linear(10)]}
data: {source: digits, batch: 16}
loss: cross_entropy
decompose: {blocks: {b1: fc1, b2: fc2, head: out}, links: stop}
learn: [{blocks: "*", head: linear, loss: cross_entropy, optimizer: sgd(lr=0.1)}]
run: {epochs: 1}
"""


@pytest.fixture(scope="module")
def plan() -> api.Plan:
    return api.build(SPEC)


def test_every_instruction_is_timed(plan: api.Plan) -> None:
    before = plan.hash
    found = api.profile(plan, steps=3, device="cpu")
    wanted = [line(one) for one in plan.data.program.step if not isinstance(one, Free)]
    assert [row.line for row in found.rows] == wanted
    assert all(row.seconds > 0 for row in found.rows)
    assert sum(row.flops for row in found.rows) == plan.cost().flops
    assert max(row.held for row in found.rows) == plan.memory().peak
    assert set(found.blocks) == {"", "b1", "b2", "head"}
    assert [row.seconds for row in found.largest] == sorted((r.seconds for r in found.rows), reverse=True)[:3]
    assert plan.hash == before


def test_events_are_in_order_and_apart(plan: api.Plan) -> None:
    found = api.profile(plan, steps=3, device="cpu")
    ends = [start + seconds for *_, start, seconds in found.events]
    starts = [start for *_, start, _ in found.events]
    assert len(starts) == 3 * len(found.rows)
    assert all(end <= start + 1e-9 for end, start in zip(ends, starts[1:], strict=False))
    trace = json.loads(found.trace())["traceEvents"]
    assert len([event for event in trace if event["ph"] == "X"]) == len(starts)


def test_it_needs_no_data(plan: api.Plan) -> None:
    spec = SPEC.replace("data: {source: digits, batch: 16}", "fields: {label: {shape: [], dtype: int64}}")
    found = api.profile(api.build(spec), steps=1, device="cpu", batch=4)
    assert found.batch == 4
    assert sum(row.flops for row in found.rows) == plan.cost(4).flops


def test_other_trainers_are_left_alone(plan: api.Plan) -> None:
    batch = {"image": torch.ones(4, 1, 8, 8), "label": torch.zeros(4, dtype=torch.int64)}
    one, other = api.Trainer(plan, device="cpu"), api.Trainer(plan, device="cpu")
    one.step(batch)
    api.profile(plan, steps=1, device="cpu")
    other.step(batch)
    assert all(torch.equal(t, other.state_dict()[n]) for n, t in one.state_dict().items())


def test_the_command(lpc: Command, plan: api.Plan, tmp_path: Path) -> None:
    plan.save(tmp_path / "a.plan")
    shown = lpc("profile", "a.plan", "--steps", "2", "--device", "cpu", "--trace", "out/t.json")
    assert shown.code == 0, shown.err
    assert "call b1.local(image, label)" in shown.out
    assert "a step of 16 samples on cpu, median of 2 steps" in shown.out
    assert json.loads(Path("out/t.json").read_text())["traceEvents"]
    told = json.loads(lpc("profile", "a.plan", "--steps", "2", "--json", "--batch", "4").out)
    assert told["batch"] == 4
    assert len(told["largest"]) == 3
