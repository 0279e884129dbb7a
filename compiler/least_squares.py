"""Which weights of a linear layer fit its variables best? Least squares over the batch, near the weights before.

    W, b = argmin sum_n |c_n - W a_n - b|^2 + hold (|W - W0|^2 + |b - b0|^2)
    [W b] = ([C'A] + hold [W0 b0]) (A'A + hold I)^+            rows of A: (a_n, 1)

With hold = 0 it is the solution of least norm. The second moments A'A are inverted where their eigenvalues are more
than their dtype's resolution times the largest: inputs that are about its root weaker than the strongest do not count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LeastSquares:
    """A block's layer: its node, its weight [outputs, inputs] and perhaps bias, and how much the old ones count."""

    block: str
    node: str
    weights: tuple[str, ...]
    hold: float

    @property
    def kept(self) -> Mapping[str, tuple[int, ...]]:
        """Nothing lasts but the weights."""
        return {}

    def after(self, a: Tensor, c: Tensor, old: Sequence[Tensor]) -> list[Tensor]:
        """Return the weights [o, i] and, where there is one, the bias [o], for rows a [B, i] and c [B, o]."""
        return fitted(a, c, old, self.hold)


def fitted(a: Tensor, c: Tensor, old: Sequence[Tensor], hold: float) -> list[Tensor]:
    """Return [W] or [W, b] of least squares; `old` are those before."""
    biased = len(old) > 1
    rows = torch.cat([a, torch.ones_like(a[:, :1])], 1) if biased else a
    moments, products = rows.t() @ rows, c.t() @ rows
    if not hold:
        found = products @ inverted(moments)
    else:
        before = torch.cat([old[0], old[1][:, None]], 1) if biased else old[0]
        held = moments + hold * torch.eye(moments.shape[0], dtype=a.dtype, device=a.device)
        found = solved(held, (products + hold * before).t()).t()
    return [found[:, :-1], found[:, -1]] if biased else [found]


def inverted(moments: Tensor) -> Tensor:
    """Return the pseudo-inverse of a symmetric matrix without negative eigenvalues [n, n]."""
    values, vectors = torch.linalg.eigh(moments)
    least = torch.finfo(moments.dtype).eps * moments.shape[0] * values[-1]
    counts = values > least
    inverse = torch.where(counts, 1.0 / torch.where(counts, values, 1.0), 0.0)
    found: Tensor = (vectors * inverse) @ vectors.t()
    return found


def solved(left: Tensor, right: Tensor) -> Tensor:
    """Return X of left X = right, for a regular matrix; nothing waits to see whether it is one."""
    found: Tensor = torch.linalg.solve_ex(left, right)[0]
    return found
