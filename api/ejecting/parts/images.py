"""Which transforms do images pass on their way into a batch? Over whole batches, by the samples' own numbers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from lpc.ejecting.parts.samples import Transform

Numbers = float | list[float]


def normalize(mean: Numbers, std: Numbers, axes: int) -> Transform:
    """Subtract the mean and divide by the deviation; lists have a value for each channel of samples of `axes` axes."""
    low, width = per_channel(mean, axes), per_channel(std, axes)
    return Transform(lambda x, _: (x - low.to(x)) / width.to(x))


def per_channel(value: Numbers, axes: int) -> Tensor:
    """Return numbers that broadcast over samples."""
    numbers = torch.tensor(value, dtype=torch.float64)
    return numbers if numbers.dim() == 0 else numbers.reshape(-1, *[1] * (axes - 1))


def flatten() -> Transform:
    """Make each sample a vector."""
    return Transform(lambda x, _: x.flatten(1) if x.dim() > 1 else x[:, None])


def scale(factor: float) -> Transform:
    """Multiply by a number."""
    return Transform(lambda x, _: x * factor)


def flip(p: float) -> Transform:
    """Mirror left and right with probability p, in training only."""

    def mirror(x: Tensor, draws: Tensor | None) -> Tensor:
        if draws is None:
            return x
        columns = torch.arange(x.shape[-1])
        index = torch.where(draws < p, columns.flip(0), columns)
        return x.gather(-1, index.reshape(len(x), *[1] * (x.dim() - 2), -1).expand_as(x))

    return Transform(mirror, draws=1)


def crop(height: int, width: int, padding: int) -> Transform:
    """Pad with zeros and cut: anywhere in training, the centre in evaluation."""

    def cut(x: Tensor, draws: Tensor | None) -> Tensor:
        x = functional.pad(x, (padding,) * 4) if padding else x
        spans = [x.shape[-2] - height, x.shape[-1] - width]
        if draws is None:
            top, left = (span // 2 for span in spans)
            return x[..., top : top + height, left : left + width]
        corners = (draws * torch.tensor([span + 1 for span in spans])).long()
        windows = x.unfold(2, height, 1).unfold(3, width, 1)
        return windows[torch.arange(len(x)), :, corners[:, 0], corners[:, 1]]

    return Transform(cut, draws=2)
