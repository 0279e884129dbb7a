"""Which shapes do heads take, and what do they compute? Flat, map and token features, against a hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lpc.compiler.heads import HEADS
from lpc.compiler.setting import Setting
from lpc.specs.signatures import HEADS as SIGNATURES
from lpc.specs.term import Term

FEATURES: dict[str, tuple[int, ...]] = {"flat": (12,), "map": (6, 8, 8), "small_map": (6, 1, 1), "tokens": (5, 8)}


def make(name: str, feature: Any, target: Any = (), **arguments: Any) -> nn.Module:
    """A head for seven classes."""
    setting = Setting(feature, target, (7,), lambda target, output: 7)
    module = HEADS[name](setting, SIGNATURES[name].bind(Term(name, (), arguments)))
    assert module is not None
    return module.double()


def sample(feature: tuple[int, ...], batch: int = 3) -> Tensor:
    return torch.randn(batch, *feature, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


CASES = [
    (name, arguments, feature)
    for name, arguments in [
        ("linear", {}),
        ("linear", {"bias": False}),
        ("linear", {"pool": "mean"}),
        ("mlp", {}),
        ("mlp", {"layers": 1, "width": 5}),
        ("mlp", {"layers": 0}),
        ("cnn", {"layers": 1}),
        ("cnn", {"channels": 4}),
    ]
    for feature in FEATURES
    if (name, feature) != ("cnn", "tokens")
]


@pytest.mark.parametrize(("name", "arguments", "feature"), CASES)
def test_a_head_gives_scores_for_any_batch(name: str, arguments: dict[str, Any], feature: str) -> None:
    head = make(name, FEATURES[feature], **arguments)
    for batch in (2, 5):
        assert head(sample(FEATURES[feature], batch)).shape == (batch, 7)
    assert all(p.requires_grad for p in head.parameters())


def test_identity_has_no_module() -> None:
    assert HEADS["identity"](Setting((7,)), {}) is None


def test_linear_flattens() -> None:
    head, x = make("linear", FEATURES["map"]), sample(FEATURES["map"])
    assert torch.equal(head(x), F.linear(x.flatten(1), head.weight, head.bias))
    assert make("linear", FEATURES["map"], bias=False).bias is None


@pytest.mark.parametrize(("feature", "dims"), [("map", (2, 3)), ("tokens", (1,))])
def test_linear_pools_over_positions(feature: str, dims: tuple[int, ...]) -> None:
    head, x = make("linear", FEATURES[feature], pool="mean"), sample(FEATURES[feature])
    torch.testing.assert_close(head(x), F.linear(x.mean(dims), head.weight, head.bias), rtol=1e-14, atol=1e-15)


def test_linear_works_at_every_position_where_every_position_has_a_label() -> None:
    head, x = make("linear", (5, 8), (5,)), sample((5, 8))
    assert head.weight.shape == (7, 8)
    assert head(x).shape == (3, 5, 7)
    assert torch.equal(head(x)[:, 2], F.linear(x[:, 2], head.weight, head.bias))


def test_a_free_length_needs_pooling_or_positions() -> None:
    assert make("linear", ("T", 8), ("T",))(sample((4, 8))).shape == (3, 4, 7)
    assert make("linear", ("T", 8), (), pool="mean")(sample((9, 8))).shape == (3, 7)
    for name in ("linear", "mlp", "cnn"):
        with pytest.raises(ValueError, match="fixed shape"):
            make(name, ("T", 8))


def test_mlp_is_as_wide_as_what_it_reads() -> None:
    widths = [m.out_features for m in make("mlp", (12,), layers=2).modules() if isinstance(m, nn.Linear)]
    assert widths == [12, 12, 7]
    widths = [m.out_features for m in make("mlp", (6, 8, 8), layers=1).modules() if isinstance(m, nn.Linear)]
    assert widths == [24, 7]
    norms = [m for m in make("mlp", (12,), layers=3).modules() if isinstance(m, nn.BatchNorm1d)]
    assert len(norms) == 3


def test_cnn_keeps_the_size_until_it_pools() -> None:
    head, sizes = make("cnn", (6, 8, 8), layers=2, channels=4), []
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda m, i, out: sizes.append(tuple(out.shape[1:])))
    head(sample((6, 8, 8)))
    assert sizes == [(4, 8, 8), (4, 8, 8)]
    assert head[-1].in_features == 16
