"""How does a batch become two halves, positive and negative? Labels written over images, and mixtures of images.

Forward-Forward (Hinton 2022, arXiv 2212.13345) learns to tell the halves apart. The first half of every field is
the samples as they are told, the second half their negatives; the field `positive` says which is which.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lpc.runtime.data.problem import problem
from lpc.runtime.data.term import arguments
from lpc.specs.plan.kernel import TensorType
from lpc.specs.signatures.data import CONTRASTS as WORDS
from lpc.specs.term import Term

POSITIVE = "positive"
SITE = 1_000_000
"""Where contrasts draw, beyond all transforms."""

Batch = dict[str, Tensor]
Pair = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Contrast:
    """Makes the two images of every sample: `pair(image, label, u)` with u uniform [B]; the fields that it reads."""

    pair: Pair
    image: str
    label: str

    def __call__(self, batch: Batch, numbers: Tensor) -> Batch:
        """Return a batch of twice as many rows, with the field `positive`."""
        first, second = self.pair(batch[self.image], batch[self.label], numbers)
        doubled = {name: torch.cat((value, value)) for name, value in batch.items() if name != self.image}
        size = len(numbers)
        told = torch.arange(2 * size) < size
        return {self.image: torch.cat((first, second)), **doubled, POSITIVE: told}


def overlay(image: Tensor, label: Tensor, classes: int, value: float) -> Tensor:
    """Write one-hot labels [B] over the first `classes` numbers of each image [B, ...]."""
    written = image.flatten(1).clone()
    written[:, :classes] = functional.one_hot(label.long(), classes).to(image.dtype) * value
    return written.reshape(image.shape)


def label_overlay(negatives: str, classes: int, value: float) -> Pair:
    """The true label against another class, each of the others being as likely.

    Those of `hard` are drawn in a step of the plan, from what it predicts; elsewhere they are any.
    """

    def pair(image: Tensor, label: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        if image[0].numel() < classes or not bool((label < classes).all()):
            raise problem("0616", f"`label_overlay` needs labels below {classes} and as many pixels", "data.contrast")
        wrong = (label + 1 + (u * (classes - 1)).long()) % classes
        return overlay(image, label, classes, value), overlay(image, wrong, classes, value)

    return pair


def mixed_images(blur: int) -> Pair:
    """An image against a mixture of it and another of the batch: mask * image + (1 - mask) * other.

    The mask is random bits, blurred `blur` times by [1, 2, 1] / 4 in both directions, above one half.
    """

    def pair(image: Tensor, label: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        count = len(image)
        others = (torch.arange(count) + 1 + (u * (count - 1)).long()) % count if count > 1 else torch.arange(count)
        mask = _blobs(image, u, blur)
        return image, mask * image + (1 - mask) * image[others]

    return pair


def _blobs(image: Tensor, u: Tensor, blur: int) -> Tensor:
    """Return masks of zeros and ones [B, 1, H, W], the same for all channels; a flat image must be square."""
    side = image.shape[-1] if image.dim() > 2 else round(image.shape[-1] ** 0.5)
    rows = image.shape[-2] if image.dim() > 2 else side
    if image.dim() == 2 and side * side != image.shape[-1]:
        raise problem("0616", "`mixed_images` needs images with rows and columns", "data.contrast")
    generator = torch.Generator().manual_seed(int(u[0] * 2**53))
    mask = torch.randint(0, 2, (len(image), 1, rows, side), generator=generator).to(image.dtype)
    kernel = torch.tensor([1.0, 2.0, 1.0], dtype=image.dtype) / 4
    for _ in range(blur):
        mask = functional.conv2d(functional.pad(mask, (1, 1, 0, 0), "replicate"), kernel.reshape(1, 1, 1, 3))
        mask = functional.conv2d(functional.pad(mask, (0, 0, 1, 1), "replicate"), kernel.reshape(1, 1, 3, 1))
    hard = (mask > 0.5).to(image.dtype)
    return hard.reshape(len(image), *[1] * (image.dim() - 3), rows, side) if image.dim() > 2 else hard.flatten(1)


CONTRASTS: dict[str, Callable[..., Pair]] = {
    "label_overlay": label_overlay,
    "mixed_images": mixed_images,
}


def contrast(term: Term | None, types: Mapping[str, TensorType], views: int) -> Contrast | None:
    """Return the contrast that `data.contrast` names, for fields of these types (per sample).

    Errors: 0615 bad arguments, 0616 fields that have no image or no label, or samples with several views.
    """
    if term is None:
        return None
    if views > 1:
        message = f"`{term.name}` makes two halves of a batch, and `views: {views}` has made parts of it already"
        raise problem("0616", message, "data.contrast")
    made: dict[str, Any] = arguments(term, WORDS, "0615", "contrast", "data.contrast")
    images = [name for name, kind in types.items() if kind.dtype.startswith(("float", "bfloat")) and kind.shape]
    numbers = {name for name, kind in types.items() if kind.dtype.startswith("int") and not kind.shape}
    labels = sorted(numbers - {"index"})
    if len(images) != 1 or len(labels) != 1:
        notes = [f"images: {', '.join(images) or 'none'}", f"labels: {', '.join(labels) or 'none'}"]
        message = f"`{term.name}` needs one field of images and one of labels"
        raise problem("0616", message, "data.contrast", notes=notes)
    return Contrast(CONTRASTS[term.name](**made), images[0], labels[0])
