"""Does a dense layer in a grouped block learn from each group's loss alone? Its errors go back within the group."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

import lpc


def spec(estimator: str) -> dict[str, Any]:
    layers = [{"w1": "linear(6)"}, {"a1": "tanh"}, {"w2": "masked_linear(4, 2)"}, {"a2": "tanh"}, {"out": "linear(3)"}]
    return {
        "network": {"inputs": {"x": [4]}, "layers": layers},
        "data": None,
        "fields": {"label": {"shape": [], "dtype": "int64"}},
        "loss": "cross_entropy",
        "decompose": {"blocks": {"b": ["w1", "a1", "w2", "a2"], "out": "out"}, "units": {"groups": 2}},
        "learn": [
            {"blocks": "*", "head": "linear", "loss": "cross_entropy", "optimizer": "sgd(lr=0.1)"},
            {"blocks": "b", "aggregate": "replicated", "estimator": estimator},
        ],
        "run": {"dtype": "float64", "target": "cpu"},
    }


def batch() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    return {"x": torch.randn(5, 4, generator=generator).double(), "label": torch.tensor([0, 2, 1, 1, 0])}


def test_gradients_are_those_of_a_dense_layer_with_a_masked_way_back() -> None:
    """By hand: outputs of a group see the inputs of the other one as constants."""
    plan = lpc.build(spec("backprop"))
    t = lpc.Trainer(plan, device="cpu")
    p = {n: w.clone().requires_grad_() for n, w in t.state_dict().items()}
    h = torch.tanh(F.linear(batch()["x"], p["w1.weight"], p["w1.bias"]))
    seen = (torch.cat([h[:, :3], h[:, 3:].detach()], 1), torch.cat([h[:, :3].detach(), h[:, 3:]], 1))
    rows = (slice(0, 2), slice(2, 4))
    made = [F.linear(x, p["w2.weight"][r], p["w2.bias"][r]) for x, r in zip(seen, rows, strict=True)]
    scores = F.linear(torch.tanh(torch.cat(made, 1)), p["heads.b.weight"], p["heads.b.bias"])
    F.cross_entropy(scores, batch()["label"]).backward()
    for name, gradient in t.gradients(batch()).items():
        if not name.startswith(("out.", "heads.out.")):
            torch.testing.assert_close(gradient, p[name].grad, rtol=1e-12, atol=1e-14, msg=name)
    assert lpc.verify(plan).ok


@pytest.mark.parametrize("estimator", ["forward", "forward(perturb=weight)"])
def test_noise_of_a_group_moves_its_own_unit(estimator: str, hand: Any) -> None:
    """Estimates of these gradients are unbiased, and half of the noise is in each loss: no dense layer has that."""
    plan, exact = lpc.build(spec(estimator)), lpc.Trainer(lpc.build(spec("backprop")), device="cpu")
    t = lpc.Trainer(plan, device="cpu")
    exact.load_state_dict(t.state_dict())
    found, wanted = hand.expectation(plan, t, batch()), exact.gradients(batch())
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-12, msg=name)
    if estimator == "forward":
        assert plan.data.report["estimators"]["b"].startswith("unbiased; 5 elements of noise in each of 2 losses")
    assert lpc.verify(plan).ok


def test_backward_weights_would_replace_it() -> None:
    with pytest.raises(lpc.LpcError, match="LPC0420"):
        lpc.build(spec("feedback_alignment"))


def test_groups_must_divide_the_features() -> None:
    said = spec("backprop")
    said["network"]["layers"][2] = {"w2": "masked_linear(4, 4)"}
    with pytest.raises(lpc.LpcError, match="6 input features cannot be divided into 4 groups"):
        lpc.build(said)
