"""Do kornia's transforms compute what they say, against one sample at a time and formulas by hand?"""

from __future__ import annotations

import sys
from math import exp, log
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import lpc
from lpc.runtime.data.transforms import TRANSFORMS, chain
from lpc.specs.diagnostics import LpcError
from lpc.specs.signatures.data import TRANSFORMS as WORDS
from lpc.specs.term import Term

pytest.importorskip("kornia")

COUNT = 24
X = torch.rand(COUNT, 3, 9, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
GRAY = (0.299, 0.587, 0.114)
NAMES: list[tuple[str, dict[str, Any]]] = [
    ("random_resized_crop", {"size": [5, 7], "scale": [0.2, 1.0]}), ("color_jitter", {}), ("grayscale", {"p": 0.5}),
    ("gaussian_blur", {"kernel": 3}), ("solarize", {"p": 0.5}),
]  # fmt: skip


def run(name: str, draws: Tensor | None, x: Tensor = X, **options: Any) -> Tensor:
    (transform,) = chain((Term(name, (), options),), tuple(x.shape[1:]))
    result = transform.apply(x, draws)
    assert tuple(result.shape[1:]) == transform.shape
    return result


def uniform(name: str, count: int = COUNT, **options: Any) -> Tensor:
    (transform,) = chain((Term(name, (), options),), tuple(X.shape[1:]))
    return torch.rand(count, transform.draws, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def close(found: Tensor, wanted: Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(found, wanted, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("name", "options"), NAMES)
def test_a_sample_does_not_depend_on_its_batch(name: str, options: dict[str, Any]) -> None:
    draws = uniform(name, **options)
    whole, before = run(name, draws, **options), torch.get_rng_state()
    for i in range(COUNT):
        close(run(name, draws[i : i + 1], X[i : i + 1], **options), whole[i : i + 1])
    assert torch.equal(torch.get_rng_state(), before), "the process's own random numbers are left alone"


@pytest.mark.parametrize(("name", "options"), NAMES[1:])
def test_evaluation_changes_nothing(name: str, options: dict[str, Any]) -> None:
    assert torch.equal(run(name, None, **options), X)


def test_crops_are_cut_and_scaled() -> None:
    options = {"size": [5, 7], "scale": [0.2, 1.0], "ratio": [0.5, 2.0]}
    draws = uniform("random_resized_crop", **options)
    found = run("random_resized_crop", draws, **options)
    for x, y, (a, r, t, s) in zip(X, found, draws.tolist(), strict=True):
        area, aspect = 9 * 12 * (0.2 + 0.8 * a), exp(log(0.5) + (log(2.0) - log(0.5)) * r)
        height = min(max(round((area / aspect) ** 0.5), 1), 9)
        width = min(max(round((area * aspect) ** 0.5), 1), 12)
        top, left = int(t * (9 - height + 1)), int(s * (12 - width + 1))
        part = x[None, :, top : top + height, left : left + width]
        close(y[None], F.interpolate(part, size=(5, 7), mode="bilinear", align_corners=True))


def test_evaluation_takes_the_largest_centred_part() -> None:
    found = run("random_resized_crop", None, size=6)
    close(found, F.interpolate(X[:, :, :, 1:10], size=(6, 6), mode="bilinear", align_corners=True))


def gray(x: Tensor) -> Tensor:
    return sum(w * x[:, c : c + 1] for c, w in enumerate(GRAY))  # type: ignore[return-value]


def turned(x: Tensor, turn: float) -> Tensor:
    """Turn the hue of one image [3, H, W], pixel by pixel, by Python's own conversion."""
    from colorsys import hsv_to_rgb, rgb_to_hsv

    flat = x.flatten(1).T.tolist()
    changed = [hsv_to_rgb((h + turn) % 1.0, s, v) for h, s, v in (rgb_to_hsv(*pixel) for pixel in flat)]
    return torch.tensor(changed, dtype=x.dtype).T.reshape(x.shape)


def test_colours_change_in_the_drawn_order() -> None:
    from itertools import permutations

    options = {"brightness": 0.4, "contrast": 0.5, "saturation": 0.6, "hue": 0.1, "p": 0.7}
    draws = uniform("color_jitter", **options)
    found = run("color_jitter", draws, **options)
    assert 0 < int((draws[:, 0] < 0.7).sum()) < COUNT
    for x, y, u in zip(X, found, draws.tolist(), strict=True):
        wanted = x[None]
        factors = [1 + w * (2 * d - 1) for w, d in zip((0.4, 0.5, 0.6), u[1:4], strict=True)]
        for step in list(permutations(range(4)))[int(24 * u[5])] if u[0] < 0.7 else ():
            if step == 3:
                wanted = turned(wanted[0], 0.1 * (2 * u[4] - 1))[None]
                continue
            base = (0.0, float(gray(wanted).mean()), gray(wanted))[step]
            wanted = (base + (wanted - base) * factors[step]).clamp(0, 1)
        close(y[None], wanted, 1e-6)  # kornia's hue has an epsilon of 1e-8


def test_blur_gray_and_solarize() -> None:
    draws = uniform("gaussian_blur", kernel=3)
    found = run("gaussian_blur", draws, kernel=3)
    for x, y, (chance, u) in zip(X, found, draws.tolist(), strict=True):
        sigma = 0.1 + 1.9 * u
        weight = torch.tensor([exp(-0.5 * d * d / sigma**2) for d in (-1, 0, 1)], dtype=x.dtype)
        kernel = torch.outer(weight, weight) / weight.sum() ** 2
        padded = F.pad(x[None], (1, 1, 1, 1), "reflect")
        wanted = F.conv2d(padded, kernel.expand(3, 1, 3, 3), groups=3)[0] if chance < 0.5 else x
        close(y, wanted)
    draws = uniform("grayscale")
    wanted = torch.where(draws[:, :1, None, None] < 0.5, gray(X), X)
    close(run("grayscale", draws, p=0.5), wanted)
    wanted = torch.where((draws[:, :1, None, None] < 0.4) & (X >= 0.3), 1 - X, X)
    close(run("solarize", draws, threshold=0.3, p=0.4), wanted)


@pytest.mark.parametrize(
    ("name", "options", "shape", "says"),
    [
        ("random_resized_crop", {"size": 4}, (9,), "channels, height, width"),
        ("random_resized_crop", {"size": 4, "scale": [0.5, 2.0]}, (3, 9, 9), "from 0 to 1"),
        ("color_jitter", {}, (1, 9, 9), "3 channels"),
        ("grayscale", {}, (1, 9, 9), "3 channels"),
        ("gaussian_blur", {"kernel": 4}, (3, 9, 9), "an odd kernel"),
        ("gaussian_blur", {"kernel": 3, "sigma": [2.0, 1.0]}, (3, 9, 9), "a range"),
    ],
)
def test_misfits(name: str, options: dict[str, Any], shape: tuple[int, ...], says: str) -> None:
    with pytest.raises(LpcError, match=says) as caught:
        chain((Term(name, (), options),), shape)
    assert caught.value.diagnostics[0].code == "0616"


def test_views_do_not_depend_on_the_order_of_loading() -> None:
    data = {"source": "digits", "batch": 16, "views": 2, "transforms": ["random_resized_crop(8)", "gaussian_blur(3)"]}
    spec = {
        "network": {"inputs": {"image": [1, 8, 8]}, "layers": ["flatten", {"fc": "linear(4)"}]},
        "data": data, "loss": "nt_xent", "decompose": {"blocks": {"b": "fc"}},
        "learn": [{"blocks": "*", "optimizer": "sgd(lr=0.1)"}], "run": {"epochs": 1, "target": "cpu"},
    }  # fmt: skip
    train = lpc.Trainer(lpc.build(spec), device="cpu").splits.train
    rows = torch.tensor([5, 3, 9])
    batch = train.at(0, 2)[rows]["image"]
    assert not torch.equal(batch[:3], batch[3:])
    alone = train.at(0, 2)[rows[1:2]]["image"]
    close(alone, batch[[1, 4]], 1e-6)
    assert not torch.allclose(train.at(0, 3)[rows]["image"], batch)


def test_without_kornia(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "kornia"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "kornia.enhance", None)
    with pytest.raises(LpcError, match=r"need the library `kornia`") as caught:
        chain((Term("solarize"),), (3, 8, 8))
    (told,) = caught.value.diagnostics
    assert (told.code, told.help, told.place) == ("0609", "install it: pip install 'lpc[vision]'", "data.transforms")


def test_words_and_functions_are_the_same() -> None:
    assert set(TRANSFORMS) == set(WORDS)
