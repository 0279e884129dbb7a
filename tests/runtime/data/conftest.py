"""Which files do the data tests read? Small ones of every format, written on the spot."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

WriteIdx = Callable[..., Path]


def idx_bytes(values: Any) -> bytes:
    """Return an array of bytes as an IDX file."""
    array = np.asarray(values, np.uint8)
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def mnist_like(tmp_path: Path) -> Path:
    """Return a folder in MNIST's format: 50 + 20 images of 6x5, image i has all pixels i, label i % 10."""
    for prefix, count in (("train", 50), ("t10k", 20)):
        images = np.broadcast_to(np.arange(count)[:, None, None], (count, 6, 5))
        with gzip.open(tmp_path / f"{prefix}-images-idx3-ubyte.gz", "wb") as file:
            file.write(idx_bytes(images))
        (tmp_path / f"{prefix}-labels-idx1-ubyte").write_bytes(idx_bytes(np.arange(count) % 10))
    return tmp_path


@pytest.fixture
def npz_folder(tmp_path: Path) -> Path:
    """Return a folder with train.npz and test.npz: colour images [3, 8, 8], labels and a float vector."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 12)):
        np.savez(tmp_path / f"{split}.npz", image=rng.integers(0, 256, (count, 3, 8, 8), np.uint8),
                 label=np.arange(count) % 4, vector=rng.normal(size=(count, 5)))
    return tmp_path
