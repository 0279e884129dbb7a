"""What is a metric's value over many batches? Weighted sums, on the device until somebody reads them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Sums = Mapping[str, Sequence[float]]  # metric -> sum and weight
LARGEST = 700.0  # exp of more is no float


class Reading(NamedTuple):
    """One value of a metric, 0-d, with the number of samples it is over."""

    metric: str
    value: Tensor
    weight: int


class Meter:
    """Accumulates readings; `kinds` says how: `mean` over samples, `sum`, or `exp_mean`, the mean's exponential."""

    def __init__(self, kinds: Mapping[str, str]) -> None:
        self.kinds = kinds
        self.totals: dict[str, Tensor] = {}
        self.weights: dict[str, float] = {}

    def add(self, readings: Iterable[Reading]) -> None:
        """Add readings, without waiting for the device."""
        for metric, value, weight in readings:
            scale = 1 if self.kinds.get(metric) == "sum" else weight
            if metric not in self.totals:
                self.totals[metric] = torch.zeros((), dtype=torch.float64, device=value.device)
                self.weights[metric] = 0.0
            self.totals[metric].add_(value, alpha=scale)
            self.weights[metric] += scale

    def values(self) -> dict[str, float]:
        """Return the metrics as floats; waits for the device once."""
        if not self.totals:
            return {}
        totals = torch.stack(list(self.totals.values())).tolist()
        return {metric: self._value(metric, total) for metric, total in zip(self.totals, totals, strict=True)}

    def _value(self, metric: str, total: float) -> float:
        if self.kinds.get(metric) == "sum":
            return float(total)
        mean = total / self.weights[metric] if self.weights[metric] else math.nan
        return math.exp(min(mean, LARGEST)) if self.kinds.get(metric) == "exp_mean" else mean

    def portable(self) -> Sums:
        """Return all sums, as they can be sent to another process."""
        return {metric: (total.item(), self.weights[metric]) for metric, total in self.totals.items()}

    def load(self, sums: Sums, device: torch.device) -> None:
        """Go on from sums of an earlier process."""
        self.totals = {m: torch.tensor(s[0], dtype=torch.float64, device=device) for m, s in sums.items()}
        self.weights = {metric: weight for metric, (_, weight) in sums.items()}

    def joined(self, parts: Iterable[Sums]) -> Meter:
        """Return a meter with the sums of several, metrics in the order of `kinds`."""
        found, everything = Meter(self.kinds), list(parts)
        for metric in self.kinds:
            own = [part[metric] for part in everything if metric in part]
            if own:
                found.totals[metric] = torch.tensor([total for total, _ in own], dtype=torch.float64).sum()
                found.weights[metric] = sum(weight for _, weight in own)
        return found

    def reset(self) -> None:
        """Forget all readings."""
        self.totals.clear()
        self.weights.clear()


def combine(readings: Iterable[Reading], kinds: Mapping[str, str]) -> dict[str, Tensor]:
    """Return each metric's value over the readings of one step as a 0-d tensor."""
    grouped: dict[str, list[Reading]] = {}
    for reading in readings:
        grouped.setdefault(reading.metric, []).append(reading)
    values = {metric: _combined(found, kinds.get(metric) == "sum") for metric, found in grouped.items()}
    return {metric: value.exp() if kinds.get(metric) == "exp_mean" else value for metric, value in values.items()}


def _combined(readings: list[Reading], summed: bool) -> Tensor:
    if len(readings) == 1:
        return readings[0].value
    values = torch.stack([reading.value for reading in readings])
    if summed:
        return values.sum()
    weights = torch.tensor([r.weight for r in readings], dtype=values.dtype, device=values.device)
    return torch.dot(values, weights) / weights.sum()
