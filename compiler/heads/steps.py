"""Which head predicts positions further on? A linear map for each number of steps ahead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lpc.compiler.setting import Setting


class StepMaps(nn.Module):
    """K square maps W_k without bias: [B, C, H, W] or tokens [B, T, C] -> [B, 1 + K, C, rows, columns].

    First the features z themselves, then W_k z for k = 1 to K; tokens are rows of one column. Löwe et al. 2019
    (arXiv 1905.11786), where z is the context as well.
    """

    def __init__(self, channels: int, steps: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(steps, channels, channels))
        for matrix in self.weight:
            nn.init.kaiming_uniform_(matrix, a=5**0.5)  # as of a 1 x 1 convolution

    def forward(self, x: Tensor) -> Tensor:
        grid = x.movedim(-1, 1)[..., None] if x.dim() == 3 else x
        mapped = [F.conv2d(grid, matrix[:, :, None, None]) for matrix in self.weight.unbind()]
        return torch.stack([grid, *mapped], 1)


def nce_maps(setting: Setting, options: Mapping[str, Any]) -> nn.Module:
    if len(setting.feature) not in (2, 3):
        raise ValueError(f"it reads a map or tokens, the block's output is {list(setting.feature)}")
    return StepMaps(setting.channels, int(options["k"]))
