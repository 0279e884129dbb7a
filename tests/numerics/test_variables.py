"""Does a step with auxiliary variables do what was published? Recorded arrays, number by number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import lpc

GOLDEN = Path(__file__).with_name("golden")
Arrays = Any

HIDDEN = "loss: consistency(weight=1.0)"
CODES = (
    "penalty=squared(weight=0.03, reduction=mean), optimizer=sgd(lr=0.03, momentum=0.9, nesterov=true), anchor=false"
)
FC = "[c1: linear(5, bias=false), relu, c2: linear(4, bias=false), relu, out: linear(3)]"
LENET = (
    "[c1: conv(2, 3), relu, max_pool(2), c2: conv(3, 2), relu, max_pool(2), flatten,"
    " c3: linear(6), relu, c4: linear(5), relu, out: linear(3)]"
)
BLOCKS = {
    "B1_W1": "f1.weight", "B1_b1": "f1.bias", "B2_W1": "f2.weight", "B2_b1": "f2.bias", "B2_W2": "f3.weight",
    "B2_b2": "f3.bias", "B3_W1": "f4.weight", "B3_b1": "f4.bias",
}  # fmt: skip


def load(name: str) -> Arrays:
    return np.load(GOLDEN / f"{name}.npz")


def tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.asarray(array))


def close(found: Tensor, wanted: Any, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(found, tensor(wanted), rtol=tolerance, atol=1e-13)


def blockprop(steps: int, more: str = "") -> lpc.Trainer:
    spec = f"""
network:
  inputs: {{x: [6]}}
  layers: [f1: linear(7), t1: tanh, f2: linear(5), t2: tanh, f3: linear(4), t3: tanh, f4: linear(3)]
data: none
fields: {{y: {{shape: [], dtype: int64}}}}
loss: cross_entropy
decompose:
  blocks: {{b1: [f1, t1], b2: [f2, t2, f3, t3], b3: f4}}
  links:
    "b1->b2": variable(penalty=squared(weight=0.7), optimizer=sgd(lr=0.2), steps={steps}{more})
    "b2->b3": variable(penalty=squared(weight=1.3), optimizer=sgd(lr=0.15), steps={steps}{more})
learn:
  - {{blocks: b1, optimizer: sgd(lr=0.5)}}
  - {{blocks: b2, optimizer: sgd(lr=0.3)}}
  - {{blocks: b3, optimizer: sgd(lr=0.1)}}
run: {{dtype: float64, epochs: 1}}
"""
    return lpc.Trainer(lpc.build(spec), device="cpu")


def compare_blocks(trainer: lpc.Trainer, batch: dict[str, Tensor], arrays: Arrays, step: int) -> None:
    """Step once; gradients, variables, losses and weights are as recorded."""
    mark = f"s{step}_"
    gradients = trainer.gradients(batch)
    metrics = trainer.step(batch)
    state, variables = trainer.state_dict(), trainer.variables()
    for name, own in BLOCKS.items():
        close(gradients[own], arrays[f"{mark}grad_{name}"])
        close(state[own], arrays[f"{mark}after_{name}"])
    close(variables["b1->b2"], arrays[f"{mark}h2_star"])
    close(variables["b2->b3"], arrays[f"{mark}h3_star"])
    for index, block in enumerate(("b1", "b2")):
        close(metrics[f"{block}.loss"], arrays[f"{mark}J"][index])


@pytest.mark.parametrize("steps", [1, 4])
def test_blockprop(steps: int) -> None:
    arrays = load(f"blockprop_mlp3_nh{steps}")
    trainer = blockprop(steps)
    trainer.load_state_dict({own: tensor(arrays[f"init_{name}"]) for name, own in BLOCKS.items()})
    for index in range(3):
        batch = {"x": tensor(arrays["x"][index]), "y": tensor(arrays["y"][index])}
        compare_blocks(trainer, batch, arrays, index + 1)


def test_blockprop_with_a_cache() -> None:
    arrays = load("blockprop_mlp3_cache_e1")
    trainer = blockprop(2, ", init=cache")
    trainer.load_state_dict({own: tensor(arrays[f"init_{name}"]) for name, own in BLOCKS.items()})
    for index in range(6):
        part = index % 2
        batch = {"x": tensor(arrays["x"][part]), "y": tensor(arrays["y"][part]), "index": torch.arange(4) + 4 * part}
        compare_blocks(trainer, batch, arrays, index + 1)


def altmin(layers: str, inputs: str, steps: int, learn: str = "", more: str = "") -> lpc.Trainer:
    spec = f"""
