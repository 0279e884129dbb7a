"""What does a plain convolutional network look like in PyTorch? Residual blocks with squeeze-and-excitation."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Gate(nn.Module):
    """Squeeze-and-excitation: every channel is scaled by what the whole map says."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = x.mean((2, 3), keepdim=True)
        return x * self.expand(F.silu(self.reduce(squeezed))).sigmoid()


class Block(nn.Module):
    """A depthwise and a pointwise convolution, gated, around a skip connection."""

    def __init__(self, channels: int, drop: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.gate, self.pointwise = Gate(channels), nn.Conv2d(channels, channels, 1)
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        y = self.gate(F.gelu(self.norm(self.depthwise(x))))
        return x + F.dropout(self.pointwise(y), self.drop, self.training)


class Net(nn.Module):
    """A stem that halves the map, blocks, and a linear layer on the mean of the last map."""

    def __init__(self, channels: int = 8, depth: int = 3, classes: int = 5, drop: float = 0.1) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 4, stride=2, padding=1)
        self.blocks = nn.ModuleList([Block(channels, drop) for _ in range(depth)])
        self.head = nn.Linear(channels, classes)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))
