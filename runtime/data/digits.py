"""Where do the embedded digits come from? scikit-learn's 1,797 handwritten digits of 8x8 pixels."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from lpc.runtime.data.column import Array, Column, Table, Tables
from lpc.runtime.data.library import library

FILE = "datasets/data/digits.csv.gz"  # in scikit-learn's folder
PLACE = "scikit-learn's digits"


def digits() -> Tables:
    """Return one split; `data.test` cuts the test set from it. Pixels are integers 0..16."""
    return {"train": _table}


def _table() -> Table:
    return {
        "image": Column((1, 8, 8), np.dtype(np.uint8), partial(_read, "images"), PLACE, peak=16),
        "label": Column((), np.dtype(np.int64), partial(_read, "target"), PLACE, classes=lambda: 10),
    }


def _read(key: str) -> Array:
    rows = _rows()
    if key == "target":
        return rows[:, -1].astype(np.int64)
    return rows[:, :-1].astype(np.uint8).reshape(-1, 1, 8, 8)


def _rows() -> Array:
    """Return 64 pixels and the digit of each, [1797, 65]. The library's file is read without the library: 2 s less."""
    found = find_spec("sklearn")
    path = Path(found.origin).parent / FILE if found is not None and found.origin else None
    if path is not None and path.is_file():
        return np.loadtxt(path, delimiter=",")
    bunch = library("sklearn.datasets").load_digits()
    return np.column_stack([bunch.data, bunch.target])
