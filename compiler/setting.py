"""What do a head and a loss know when they are made? The shapes around them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import fx

Shape = Sequence[int | str]
Width = Callable[[Shape, Shape], int]


@dataclass(frozen=True)
class Ahead:
    """A block's number among the `count` blocks before the output's, the modules of those after it, and the output's.

    The latter raises ValueError where it is not the same graph in training and in evaluation.
    """

    place: int
    count: int
    later: Callable[[], Sequence[fx.GraphModule]]
    output: Callable[[], fx.GraphModule]


@dataclass(frozen=True)
class Setting:
    """Per-sample shapes: of the block's output, of what the loss compares with, of the network's output.

    `ahead` tells of the blocks after this one, where it is in a row of them.
    `width(target, output)` is the number of scores that the loss reads; None where it reads no scores.
    """

    feature: Shape
    target: Shape = ()
    output: Shape = ()
    width: Width | None = None
    ahead: Ahead | None = None

    @property
    def per_position(self) -> bool:
        """One label for each position of a token feature [T, C]: the head is applied at every position."""
        return len(self.feature) == 2 and len(self.target) == 1 and self.feature[0] == self.target[0]

    @property
    def class_axis(self) -> int | str | None:
        """How many classes a loss without a head reads in a feature: its only axis, or its channels."""
        return self.feature[-1 if len(self.feature) <= 2 else 0] if self.feature else None

    @property
    def channels(self) -> int:
        """The channel axis: the last of tokens [T, C], the first of a map [C, H, W]."""
        return static(self.feature[-1] if len(self.feature) == 2 else self.feature[0])

    def sizes(self) -> list[int]:
        """The feature's shape, which must be static."""
        if any(isinstance(size, str) for size in self.feature):
            raise ValueError(f"it needs a fixed shape, the block's output is {list(self.feature)}")
        return [int(size) for size in self.feature]

    def image(self) -> list[int]:
        """The feature as a map [C, H, W], which must be static; one without positions is 1 x 1."""
        sizes = self.sizes()
        if len(sizes) not in (1, 3):
            raise ValueError(f"it reads a map [channels, height, width], the block's output is {sizes}")
        return sizes if len(sizes) == 3 else [sizes[0], 1, 1]

    def units(self) -> int:
        """The number of activities of a sample."""
        return math.prod(self.sizes())

    def outputs(self) -> int:
        """The number of scores that a head gives. Raises ValueError where the loss reads none."""
        if self.width is None:
            raise ValueError("it gives class scores, which this loss does not read")
        return self.width(self.target, self.output)


def static(size: int | str) -> int:
    """Return a length that must be a number."""
    if isinstance(size, str):
        raise ValueError(f"the width `{size}` is symbolic")
    return size
