"""Which networks are timed? Each as a spec, and as the stages of the eager loop that a careful person would write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lpc.compiler.frontend.zoo import MLP, LeNet5, ResNet18

Stage = Callable[[Tensor], Tensor]
LABEL = {"label": {"shape": [], "dtype": "int64"}}


@dataclass(frozen=True)
class Net:
    """One network: its part of the spec, its image shape and batch, and its module cut into stages by hand.

    `stages(module)` are functions whose chain is the network, one a block; `owned` are the submodules of each.
    `features` are the inputs of the heads of all stages but the last, which are averaged over positions.
    """

    network: dict[str, Any]
    blocks: Any
    optimizer: str
    shape: tuple[int, ...]
    batch: int
    module: Callable[[], nn.Module]
    stages: Callable[[Any], list[Stage]]
    owned: tuple[tuple[str, ...], ...]
    features: tuple[int, ...]
    pooled: bool = True


def head_input(x: Tensor, pooled: bool) -> Tensor:
    """What a local head reads: the mean over positions, of tokens [B, T, C] or a map, or all numbers in a row."""
    if not pooled or x.dim() == 2:
        return x.flatten(1)
    return x.mean(1) if x.dim() == 3 else x.mean((2, 3))


def _mlp(m: Any) -> list[Stage]:
    return [lambda x: F.relu(m.fc1(x.flatten(1))), lambda x: F.relu(m.fc2(x)), lambda x: m.fc3(x)]


def _lenet(m: Any) -> list[Stage]:
    return [
        lambda x: F.avg_pool2d(torch.tanh(m.conv1(F.pad(x, (2, 2, 2, 2)))), 2),
        lambda x: F.avg_pool2d(torch.tanh(m.conv2(x)), 2),
        lambda x: torch.tanh(m.fc1(x.flatten(1))),
        lambda x: torch.tanh(m.fc2(x)),
        lambda x: m.fc3(x),
    ]


def _basic(block: Any) -> Stage:
    """A residual block with in-place additions and activations, as torchvision has them."""
    shortcut = block.shortcut if len(block.shortcut) else None

    def run(x: Tensor) -> Tensor:
        y = F.relu(block.bn1(block.conv1(x)), inplace=True)
        y = block.bn2(block.conv2(y))
        y += x if shortcut is None else shortcut(x)
        return F.relu(y, inplace=True)

    return run


def _chain(parts: list[Stage]) -> Stage:
    def run(x: Tensor) -> Tensor:
        for part in parts:
            x = part(x)
        return x

    return run


def _resnet(m: Any) -> list[Stage]:
    layers = [[_basic(b) for b in layer] for layer in (m.layer1, m.layer2, m.layer3, m.layer4)]
    return [
        _chain([lambda x: F.relu(m.bn1(m.conv1(x)), inplace=True), *layers[0]]),
        _chain(layers[1]),
        _chain(layers[2]),
        _chain([*layers[3], lambda x: m.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))]),
    ]


class Layer(nn.Module):
    """A pre-norm transformer layer by hand; parameters are named as in the spec."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        mix = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "out": nn.Linear(width, width)})
        wide, narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.residual1 = nn.ModuleDict({"norm": nn.LayerNorm(width), "mix": mix})
        self.residual2 = nn.ModuleDict({"norm": nn.LayerNorm(width), "wide": wide, "narrow": narrow})

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        attend, expand = self.residual1, self.residual2
        parts = attend["mix"]["qkv"](attend["norm"](x)).chunk(3, -1)
        heads = [part.view(batch, tokens, self.heads, -1).transpose(1, 2) for part in parts]
        mixed = F.scaled_dot_product_attention(*heads).transpose(1, 2).reshape(batch, tokens, width)
        x = x + attend["mix"]["out"](mixed)
        return x + expand["narrow"](F.gelu(expand["wide"](expand["norm"](x))))


