"""Do short specs train ResNet-18 and a vision transformer by every estimator? One step, and `verify`'s figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import lpc

pytest.importorskip("transformers")

FIELDS = "fields: {label: {shape: [], dtype: int64}}\nloss: cross_entropy\nrun: {target: cpu}\n"
RESNET = """\
network: {zoo: resnet18, args: {classes: 10, stem: cifar, width: 4}, inputs: {image: [3, 16, 16]}}
decompose: {blocks: {b1: [conv1, bn1, layer1, layer2], b2: [layer3, layer4], out: fc}}
"""
VIT = """\
network:
  module: "transformers:ViTForImageClassification"
  config: {hidden_size: 8, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 16, image_size: 8,
           patch_size: 4, num_labels: 10}
  inputs: {pixel_values: [3, 8, 8]}
  output: logits
decompose: {blocks: {b1: vit.embeddings, b2: [vit.layers.0, vit.layernorm], out: classifier}}
"""
NETWORKS = {"resnet": RESNET, "vit": VIT}
RECIPES = {
    "activities": "forward_gradient",
    "weights": "forward_gradient(perturb=weight)",
    "local": "local_forward_gradient(head=linear(pool=mean), groups=2)",
    "aligned": "feedback_alignment",
    "direct": "direct_feedback",
}
# Each network under activities, weights and alignment; what else there is, once.
CASES = [
    *(("resnet", recipe) for recipe in ("activities", "weights", "aligned")),
    *(("vit", recipe) for recipe in RECIPES),
]


def spec(network: str, recipe: str) -> str:
    return f"recipe: {RECIPES[recipe]}\n{NETWORKS[network]}{FIELDS}"


@pytest.fixture(scope="module")
def plans(built_once: Callable[[str, Callable[[], lpc.Plan]], lpc.Plan]) -> Callable[[str, str], lpc.Plan]:
    return lambda *case: built_once("_".join(("estimates", *case)), lambda: lpc.build(spec(*case)))


@pytest.mark.parametrize(("network", "recipe"), CASES)
def test_a_step_is_finite_and_verified(network: str, recipe: str, plans: Any, sampled: Any) -> None:
    assert len(spec(network, recipe).splitlines()) < 25
    plan = plans(network, recipe)
    t = lpc.Trainer(plan, device="cpu")
    before = {name: tensor.clone() for name, tensor in t.state_dict().items()}
    metrics = t.step(sampled(plan, {"B": 6}))
    assert all(torch.isfinite(value) for value in metrics.values())
    after = t.state_dict()
    assert all(bool(torch.isfinite(tensor).all()) for tensor in after.values())
    trained = [n for n, e in plan.data.program.state.items() if e.trainable]
    assert [n for n in trained if torch.equal(before[n], after[n])] == []
    report = lpc.verify(plan)
    assert report.ok, report


@pytest.mark.parametrize(("network", "rewritten"), [("resnet", "batch norm"), ("vit", "attention")])
def test_what_was_written_anew_is_told(network: str, rewritten: str, plans: Any) -> None:
    told = plans(network, "activities").data.report["tangents"]
    assert set(told) == {"b1", "b2"}
    assert all("equal central differences in float64" in text for text in told.values())
    assert f"{rewritten} as mathematics (" in told["b2"]
