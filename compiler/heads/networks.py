"""Which heads are small networks of their own? DGL's, InfoPro's, SimCLR's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from lpc.compiler.heads.shaping import MeanOverPositions, Spatial
from lpc.compiler.setting import Setting, static

Options = Mapping[str, Any]


def mlp(setting: Setting, options: Options) -> nn.Module:
    """DGL's auxiliary network: a map pooled to a quarter, then to 2 x 2, hidden layers with norm, a linear map.

    Belilovsky et al. 2020 (arXiv 1901.08164), in which the hidden layers are as wide as what they read.
    """
    sizes = setting.sizes()
    if len(sizes) != 3:
        return nn.Sequential(nn.Flatten(), *_hidden(math.prod(sizes), setting, options))
    quarter, last, features = _staged(sizes)
    return nn.Sequential(quarter, last, nn.Flatten(), *_hidden(features, setting, options))


def mlp_sr(setting: Setting, options: Options) -> nn.Module:
    """DGL's mlp-sr, with staged spatial resolution: 1 x 1 convolutions on the map pooled to a quarter, then `mlp`."""
    sizes = setting.image()
    channels = sizes[0]
    quarter, last, features = _staged(sizes)
    convolutions: list[nn.Module] = []
    for _ in range(int(options["convs"])):
        convolutions += _convolution(channels, channels, 1)
    return nn.Sequential(
        Spatial(), quarter, *convolutions, last, nn.Flatten(), *_hidden(features, setting, options)
    )


def _staged(sizes: list[int]) -> tuple[nn.Module, nn.Module, int]:
    """Pool a map to a quarter of each side, rounded up, then to at most 2 x 2; return both and the features left."""
    quarter = [math.ceil(size / 4) for size in sizes[1:]]
    last = [min(size, 2) for size in quarter]
    return nn.AdaptiveAvgPool2d(quarter), nn.AdaptiveAvgPool2d(last), sizes[0] * math.prod(last)  # type: ignore[arg-type]


def _hidden(features: int, setting: Setting, options: Options) -> list[nn.Module]:
    width = int(options["width"] or features)
    modules: list[nn.Module] = []
    for _ in range(int(options["layers"])):
        modules += [nn.Linear(features, width), nn.BatchNorm1d(width), nn.ReLU()]
        features = width
    return [*modules, nn.Linear(features, setting.outputs())]


