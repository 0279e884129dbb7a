"""Which losses are there? One table: name -> the function of (prediction, target), its target and its output width.

A loss returns a 0-d tensor. Predictions and targets are batched; class scores are on the last axis, or on
axis 1 where the target has the prediction's shape without axis 1 (dense prediction).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

LossFunction = Callable[[Tensor, Tensor], Tensor]
Shape = Sequence[int | str]


@dataclass(frozen=True)
class LossKind:
    """How a loss is made from its arguments, and what it expects of the prediction.

    `width(target_shape, output_shape)` is the number of outputs a head needs for it; shapes are per sample.
    """

    make: Callable[[dict[str, Any]], LossFunction]
    width: Callable[[Shape, Shape], int]
    classifies: bool
    source: str


def _rows(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Flatten class scores to [rows, classes] and labels to [rows]."""
    if prediction.dim() == target.dim() + 1 and prediction.dim() > 2 and prediction.shape[:-1] != target.shape:
        prediction = prediction.movedim(1, -1)
    if prediction.dim() == 2 and target.dim() == 1:
        return prediction, target
    return prediction.reshape(-1, prediction.shape[-1]), target.reshape(-1)


def align(prediction: Tensor, target: Tensor, shift: int) -> tuple[Tensor, Tensor]:
    """Pair scores with labels as rows; `shift=1` pairs position t with label t + 1 (causal language models)."""
    if shift:
        prediction, target = prediction[:, :-shift], target[:, shift:]
    return _rows(prediction, target)


def _cross_entropy(options: dict[str, Any]) -> LossFunction:
    ignore, smoothing = int(options["ignore_index"]), float(options["label_smoothing"])
    reduction = str(options["reduction"])

    def loss(prediction: Tensor, target: Tensor) -> Tensor:
        scores, labels = align(_scaled(prediction, options), target, int(options["shift"]))
        return F.cross_entropy(
            scores, labels, ignore_index=ignore, label_smoothing=smoothing, reduction=reduction
        )

    return loss


def _scaled(prediction: Tensor, options: dict[str, Any]) -> Tensor:
    scale = float(options["scale"])
    return prediction if scale == 1.0 else scale * prediction


def _reduced(values: Tensor, reduction: str) -> Tensor:
    """`mean` over all elements, `sum` over all, or `batchmean`: sum over outputs, mean over the batch."""
    if reduction == "mean":
        return values.mean()
    total = values.sum()
    return total / values.shape[0] if reduction == "batchmean" else total


def _mse(options: dict[str, Any]) -> LossFunction:
    reduction = str(options["reduction"])

    def loss(prediction: Tensor, target: Tensor) -> Tensor:
        difference = _scaled(prediction, options) - target.reshape(prediction.shape).to(prediction.dtype)
        return _reduced(difference * difference, reduction)

    return loss


def _binary_cross_entropy(options: dict[str, Any]) -> LossFunction:
    reduction = str(options["reduction"])
    function = F.binary_cross_entropy_with_logits if options["logits"] else F.binary_cross_entropy

    def loss(prediction: Tensor, target: Tensor) -> Tensor:
        truth = target.reshape(prediction.shape).to(prediction.dtype)
        values = function(_scaled(prediction, options), truth, reduction="none")
        return _reduced(values, reduction)

    return loss


def _classes(target: Shape, output: Shape) -> int:
    """Class scores: the network's own class axis, which is axis 0 of a sample where labels are a map."""
    axis = 0 if len(output) == len(target) + 1 and len(output) > 1 and tuple(output[:-1]) != tuple(target) else -1
    return _static(output[axis])


def _elements(target: Shape, output: Shape) -> int:
    count = 1
    for size in target:
        count *= _static(size)
    return count


def _static(size: int | str) -> int:
    if isinstance(size, str):
        raise ValueError(f"the width `{size}` is symbolic")
    return size


LOSSES: dict[str, LossKind] = {
    "cross_entropy": LossKind(_cross_entropy, _classes, True, "softmax cross-entropy on class scores"),
    "mse": LossKind(_mse, _elements, False, "squared error"),
    "binary_cross_entropy": LossKind(_binary_cross_entropy, _elements, False, "sigmoid cross-entropy"),
}

Metric = Callable[[Tensor, Tensor, dict[str, Any]], Tensor]


def _correct(prediction: Tensor, target: Tensor, options: dict[str, Any], top: int) -> Tensor:
    scores, labels = align(prediction, target, int(options["shift"]))
    best = scores.topk(top, dim=-1).indices if top > 1 else scores.argmax(-1, keepdim=True)
    hits = (best == labels[:, None]).any(-1).to(torch.float32)
    if target.dim() == 1 and int(options["ignore_index"]) < 0:
        return hits.mean()
    counted = (labels != int(options["ignore_index"])).to(torch.float32)
    return (hits * counted).sum() / counted.sum()


def _accuracy(prediction: Tensor, target: Tensor, options: dict[str, Any]) -> Tensor:
    return _correct(prediction, target, options, 1)


def _top5(prediction: Tensor, target: Tensor, options: dict[str, Any]) -> Tensor:
    return _correct(prediction, target, options, 5)


def _error(prediction: Tensor, target: Tensor, options: dict[str, Any]) -> Tensor:
    return 1.0 - _correct(prediction, target, options, 1)


# Metrics of class scores, by name; each a 0-d tensor. `perplexity` is exp of the mean loss (see `Program.metrics`).
METRICS: dict[str, Metric] = {"accuracy": _accuracy, "top5": _top5, "error": _error}
