"""Do blocks of known networks learn by targets, from specs of under 25 lines?"""

from __future__ import annotations

import pytest

import lpc

LENET5 = """\
network: {zoo: lenet5}
data: none
fields: {label: {shape: [], dtype: int64}}
recipe: locoprop(variant=m, step=10, steps=3, reduction=batchmean, optimizer=sgd(lr=0.01))
"""

# The layers of the multi-layer perceptrons have targets; everything between learns by backpropagation.
VIT = """\
network:
  module: "transformers:ViTForImageClassification"
  config:
    {hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 32, image_size: 32}
  inputs: {pixel_values: [3, 32, 32]}
  output: logits
data: none
fields: {label: {shape: [], dtype: int64}}
loss: cross_entropy
decompose:
  blocks:
    stem: ["vit.embeddings", "vit.layers.0.attention", "vit.layers.0.layernorm*"]
    up0: vit.layers.0.mlp.fc1
    down0: vit.layers.0.mlp.fc2
    middle: ["vit.layers.1.attention", "vit.layers.1.layernorm*"]
    up1: vit.layers.1.mlp.fc1
    down1: vit.layers.1.mlp.fc2
    head: ["vit.layernorm", classifier]
  links: {"*": gradient, "up*->*": target(step=5), "down*->*": target(step=5)}
learn:
  - {blocks: "*", loss: none, optimizer: adam(lr=1e-3)}
  - {blocks: ["up*", "down*"], loss: squared, reduction: batchmean, steps: 3, optimizer: sgd(lr=0.01)}
"""


@pytest.mark.parametrize("text", [LENET5, VIT], ids=["lenet5", "vit"])
def test_a_short_spec_builds_and_is_verified(text: str) -> None:
    assert len(text.splitlines()) < 25
    plan = lpc.build(text)
    report = lpc.verify(plan)
    assert report.ok
    aimed = {name for name, losses in report.targets.items() if losses}
    if "lenet5" in text:
        assert aimed == set(report.gradients)
    else:
        assert aimed == {n for n in report.gradients if ".mlp." in n}
