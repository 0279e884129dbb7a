"""What is a transform? A function over batches, the shape that it leaves, and how many random numbers it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from lpc.runtime.data.column import Shape


@dataclass(frozen=True)
class Transform:
    """A function over batches [B, ...] of one field.

    `shape` is a sample's shape after it. In training, a transform with `draws` > 0 gets that many uniform
    numbers for each sample, [B, draws]; in evaluation it gets None and must do the same to every sample.
    """

    shape: Shape
    apply: Callable[[Tensor, Tensor | None], Tensor]
    draws: int = 0


class UnfitError(Exception):
    """A transform does not fit a shape: what it needs, and what was found."""


def sides(size: int | list[int]) -> tuple[int, int]:
    """Return height and width; one number is both."""
    given = [size, size] if isinstance(size, int) else size
    if len(given) != 2:
        raise UnfitError("needs a size, or [height, width]", f"{size}")
    return given[0], given[1]
