"""What is a metric's value over many batches? A weighted mean, or a sum, kept on the device until it is read."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Meter:
    """Accumulates metrics; `kinds`: `mean` over samples, `sum`, or `exp_mean`, the exponential of the mean."""

    def __init__(self, kinds: dict[str, str]) -> None:
        self.kinds = kinds
        self.totals: dict[str, Tensor] = {}
        self.weights: dict[str, float] = {}

    def add(self, metric: str, value: Tensor, size: int) -> None:
        """Add a 0-d value over `size` samples."""
        scale = 1 if self.kinds.get(metric) == "sum" else size
        if metric not in self.totals:
            self.totals[metric] = torch.zeros((), dtype=torch.float64, device=value.device)
            self.weights[metric] = 0.0
        self.totals[metric].add_(value, alpha=scale)
        self.weights[metric] += scale

    def read(self) -> dict[str, float]:
        """Return the metrics, and begin anew."""
        found = {metric: self.value(metric, total.item()) for metric, total in self.totals.items()}
        self.totals, self.weights = {}, {}
        return found

    def value(self, metric: str, total: float) -> float:
        """Return one metric from its total."""
        if self.kinds.get(metric) == "sum":
            return total
        mean = total / self.weights[metric] if self.weights[metric] else math.nan
        return math.exp(min(mean, 700.0)) if self.kinds.get(metric) == "exp_mean" else mean
