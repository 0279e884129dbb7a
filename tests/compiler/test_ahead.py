"""Which heads are made of later blocks? Copies of blocks further on, and the network's own last block."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import lpc
from lpc.compiler.build import PIPELINE, Build, run_pipeline
from lpc.compiler.heads.copies import chosen, depth_at

MLP = {
    "inputs": {"image": [6]},
    "layers": [
        {"fc1": "linear(5)"}, {"r1": "relu"}, {"fc2": "linear(7)"}, {"r2": "relu"},
        {"fc3": "linear(4)"}, {"r3": "relu"}, {"fc4": "linear(5)"}, {"r4": "relu"},
        {"norm": "layer_norm"}, {"out": "linear(3)"},
    ],
}  # fmt: skip
BLOCKS = {**{f"b{i}": [f"fc{i}", f"r{i}"] for i in (1, 2, 3, 4)}, "head": ["norm", "out"]}


def spec(head: str, network: Any = None, blocks: Any = None, **run: Any) -> dict[str, Any]:
    learn = {"blocks": "*", "head": head, "loss": "cross_entropy", "optimizer": "sgd(lr=0.1)"}
    return {
        "network": network or MLP,
        "data": None,
        "fields": {"label": {"shape": [], "dtype": "int64"}},
        "loss": "cross_entropy",
        "decompose": {"blocks": blocks or BLOCKS, "links": "stop"},
        "learn": [learn],
        "run": {"dtype": "float64", "target": "cpu", **run},
    }


def batch(*shape: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(4, *(shape or (6,)), generator=generator, dtype=torch.float64)
    return {"image": image, "label": torch.tensor([0, 2, 1, 2])}


def test_layers_are_chosen_as_published() -> None:
    """round(l + (n - l - 1) i / d), i = 1 to d, with Python's rounding of halves; the last one is always among them."""
    for n in range(1, 12):
        for place in range(n):
            later = list(range(place + 1, n))
            for depth in range(1, 6):
                wanted = [round(place + (n - place - 1) * i / depth) for i in range(1, depth + 1)]
                assert chosen(later, place, depth) == (wanted if len(later) > depth else later)


def test_a_pyramid_falls_to_half_way() -> None:
    assert [depth_at(9, 0.5, place, 5) for place in range(5)] == [9, 8, 7, 6, 5]
    assert [depth_at(4, 1.0, place, 4) for place in range(4)] == [4, 3, 2, 1]
    assert [depth_at(2, 0.0, place, 3) for place in range(3)] == [2, 2, 2]
    assert depth_at(3, 0.5, 0, 1) == 3


def test_copies_read_what_the_one_before_gives() -> None:
    """Block 1's head has copies of blocks 2 or 3, and of 4; the widths are those of the copied blocks."""
    trainer = lpc.Trainer(lpc.build(spec("aug(depth=2, pyramid=0)")), device="cpu")
    state, seen = trainer.state_dict(), batch()
    shapes = {n: tuple(t.shape) for n, t in state.items() if n.startswith("heads.b1") and t.dim() == 2}
    assert list(shapes.values()) == [(4, 5), (5, 4), (3, 5)]  # round(0 + 3 / 2) is 2: fc3, then fc4, then the classes
    weights = [(state[n].clone().requires_grad_(), state[n.replace("weight", "bias")]) for n in shapes]
    h = F.relu(F.linear(seen["image"], state["fc1.weight"], state["fc1.bias"])).detach()
    for weight, bias in weights[:-1]:
        h = F.relu(F.linear(h, weight, bias))
    loss = F.cross_entropy(F.linear(h, *weights[-1]), seen["label"])
    wanted = torch.autograd.grad(loss, [weight for weight, _ in weights])
    found = trainer.gradients(seen)
    for name, gradient in zip(shapes, wanted, strict=True):
        torch.testing.assert_close(found[name], gradient, rtol=1e-12, atol=1e-14)
    assert not torch.equal(state["heads.b1.0.layer0.weight"].flatten()[:4], state["fc3.weight"].flatten()[:4])
    last = {n: tuple(t.shape) for n, t in state.items() if n.startswith("heads.b4")}
    assert list(last.values()) == [(3, 5), (3,)]  # no block is left to copy


@pytest.mark.parametrize("head", ["aug(depth=3)", "aug(depth=1)", "shared_readout", "shared_readout(weights=tied)"])
def test_verified(head: str) -> None:
    blocks = BLOCKS if head.startswith("aug") else {"b1": ["fc1", "r1", "fc2", "r2", "fc3", "r3", "fc4", "r4"]} | {
        "head": BLOCKS["head"]
    }
    report = lpc.verify(lpc.build(spec(head, blocks=blocks)))
    assert report.ok
    assert report.worst < 1e-11


