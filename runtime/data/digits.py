"""Where do the embedded digits come from? scikit-learn's 1,797 handwritten digits of 8x8 pixels."""

from __future__ import annotations

from functools import partial

import numpy as np

from lpc.runtime.data.column import Array, Column, Table, Tables
from lpc.runtime.data.library import library

PLACE = "scikit-learn's digits"


def digits() -> Tables:
    """Return one split; `data.test` cuts the test set from it. Pixels are integers 0..16."""
    return {"train": _table}


def _table() -> Table:
    return {
        "image": Column((1, 8, 8), np.dtype(np.uint8), partial(_read, "images"), PLACE, peak=16),
        "label": Column((), np.dtype(np.int64), partial(_read, "target"), PLACE),
    }


def _read(key: str) -> Array:
    bunch = library("sklearn.datasets").load_digits()
    if key == "target":
        return np.asarray(bunch.target, np.int64)
    return np.asarray(bunch.images).astype(np.uint8).reshape(-1, 1, 8, 8)
