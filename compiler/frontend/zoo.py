"""Which networks come with the library? Plain modules, each after its paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isqrt, prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lpc.compiler.frontend.localmixer import LocalMixer
from lpc.specs.model import Tensor as TensorSpec

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "elu": nn.ELU,
    "softplus": nn.Softplus,
    "hardtanh": nn.Hardtanh,
    "identity": nn.Identity,
}


class MLP(nn.Module):
    """Linear maps `fc1`, `fc2`, ... with activations between: [batch, ...] -> [batch, widths[-1]]."""

    def __init__(
        self, widths: Sequence[int], activation: str = "relu", dropout: float = 0.0, bias: bool = True
    ) -> None:
        super().__init__()
        pairs = list(pairwise(widths))
        if not pairs:
            raise ValueError(f"`widths` needs an input and an output, found {list(widths)}")
        self.layers: list[str] = []
        for number, (before, after) in enumerate(pairs, 1):
            self._append(f"fc{number}", nn.Linear(before, after, bias=bias))
            if number < len(pairs):
                self._append(f"{activation}{number}", make_activation(activation))
                if dropout:
                    self._append(f"dropout{number}", nn.Dropout(dropout))

    def _append(self, name: str, layer: nn.Module) -> None:
        self.add_module(name, layer)
        self.layers.append(name)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for name in self.layers:
            x = self.get_submodule(name)(x)
        return x


class Autoencoder(MLP):
    """The deep autoencoder of Hinton and Salakhutdinov 2006: [batch, ...] -> [batch, widths[-1]], pixel logits.

    `size` is a factor on all inner widths; layers of half the largest inner width stand `depth` times. The narrowest
    layer, the code, has an activation of its own or none (`linear`). Weights and biases begin as Glorot and Bengio 2010
    draw them, a bias as a map of its length to itself (as in the released code of LocoProp).
    """

    def __init__(
        self, widths: Sequence[int], activation: str = "tanh", code: str = "linear", size: float = 1.0, depth: int = 1
    ) -> None:
        nn.Module.__init__(self)
        self.layers: list[str] = []
        pairs = list(pairwise(_inner_widths(widths, size, depth)))
        narrow = min(range(len(pairs)), key=lambda i: pairs[i][1])
        for number, (before, after) in enumerate(pairs, 1):
            layer = nn.Linear(before, after)
            nn.init.xavier_uniform_(layer.weight)
            nn.init.uniform_(layer.bias, -((3 / after) ** 0.5), (3 / after) ** 0.5)
            self._append(f"fc{number}", layer)
            name = code if number == narrow + 1 else activation
            if number < len(pairs) and name != "linear":
                self._append(f"{name}{number}", make_activation(name))


def _inner_widths(widths: Sequence[int], size: float, depth: int) -> list[int]:
    """Scale the inner widths and repeat those of half the largest one."""
    if len(widths) < 3:
        raise ValueError(f"`widths` needs an input, a code and an output, found {list(widths)}")
    half = max(widths[1:-1]) // 2
    found = [widths[0]]
    for width in widths[1:-1]:
        found += [max(round(width * size), 1)] * (depth if width == half else 1)
    return [*found, widths[-1]]


class LeNet5(nn.Module):
    """LeNet-5 (LeCun et al. 1998, figure 2), its third layer fully connected and a linear output.

    [batch, channels, 28 or 32, 28 or 32] -> [batch, classes]; 28 x 28 images are padded to 32 x 32.
    """

    def __init__(self, classes: int = 10, channels: int = 1, activation: str = "tanh") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 6, 5)
        self.act1 = make_activation(activation)
        self.pool1 = nn.AvgPool2d(2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.act2 = make_activation(activation)
        self.pool2 = nn.AvgPool2d(2)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.act3 = make_activation(activation)
        self.fc2 = nn.Linear(120, 84)
        self.act4 = make_activation(activation)
        self.fc3 = nn.Linear(84, classes)

    def forward(self, image: Tensor) -> Tensor:
        rows, columns = (32 - image.shape[-2]) // 2, (32 - image.shape[-1]) // 2
        x = F.pad(image, (columns, columns, rows, rows))
        x = self.pool1(self.act1(self.conv1(x)))
        x = self.pool2(self.act2(self.conv2(x)))
        x = self.act3(self.fc1(x.flatten(1)))
        return self.fc3(self.act4(self.fc2(x)))  # type: ignore[no-any-return]


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions around a shortcut (He et al. 2016, figure 5 left; projection is option B)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.shortcut = nn.Sequential()
        if stride != 1 or before != after:
            self.shortcut.append(nn.Conv2d(before, after, 1, stride, bias=False)).append(nn.BatchNorm2d(after))
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(y + self.shortcut(x))  # type: ignore[no-any-return]


class ResNet18(nn.Module):
    """ResNet-18 (He et al. 2016, table 1): [batch, channels, height, width] -> [batch, classes].

    The `imagenet` stem is a 7 x 7 convolution with stride 2 and max pooling, the `cifar` stem one of 3 x 3.
    """

    def __init__(self, classes: int = 10, stem: str = "cifar", channels: int = 3, width: int = 64) -> None:
        super().__init__()
        large = stem == "imagenet"
        kernel, stride, padding = (7, 2, 3) if large else (3, 1, 1)
        self.conv1 = nn.Conv2d(channels, width, kernel, stride, padding, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1) if large else nn.Identity()
        self.layer1 = self._stage(width, width, 1)
        self.layer2 = self._stage(width, 2 * width, 2)
        self.layer3 = self._stage(2 * width, 4 * width, 2)
        self.layer4 = self._stage(4 * width, 8 * width, 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8 * width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _stage(before: int, after: int, stride: int) -> nn.Sequential:
        return nn.Sequential(BasicBlock(before, after, stride), BasicBlock(after, after, 1))

    def forward(self, image: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(image))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))  # type: ignore[no-any-return]


class ElmanCell(nn.Module):
    """U x + V f(code) + b: the pre-activation of a step, [batch, hidden], from that of the step before, if any."""

    def __init__(self, features: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.input = nn.Linear(features, hidden)
        self.recurrent = nn.Linear(hidden, hidden, bias=False)
        self.activation = make_activation(activation)

    def forward(self, frame: Tensor, code: Tensor | None = None) -> Tensor:
        made: Tensor = self.input(frame)
        return made if code is None else made + self.recurrent(self.activation(code))


class Elman(nn.Module):
    """A recurrent net (Elman 1990) over an input in parts: [batch, *image] -> [batch, classes].

    Its state begins at 0. A linear map reads the last step's units, or (`sequence`) those of all steps, rectified.
    """

    def __init__(
        self,
        image: Sequence[int] = (1, 28, 28),
        steps: int = 28,
        hidden: int = 15,
        activation: str = "tanh",
        readout: str = "last",
        classes: int = 10,
    ) -> None:
        super().__init__()
        if prod(image) % steps:
            raise ValueError(f"an input of {prod(image)} numbers cannot be read in {steps} equal steps")
        self.shape = (steps, prod(image) // steps)
        self.whole = readout == "sequence"
        self.cell = ElmanCell(self.shape[1], hidden, activation)
        self.activation = make_activation(activation)
        self.rectifier = nn.ReLU()
        self.out = nn.Linear(hidden * (steps if self.whole else 1), classes)

    def forward(self, image: Tensor) -> Tensor:
        codes: list[Tensor] = []
        frames = image.reshape(-1, *self.shape).unbind(1)
        for step in range(self.shape[0]):
            codes.append(self.cell(frames[step], *codes[-1:]))
        if not self.whole:
            return self.out(self.activation(codes[-1]))  # type: ignore[no-any-return]
        return self.out(self.rectifier(self.activation(torch.cat(codes, 1))))  # type: ignore[no-any-return]


def make_activation(name: str) -> nn.Module:
    """Return the activation of that name; ValueError names the known ones."""
    if name not in ACTIVATIONS:
        raise ValueError(f"there is no activation `{name}`; known are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()


@dataclass(frozen=True)
class Entry:
    """A network of the library: its class, and its input where the spec gives none."""

    make: Callable[..., nn.Module]
    inputs: Callable[[Mapping[str, Any]], dict[str, TensorSpec]]


def _image(channels: int, side: int) -> dict[str, TensorSpec]:
    return {"image": TensorSpec(shape=(channels, side, side))}


def _plane(count: int) -> tuple[int, ...]:
    """The shape of an image of one channel with so many pixels; a row of numbers where it is no square."""
    side = isqrt(count)
    return (1, side, side) if side * side == count else (count,)


ZOO: dict[str, Entry] = {
    "mlp": Entry(MLP, lambda a: {"x": TensorSpec(shape=(a["widths"][0],))}),
    "autoencoder": Entry(Autoencoder, lambda a: {"image": TensorSpec(shape=_plane(a["widths"][0]))}),
    "lenet5": Entry(LeNet5, lambda a: _image(a["channels"], 28)),
    "resnet18": Entry(ResNet18, lambda a: _image(a["channels"], 224 if a["stem"] == "imagenet" else 32)),
    "elman": Entry(Elman, lambda a: {"image": TensorSpec(shape=tuple(a["image"]))}),
    "localmixer": Entry(LocalMixer, lambda a: {"image": TensorSpec(shape=tuple(a["image"]))}),
}
