"""Which networks are hard to trace? One small class for each difficulty."""

from __future__ import annotations

import random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Binarize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.sign()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 100 * gradient


binarize = Binarize.apply


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Any:
        return self.b(self.a(x).relu())


class Stubborn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] > 4:
            x = 2 * x
        return self.inner(x)


class HasStubborn(Small):
    def __init__(self) -> None:
        super().__init__()
        self.odd = Stubborn()

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.odd(self.odd(self.a(x))))


class StubbornRoot(Small):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] > 4:
            x = 2 * x
        with torch.no_grad():
            scale = self.a(x).mean()
        return self.b(self.a(x) * scale) + torch.rand(3, dtype=x.dtype)


class Custom(Small):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(binarize(self.a(x)) + Binarize.apply(self.a(x)))


class CustomRoot(Small):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] > 4:
            x = binarize(self.a(x))
        return self.b(x)


class TwoModes(Small):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.a(x)
        if self.training:
            y = y + y.tanh()
        return {"y": self.b(F.dropout(y, 0.5, self.training)), "z": y}


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 8)
        self.head = nn.Linear(8, 9, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embed(ids))


class Adaptable(nn.Module):
    """Layers of each kind that adapters meet; the attention reads the weight of its last layer by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.grouped = nn.Conv2d(2, 4, 3, 2, 1), nn.Conv2d(4, 8, 1, groups=2)
        self.wide = nn.Conv2d(8, 8, 3, padding=2, dilation=2)
        self.round = nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular")
        self.norm, self.attention = nn.BatchNorm2d(8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 3)
        self.again = self.b

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.round(self.wide(self.grouped(self.conv(x))))).flatten(2).transpose(1, 2)
        y = self.attention(y, y, y, need_weights=False)[0].mean(1)
        return self.b(torch.tanh(self.a(y)))


class ReadsWeight(Small):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.tanh(self.a(x)), self.b.weight)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            x = self.norm(self.a(x).tanh())
        return self.b(x)


class NoGradPart(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            y = self.inner(x)
        return x + y


class HasNoGradPart(Small):
    def __init__(self) -> None:
        super().__init__()
        self.part = NoGradPart()

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.part(self.a(x)))


class Constants(Small):
    def __init__(self) -> None:
        super().__init__()
        self.plain = torch.arange(8.0)
        self.register_buffer("hidden", torch.ones(8), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.b((x + torch.arange(8.0)) * self.plain + self.hidden)


class NamedInput(Small):
    def forward(self, input: Tensor, unused: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.a(input), self.b(input)


class TorchEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        part = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder, self.b = nn.TransformerEncoder(part, 2), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.encoder(x).mean(1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.b = nn.LSTM(8, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.cell(x)
        return self.b(y[:, -1])


class FixesBatch(Small):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).view(4, -1)[:, :8])


class ComparesBatch(Small):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(x if x.shape[0] < 100 else 2 * x)


class StubbornBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.shape[0] < 100 else 2 * x


class ComparesBatchInside(Small):
    def __init__(self) -> None:
        super().__init__()
        self.part = StubbornBatch()

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.part(self.a(x)))


class DropsBatch(Small):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(x).mean(0)


class LooksAtData(Small):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(x if x.sum() > 0 else 2 * x)


class PythonChance(Small):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(random.random() * x)


class WrongWidth(Small):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.cat([x, x], 1))


class NoTensor(Small):
    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"size": x.shape[0], "y": self.b(x)}


class WantsWidth(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.a = nn.Linear(8, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.a(x) * mask


NOT_A_MODULE = 3
