"""Which transforms come from kornia? Crops, colours and blurs of SimCLR's kind, each by a sample's own numbers.

kornia does the work on images; what is drawn comes from the uniform numbers that a transform is given for (seed, epoch,
sample), so that neither the order of loading nor a resumed run changes a sample. In evaluation nothing is random.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from math import log, pi
from typing import Any

import torch
from torch import Tensor

from lpc.runtime.data.column import Shape
from lpc.runtime.data.library import library
from lpc.runtime.data.transform import Transform, UnfitError, sides

Range = list[float]

ORDERS = torch.tensor(list(permutations(range(4))))


def random_resized_crop(shape: Shape, size: int | list[int], scale: Range, ratio: Range) -> Transform:
    """Cut a part of the image's area, of a ratio of sides, and scale it; in evaluation, the largest centred part.

    Areas are uniform, ratios on a logarithmic scale; what would not fit is cut off at the image's sides.
    """
    channels, rows, columns = _image(shape)
    height, width = sides(size)
    resized = _kornia("geometry.transform").crop_and_resize
    low, high = _range(scale, 1.0), [log(r) for r in _range(ratio, float("inf"), 1e-9)]

    def cut(x: Tensor, draws: Tensor | None) -> Tensor:
        boxes = _drawn(draws.to(x)) if draws is not None else _centred().to(x).expand(len(x), 4)
        return resized(x, _corners(boxes), (height, width), mode="bilinear", align_corners=True)  # type: ignore[no-any-return]

    def _drawn(u: Tensor) -> Tensor:
        """Tops, lefts, heights and widths in whole pixels, [B, 4]."""
        area = rows * columns * (low[0] + (low[1] - low[0]) * u[:, 0])
        aspect = (high[0] + (high[1] - high[0]) * u[:, 1]).exp()
        tall = (area / aspect).sqrt().round().clamp(1, rows)
        wide = (area * aspect).sqrt().round().clamp(1, columns)
        top, left = (u[:, 2] * (rows - tall + 1)).floor(), (u[:, 3] * (columns - wide + 1)).floor()
        return torch.stack([top, left, tall, wide], 1)

    def _centred() -> Tensor:
        tall = min(rows, max(1, round(columns * height / width)))
        wide = min(columns, max(1, round(rows * width / height)))
        return torch.tensor([(rows - tall) // 2, (columns - wide) // 2, tall, wide])

    return Transform((channels, height, width), cut, draws=4)


def color_jitter(
    shape: Shape, brightness: float, contrast: float, saturation: float, hue: float, p: float
) -> Transform:
    """Change brightness, contrast, saturation and hue, in any order, of a share p of the images."""
    enhance = _kornia("enhance")
    if _image(shape)[0] != 3 or max(brightness, contrast, saturation) > 1 or hue > 0.5:
        raise UnfitError("needs 3 channels, a hue up to 0.5 and the others up to 1", f"shape {list(shape)}")
    steps: list[tuple[Callable[[Tensor, Tensor], Tensor], float, float]] = [
        (enhance.adjust_brightness_accumulative, brightness, 1.0),
        (enhance.adjust_contrast_with_mean_subtraction, contrast, 1.0),
        (enhance.adjust_saturation_with_gray_subtraction, saturation, 1.0),
        (lambda x, turn: enhance.adjust_hue(x, 2 * pi * turn), hue, 0.0),
    ]

    def change(x: Tensor, draws: Tensor | None) -> Tensor:
        if draws is None:
            return x
        orders = ORDERS[(draws[:, 5] * len(ORDERS)).long()]
        chosen, found = draws[:, 0] < p, x.clone()
        for place in range(4):
            for number, (function, width, middle) in enumerate(steps):
                rows = (chosen & (orders[:, place] == number)).nonzero()[:, 0]
                factor = (middle + width * (2 * draws[rows, 1 + number] - 1)).to(x)
                if len(rows) and width:
                    found[rows] = function(found[rows], factor)
        return found

    return Transform(shape, change, draws=6)


def grayscale(shape: Shape, p: float) -> Transform:
    """Take the colour out of a share p of the images, which keep three channels."""
    if _image(shape)[0] != 3:
        raise UnfitError("needs 3 channels", f"shape {list(shape)}")
    gray = _kornia("color").rgb_to_grayscale
    return Transform(shape, _sometimes(p, lambda x, _: gray(x).expand_as(x)), draws=1)


def gaussian_blur(shape: Shape, kernel: int, sigma: Range, p: float) -> Transform:
    """Blur a share p of the images, each by a standard deviation of its own, in pixels."""
    _, rows, columns = _image(shape)
    low, high = _range(sigma, float("inf"), 1e-9)
    if kernel % 2 == 0 or kernel // 2 >= min(rows, columns):
        raise UnfitError("needs an odd kernel that is smaller than twice the image", f"kernel = {kernel}")
    blur = _kornia("filters").gaussian_blur2d

    def blurred(x: Tensor, u: Tensor) -> Tensor:
        widths = (low + (high - low) * u[:, :1]).to(x).expand(-1, 2)
        return blur(x, (kernel, kernel), widths)  # type: ignore[no-any-return]

    return Transform(shape, _sometimes(p, blurred), draws=2)


def solarize(shape: Shape, threshold: float, p: float) -> Transform:
    """Turn pixels above a threshold into 1 - pixel, in a share p of the images."""
    _image(shape)
    turned = _kornia("enhance").solarize
    return Transform(shape, _sometimes(p, lambda x, _: turned(x, x.new_full((len(x),), threshold))), draws=1)


def _sometimes(p: float, change: Callable[[Tensor, Tensor], Any]) -> Callable[[Tensor, Tensor | None], Tensor]:
    """Return a function that changes the samples whose first number is below p; `change` gets the other numbers."""

    def apply(x: Tensor, draws: Tensor | None) -> Tensor:
        rows = (draws[:, 0] < p).nonzero()[:, 0] if draws is not None else torch.empty(0)
        if draws is None or not len(rows):
            return x
        found = x.clone()
        found[rows] = change(x[rows], draws[rows, 1:])
        return found

    return apply


def _corners(boxes: Tensor) -> Tensor:
    """Return the corner pixels (x, y) of boxes (top, left, height, width), clockwise from the top left: [B, 4, 2]."""
    top, left, tall, wide = boxes.unbind(1)
    right, bottom = left + wide - 1, top + tall - 1
    return torch.stack([left, top, right, top, right, bottom, left, bottom], 1).reshape(-1, 4, 2)


def _image(shape: Shape) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise UnfitError("needs [channels, height, width]", f"shape {list(shape)}")
    return shape[0], shape[1], shape[2]


def _range(given: Range, most: float, least: float = 0.0) -> Range:
    if len(given) != 2 or not least <= given[0] <= given[1] <= most:
        raise UnfitError(f"needs a range [low, high] from {least:g} to {most:g}", f"{given}")
    return given


def _kornia(module: str) -> Any:
    return library(f"kornia.{module}", "data.transforms", "lpc[vision]")
