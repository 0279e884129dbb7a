"""What are the solutions of a network that is split into its layers? Each variable's own minimiser, all others fixed.

    sum_l beta |z_l - W_l a_(l-1) - b_l|^2 + sum_(l<L) gamma |a_l - h(z_l)|^2 + c loss(z_L, y) + <z_L, multiplier>

and hold |v - v0|^2 for each of W, b, a, z that is solved, v0 being its value before. Data are in rows.
Source: Taylor et al. 2016, arXiv 1605.02026; with `hold`, without the multiplier, Zeng et al. 2019, 1803.00225.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lpc.compiler.least_squares import solved


def bent(z: Tensor, slope: float) -> Tensor:
    """Return h(z): z, below 0 times a slope from 0 to 1."""
    return z if slope == 1.0 else torch.where(z > 0, z, slope * z)


def activity(
    above: Sequence[Tensor], target: Tensor, made: Tensor, before: Tensor, beta: float, gamma: float, hold: float
) -> Tensor:
    """Return a [B, i] by the next layer's weights `above` [o, i], its z, `target` [B, o], and h(z) here, `made`."""
    weight = above[0]
    wanted = target - above[1] if len(above) > 1 else target
    one = torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device)
    left = beta * (weight.t() @ weight) + (gamma + hold) * one
    right = beta * (wanted @ weight) + gamma * made + (hold * before if hold else 0.0)
    return solved(left, right.t()).t()


def preactivity(
    a: Tensor, mean: Tensor, before: Tensor, slope: float, beta: float, gamma: float, hold: float
) -> Tensor:
    """Return z [B, o], element by element the better one of the minimisers above and below 0."""
    mean, beta = held(mean, before, beta, hold)
    if slope == 1.0:
        return (gamma * a + beta * mean) / (gamma + beta)
    upper = ((gamma * a + beta * mean) / (gamma + beta)).clamp(min=0.0)
    lower = ((gamma * slope * a + beta * mean) / (gamma * slope**2 + beta)).clamp(max=0.0)

    def cost(z: Tensor) -> Tensor:
        return gamma * (a - bent(z, slope)) ** 2 + beta * (z - mean) ** 2

    return torch.where(cost(upper) <= cost(lower), upper, lower)


def held(mean: Tensor, before: Tensor, beta: float, hold: float) -> tuple[Tensor, float]:
    """Return centre and weight of the square that beta (z - mean)^2 + hold (z - before)^2 is, but for a constant."""
    return (mean, beta) if not hold else ((beta * mean + hold * before) / (beta + hold), beta + hold)


def hinge(mean: Tensor, target: Tensor, factor: Tensor, beta: float) -> Tensor:
    """Minimise factor hinge(z) + beta (z - mean)^2, of class numbers [B]."""
    own = F.one_hot(target, mean.shape[-1]).bool()
    moved = factor / (2.0 * beta)
    upper = torch.where(own, mean.clamp(min=1.0), (mean - moved).clamp(min=0.0))
    lower = torch.where(own, (mean + moved).clamp(max=1.0), mean.clamp(max=0.0))

    def cost(z: Tensor) -> Tensor:
        return factor * torch.where(own, 1.0 - z, z).clamp(min=0.0) + beta * (z - mean) ** 2

    return torch.where(cost(upper) <= cost(lower), upper, lower)


def mse(mean: Tensor, target: Tensor, factor: Tensor, beta: float) -> Tensor:
    """Minimise factor (z - y)^2 + beta (z - mean)^2, of numbers [B, ...]."""
    return (factor * target.reshape(mean.shape).to(mean.dtype) + beta * mean) / (factor + beta)


# By loss: what minimises it together with a square. `factor` is what an element counts.
PROXIMAL: Mapping[str, Callable[[Tensor, Tensor, Tensor, float], Tensor]] = {"hinge": hinge, "mse": mse}
