"""How is a feature brought into the shape that a head reads? Rows, maps, one token."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

# How a feature [B, ...] becomes rows for a linear head.
VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "flat": lambda x: x.flatten(1),
    "mean": lambda x: x.mean(1) if x.dim() == 3 else x.flatten(2).mean(2),
    "patches": lambda x: x.mean(1).flatten(1),
    "positions": lambda x: x,
}


class Spatial(nn.Module):
    """View a flat feature as a map for convolutional heads: [B, C] -> [B, C, 1, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, None, None] if x.dim() == 2 else x


class MeanOverPositions(nn.Module):
    """[B, C, H, W] or tokens [B, T, C] -> [B, C]; a flat feature stays."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.dim() == 2 else VIEWS["mean"](x)
