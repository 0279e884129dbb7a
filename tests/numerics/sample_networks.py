"""Which networks can only be given as code? A custom backward, torch's encoder layer, tied weights, a shared mask."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Quantise(torch.autograd.Function):
    """Rounds to quarters. The true derivative is zero; the backward passes half of what is inside [-1, 1]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.round(4 * x) / 4

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 0.5 * gradient * (x.abs() <= 1)


class Quantised(nn.Module):
    """An activation with a backward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return Quantise.apply(x)


class QuantisedNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.q1 = nn.Linear(7, 12), Quantised()
        self.fc2, self.q2 = nn.Linear(12, 12), Quantised()
        self.out = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.q2(self.fc2(self.q1(self.fc1(x)))))


class Encoder(nn.Module):
    """torch's own encoder layer between two linear maps: [batch, 6, 4] -> [batch, 5]."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, activation="gelu")
        self.out = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layer(self.embed(x)).mean(1))


class Tied(nn.Module):
    """Two linear maps of different blocks with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.second.weight = self.first.weight
        self.out = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.second(self.first(x).tanh()).tanh())


class Masked(nn.Module):
    """Linear maps in a chain, the first and the last cut by one mask of the input: [batch, 4] -> [batch, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.fc0, self.fc1, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        mask = x > 0
        h = self.fc0(x).tanh().masked_fill(mask, 0.0)
        return self.out(self.fc1(h).tanh()).masked_fill(mask[:, :3], 0.0)
