"""Do transforms compute what they say, against one sample at a time?"""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lpc.runtime.data.transforms import chain
from lpc.specs.term import Term

X = torch.rand(50, 3, 6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def run(term: Term, draws: Tensor | None = None, x: Tensor = X) -> Tensor:
    (transform,) = chain((term,), tuple(x.shape[1:]))
    result = transform.apply(x, draws)
    assert tuple(result.shape[1:]) == transform.shape
    return result


def uniform(width: int) -> Tensor:
    return torch.rand(len(X), width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_normalize_for_all_and_per_channel() -> None:
    assert torch.equal(run(Term("normalize", (0.5, 0.25))), (X - 0.5) / 0.25)
    per_channel = run(Term("normalize", ([0.1, 0.2, 0.3], [1.0, 2.0, 4.0])))
    assert torch.equal(per_channel[:, 2], (X[:, 2] - 0.3) / 4)
    assert torch.equal(per_channel[:, 0], X[:, 0] - 0.1)


def test_scale_and_flatten() -> None:
    assert torch.equal(run(Term("scale", (3.0,))), X * 3)
    assert torch.equal(run(Term("flatten")), X.reshape(50, 144))


@given(p=st.floats(0, 1))
def test_flip_mirrors_where_the_draw_is_below_p(p: float) -> None:
    draws = uniform(1)
    expected = torch.stack([x.flip(-1) if u < p else x for x, u in zip(X, draws[:, 0].tolist(), strict=True)])
    assert torch.equal(run(Term("flip", (p,)), draws), expected)
    assert torch.equal(run(Term("flip", (p,))), X)


@settings(deadline=None)
@given(height=st.integers(1, 10), width=st.integers(1, 12), padding=st.integers(2, 4))
def test_crop_cuts_a_window_at_the_drawn_corner(height: int, width: int, padding: int) -> None:
    draws = uniform(2)
    padded = torch.nn.functional.pad(X, (padding,) * 4)
    rows, columns = 6 + 2 * padding - height, 8 + 2 * padding - width
    corners = [(int(a * (rows + 1)), int(b * (columns + 1))) for a, b in draws.tolist()]
    expected = torch.stack([x[:, t : t + height, s : s + width]
                            for x, (t, s) in zip(padded, corners, strict=True)])
    term = Term("crop", ([height, width],), {"padding": padding})
    assert torch.equal(run(term, draws), expected)
    top, left = rows // 2, columns // 2
    assert torch.equal(run(term), padded[:, :, top : top + height, left : left + width])


def test_crop_reaches_every_corner() -> None:
    (transform,) = chain((Term("crop", (6,), {"padding": 1}),), (3, 6, 8))
    low, high = torch.zeros(50, 2), torch.full((50, 2), 1 - 2.0**-24)
    padded = torch.nn.functional.pad(X, (1,) * 4)
    assert torch.equal(transform.apply(X, low), padded[..., :6, :6])
    assert torch.equal(transform.apply(X, high), padded[..., 2:, 4:])


def test_each_transform_meets_the_shape_that_the_one_before_leaves() -> None:
    shapes = [t.shape for t in chain((Term("crop", (4,)), Term("flatten"), Term("scale", (2,))), (3, 6, 8))]
    assert shapes == [(3, 4, 4), (48,), (48,)]
