"""Which loss matches a transfer? Bregman divergences: each transfer f with its potential F, f = grad F.

D(a', a) = F(a') - F(a) - <f(a), a' - a> is convex in a', and its gradient there is f(a') - f(a). Source: LocoProp
(Amid, Anil, Warmuth 2022, arXiv 2106.06199); potentials are checked against numerical integrals of f.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Elementwise = Callable[[Tensor], Tensor]
INFINITY = math.inf


@dataclass(frozen=True)
class Transfer:
    """A transfer `f`, its `potential` (of vectors along `axis`, where f is no function of elements), slope and range.

    `slope` is the derivative f', elementwise; None for softmax, whose derivative is a matrix.
    """

    name: str
    f: Elementwise
    potential: Elementwise
    slope: Elementwise | None
    low: float = -INFINITY
    high: float = INFINITY
    axis: int | None = None

    def divergence(self, found: Tensor, start: Tensor) -> Tensor:
        """Return D(found, start) for each element, or for each vector along `axis`."""
        linear = self.f(start) * (found - start)
        if self.axis is not None:
            linear = linear.sum(self.axis)
        return self.potential(found) - self.potential(start) - linear

    def clipped(self, target: Tensor) -> Tensor:
        """Return a target moved into the closed range of f."""
        low, high = (None if math.isinf(bound) else bound for bound in (self.low, self.high))
        return target if low is None and high is None else torch.clamp(target, low, high)


def _linear() -> Transfer:
    return Transfer("linear", lambda a: a, lambda a: a * a / 2, torch.ones_like)


def _step() -> Transfer:
    return Transfer("step", lambda a: (1 + torch.sign(a)) / 2, torch.relu, torch.zeros_like, 0.0, 1.0)


def _relu() -> Transfer:
    return Transfer("relu", torch.relu, lambda a: torch.relu(a) ** 2 / 2, lambda a: (a > 0).to(a.dtype), 0.0)


def _leaky_relu(slope: float = 0.01) -> Transfer:
    if slope < 0:
        raise ValueError(f"a leaky ReLU of slope {slope} falls below 0")

    def f(a: Tensor) -> Tensor:
        return F.leaky_relu(a, slope)

    steep = lambda a: torch.where(a > 0, 1.0, slope).to(a.dtype)  # noqa: E731
    return Transfer("leaky_relu", f, lambda a: a * f(a) / 2, steep, 0.0 if slope == 0 else -INFINITY)


def _tanh() -> Transfer:
    potential: Elementwise = lambda a: torch.logaddexp(a, -a) - math.log(2)  # noqa: E731
    return Transfer("tanh", torch.tanh, potential, lambda a: 1 - torch.tanh(a) ** 2, -1.0, 1.0)


def _sigmoid() -> Transfer:
    slope: Elementwise = lambda a: torch.sigmoid(a) * torch.sigmoid(-a)  # noqa: E731
    return Transfer("sigmoid", torch.sigmoid, _softplus_of, slope, 0.0, 1.0)


def _softmax(axis: int = -1) -> Transfer:
    return Transfer(
        "softmax", lambda a: torch.softmax(a, axis), lambda a: torch.logsumexp(a, axis), None, 0.0, 1.0, axis
    )


def _softplus() -> Transfer:
    return Transfer("softplus", _softplus_of, _integral_of_softplus, torch.sigmoid, 0.0)


def _arctan() -> Transfer:
    potential: Elementwise = lambda a: a * torch.atan(a) - torch.log1p(a * a) / 2  # noqa: E731
    return Transfer("arctan", torch.atan, potential, lambda a: 1 / (1 + a * a), -math.pi / 2, math.pi / 2)


def _elu(alpha: float = 1.0) -> Transfer:
    if alpha < 0:
        raise ValueError(f"an ELU of alpha {alpha} falls below 0")

    def potential(a: Tensor) -> Tensor:
        below = torch.clamp(a, max=0.0)
        return torch.relu(a) ** 2 / 2 + alpha * (torch.expm1(below) - below)

    def slope(a: Tensor) -> Tensor:
        return torch.where(a > 0, torch.ones_like(a), alpha * torch.exp(torch.clamp(a, max=0.0)))

    return Transfer("elu", lambda a: F.elu(a, alpha), potential, slope, -alpha)


def _hardtanh(low: float = -1.0, high: float = 1.0) -> Transfer:
    """F is a^2/2 between the limits and goes on as a line."""

    def f(a: Tensor) -> Tensor:
        return torch.clamp(a, low, high)

    def slope(a: Tensor) -> Tensor:
        return ((a > low) & (a < high)).to(a.dtype)

    return Transfer("hardtanh", f, lambda a: f(a) ** 2 / 2 + f(a) * (a - f(a)), slope, low, high)


def _softsign() -> Transfer:
    return Transfer(
        "softsign", F.softsign, lambda a: a.abs() - torch.log1p(a.abs()), lambda a: 1 / (1 + a.abs()) ** 2, -1.0, 1.0
    )


def _squared_relu() -> Transfer:
    return Transfer(
        "squared_relu", lambda a: torch.relu(a) ** 2, lambda a: torch.relu(a) ** 3 / 3, lambda a: 2 * torch.relu(a), 0.0
    )


# By the names of `lpc.specs.signatures.targets.TRANSFERS`; options are those of the layers.
TRANSFERS: Mapping[str, Callable[..., Transfer]] = {
    "linear": _linear,
    "step": _step,
    "relu": _relu,
    "leaky_relu": _leaky_relu,
    "tanh": _tanh,
    "sigmoid": _sigmoid,
    "softmax": _softmax,
    "softplus": _softplus,
    "arctan": _arctan,
    "elu": _elu,
    "hardtanh": _hardtanh,
    "softsign": _softsign,
    "squared_relu": _squared_relu,
}


def _softplus_of(a: Tensor) -> Tensor:
    """log(1 + e^a), exact for large a as well."""
    return torch.relu(a) + torch.log1p(torch.exp(-a.abs()))


# B_2k / (2k + 1)!, for the dilogarithm at 1 - e^-u: u - u^2/4 + sum of these times u^(2k+1).
_BERNOULLI = (
    1 / 6 / math.factorial(3), -1 / 30 / math.factorial(5), 1 / 42 / math.factorial(7), -1 / 30 / math.factorial(9),
    5 / 66 / math.factorial(11), -691 / 2730 / math.factorial(13), 7 / 6 / math.factorial(15),
    -3617 / 510 / math.factorial(17), 43867 / 798 / math.factorial(19),
)  # fmt: skip


def _integral_of_softplus(a: Tensor) -> Tensor:
    """-Li2(-e^a), the integral of the softplus from minus infinity.

    At -|a| by the Bernoulli series in u = log(1 + e^-|a|), at most log 2; above 0 by F(a) = pi^2/6 + a^2/2 - F(-a).
    """
    u = torch.log1p(torch.exp(-a.abs()))
    series = torch.zeros_like(u)
    for coefficient in reversed(_BERNOULLI):
        series = (series + coefficient) * u * u
    below = u - u * u / 4 + series * u + u * u / 2
    return torch.where(a > 0, math.pi**2 / 6 + a * a / 2 - below, below)
