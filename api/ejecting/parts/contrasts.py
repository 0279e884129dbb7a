"""How does a batch become two halves, positive and negative? As Forward-Forward learns to tell them apart.

After Hinton 2022, arXiv 2212.13345. The first half of every field is the samples as they are told, the second half
their negatives; the field `positive` says which is which.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from lpc.ejecting.parts.samples import Batch

Pair = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def contrast(pair: Pair, image: str, label: str) -> Callable[[Batch, Tensor], Batch]:
    """Return a function that doubles batches by `pair(image, label, u)`, u uniform for each sample."""

    def doubled(batch: Batch, numbers: Tensor) -> Batch:
        first, second = pair(batch[image], batch[label], numbers)
        rest = {name: torch.cat((value, value)) for name, value in batch.items() if name != image}
        told = torch.arange(2 * len(numbers)) < len(numbers)
        return {image: torch.cat((first, second)), **rest, "positive": told}

    return doubled


def label_overlay(classes: int, value: float) -> Pair:
    """The true label written over an image's first pixels, against another class."""

    def overlay(image: Tensor, label: Tensor) -> Tensor:
        written = image.flatten(1).clone()
        written[:, :classes] = functional.one_hot(label.long(), classes).to(image.dtype) * value
        return written.reshape(image.shape)

    def pair(image: Tensor, label: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        wrong = (label + 1 + (u * (classes - 1)).long()) % classes
        return overlay(image, label), overlay(image, wrong)

    return pair
