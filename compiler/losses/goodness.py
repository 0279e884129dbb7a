"""How good is an activity on positive and on negative samples? Forward-Forward, its peer term, and class energies.

A sample's goodness is the sum or mean of its squared activities (Hinton 2022, arXiv 2212.13345, section 2). The field
`positive` marks the samples whose goodness is to be high; both halves are in one batch, in any order.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lpc.compiler.losses.kind import LossFunction, Metric, Options, Sight
from lpc.compiler.setting import Setting


def _odds(sight: Sight, options: Options) -> Tensor:
    """Goodness less the threshold, [batch]: the log-odds that a sample is positive."""
    squares = sight.feature.flatten(1).square()
    goodness = squares.sum(1) if options["goodness"] == "sum" else squares.mean(1)
    threshold = options["threshold"]
    return goodness - (squares.shape[1] if threshold == "width" else float(threshold))


def _positive(sight: Sight) -> Tensor:
    """The mark of positive samples as numbers, [batch]."""
    return (sight.truth.reshape(-1) > 0.5).to(sight.feature.dtype)


def ff_bce(options: Options, setting: Setting) -> LossFunction:
    return lambda sight: F.binary_cross_entropy_with_logits(_odds(sight, options), _positive(sight))


def ff_softplus(options: Options, setting: Setting) -> LossFunction:
    return lambda sight: F.softplus(_odds(sight, options) * (1.0 - 2.0 * _positive(sight))).mean()


def _right_side(sight: Sight, options: Options) -> Tensor:
    """Share of samples on the right side of the threshold."""
    right = (_odds(sight, options) > 0) == (_positive(sight) > 0)
    return right.to(torch.float32).mean()


SIDES: dict[str, Metric] = {
    "accuracy": _right_side,
    "error": lambda sight, options: 1.0 - _right_side(sight, options),
}


class Peer(nn.Module):
    """mean_j (mean(m) - m_j)^2 over the units' running mean activities m on positive samples.

    m <- momentum m + (1 - momentum) batch mean: the gradient passes through the batch's share alone. It keeps units
    from being always on or always off. Without positive samples m stays.
    """

    mean: Tensor

    def __init__(self, units: int, momentum: float, init: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.full((units,), init))

    def forward(self, sight: Sight) -> Tensor:
        positive = _positive(sight)
        count = positive.sum()
        batch = positive @ sight.feature.flatten(1) / count.clamp(min=1.0)
        batch = torch.where(count > 0, batch, self.mean)
        mean = self.momentum * self.mean + (1.0 - self.momentum) * batch
        if self.training:
            with torch.no_grad():
                self.mean.copy_(mean)
        return (mean.mean() - mean).square().mean()


def peer(options: Options, setting: Setting) -> LossFunction:
    return Peer(setting.units(), float(options["momentum"]), float(options["init"]))


CLIPPED = 50.0


def cwc(options: Options, setting: Setting) -> LossFunction:
    """Return the loss of class energies g; with `eps`, -log((exp(g_y) + eps) / (sum_c exp(g_c) + eps)), g clipped."""
    eps = float(options["eps"])

    def loss(sight: Sight) -> Tensor:
        if not eps:
            return F.cross_entropy(sight.prediction, sight.truth)
        powers = sight.prediction.clamp(-CLIPPED, CLIPPED).exp()
        own = powers.gather(1, sight.truth[:, None]).squeeze(1)
        return -((own + eps) / (powers.sum(1) + eps)).log().mean()

    return loss
