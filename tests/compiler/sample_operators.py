"""Which operators do networks call that tangents must get through, or stop at? One small network for each."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Net(nn.Module):
    """A layer, what a network does between, and another layer; `x` is [B, 5, 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.c = nn.Linear(4, 6), nn.Linear(6, 3)

    def between(self, h: Tensor) -> Tensor:
        return h

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.between(self.a(x)).mean(1))  # type: ignore[no-any-return]


class InPlace(Net):
    def __init__(self) -> None:
        super().__init__()
        self.relu, self.b = nn.ReLU(inplace=True), nn.Linear(6, 6)

    def between(self, h: Tensor) -> Tensor:
        h = self.relu(h)
        g: Tensor = self.b(h)
        g += h
        g.mul_(2.0)
        return F.relu(g, inplace=True)


class Pair(nn.Linear):
    """A layer with two results."""

    def forward(self, x: Tensor) -> Any:
        y = super().forward(x)
        return y, torch.tanh(y)


class Tuples(Net):
    def __init__(self) -> None:
        super().__init__()
        self.b, self.attention = Pair(6, 6), nn.MultiheadAttention(6, 2, batch_first=True)

    def between(self, h: Tensor) -> Tensor:
        y, z = self.b(h)
        first, second = torch.chunk(y * z, 2, -1)
        h = torch.cat([second, first], -1)
        attended, _ = self.attention(h, h, h, need_weights=False)
        return attended  # type: ignore[no-any-return]


class Masks(Net):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        h = self.a(x)
        scores = (h @ h.transpose(1, 2)).masked_fill(~mask[:, None, :], float("-inf"))
        h = torch.where(mask[..., None], scores.softmax(-1) @ h, torch.zeros_like(h))
        h = h * (h > 0)
        h = F.scaled_dot_product_attention(h, h, h, attn_mask=mask[:, None, :])
        return self.c(h.mean(1))  # type: ignore[no-any-return]


class ThroughAView(Net):
    """Writes over a value by a view of it, and reads it."""

    def between(self, h: Tensor) -> Tensor:
        h.view(-1, 30).mul_(2.0)
        return h


class Roots(Net):
    """The derivative of a root at 0 is infinite."""

    def between(self, h: Tensor) -> Tensor:
        return torch.relu(h).sqrt()


class _Once(torch.autograd.Function):
    """A product whose derivative leaves no trace of its cotangent."""

    @staticmethod
    def forward(ctx: Any, h: Tensor) -> Tensor:
        return 2.0 * h

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Tensor:
        return 2.0 * cotangent.detach()


class Doubled(nn.Module):
    def forward(self, h: Tensor) -> Tensor:
        return _Once.apply(h)  # type: ignore[no-any-return, no-untyped-call]


class Once(Net):
    def __init__(self) -> None:
        super().__init__()
        self.doubled = Doubled()

    def between(self, h: Tensor) -> Tensor:
        return self.doubled(h)  # type: ignore[no-any-return]


class Named(nn.Module):
    """Names float32 inside, as some norms do."""

    def forward(self, h: Tensor) -> Tensor:
        return torch.sigmoid(h.to(torch.float32)).to(h.dtype)


class NamesItsDtype(Net):
    def __init__(self) -> None:
        super().__init__()
        self.named = Named()

    def between(self, h: Tensor) -> Tensor:
        return self.named(h)  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h, _ = self.b(self.a(x))
        return self.c(h.mean(1))  # type: ignore[no-any-return]


class Exported(Net):
    """Asks for a size, which only torch.export can answer; its graph calls operators and no modules."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.other = nn.BatchNorm1d(5), nn.InstanceNorm1d(5, affine=True)

    def between(self, h: Tensor) -> Tensor:
        if h.shape[1] == 5:
            h = self.other(self.norm(h).relu())
        return h
