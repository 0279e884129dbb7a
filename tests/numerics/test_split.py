"""Do the formulas of a network that is split do what was published, and is what they solve never worse afterwards?"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import lpc

GOLDEN = Path(__file__).with_name("golden")
BARE = "[f1: linear(5, bias=false), relu, f2: linear(4, bias=false), relu, f3: linear(3, bias=false)]"
MIXED = "[f1: linear(5), 'leaky_relu(0.2)', f2: linear(4), f3: linear(4, bias=false), relu, f4: linear(3)]"


def trainer(recipe: str, layers: str = BARE, target: str = "y: {shape: [], dtype: int64}") -> lpc.Trainer:
    plan = lpc.build(
        f"network: {{inputs: {{x: [6]}}, layers: {layers}}}\ndata: none\nfields: {{{target}}}\n"
        f"recipe: {recipe}\nrun: {{dtype: float64, epochs: 1}}\n"
    )
    report = lpc.verify(plan)  # against stacked equations, and trials of each element's candidates
    assert report.ok, report
    return lpc.Trainer(plan, device="cpu")


def begin(run: lpc.Trainer, variables: dict[str, Tensor]) -> Tensor:
    """Let the variables of all samples be these."""
    cache, index = run.machine.cache, torch.arange(len(next(iter(variables.values()))))
    cache.visit(index)
    for name, value in variables.items():
        cache.store(name, index, value)
    return index


def rows(array: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array.T))


def test_admm() -> None:
    """Taylor et al. 2016: weights, variables, the multiplier and the objective, five iterations."""
    arrays = np.load(GOLDEN / "admm_taylor_fc.npz")
    run = trainer("admm(beta=1.0, gamma=10.0, warmup=2)")
    run.load_state_dict({f"f{i}.weight": torch.from_numpy(arrays[f"init_W{i}"].copy()) for i in (1, 2, 3)})
    names = {f"f{i}.z": f"z{i}" for i in (1, 2, 3)} | {f"f{i}.a": f"a{i}" for i in (1, 2)}
    first = {own: rows(arrays[f"init_{name}"]) for own, name in names.items()}
    index = begin(run, {**first, "f3.multiplier": torch.zeros(12, 3, dtype=torch.float64)})
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))  # samples come in any order
    batch = {"x": rows(arrays["x"])[order], "y": torch.from_numpy(arrays["labels"])[order], "index": index[order]}
    for step in range(1, 6):
        metrics, found = run.step(batch), run.variables()
        for own, name in {**names, "f3.multiplier": "lambda"}.items():
            torch.testing.assert_close(found[own], rows(arrays[f"it{step}_{name}"])[order], rtol=1e-12, atol=1e-12)
        for i in (1, 2, 3):
            wanted = torch.from_numpy(arrays[f"it{step}_W{i}"])
            torch.testing.assert_close(run.state_dict()[f"f{i}.weight"], wanted, rtol=1e-12, atol=1e-12)
        total = sum(float(value) for name, value in metrics.items() if name.endswith(".objective"))
        assert total == pytest.approx(float(arrays[f"it{step}_objective_before_dual"]), rel=1e-12)


def objective(run: lpc.Trainer, batch: dict[str, Tensor], beta: float, gamma: float) -> float:
    """Return what is minimised, at the variables and weights as they are; the layers of MIXED, squared loss."""
    state, found = run.state_dict(), run.variables()
    total, below = torch.zeros((), dtype=torch.float64), batch["x"]
    for name, slope in (("f1", 0.2), ("f2", 1.0), ("f3", 0.0), ("f4", None)):
        z = found[f"{name}.z"]
        total += beta * ((z - below @ state[f"{name}.weight"].t() - state.get(f"{name}.bias", 0.0)) ** 2).sum()
        if slope is None:
            total += ((z - batch["t"]) ** 2).sum()
        else:
            below = found[f"{name}.a"]
            total += gamma * ((below - torch.maximum(z, slope * z)) ** 2).sum()
    return float(total)


@pytest.mark.parametrize("order", ["forward", "backward"])
def test_a_step_is_never_worse(order: str) -> None:
    """Every solution is the least of all, so that the objective falls, whatever the order; here without multipliers."""
    how = f"split(beta=0.7, gamma=2.0, order={order}, multiplier=false, hold=0.3)"
    links = f"mse(target=t, reduction=sum)\ndecompose: {{blocks: per_layer, links: {how}}}\nlearn: []"
    run = trainer(f"admm(warmup=0)\nloss: {links}", MIXED, "t: {shape: [3], dtype: float64}")
    draw = torch.Generator().manual_seed(0)
    x, t = (torch.randn(20, n, generator=draw, dtype=torch.float64) for n in (6, 3))
    values = []
    for _ in range(12):
        run.step({"x": x, "t": t, "index": torch.arange(20)})
        values.append(objective(run, {"x": x, "t": t}, 0.7, 2.0))
    assert all(after <= before * (1 + 1e-12) for before, after in pairwise(values))
    assert values[-1] < 0.8 * values[0]


def test_other_settings_are_verified() -> None:
    assert trainer("bcd(alpha=0.7, loss=hinge(reduction=batchmean, weight=3.0))", MIXED).variables() == {}


def test_a_batch_holds_all_samples() -> None:
    plan = lpc.build(
        "network: {inputs: {image: [1, 8, 8]}, layers: [flatten, fc1: linear(4), relu, out: linear(10)]}\n"
        "data: {source: digits, batch: 64}\nrecipe: bcd\nrun: {epochs: 1}\n"
    )
    with pytest.raises(lpc.LpcError) as caught:
        lpc.Trainer(plan, device="cpu").fit()
    (problem,) = caught.value.diagnostics
    assert problem.code == "0673"
    assert problem.span is not None
    assert problem.help == "write `batch: 1438`"
