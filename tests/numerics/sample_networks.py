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


class TwoTails(nn.Module):
    """Two outputs, of which a spec takes one; norms take eps from the dtype: [batch, 4] -> [batch, 3], [batch, 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.fc0, self.norm, self.fc1 = nn.Linear(4, 6), nn.RMSNorm(6), nn.Linear(6, 6)
        self.out, self.beside = nn.Linear(6, 3), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.norm(1e-3 * self.fc0(x))
        h = nn.functional.rms_norm(1e-3 * self.fc1(h).tanh(), (6,))
        return self.out(h), self.beside(h)


class Causal(nn.Module):
    """A mask that a first block makes and the others read: [batch, 4] of words -> [batch, 4, 5]."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 8, padding_idx=0)
        self.depth = nn.Conv1d(8, 8, 3, padding=1, groups=8)
        self.mix, self.out = nn.Linear(8, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        mask = torch.full((4, 4), -torch.inf, dtype=h.dtype).triu(1)
        h = self.depth((mask.softmax(-1) @ h).mT).mT.tanh()
        return self.out((mask.softmax(-1) @ self.mix(h)).tanh())


class Recurrent(nn.Module):
    """A layer that hands on two tensors: [batch, 3, 4] -> [batch, 5]."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.out = nn.GRU(4, 6, batch_first=True), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.gru(x)[0][:, -1])


class Widened(nn.Module):
    """A loop that no tracing sees, in float32 whatever it is given, as the recurrences of state-space models are."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        total = sum(self.fc(x[:, i]).float().exp().sqrt() for i in range(x.shape[1]))
        assert isinstance(total, Tensor)
        return total.new_ones(torch.sym_max(x.shape[0], 1), 4).to(x.dtype) * total


class Hidden(nn.Module):
    """Such a loop between linear maps: [batch, 3, 4] -> [batch, 5]."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.loop, self.out = nn.Linear(4, 4), Widened(), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.loop(self.embed(x).tanh()))
