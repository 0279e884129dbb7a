"""Which of many is the right continuation, view or class? InfoNCE, NT-Xent and SupCon."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lpc.compiler.losses.kind import LossFunction, Options, Sight
from lpc.compiler.setting import Setting


def infonce(options: Options, setting: Setting) -> LossFunction:
    """Return the mean over k of the steps' losses (van den Oord et al. 2018; Löwe et al. 2019, arXiv 1905.11786).

    The prediction is that of `nce_maps`: [batch, 1 + K, channels, rows, columns], the contexts c and then W_k z.
    """

    def loss(sight: Sight) -> Tensor:
        return torch.stack(infonce_steps(sight.prediction, options)).mean()

    return loss


def infonce_steps(prediction: Tensor, options: Options) -> list[Tensor]:
    """Return each step's loss: the mean of -log softmax over the positive and the negatives, at the positive.

    A row r predicts row r + k + skip of its column. Negatives are drawn from all rows that are predicted, with
    replacement, and may be the positive. Each step draws one uniform number u for each negative, in the order row,
    column, sample, negative; floor(u * count) is its index in the order row, column, sample.
    """
    context, skip = prediction[:, 0], int(options["skip"])
    if prediction.shape[3] <= skip + prediction.shape[1] - 1:
        raise ValueError(f"{prediction.shape[1] - 1} steps with `skip={skip}` need more rows or tokens")
    return [
        _step(context[:, :, : -(k + skip)], prediction[:, k, :, k + skip :], options)
        for k in range(1, prediction.shape[1])
    ]


def _step(context: Tensor, ahead: Tensor, options: Options) -> Tensor:
    """Contrast contexts with what is ahead of them, both [batch, channels, rows, columns]."""
    contexts, futures = (x.permute(2, 3, 0, 1).reshape(-1, x.shape[1]) for x in (context, ahead))
    picked = _negatives(contexts, ahead, options)
    positive = (contexts * futures).sum(1, keepdim=True)
    negative = (futures[picked] @ contexts[:, :, None]).squeeze(2)
    scores, eps = torch.cat([positive, negative], 1), float(options["eps"])
    if not eps:
        return -F.log_softmax(scores, 1)[:, 0].mean()
    return -(F.softmax(scores, 1)[:, 0] + eps).log().mean()


def _negatives(contexts: Tensor, ahead: Tensor, options: Options) -> Tensor:
    """Draw indices of negatives, [contexts, negatives]."""
    batch, count = ahead.shape[0], contexts.shape[0]
    uniform = torch.rand(count, int(options["negatives"]), device=contexts.device)
    if options["within"] == "batch":
        return (uniform * count).long().clamp(max=count - 1)
    positions = count // batch
    own = torch.arange(count, device=contexts.device)[:, None] % batch
    return (uniform * positions).long().clamp(max=positions - 1) * batch + own


def _cosines(prediction: Tensor, temperature: float, detached: bool = False) -> tuple[Tensor, Tensor]:
    """Return all cosines over the temperature, and where a sample meets itself; both [batch, batch].

    With `detached` what a row is compared with is a constant: the row alone has a gradient.
    """
    rows = F.normalize(prediction.flatten(1), dim=1)
    keys = rows.detach() if detached else rows
    index = torch.arange(rows.shape[0], device=rows.device)
    return rows @ keys.T / temperature, index[:, None] == index


def nt_xent(options: Options, setting: Setting) -> LossFunction:
    """Return SimCLR's loss (Chen et al. 2020, arXiv 2002.05709, equation 1), over both views.

    The first half of the batch holds one view of each sample, the second half the other, in the same order. A batch of
    an odd number of samples has no halves: the loss is infinite. `keys=detached` with `reduction=pairs` is the loss of
    Ren et al. 2023 (arXiv 2210.03310).
    """
    detached, reduction = options["keys"] == "detached", str(options["reduction"])

    def loss(sight: Sight) -> Tensor:
        scores, self_ = _cosines(sight.prediction, float(options["temperature"]), detached)
        size = scores.shape[0]
        partner = (torch.arange(size, device=scores.device) + size // 2) % size
        others = scores.masked_fill(self_, -torch.inf)
        if reduction == "pairs":  # each of which has two views
            return 2 * F.cross_entropy(others, partner) / (1 - size % 2)
        return F.cross_entropy(others, partner, reduction=reduction) / (1 - size % 2)

    return loss


def supcon(options: Options, setting: Setting) -> LossFunction:
    """Return the supervised contrastive loss (Khosla et al. 2020, arXiv 2004.11362, equation 2).

    A sample without another of its class counts as 0 in the mean.
    """
    temperature, base = float(options["temperature"]), float(options["base_temperature"])

    def loss(sight: Sight) -> Tensor:
        scores, self_ = _cosines(sight.prediction, temperature)
        labels = sight.truth.reshape(-1)
        same = (labels[:, None] == labels) & ~self_
        logarithms = scores - scores.masked_fill(self_, -torch.inf).logsumexp(1, keepdim=True)
        own = torch.where(same, logarithms, 0.0).sum(1) / same.sum(1).clamp(min=1)
        return -(temperature / base) * own.mean()

    return loss
