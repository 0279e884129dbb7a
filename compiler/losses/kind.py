"""What is a loss? What it sees, how it is made, and what it promises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from lpc.compiler.setting import Setting, Width

Options = Mapping[str, Any]
Metric = Callable[["Sight", Options], Tensor]


@dataclass(frozen=True)
class Sight:
    """What a loss sees, batch axis first: its head's output, the block's output, and what it compares with.

    `target` is the field, the image or the block's input that the loss names; None where it compares with nothing.
    """

    prediction: Tensor
    feature: Tensor
    target: Tensor | None = None

    @property
    def truth(self) -> Tensor:
        """The target of a loss that has one."""
        assert self.target is not None, "this loss reads no target"
        return self.target


LossFunction = Callable[[Sight], Tensor]


@dataclass(frozen=True)
class LossKind:
    """How a loss is made from its options and shapes, and what it promises; it returns a 0-d tensor.

    `make` returns a function, or an nn.Module whose parameters are trained with the block and whose buffers are saved.
    `reads` is its target: a batch `field`, the network's input `image`, the block's `input`, `none`, or the
    auxiliary `variable` that stands for the block's output, whose link then makes the loss.
    `width` is the number of scores it wants of a head; None: a loss of no scores.
    `heads` tells whether the block's head serves it, where it has none of its own.
    `confined`: only what it trains itself learns from it, and nothing of the network.
    `separable`: the mean over a batch is the mean over its parts; if not, a batch must not be split.
    """

    make: Callable[[Options, Setting], LossFunction]
    formula: str
    source: str
    reads: Literal["field", "image", "input", "none", "variable"] = "field"
    width: Width | None = None
    heads: bool = True
    separable: bool = True
    confined: bool = False
    metrics: Mapping[str, Metric] = field(default_factory=dict)


def reduced(values: Tensor, reduction: str) -> Tensor:
    """`mean` over all elements, `sum` over all, or `batchmean`: sum over outputs, mean over the batch."""
    if reduction == "mean":
        return values.mean()
    total = values.sum()
    return total / values.shape[0] if reduction == "batchmean" else total
