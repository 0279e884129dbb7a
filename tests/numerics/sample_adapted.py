"""Which network do tests of adapters train? Two convolutions with batch norm, then two linear layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Adapted(nn.Module):
    """[batch, 3, 8, 8] -> [batch, 5], in four parts that a test can run one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.fc1, self.out = nn.Linear(6 * 16, 12), nn.Linear(12, 5)

    def a(self, x: Tensor) -> Tensor:
        return torch.tanh(self.bn1(self.conv1(x)))

    def b(self, x: Tensor) -> Tensor:
        return torch.tanh(self.bn2(self.conv2(x)))

    def c(self, x: Tensor) -> Tensor:
        return torch.tanh(self.fc1(x.flatten(1)))

    def d(self, x: Tensor) -> Tensor:
        return self.out(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.d(self.c(self.b(self.a(x))))
