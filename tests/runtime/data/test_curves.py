"""Are curves what they say: through their points, of the seed alone, and ready to train on?"""

from __future__ import annotations

import numpy as np
import torch

from lpc.runtime.data import open_data
from lpc.runtime.data.column import Column
from lpc.runtime.data.curves import MARGIN, SIDE, curves
from lpc.specs.model import Data
from lpc.specs.plan.kernel import TensorType
from lpc.specs.term import Term


def images(split: str, **given: int) -> np.ndarray:
    column = curves(**given)[split]()["image"]
    assert isinstance(column, Column)
    return column.read()


def test_a_curve_goes_through_its_points() -> None:
    points = np.random.default_rng((7, 0)).uniform(MARGIN, SIDE - 1 - MARGIN, (20, 3, 2))
    drawn = images("train", seed=7, train=20)
    for image, through in zip(drawn[:, 0], points, strict=True):
        for column, row in np.rint(through).astype(int):
            assert image[row, column] > 0.3
    assert drawn.min() >= 0.0
    assert drawn.max() <= 1.0


def test_a_sample_depends_on_the_seed_alone() -> None:
    assert np.array_equal(images("train", train=5), images("train", train=9)[:5])
    assert not np.array_equal(images("train", train=5), images("train", train=5, seed=1))
    assert not np.array_equal(images("train", train=5), images("test", test=5))


def test_they_are_read_as_any_data() -> None:
    data = Data(source=Term("curves", (), {"train": 12, "test": 6}))
    splits = open_data(data, {"image": TensorType("float32", ("B", 1, 28, 28))}, seed=0)
    assert splits.test is not None
    assert (len(splits.train), len(splits.test)) == (12, 6)
    assert torch.equal(splits.train[[0]]["image"], torch.from_numpy(images("train", train=12)[:1]))
