"""How far is a variable from what its block computes? The penalties, with weight 1."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from lpc.compiler.variables import Penalty

DISTANCES: dict[str, Callable[[Tensor, Tensor, str, float], Tensor]] = {
    "squared": lambda one, other, reduction, delta: F.mse_loss(one, other, reduction=reduction),
    "huber": lambda one, other, reduction, delta: F.huber_loss(one, other, reduction=reduction, delta=delta),
}


def distance(penalty: Penalty, one: Tensor, other: Tensor) -> Tensor:
    """Return the penalty of two tensors [B, ...]: a sum over the batch, or the mean over all elements."""
    reduction = "mean" if penalty.reduction == "mean" else "sum"
    found = DISTANCES[penalty.name](one, other, reduction, penalty.delta)
    return found / _size(one) if penalty.reduction == "sample" else found


def magnitude(penalty: Penalty, value: Tensor) -> Tensor:
    """Return the sum of absolute values of a tensor [B, ...], reduced as the penalty is."""
    absolute = value.abs()
    if penalty.reduction == "mean":
        return absolute.mean()
    return absolute.sum() / _size(value) if penalty.reduction == "sample" else absolute.sum()


def _size(value: Tensor) -> int:
    """Return the number of elements of a sample."""
    return math.prod(int(size) for size in value.shape[1:])
