"""Do plans train as PyTorch does? Twenty steps of each method on each kind of network, against loops by hand."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

STEPS = 20
SIZES = (8, 8, 5)  # an epoch: the last batch is a partial one

State = dict[str, Tensor]


def linear(p: State, name: str, x: Tensor) -> Tensor:
    return F.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])


# A multi-layer perceptron


def mlp(p: State, batch: Any, mode: Any) -> dict[str, Tensor]:
    a = torch.relu(linear(p, "fc1", batch["x"].flatten(1)))
    b = torch.relu(linear(p, "fc2", mode.cut("a->b", a)))
    return {"a": a, "b": b, "c": linear(p, "fc3", mode.cut("b->c", b))}


# LeNet-5: a tanh network with average pooling, 28 x 28 images padded to 32 x 32


def lenet5(p: State, batch: Any, mode: Any) -> dict[str, Tensor]:
    x = F.conv2d(batch["image"], p["conv1.weight"], p["conv1.bias"], padding=2)
    a = F.avg_pool2d(torch.tanh(x), 2)
    b = torch.tanh(F.conv2d(mode.cut("a->b", a), p["conv2.weight"], p["conv2.bias"]))
    b = F.avg_pool2d(b, 2)
    c = torch.tanh(linear(p, "fc1", mode.cut("b->c", b).reshape(b.shape[0], -1)))
    d = torch.tanh(linear(p, "fc2", mode.cut("c->d", c)))
    return {"a": a, "b": b, "c": c, "d": linear(p, "fc3", d)}


# ResNet-18 with batch norm, the CIFAR stem, and buffers


def batch_norm(p: State, name: str, x: Tensor, training: bool) -> Tensor:
    mean, variance = p[f"{name}.running_mean"], p[f"{name}.running_var"]
    if training:
        p[f"{name}.num_batches_tracked"] += 1
    return F.batch_norm(x, mean, variance, p[f"{name}.weight"], p[f"{name}.bias"], training, 0.1, 1e-5)


def convolved(p: State, conv: str, norm: str, x: Tensor, training: bool, stride: int = 1) -> Tensor:
    weight = p[f"{conv}.weight"]
    x = F.conv2d(x, weight, None, stride, padding=weight.shape[-1] // 2)
    return batch_norm(p, norm, x, training)


def stage(p: State, name: str, x: Tensor, stride: int, training: bool) -> Tensor:
    for index in range(2):
        at, step = f"{name}.{index}", stride if index == 0 else 1
        y = torch.relu(convolved(p, f"{at}.conv1", f"{at}.bn1", x, training, step))
        y = convolved(p, f"{at}.conv2", f"{at}.bn2", y, training)
        if f"{at}.shortcut.0.weight" in p:
            x = convolved(p, f"{at}.shortcut.0", f"{at}.shortcut.1", x, training, step)
        x = torch.relu(x + y)
    return x


def resnet18(p: State, batch: Any, mode: Any) -> dict[str, Tensor]:
    a = torch.relu(convolved(p, "conv1", "bn1", batch["image"], mode.training))
    a = stage(p, "layer1", a, 1, mode.training)
    b = stage(p, "layer2", mode.cut("a->b", a), 2, mode.training)
    b = stage(p, "layer3", b, 2, mode.training)
    c = stage(p, "layer4", mode.cut("b->c", b), 2, mode.training)
    return {"a": a, "b": b, "c": linear(p, "fc", c.mean((2, 3)))}


# A transformer encoder block, attention written out


def layer_norm(p: State, name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + 1e-5)
    return scaled * p[f"{name}.weight"] + p[f"{name}.bias"]


def attention(p: State, name: str, x: Tensor, heads: int) -> Tensor:
    rows, tokens, width = x.shape
    parts = linear(p, f"{name}.qkv", x).reshape(rows, tokens, 3, heads, width // heads)
    q, k, v = parts.permute(2, 0, 3, 1, 4)
    weights = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(width // heads), -1)
    return linear(p, f"{name}.out", (weights @ v).transpose(1, 2).reshape(rows, tokens, width))


def transformer(p: State, batch: Any, mode: Any) -> dict[str, Tensor]:
    embedded = linear(p, "embed", batch["x"])
    a = embedded + attention(p, "mix.inner", layer_norm(p, "mix.norm", embedded), 2)
    a_in_b = mode.cut("a->b", a)
    inner = F.gelu(linear(p, "mlp.up", layer_norm(p, "mlp.norm", a_in_b)))
    b = a_in_b + linear(p, "mlp.down", inner)
    c = layer_norm(p, "norm", mode.cut("b->c", b))
    return {"a": a, "b": b, "c": linear(p, "out", c.mean(1))}


# torch's own encoder layer, run by torch


def encoder(p: State, batch: Any, mode: Any) -> dict[str, Tensor]:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, activation="gelu")
    layer.train(mode.training)
    own = {n.removeprefix("layer."): t for n, t in p.items() if n.startswith("layer.")}
    a = linear(p, "embed", batch["x"])
    b = torch.func.functional_call(layer.double(), own, (mode.cut("a->b", a),)).mean(1)
    return {"a": a, "b": b, "c": linear(p, "out", mode.cut("b->c", b))}


# A net whose third block reads the first one's output over the second's head


def skips(p: State, batch: Any, mode: Any) -> dict[str, Tensor]:
    a = torch.tanh(linear(p, "fc1", batch["x"]))
    b = torch.tanh(linear(p, "fc2", mode.cut("a->b", a)))
    joined = torch.cat([mode.cut("a->c", a), mode.cut("b->c", b)], 1)
    c = F.silu(linear(p, "fc3", joined)) * mode.cut("a->c", a)
    return {"a": a, "b": b, "c": c, "d": linear(p, "out", mode.cut("c->d", c) + mode.cut("b->d", b))}


# A net with a custom backward


class Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (4 * x).round() * 0.25

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return torch.where((x >= -1) & (x <= 1), gradient / 2, torch.zeros_like(x))


def quantised(p: State, batch: Any, mode: Any) -> dict[str, Tensor]:
    a = Rounded.apply(linear(p, "fc1", batch["x"]))
    b = Rounded.apply(linear(p, "fc2", mode.cut("a->b", a)))
    return {"a": a, "b": b, "c": linear(p, "out", mode.cut("b->c", b))}


TRANSFORMER_LAYERS = [
    {"embed": "linear(8)"},
    {"mix": {"residual": [{"norm": "layer_norm"}, {"inner": "attention(2)"}]}},
    {"mlp": {"residual": [{"norm": "layer_norm"}, {"up": "linear(16)"}, "gelu", {"down": "linear(8)"}]}},
    {"norm": "layer_norm"},
    "mean(1)",
    {"out": "linear(5)"},
]
SKIP_LAYERS = [
    {"fc1": "linear(12)"},
    {"a": "tanh"},
    {"fc2": "linear(12)"},
    {"b": "tanh"},
    {"joined": "concat(from=[a, b])"},
    {"fc3": "linear(12)"},
    {"c": "silu"},
    {"gated": "multiply(from=[c, a])"},
    {"summed": "add(from=[gated, b])"},
    {"out": "linear(5)"},
]
IMAGE = {"inputs": {"image": [3, 16, 16]}}

NETS: dict[str, dict[str, Any]] = {
    "mlp": {
        "network": {"zoo": "mlp", "args": {"widths": [7, 16, 12, 5]}},
        "blocks": {"a": ("fc1",), "b": ("fc2",), "c": ("fc3",)},
        "forward": mlp,
        "shape": (7,),
    },
    "lenet5": {
        "network": {"zoo": "lenet5", "args": {"classes": 5}},
        "blocks": {"a": ("conv1",), "b": ("conv2",), "c": ("fc1",), "d": ("fc2", "fc3")},
        "forward": lenet5,
        "shape": (1, 28, 28),
        "field": "image",
    },
    "resnet18": {
        "network": {"zoo": "resnet18", "args": {"width": 4, "classes": 5}, **IMAGE},
        "blocks": {"a": ("conv1", "bn1", "layer1"), "b": ("layer2", "layer3"), "c": ("layer4", "fc")},
        "forward": resnet18,
        "shape": (3, 16, 16),
        "field": "image",
    },
    "transformer": {
        "network": {"inputs": {"x": [6, 4]}, "layers": TRANSFORMER_LAYERS},
        "blocks": {"a": ("embed", "mix"), "b": ("mlp",), "c": ("norm", "out")},
        "forward": transformer,
        "shape": (6, 4),
    },
    "encoder": {
        "network": {"module": "sample_networks:Encoder", "inputs": {"x": [6, 4]}},
        "blocks": {"a": ("embed",), "b": ("layer",), "c": ("out",)},
        "forward": encoder,
        "shape": (6, 4),
    },
    "skips": {
        "network": {"inputs": {"x": [7]}, "layers": SKIP_LAYERS},
        "blocks": {"a": ("fc1",), "b": ("fc2",), "c": ("fc3",), "d": ("out",)},
        "modules": {"a": ("fc1",), "b": ("fc2",), "c": ("joined", "fc3"), "d": ("summed", "out")},
        "forward": skips,
        "shape": (7,),
    },
    "quantised": {
        "network": {"module": "sample_networks:QuantisedNet", "inputs": {"x": [7]}},
        "blocks": {"a": ("fc1",), "b": ("fc2",), "c": ("out",)},
        "forward": quantised,
        "shape": (7,),
    },
}
# Blocks take sgd and adam in turn, from the first or from the second; most networks one way each.
ORDERS = {"sgd_first": ("sgd", "adam"), "adam_first": ("adam", "sgd")}
LARGE = ("resnet18", "transformer", "encoder")  # `l_bp` has backpropagation's links
ONE_WAY = (*LARGE, "skips", "lenet5", "quantised")
CASES = [
    (net, method, order)
    for net in NETS
    for method in ("bp", "l_bp", "lg_bp")
    for order in ORDERS
    if net not in ONE_WAY or (order == "adam_first") == (method == "l_bp")
    if net not in LARGE or method != "bp"
]


@pytest.mark.parametrize(("name", "method", "order"), CASES)
def test_twenty_steps_are_those_of_the_hand_written_loop(hand: Any, name: str, method: str, order: str) -> None:
    net, how, optimizers = hand.Net(**NETS[name]), hand.methods[method], ORDERS[order]
    trainer = net.trainer(net.spec(how, optimizers))
    loop = hand.Loop(net, how, optimizers, trainer.state_dict())
    before = {n: t.clone() for n, t in loop.parameters().items()}
    for batch in net.batches([SIZES[i % len(SIZES)] for i in range(STEPS)]):
        hand.same_losses(trainer.step(batch), loop.step(batch))
        hand.same(trainer.state_dict(), loop.state)
    assert all(not torch.equal(t, before[n]) for n, t in loop.parameters().items())
    check_evaluation(hand, trainer, loop, net.batches([3], seed=1)[0])


def check_evaluation(hand: Any, trainer: Any, loop: Any, batch: Any) -> None:
    """After training, the evaluation's outputs and losses are the hand-written ones; it changes nothing."""
    state = {n: t.clone() for n, t in trainer.state_dict().items()}
    output, losses = loop.evaluated(batch)
    hand.same({"output": trainer.predict({loop.net.field: batch[loop.net.field]})}, {"output": output})
    found = {n: torch.tensor(v, dtype=torch.float64) for n, v in trainer.evaluate([batch]).items()}
    hand.same_losses(found, losses)
    assert all(torch.equal(t, state[n]) for n, t in trainer.state_dict().items())


def test_without_its_custom_backward_nothing_before_it_would_learn(hand: Any) -> None:
    """The net of the custom backward can tell: the true derivative of rounding is zero."""
    net = hand.Net(**NETS["quantised"])
    trainer = net.trainer(net.spec(hand.methods["bp"], ["sgd"]))
    gradients = trainer.gradients(net.batches([8])[0])
    assert all(gradients[n].abs().max() > 1e-4 for n in ("fc1.weight", "fc2.weight"))


def test_the_three_methods_differ(hand: Any) -> None:
    """Otherwise the comparison with one would pass for another."""
    net = hand.Net(**NETS["skips"])
    state = net.trainer(net.spec(hand.methods["l_bp"], ["sgd"])).state_dict()
    found = []
    for how in hand.methods.values():
        loop = hand.Loop(net, how, ["sgd"], state)
        loop.backward(net.batches([8])[0])
        found.append(loop.gradients()["fc1.weight"])
    for one, other in combinations(found, 2):
        assert (one - other).norm() > 0.01 * one.norm()
