"""Is the alignment that is told that of the estimate with the exact gradient?"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

import lpc
from lpc.precise import sample_batch, sample_noise

LAYERS = [{"w1": "linear(5)"}, {"a1": "relu"}, {"w2": "linear(4)"}, {"a2": "tanh"}, {"out": "linear(3)"}]
HIDDEN = ["w1", "w2"]


@cache
def plan(estimator: str, links: str = "gradient") -> lpc.Plan:
    return lpc.build({
        "network": {"inputs": {"x": [4]}, "layers": LAYERS},
        "data": None,
        "fields": {"label": {"shape": [], "dtype": "int64"}},
        "loss": "cross_entropy",
        "decompose": {"blocks": "per_layer", "links": links},
        "learn": [
            {"blocks": "*", "loss": "none", "optimizer": "sgd(lr=0.1)"},
            {"blocks": HIDDEN, "estimator": estimator},
        ],
        "run": {"dtype": "float64", "target": "cpu"},
    })  # fmt: skip


def gradients(made: lpc.Plan, state: dict[str, Tensor], batch: Any, noise: Any = None) -> dict[str, Tensor]:
    t = lpc.Trainer(made, device="cpu")
    t.load_state_dict(state, strict=False)
    return t.gradients(batch, noise=noise)


@pytest.mark.parametrize(
    ("estimator", "links"),
    [("forward", "gradient"), ("forward(perturb=weight)", "gradient"), ("feedback_alignment", "gradient"),
     ("backprop", "feedback")],
)  # fmt: skip
def test_the_angle_is_that_with_backpropagation(estimator: str, links: str) -> None:
    """Of a plan of its own that backpropagates, on other weights than those at the start."""
    made, exact = plan(estimator, links), plan("backprop")
    generator = torch.Generator().manual_seed(3)
    batch, noise = sample_batch(made.data, generator), sample_noise(made.data, generator)
    state = {n: t + 0.1 for n, t in lpc.Trainer(exact, device="cpu").state_dict().items()}
    found = lpc.alignment(made, state, seed=3)
    one, other = gradients(made, state, batch, noise), gradients(exact, state, batch)
    assert list(found) == ["w1", "w2", "out"]
    for block, told in found.items():
        pair = [torch.cat([g[f"{block}.{n}"].flatten() for n in ("weight", "bias")]) for g in (one, other)]
        assert told.cosine == pytest.approx(float(torch.cosine_similarity(*pair, dim=0)), rel=1e-9)
        assert told.ratio == pytest.approx(float(pair[0].norm() / pair[1].norm()), rel=1e-9)
    assert found["out"].cosine == pytest.approx(1.0, abs=1e-12)
    assert min(abs(found[block].cosine) for block in HIDDEN) < 0.99


def test_exact_gradients_are_aligned_and_a_dead_readout_has_no_angle() -> None:
    made = plan("backprop")
    assert all(one.cosine == pytest.approx(1.0, abs=1e-12) for one in lpc.alignment(made).values())
    assert all(one.ratio == pytest.approx(1.0, abs=1e-12) for one in lpc.alignment(made).values())
    dead = {"out.weight": torch.zeros(3, 4, dtype=torch.float64)}
    assert math.isnan(lpc.alignment(made, dead)["w1"].cosine)
