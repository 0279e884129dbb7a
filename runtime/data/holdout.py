"""Which samples are held out? A share of each label, the same whatever the seed.

Ejected code holds a copy of this file: it imports nothing of lpc but `keys`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lpc.runtime.data.keys import SPLIT_SEED, permutation

Rows = NDArray[np.int64]


def cut(count: int, labels: NDArray[Any] | None, fractions: Mapping[str, float]) -> dict[str, Rows]:
    """Return disjoint rows for each fraction and the rest as `train`, each in ascending order.

    With labels every part holds its share of each label, to within one sample. The cut depends on the
    samples alone, never on a run's seed.
    """
    rest = np.arange(count)
    parts: dict[str, Rows] = {}
    for site, (name, fraction) in enumerate(fractions.items()):
        taken = chosen(rest, labels, round(count * fraction), site)
        parts[name], rest = rest[taken], rest[~taken]
    return parts | {"train": rest}


def chosen(rows: Rows, labels: NDArray[Any] | None, count: int, site: int) -> NDArray[np.bool_]:
    """Mark `count` rows: shuffle, sort by label, then take at even distances."""
    order = permutation(len(rows), SPLIT_SEED, site)
    if labels is not None:
        order = order[np.argsort(labels[rows][order], kind="stable")]
    steps = np.arange(len(rows) + 1) * count // max(1, len(rows))
    marks = np.zeros(len(rows), np.bool_)
    marks[order] = np.diff(steps) > 0
    return marks