class SmallViT(nn.Module):
    """Patches of 4 x 4, transformer layers, the mean over tokens; no position embedding."""

    def __init__(self, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.body = nn.ModuleList(Layer(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, 10)


def _vit(m: Any) -> list[Stage]:
    third = len(m.body) // 3
    parts = [_chain(list(m.body[i * third : (i + 1) * third])) for i in range(3)]
    return [
        lambda x: parts[0](m.patches(x).flatten(2).transpose(1, 2)),
        parts[1],
        lambda x: m.out(m.norm(parts[2](x)).mean(1)),
    ]


def vit(width: int, heads: int, depth: int, batch: int) -> Net:
    """A small vision transformer for 32 x 32 images, in three blocks of `depth / 3` layers."""
    expand = [{"wide": f"linear({4 * width})"}, "gelu", {"narrow": f"linear({width})"}]
    layer = [
        {"residual": [{"norm": "layer_norm"}, {"mix": f"attention({heads})"}]},
        {"residual": [{"norm": "layer_norm"}, *expand]},
    ]
    body = [f"body.{i}" for i in range(depth)]
    third = depth // 3
    owned = (("patches", *body[:third]), tuple(body[third : 2 * third]), (*body[2 * third :], "norm", "out"))
    return Net(
        network={
            "layers": [
                {"patches": f"conv({width}, 4, stride=4)"},
                "flatten(2)",
                "transpose(1, 2)",
                {"body": {f"repeat({depth})": layer}},
                {"norm": "layer_norm"},
                "mean(1)",
                {"out": "linear(10)"},
            ]
        },
        blocks={f"b{i + 1}": list(names) for i, names in enumerate(owned)},
        optimizer="adamw(lr=1e-3)",
        shape=(3, 32, 32),
        batch=batch,
        module=lambda: SmallViT(width, heads, depth),
        stages=_vit,
        owned=owned,
        features=(width, width),
    )


def mlp(width: int, batch: int) -> Net:
    """784-width-width-10."""
    widths = [784, width, width, 10]
    return Net(
        network={"zoo": "mlp", "args": {"widths": widths}},
        blocks="per_layer",
        optimizer="adam(lr=1e-3)",
        shape=(1, 28, 28),
        batch=batch,
        module=lambda: MLP(widths),
        stages=_mlp,
        owned=(("fc1",), ("fc2",), ("fc3",)),
        features=(width, width),
    )


def lenet5(batch: int) -> Net:
    """LeNet-5, a block a layer, heads on all features."""
    return Net(
        network={"zoo": "lenet5"},
        blocks="per_layer",
        optimizer="sgd(lr=0.01, momentum=0.9)",
        shape=(1, 28, 28),
        batch=batch,
        module=LeNet5,
        stages=_lenet,
        owned=(("conv1",), ("conv2",), ("fc1",), ("fc2",), ("fc3",)),
        features=(6 * 14 * 14, 16 * 5 * 5, 120, 84),
        pooled=False,
    )


def resnet18(width: int, batch: int) -> Net:
    """ResNet-18 with the CIFAR stem, a block a stage."""
    owned = (("conv1", "bn1", "layer1"), ("layer2",), ("layer3",), ("layer4", "fc"))
    return Net(
        network={"zoo": "resnet18", "args": {"width": width}},
        blocks={f"b{i + 1}": list(names) for i, names in enumerate(owned)},
        optimizer="sgd(lr=0.01, momentum=0.9, weight_decay=5e-4)",
        shape=(3, 32, 32),
        batch=batch,
        module=lambda: ResNet18(width=width),
        stages=_resnet,
        owned=owned,
        features=(width, 2 * width, 4 * width),
    )


NETS: dict[str, Callable[[], Net]] = {
    "mlp": lambda: mlp(512, 128),
    "lenet5": lambda: lenet5(128),
    "resnet18": lambda: resnet18(64, 16),
    "vit": lambda: vit(192, 3, 6, 32),
}
