"""How is a batch taken in pieces? The first samples of it, in parts as equal as they can be."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise


def pieces(size: int, share: float, count: int, begin: int = 0) -> Iterator[tuple[int, int, float]]:
    """Yield (first, last, share of the samples) of each piece, counted from `begin`; a share above 1 is a number."""
    taken = min(max(round(share * size) if share <= 1 else int(share), 1), size)
    for first, last in pairwise(taken * i // count for i in range(count + 1)):
        if first < last:
            yield begin + first, begin + last, (last - first) / taken
