"""Which heads are one linear map of a pooled feature? Flat, averaged, pooled, one token, channel groups."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lpc.compiler.heads.shaping import VIEWS
from lpc.compiler.setting import Setting, static

Options = Mapping[str, Any]


class LinearHead(nn.Linear):
    """A linear layer that flattens its input, averages it over positions, or works at every position.

    `norm`, if not 0, is the length of the last axis, which is normalised first.
    """

    def __init__(self, features: int, width: int, bias: bool, view: str, norm: int = 0) -> None:
        super().__init__(features, width, bias=bias)
        self.view, self.norm = view, norm

    def forward(self, x: Tensor) -> Tensor:
        normed = F.layer_norm(x, (self.norm,)) if self.norm else x
        return super().forward(VIEWS[self.view](normed))


def identity(setting: Setting, options: Options) -> None:
    return None


def linear(setting: Setting, options: Options) -> nn.Module:
    """One linear layer: on the flattened feature, on its mean over positions or patches, or at every position."""
    bias, width = bool(options["bias"]), int(options["out"] or 0) or setting.outputs()
    norm = static(setting.feature[-1]) if options["norm"] == "last" else 0
    features, view = _read(setting, options["pool"])
    return LinearHead(features, width, bias, view, norm)


def _read(setting: Setting, pool: str | None) -> tuple[int, str]:
    """Return how many features a linear head reads, and the view that gives them."""
    if setting.per_position:
        return setting.channels, "positions"
    if pool == "patches":
        if len(setting.feature) not in (2, 3):
            raise ValueError("`pool=patches` reads [patches, channels] or [patches, groups, channels]")
        return math.prod(setting.sizes()[1:]), "patches"
    if pool == "mean" and len(setting.feature) > 1:
        return setting.channels, "mean"
    return math.prod(setting.sizes()), "flat"


def gap_linear(setting: Setting, options: Options) -> nn.Module:
    """The mean over all positions, then one linear layer: Greedy SL, and InfoPro's 0c1f."""
    return linear(setting, {"norm": None, "out": None, **options, "pool": "mean"})


def pool_linear(setting: Setting, options: Options) -> nn.Module:
    """Nøkland and Eidnes 2019's `pred`: average pooling until at most `dim` features are left; weights start at 0."""
    sizes = setting.sizes()
    pool: list[nn.Module] = []
    features = math.prod(sizes)
    if len(sizes) == 3:
        pool, features = _pool(sizes, int(options["dim"]))
    last = nn.Linear(features, setting.outputs())
    nn.init.zeros_(last.weight)
    return nn.Sequential(*pool, nn.Flatten(), last)


def _pool(sizes: list[int], most: int) -> tuple[list[nn.Module], int]:
    """Double the kernel in height, then in width, as long as the features left are too many."""
    kernel, axis = [1, 1], 0
    while _pooled(sizes, kernel) > most and any(k < size for k, size in zip(kernel, sizes[1:], strict=True)):
        if kernel[axis] < sizes[1 + axis]:
            kernel[axis] *= 2
        axis = 1 - axis
    if kernel == [1, 1]:
        return [], math.prod(sizes)
    # A size that the kernel does not divide is padded to the next whole number of windows.
    padding = [
        k * (math.ceil(size / k) - size // k) // 2 for k, size in zip(kernel, sizes[1:], strict=True)
    ]
    pool = nn.AvgPool2d((kernel[0], kernel[1]), padding=(padding[0], padding[1]))
    left = pool(torch.empty(1, *sizes, device="meta"))
    return [pool], left.numel()


def _pooled(sizes: list[int], kernel: list[int]) -> int:
    return sizes[0] * math.ceil(sizes[1] / kernel[0]) * math.ceil(sizes[2] / kernel[1])


class TokenHead(nn.Module):
    """The first token, or the mean of all, of [batch, tokens, channels]; layer norm; a linear map."""

    def __init__(self, channels: int, width: int, pool: str) -> None:
        super().__init__()
        self.pool = pool
        self.norm = nn.LayerNorm(channels)
        self.linear = nn.Linear(channels, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.norm(x[:, 0] if self.pool == "cls" else x.mean(1)))  # type: ignore[no-any-return]


def token(setting: Setting, options: Options) -> nn.Module:
    if len(setting.feature) != 2:
        raise ValueError(f"it reads tokens [tokens, channels], the block's output is {list(setting.feature)}")
    return TokenHead(setting.channels, setting.outputs(), str(options["pool"]))


class ClassChannels(nn.Module):
    """The mean square of each class's channels, over their positions too: [B, C, ...] -> [B, classes]."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, x: Tensor) -> Tensor:
        channels_first = x.movedim(-1, 1) if x.dim() == 3 else x
        groups = channels_first.reshape(x.shape[0], self.classes, -1)
        return groups.square().mean(2)


def class_channels(setting: Setting, options: Options) -> nn.Module:
    """CwComp's class groups (Papachristodoulou et al. 2024, arXiv 2312.12668)."""
    classes = int(options["classes"] or setting.outputs())
    if setting.channels % classes:
        raise ValueError(f"{setting.channels} channels cannot be divided into {classes} equal groups")
    return ClassChannels(classes)


class LinearMap(nn.Linear):
    """A square linear map of the flattened feature, or of each token."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x if x.dim() == 3 else x.flatten(1), self.weight)


def linear_map(setting: Setting, options: Options) -> nn.Module:
    size = static(setting.feature[-1]) if len(setting.feature) == 2 else math.prod(setting.sizes())
    return LinearMap(size, size, bias=False)


def conv3x3_map(setting: Setting, options: Options) -> nn.Module:
    if len(setting.feature) != 3:
        raise ValueError(f"it reads a map [channels, height, width], the block's output is {list(setting.feature)}")
    return nn.Conv2d(setting.channels, setting.channels, 3, padding=1, bias=False)


def square_map(setting: Setting, options: Options) -> nn.Module:
    return conv3x3_map(setting, options) if len(setting.feature) == 3 else linear_map(setting, options)


ACTIVATIONS: Mapping[str | None, Callable[[Tensor], Tensor]] = {
    None: lambda x: x,
    "tanh": torch.tanh,
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
}


class BackMap(nn.Linear):
    """A linear map of the flattened feature, or of its signs (-1 at 0), to a shape; and an activation."""

    def __init__(self, features: int, shape: Sequence[int], activation: str | None, sign: bool) -> None:
        super().__init__(features, math.prod(shape))
        self.shape, self.activation, self.sign = tuple(shape), activation, sign

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(1)
        read = torch.where(rows > 0, 1.0, -1.0).to(rows.dtype) if self.sign else rows
        return ACTIVATIONS[self.activation](super().forward(read)).reshape(-1, *self.shape)


def back_map(setting: Setting, options: Options) -> nn.Module:
    """An inverse of one layer (Lee et al. 2015): V h + c, or with `sign` V sign(h) + c, then `tanh`."""
    shape = [static(size) for size in setting.target]
    return BackMap(setting.units(), shape, options["activation"], bool(options["sign"]))
