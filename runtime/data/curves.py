"""Where does the CURVES set come from? It is drawn: images of smooth curves through three random points.

After the set of Hinton and Salakhutdinov 2006, on which deep autoencoders were compared; theirs was drawn alike, but
its images are not these. A pixel is 1 - exp(-ink): a thin pen goes along the parabola through the points.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from lpc.runtime.data.column import Array, Column, Table, Tables

SIDE, MARGIN = 28, 4
POINTS = 60  # along a curve
WIDTH, INK = 0.7, 1.0
CHUNK = 2000
PLACE = "curves"


def curves(seed: int = 0, train: int = 20_000, test: int = 10_000) -> Tables:
    """Return both splits; a sample depends on the seed and its split alone, not on how many there are."""
    return {"train": partial(_table, (seed, 0), train), "test": partial(_table, (seed, 1), test)}


def _table(key: tuple[int, int], count: int) -> Table:
    return {"image": Column((1, SIDE, SIDE), np.dtype(np.float32), partial(_drawn, key, count), PLACE)}


def _drawn(key: tuple[int, int], count: int) -> Array:
    generator = np.random.default_rng(key)
    points = generator.uniform(MARGIN, SIDE - 1 - MARGIN, (count, 3, 2))
    return np.concatenate([_images(points[i : i + CHUNK]) for i in range(0, count, CHUNK)])[:, None]


def _images(points: Array) -> Array:
    """Return [n, 28, 28] of the parabolas through points [n, 3, 2], at times 0, 1/2 and 1."""
    t = np.linspace(0.0, 1.0, POINTS)
    laws = np.stack([(1 - t) * (1 - 2 * t), 4 * t * (1 - t), t * (2 * t - 1)])
    places = np.einsum("nkc,kt->nct", points, laws)
    near = np.exp(-((places[..., None] - np.arange(SIDE)) ** 2) / (2 * WIDTH**2))
    images: Array = 1.0 - np.exp(-INK * near[:, 1].transpose(0, 2, 1) @ near[:, 0])
    return images.astype(np.float32)
