"""Which local heads are there? One table: name -> the module from a block's output to the loss's prediction."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

Shape = Sequence[int | str]
HeadBuilder = Callable[["Setting", int, dict[str, Any]], nn.Module | None]


@dataclass(frozen=True)
class Setting:
    """Per-sample shapes of what a head reads and of the target its loss compares with."""

    feature: Shape
    target: Shape

    @property
    def per_position(self) -> bool:
        """One label for each position of a token feature [T, C]: the head is applied at every position."""
        return len(self.feature) == 2 and len(self.target) == 1 and self.feature[0] == self.target[0]

    def sizes(self) -> list[int]:
        """The feature's shape, which must be static."""
        if any(isinstance(size, str) for size in self.feature):
            raise ValueError(f"the head needs a fixed shape, the block's output is {list(self.feature)}")
        return [int(size) for size in self.feature]


class LinearHead(nn.Linear):
    """A linear layer that flattens its input, averages it over positions, or works at every position."""

    def __init__(self, features: int, width: int, bias: bool, view: str) -> None:
        super().__init__(features, width, bias=bias)
        self.view = view

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(VIEWS[self.view](x))


# How a feature [B, ...] becomes rows for a linear head.
VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "flat": lambda x: x.flatten(1),
    "mean": lambda x: x.mean(1) if x.dim() == 3 else x.flatten(2).mean(2),
    "positions": lambda x: x,
}


class Spatial(nn.Module):
    """View a flat or token feature as a map for convolutional heads: [B, C] -> [B, C, 1, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, None, None] if x.dim() == 2 else x


def _identity(setting: Setting, width: int, options: dict[str, Any]) -> nn.Module | None:
    return None


def _linear(setting: Setting, width: int, options: dict[str, Any]) -> nn.Module:
    """One linear layer: on the flattened feature, on its mean over positions, or at every position."""
    bias = bool(options["bias"])
    if setting.per_position:
        return LinearHead(_channels(setting), width, bias, "positions")
    if options["pool"] == "mean" and len(setting.feature) > 1:
        return LinearHead(_channels(setting), width, bias, "mean")
    return LinearHead(math.prod(setting.sizes()), width, bias, "flat")


def class_axis(feature: Shape) -> int | str | None:
    """Return how many classes a loss without a head reads in a feature: its only axis, or its channels."""
    return feature[-1 if len(feature) <= 2 else 0] if feature else None


def _channels(setting: Setting) -> int:
    """The channel axis: the last of tokens [T, C], the first of a map [C, H, W]."""
    return int(setting.feature[-1] if len(setting.feature) == 2 else setting.feature[0])


def _mlp(setting: Setting, width: int, options: dict[str, Any]) -> nn.Module:
    """DGL's auxiliary network: pooled to 2 x 2 where the block's output is a map, then hidden layers with norm.

    Belilovsky et al. 2020 (arXiv 1901.08164): `layers` hidden layers as wide as their input.
    """
    shape = setting.sizes()
    modules: list[nn.Module] = []
    features = math.prod(shape)
    if len(shape) == 3:
        modules += [
            nn.AdaptiveAvgPool2d((math.ceil(shape[1] / 4), math.ceil(shape[2] / 4))),
            nn.AdaptiveAvgPool2d((2, 2)),
        ]
        features = 4 * shape[0]
    modules.append(nn.Flatten())
    hidden = int(options["width"] or features)
    for _ in range(int(options["layers"])):
        modules += [nn.Linear(features, hidden), nn.BatchNorm1d(hidden), nn.ReLU()]
        features = hidden
    return nn.Sequential(*modules, nn.Linear(features, width))


def _cnn(setting: Setting, width: int, options: dict[str, Any]) -> nn.Module:
    """DGL's convolutional auxiliary network: 3 x 3 convolutions at full size, pooled to 2 x 2, norm, linear."""
    channels = setting.sizes()[0]
    hidden = int(options["channels"] or channels)
    modules: list[nn.Module] = [Spatial()]
    for _ in range(int(options["layers"])):
        modules += [
            nn.Conv2d(channels, hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
        ]
        channels = hidden
    return nn.Sequential(
        *modules,
        nn.AdaptiveAvgPool2d((2, 2)),
        nn.BatchNorm2d(channels),
        nn.Flatten(),
        nn.Linear(4 * channels, width),
    )


HEADS: dict[str, HeadBuilder] = {
    "identity": _identity,
    "linear": _linear,
    "mlp": _mlp,
    "cnn": _cnn,
}