def _convolution(channels: int, out: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    """A convolution that keeps the size (but for its stride), batch norm and ReLU."""
    return [
        nn.Conv2d(channels, out, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(),
    ]


def cnn(setting: Setting, options: Options) -> nn.Module:
    """DGL's convolutional auxiliary network: 3 x 3 convolutions at full size, pooled to 2 x 2, norm, linear."""
    channels = setting.image()[0]
    hidden = int(options["channels"] or channels)
    modules: list[nn.Module] = [Spatial()]
    for _ in range(int(options["layers"])):
        modules += _convolution(channels, hidden, 3)
        channels = hidden
    return nn.Sequential(
        *modules,
        nn.AdaptiveAvgPool2d((2, 2)),
        nn.BatchNorm2d(channels),
        nn.Flatten(),
        nn.Linear(4 * channels, setting.outputs()),
    )


def convs_fcs(setting: Setting, options: Options) -> nn.Module:
    """InfoPro's XcYf: convolutions, mean over positions, linear layers (Wang et al. 2021).

    The first convolution doubles the channels and halves the map, unless they have reached `limit`.
    """
    channels, widen = setting.image()[0], float(options["widen"])
    ends = options["limit"] is not None and channels >= int(options["limit"])
    out, stride = int((channels if ends else 2 * channels) * widen), 1 if ends else 2
    modules: list[nn.Module] = [Spatial()]
    for _ in range(int(options["convs"])):
        modules += _convolution(channels, out, 3, stride)
        channels, stride = out, 1
    modules += [nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten()]
    hidden = int(int(options["hidden"]) * widen)
    for _ in range(int(options["fcs"]) - 1):
        modules += [nn.Linear(channels, hidden), nn.ReLU()]
        channels = hidden
    return nn.Sequential(*modules, nn.Linear(channels, int(options["features"] or setting.outputs())))


def simclr_mlp(setting: Setting, options: Options) -> nn.Module:
    """SimCLR's projection (Chen et al. 2020), with LoCo's convolutions before the pooling (Xiong et al. 2020)."""
    channels = setting.channels
    convolutions: list[nn.Module] = []
    if options["convs"]:
        channels = setting.image()[0]
        convolutions.append(Spatial())
    for _ in range(int(options["convs"])):
        convolutions += _convolution(channels, channels, 3)
    hidden = int(options["hidden"] or channels)
    return nn.Sequential(
        *convolutions,
        MeanOverPositions(),
        nn.Linear(channels, hidden),
        nn.ReLU(),
        nn.Linear(hidden, int(options["out"])),
    )


class Enlarge(nn.Module):
    """A map or flat feature as a map of a given size; `bilinear` takes the corners for the corners."""

    def __init__(self, size: tuple[int, int], mode: str) -> None:
        super().__init__()
        self.size, self.mode = size, mode

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, size=self.size, mode=self.mode, align_corners=True if self.mode == "bilinear" else None)


def transposed_decoder(setting: Setting, options: Options) -> nn.Module:
    """Back to the target's shape by transposed convolutions, each of which doubles the map (Nøkland and Eidnes 2019).

    Where the map has that size already there is one of stride 1, as the authors have for a layer's own input; where
    either has no positions, one linear map.
    """
    target, sizes = [static(size) for size in setting.target], setting.sizes()
    if len(target) != 3 or len(sizes) != 3:
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(sizes), math.prod(target)), nn.Unflatten(1, target))
    kernel, channels = int(options["kernel"]), sizes[0]
    if kernel % 2 == 0:
        raise ValueError(f"its kernel must be odd, not {kernel}")
    steps = _doublings(sizes[1:], target[1:])
    modules: list[nn.Module] = []
    for extra in steps[:-1]:
        hidden = max(channels // 2, target[0])
        upward = nn.ConvTranspose2d(channels, hidden, kernel, 2, kernel // 2, extra, bias=False)
        modules += [upward, nn.BatchNorm2d(hidden), nn.ReLU()]
        channels = hidden
    last = (2, steps[-1]) if steps else (1, (0, 0))
    return nn.Sequential(*modules, nn.ConvTranspose2d(channels, target[0], kernel, last[0], kernel // 2, last[1]))


def _doublings(sizes: list[int], target: list[int]) -> list[tuple[int, int]]:
    """Return for each doubling from one map to the other, rows and columns, 1 where the larger one is even, else 0."""
    steps: list[tuple[int, int]] = []
    left = list(target)
    while left != sizes and min(left) > 1:
        steps.append((1 - left[0] % 2, 1 - left[1] % 2))
        left = [-(-side // 2) for side in left]
    if left != sizes:
        raise ValueError(f"a map of {sizes[0]} x {sizes[1]} does not become {target[0]} x {target[1]} by doubling")
    return steps[::-1]


def decoder(setting: Setting, options: Options) -> nn.Module:
    """InfoPro's decoder (Wang et al. 2021); its sigmoid is in the loss `recon`."""
    image = [int(size) for size in setting.target]
    if len(image) != 3:
        raise ValueError(f"it gives an image [channels, height, width], the target is {list(setting.target)}")
    hidden = int(options["channels"])
    return nn.Sequential(
        Spatial(),
        Enlarge((image[1], image[2]), str(options["mode"])),
        nn.Conv2d(setting.image()[0], hidden, 3, padding=1),
        nn.BatchNorm2d(hidden),
        nn.ReLU(),
        nn.Conv2d(hidden, image[0], 3, padding=1),
    )
