"""Which rows of class scores belong to which labels? Cross-entropy, and the metrics of class scores.

Class scores are on the last axis, or on axis 1 where the target has the prediction's shape without axis 1
(dense prediction).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lpc.compiler.losses.kind import LossFunction, Metric, Options, Sight, reduced
from lpc.compiler.setting import Setting, Shape, static


def _rows(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Flatten class scores to [rows, classes] and labels to [rows]."""
    if prediction.dim() == target.dim() + 1 and prediction.dim() > 2 and prediction.shape[:-1] != target.shape:
        prediction = prediction.movedim(1, -1)
    if prediction.dim() == 2 and target.dim() == 1:
        return prediction, target
    return prediction.reshape(-1, prediction.shape[-1]), target.reshape(-1)


def align(sight: Sight, shift: int) -> tuple[Tensor, Tensor]:
    """Pair scores with labels as rows; `shift=1` pairs position t with label t + 1 (causal language models)."""
    prediction, target = sight.prediction, sight.truth
    if shift:
        prediction, target = prediction[:, :-shift], target[:, shift:]
    return _rows(prediction, target)


def cross_entropy(options: Options, setting: Setting) -> LossFunction:
    ignore, smoothing = int(options["ignore_index"]), float(options["label_smoothing"])
    reduction, scale = str(options["reduction"]), float(options["scale"])

    def loss(sight: Sight) -> Tensor:
        scores, labels = align(sight, int(options["shift"]))
        return F.cross_entropy(
            scores if scale == 1.0 else scale * scores,
            labels,
            ignore_index=ignore,
            label_smoothing=smoothing,
            reduction=reduction,
        )

    return loss


def hinge(options: Options, setting: Setting) -> LossFunction:
    """Return the loss of scores that shall be above 1 for the target's class and below 0 for others."""
    reduction, scale = str(options["reduction"]), float(options["scale"])

    def loss(sight: Sight) -> Tensor:
        scores, labels = align(sight, 0)
        if scale != 1.0:
            scores = scale * scores
        own = F.one_hot(labels, scores.shape[-1]).bool()
        return reduced(torch.where(own, 1.0 - scores, scores).clamp(min=0.0), reduction)

    return loss


def classes(target: Shape, output: Shape) -> int:
    """Class scores: the network's own class axis, which is axis 0 of a sample where labels are a map."""
    axis = 0 if len(output) == len(target) + 1 and len(output) > 1 and tuple(output[:-1]) != tuple(target) else -1
    return static(output[axis])


def _correct(sight: Sight, options: Options, top: int) -> Tensor:
    ignored = int(options.get("ignore_index", -100))
    scores, labels = align(sight, int(options.get("shift", 0)))
    best = scores.topk(top, dim=-1).indices if top > 1 else scores.argmax(-1, keepdim=True)
    hits = (best == labels.unsqueeze(1)).any(-1).to(torch.float32)
    if sight.truth.dim() == 1 and ignored < 0:
        return hits.mean()
    counted = (labels != ignored).to(torch.float32)
    return (hits * counted).sum() / counted.sum()


# Metrics of class scores, by name; each a 0-d tensor. `perplexity` is exp of the mean loss (see `Program.metrics`).
METRICS: dict[str, Metric] = {
    "accuracy": lambda sight, options: _correct(sight, options, 1),
    "top5": lambda sight, options: _correct(sight, options, 5),
    "error": lambda sight, options: 1.0 - _correct(sight, options, 1),
}
