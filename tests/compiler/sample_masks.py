"""Networks with masks, for tests of what couples the samples of a batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

POSITIONS, WIDTH = 6, 8


class Attention(nn.Module):
    """Attention behind a layer norm; a mask hides where it is true, or is added."""

    def __init__(self, added: bool = False) -> None:
        super().__init__()
        self.added = added
        self.norm = nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(h)).chunk(3, -1)
        scores = q @ k.transpose(1, 2) / math.sqrt(WIDTH)
        hidden = scores + mask if self.added else scores.masked_fill(mask, -math.inf)
        return h + self.out(hidden.softmax(-1) @ v)  # type: ignore[no-any-return]


class Padded(nn.Module):
    """Hides the positions of each sample that `kept` does not name."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.b1, self.b2, self.out = nn.Linear(4, WIDTH), Attention(), Attention(), nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor, kept: Tensor) -> Tensor:
        h = self.embed(x)
        mask = ~kept[:, None, :]
        return self.out(self.b2(self.b1(h, mask), mask).mean(1))


class Biased(Padded):
    """Adds one table to the scores of all samples."""

    def __init__(self) -> None:
        super().__init__()
        self.b1, self.b2 = Attention(added=True), Attention(added=True)
        self.table = nn.Linear(POSITIONS, POSITIONS)

    def forward(self, x: Tensor, kept: Tensor) -> Tensor:
        h = self.embed(x)
        mask = self.table(torch.eye(POSITIONS)).tanh()
        return self.out(self.b2(self.b1(h, mask), mask).mean(1))


class Normed(Padded):
    """Has a batch norm in the second block."""

    def __init__(self) -> None:
        super().__init__()
        self.b2.norm = nn.BatchNorm1d(POSITIONS)  # type: ignore[assignment]


class Averaged(Padded):
    """Hands on the mean over the batch, which has no axis of samples."""

    def __init__(self) -> None:
        super().__init__()
        self.b2 = Mean()  # type: ignore[assignment]

    def forward(self, x: Tensor, kept: Tensor) -> Tensor:
        h = self.b1(self.embed(x), ~kept[:, None, :])
        return self.out((h + self.b2(h)).mean(1))


class Mean(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(WIDTH, WIDTH)

    def forward(self, h: Tensor) -> Tensor:
        return self.map(h).mean(0)


class Hidden(Padded):
    """Hides every position, whatever its mask is: a softmax of that is no number."""

    def forward(self, x: Tensor, kept: Tensor) -> Tensor:
        h = self.b1(self.embed(x), ~kept[:, None, :])
        return self.out(self.b2(h, (kept | ~kept)[:, None, :]).mean(1))


class Flat(Padded):
    """Makes a row of each position in the first block."""

    def __init__(self) -> None:
        super().__init__()
        self.b1 = nn.Linear(WIDTH, WIDTH)  # type: ignore[assignment]

    def forward(self, x: Tensor, kept: Tensor) -> Tensor:
        h = self.b1(self.embed(x).reshape(-1, WIDTH))
        return self.out(self.b2(h.reshape(x.shape[0], POSITIONS, WIDTH), ~kept[:, None, :]).mean(1))
