"""Are samples as similar to each other as their labels or inputs are? Nokland and Eidnes 2019 (arXiv 1901.06656).

A similarity matrix S [batch, batch] holds the cosines between rows that are centred by their own means.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lpc.compiler.losses.classification import classes
from lpc.compiler.losses.kind import LossFunction, Options, Sight
from lpc.compiler.setting import Setting

EPS = 1e-8  # added to a row's norm


def similarity(x: Tensor) -> Tensor:
    """Return S of [batch, ...]: of each channel's deviation over space for a map of colours or more, else of all."""
    if x.dim() == 4 and x.shape[1] > 3 and x.shape[2] > 1:
        x = x.flatten(2).std(2)
    rows = x.flatten(1)
    rows = rows - rows.mean(1, keepdim=True)
    rows = rows / (torch.linalg.vector_norm(rows, dim=1, keepdim=True) + EPS)
    cosines: Tensor = rows @ rows.T
    return cosines.clamp(-1.0, 1.0)


def sim(options: Options, setting: Setting) -> LossFunction:
    if setting.target:
        raise ValueError("`sim` compares with one class label for each sample")
    count = classes(setting.target, setting.output)

    def loss(sight: Sight) -> Tensor:
        marked = sight.truth[:, None] == torch.arange(count, device=sight.truth.device)
        labels = marked.to(sight.prediction.dtype)
        return F.mse_loss(similarity(sight.prediction), similarity(labels))

    return loss


def sim_x(options: Options, setting: Setting) -> LossFunction:
    return lambda sight: F.mse_loss(similarity(sight.prediction), similarity(sight.truth.detach()))
