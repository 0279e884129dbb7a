"""Which transforms do images pass on their way into a batch? One row each, over whole batches."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from lpc.runtime.data import augment
from lpc.runtime.data.column import Shape
from lpc.runtime.data.problem import problem
from lpc.runtime.data.term import arguments
from lpc.runtime.data.transform import Transform, UnfitError, sides
from lpc.specs.signatures.data import TRANSFORMS as WORDS
from lpc.specs.term import Term


def normalize(shape: Shape, mean: float | list[float], std: float | list[float]) -> Transform:
    """Subtract the mean, divide by the standard deviation; a list has one value for each channel."""
    low, width = _per_channel(mean, shape), _per_channel(std, shape)
    if not bool((width > 0).all()):
        raise UnfitError("the standard deviation must be positive", f"std = {std}")
    return Transform(shape, lambda x, _: (x - low.to(x)) / width.to(x))


def flatten(shape: Shape) -> Transform:
    """Make each sample a vector."""
    size = torch.Size(shape).numel()
    return Transform((size,), lambda x, _: x.flatten(1) if x.dim() > 1 else x[:, None])


def scale(shape: Shape, factor: float) -> Transform:
    """Multiply by a number."""
    return Transform(shape, lambda x, _: x * factor)


def flip(shape: Shape, p: float = 0.5) -> Transform:
    """Mirror left and right with probability p, in training only."""
    if len(shape) < 2 or not 0 <= p <= 1:
        raise UnfitError("needs rows and columns, and p in 0..1", f"shape {list(shape)}, p = {p}")
    columns = torch.arange(shape[-1])

    def mirror(x: Tensor, draws: Tensor | None) -> Tensor:
        if draws is None:
            return x
        # A gather, because Tensor.flip over the last axis takes twenty times as long on a CPU.
        index = torch.where(draws < p, columns.flip(0), columns)
        return x.gather(-1, index.reshape(len(x), *[1] * (x.dim() - 2), -1).expand_as(x))

    return Transform(shape, mirror, draws=1)


def crop(shape: Shape, size: int | list[int], padding: int = 0) -> Transform:
    """Pad with zeros, cut a square or [height, width]: anywhere in training, the centre in evaluation."""
    if len(shape) != 3:
        raise UnfitError("needs [channels, height, width]", f"shape {list(shape)}")
    height, width = sides(size)
    spans = [shape[1] + 2 * padding - height, shape[2] + 2 * padding - width]
    if min(height, width) < 1 or padding < 0 or min(spans) < 0:
        raise UnfitError(f"must fit into {shape[1]}x{shape[2]} padded by {padding}", f"{height}x{width}")

    def cut(x: Tensor, draws: Tensor | None) -> Tensor:
        x = functional.pad(x, (padding,) * 4) if padding else x
        if draws is None:
            top, left = (span // 2 for span in spans)
            return x[..., top : top + height, left : left + width]
        corners = (draws * torch.tensor([span + 1 for span in spans])).long()
        return _windows(x, height, width)[torch.arange(len(x)), :, corners[:, 0], corners[:, 1]]

    return Transform((shape[0], height, width), cut, draws=2)


TRANSFORMS: dict[str, Callable[..., Transform]] = {
    "normalize": normalize,
    "flatten": flatten,
    "scale": scale,
    "flip": flip,
    "crop": crop,
    "random_resized_crop": augment.random_resized_crop,
    "color_jitter": augment.color_jitter,
    "grayscale": augment.grayscale,
    "gaussian_blur": augment.gaussian_blur,
    "solarize": augment.solarize,
}


def chain(terms: tuple[Term, ...], shape: Shape) -> tuple[Transform, ...]:
    """Return the transforms for samples of a shape, each built on the shape that the one before it leaves.

    Errors: 0615 for an unknown transform or bad arguments, 0616 where one does not fit its shape.
    """
    made: list[Transform] = []
    for number, term in enumerate(terms):
        place = f"data.transforms.{number}"
        values = arguments(term, WORDS, "0615", "transform", place)
        try:
            made.append(TRANSFORMS[term.name](made[-1].shape if made else shape, **values))
        except UnfitError as error:
            needs, found = error.args
            raise problem("0616", f"`{term.name}` {needs}", place, notes=[f"found {found}"]) from error
    return tuple(made)


def _windows(x: Tensor, height: int, width: int) -> Tensor:
    """Return a view [B, channels, tops, lefts, height, width] of all cuts."""
    return x.unfold(2, height, 1).unfold(3, width, 1)


def _per_channel(value: float | list[float], shape: Shape) -> Tensor:
    """Return numbers that broadcast over samples of a shape, in float64 until the batch's dtype is known."""
    numbers = torch.tensor(value, dtype=torch.float64)
    if numbers.dim() == 0:
        return numbers
    if not shape or len(numbers) != shape[0]:
        raise UnfitError("needs a number, or one per channel", f"{len(numbers)} for shape {list(shape)}")
    return numbers.reshape(-1, *[1] * (len(shape) - 1))
