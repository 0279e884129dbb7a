"""Which cuts of a chain balance it best? Exact: least largest block first, then least weight of the cuts.

A chain of m segments has borders 0..m; border b lies between segments b - 1 and b. Costs and weights are
integers. The least bound comes from a binary search. Under that bound the k-th cut can only lie between the
border reached greedily from the left and the one from the right, so the second search looks at little else.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise


@dataclass(frozen=True)
class Choice:
    """The best way to reach a border by a given number of cuts: their weight, and the border before."""

    weight: int
    before: int


def best_cuts(costs: Sequence[int], weights: Sequence[int], count: int) -> list[int]:
    """Return the `count - 1` inner borders that split the chain into `count` non-empty blocks.

    `weights[b - 1]` is the weight of border b. Of equal answers: the latest cuts, last cut first.
    Needs `len(weights) == len(costs) - 1 >= count - 1 >= 0`. Linear in segments for a fixed count.
    """
    sums = [0, *accumulate(costs)]
    bound = least_bound(sums, count)
    layers = [{0: Choice(0, 0)}]
    for low, high in _windows(sums, bound, count):
        layers.append(_next_cut(layers[-1], sums, weights, bound, low, high))
    return _trace_back(layers, sums, bound)


def least_bound(sums: Sequence[int], count: int) -> int:
    """Return the least C so that `count` blocks of cost C each hold the chain with prefix sums `sums`."""
    low = max((after - before for before, after in pairwise(sums)), default=0)
    high = sums[-1]
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _fits(sums, middle, count) else (middle + 1, high)
    return low


def _fits(sums: Sequence[int], bound: int, count: int) -> bool:
    border = 0
    for _ in range(count):
        border = bisect_right(sums, sums[border] + bound) - 1
    return border == len(sums) - 1


def _windows(sums: Sequence[int], bound: int, count: int) -> list[tuple[int, int]]:
    """Return for each cut the first and last border where it can lie."""
    segments = len(sums) - 1
    lows: list[int] = []
    border = segments
    for cut in range(count - 1, 0, -1):
        border = max(cut, bisect_left(sums, sums[border] - bound))
        lows.append(border)
    highs: list[int] = []
    border = 0
    for cut in range(1, count):
        border = min(segments - count + cut, bisect_right(sums, sums[border] + bound) - 1)
        highs.append(border)
    return list(zip(reversed(lows), highs, strict=True))


def _next_cut(
    layer: dict[int, Choice], sums: Sequence[int], weights: Sequence[int], bound: int, low: int, high: int
) -> dict[int, Choice]:
    """Extend every border by one cut within low..high: a sliding minimum over the borders before."""
    entering = deque(layer)  # ascending
    window: deque[int] = deque()
    reached: dict[int, Choice] = {}
    for border in range(low, high + 1):
        while entering and entering[0] < border:
            before = entering.popleft()
            while window and layer[window[-1]].weight >= layer[before].weight:
                window.pop()
            window.append(before)
        while window and sums[border] - sums[window[0]] > bound:
            window.popleft()
        if window:
            reached[border] = Choice(layer[window[0]].weight + weights[border - 1], window[0])
    return reached


def _trace_back(layers: list[dict[int, Choice]], sums: Sequence[int], bound: int) -> list[int]:
    ends = [border for border in layers[-1] if sums[-1] - sums[border] <= bound]
    border = min(ends, key=lambda b: (layers[-1][b].weight, -b))
    cuts: list[int] = []
    for layer in reversed(layers[1:]):
        cuts.append(border)
        border = layer[border].before
    return cuts[::-1]