network: {{inputs: {{x: {inputs}}}, layers: {layers}}}
data: none
fields: {{y: {{shape: [], dtype: int64}}}}
loss: cross_entropy
decompose:
  blocks: per_layer
  at: preactivation
  links: variable({CODES}, steps={steps}, divide_by_weight=true, buffers=every{more})
learn:
  - {{blocks: "*", {HIDDEN}, optimizer: adam(lr=0.008)}}
{learn}
run: {{dtype: float64, epochs: 1}}
"""
    return lpc.Trainer(lpc.build(spec), device="cpu")


def compare_codes(trainer: lpc.Trainer, arrays: Arrays, layers: dict[str, str]) -> None:
    """Step through three batches; codes, weights and the loss of the forward pass are as recorded."""
    named = {
        f"{own}.{kind}": f"{layer}_{kind}"
        for layer, own in layers.items()
        for kind in ("weight", "bias")
        if f"init_{layer}_{kind}" in arrays.files
    }
    assert named.keys() == trainer.state_dict().keys() - {n for n in trainer.state_dict() if n.startswith("memory.")}
    trainer.load_state_dict({own: tensor(arrays[f"init_{name}"]) for own, name in named.items()}, strict=False)
    for index in range(3):
        metrics = trainer.step({"x": tensor(arrays["x"][index]), "y": tensor(arrays["y"][index])})
        mark = f"b{index + 1}_"
        for number, code in enumerate(trainer.variables().values(), 1):
            close(code, arrays[f"{mark}upd_c{number}"])
        for own, name in named.items():
            torch.testing.assert_close(trainer.state_dict()[own], tensor(arrays[mark + name]), rtol=1e-10, atol=1e-8)
        close(metrics["out.loss"], arrays[f"{mark}loss_enc"])


LAYERS = {"L1": "c1", "L2": "c2", "Lout": "out"}


@pytest.mark.parametrize(("name", "steps"), [("fc_relu", 5), ("fc_relu_1iter", 1)])
def test_alternating_minimisation(name: str, steps: int) -> None:
    compare_codes(altmin(FC, "[6]", steps), load(f"altmin_{name}"), LAYERS)


def test_alternating_minimisation_of_a_convolutional_network() -> None:
    layers = {"L1": "c1", "L2": "c2", "L3": "c3", "L4": "c4", "Lout": "out"}
    compare_codes(altmin(LENET, "[1, 12, 12]", 5), load("altmin_lenet_tiny"), layers)


def test_alternating_minimisation_of_a_net_with_binary_units() -> None:
    layers = (
        "[c1: linear(5, bias=false), tanh, sign, c2: linear(4, bias=false), tanh, out: linear(3)]"
    )
    compare_codes(altmin(layers, "[6]", 10), load("altmin_fc_binary"), LAYERS)


def test_alternating_minimisation_with_memory_matrices() -> None:
    arrays = load("altmin_fc_relu_mem")
    trainer = altmin(FC, "[6]", 5, "  - {blocks: [c1, c2], solver: memory}")
    compare_codes(trainer, arrays, LAYERS)
    for number, block in ((1, "c1"), (2, "c2")):
        for kind in "AB":
            close(trainer.state_dict()[f"memory.{block}.{kind}"], arrays[f"b3_{kind}{number}"])