def test_maps_get_smaller_where_copies_get_wider() -> None:
    """Residual blocks of a small ResNet: skips are projected, and strides are those of the widths that are there."""
    network = {"zoo": "resnet18", "args": {"width": 4, "channels": 1, "classes": 3}, "inputs": {"image": [1, 8, 8]}}
    blocks = {"stem": ["conv1", "bn1"], "*": 'each("layer*.*")', "head": "fc"}
    localized = run_pipeline(Build(lpc.check(spec("aug(depth=3, pyramid=0)", network, blocks))), PIPELINE[:4])
    state = localized.problems["layer1.0"].heads.state()
    convolutions = {n: tuple(t.shape) for n, t in state.items() if t.dim() == 4}
    assert [shape[:2] for shape in convolutions.values() if shape[2] == 3] == [
        (8, 4), (8, 8), (16, 8), (16, 16), (32, 16), (32, 32),
    ]  # fmt: skip
    assert [shape for shape in convolutions.values() if shape[2] == 1] == [(8, 4, 1, 1), (16, 8, 1, 1), (32, 16, 1, 1)]


def test_copies_of_residual_blocks_are_verified() -> None:
    """As above, of fewer blocks: the second one's copy is fitted to the first one's maps."""
    network = {"zoo": "resnet18", "args": {"width": 2, "channels": 1, "classes": 3}, "inputs": {"image": [1, 8, 8]}}
    blocks = {"a": ["conv1", "bn1", "layer1"], "b": ["layer2.0"], "c": ["layer2.1", "layer3", "layer4", "fc"]}
    plan = lpc.build(spec("aug(depth=1, pyramid=0)", network, blocks))
    heads = {n: tuple(e.type.shape) for n, e in plan.data.program.state.items() if n.startswith("heads.a.")}
    assert (4, 2, 1, 1) in heads.values()
    assert lpc.verify(plan).ok


@pytest.mark.parametrize("weights", ["frozen", "tied"])
def test_a_shared_readout_trains_the_block_alone(weights: str) -> None:
    blocks = {"b1": ["fc1", "r1"], "rest": [f"{w}{i}" for i in (2, 3, 4) for w in ("fc", "r")], "head": ["norm", "out"]}
    plan = lpc.build(spec(f"shared_readout(weights={weights})", blocks=blocks))
    trainer = lpc.Trainer(plan, device="cpu")
    start = {n: t.clone() for n, t in trainer.state_dict().items()}
    assert any(n.startswith("heads.") for n in start) == (weights == "frozen")
    for _ in range(2):
        state = {n: t.clone().requires_grad_() for n, t in trainer.state_dict().items()}
        seen, source = batch(), state if weights == "tied" else start
        h = F.relu(F.linear(seen["image"], state["fc1.weight"], state["fc1.bias"]))
        scores = F.linear(F.layer_norm(h, (5,), source["norm.weight"], source["norm.bias"]), source["out.weight"])
        loss = F.cross_entropy(scores + source["out.bias"], seen["label"])
        (wanted,) = torch.autograd.grad(loss, [state["fc1.weight"]])
        found = trainer.gradients(seen)
        torch.testing.assert_close(found["fc1.weight"], wanted, rtol=1e-12, atol=1e-14)
        trainer.step(seen)
    after = trainer.state_dict()
    assert all(torch.equal(after[n], start[n]) for n in start if n.startswith("heads."))
    assert not torch.equal(after["out.weight"], start["out.weight"])
    reach = lpc.verify(plan).influence
    assert reach["out.weight"] == {"head.loss"}


CONV = {
    "inputs": {"image": [1, 4, 4]},
    "layers": [{"c1": "conv(2, 3, padding=1)"}, {"c2": "conv(2, 3, padding=1)"}, {"both": "add(from=[c1, c2])"},
               {"c3": "conv(2, 3)"}, "flatten", {"out": "linear(3)"}],
}  # fmt: skip


def test_a_block_that_joins_two_cannot_be_copied() -> None:
    blocks = {"b1": "c1", "b2": "c2", "b3": ["both", "c3"], "head": "out"}
    with pytest.raises(lpc.LpcError, match="reads several tensors") as caught:
        lpc.build(spec("aug", CONV, blocks))
    assert caught.value.diagnostics[0].code == "0404"


def test_a_readout_of_another_width() -> None:
    with pytest.raises(lpc.LpcError, match=r"the output's block reads \[5\]"):
        lpc.build(spec("shared_readout"))


def test_a_row_of_blocks_is_needed() -> None:
    readouts = {"probe": {"from": ["b1"], "head": "aug", "optimizer": "sgd(lr=0.1)"}}
    with pytest.raises(lpc.LpcError, match="in no row of blocks"):
        lpc.build(spec("linear") | {"readouts": readouts})


def test_the_recipe() -> None:
    spec = {"network": MLP, "data": None, "fields": {"label": {"shape": [], "dtype": "int64"}}, "recipe": "auglocal",
            "run": {"target": "cpu"}}  # fmt: skip
    state = lpc.Trainer(lpc.build(spec), device="cpu").state_dict()
    assert {n.split(".")[1] for n in state if n.startswith("heads.")} >= {"fc1", "fc2", "fc3", "fc4"}
