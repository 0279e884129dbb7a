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




def needs_a_map(name: str, arguments: dict[str, Any]) -> bool:
    return name in ("cnn", "mlp_sr", "convs_fcs") or bool(arguments.get("convs"))


CASES = [
    (name, arguments, feature)
    for name, arguments in [
        ("linear", {}),
        ("linear", {"bias": False}),
        ("linear", {"pool": "mean"}),
        ("linear", {"norm": "last"}),
        ("mlp", {}),
        ("mlp", {"layers": 1, "width": 5}),
        ("mlp", {"layers": 0}),
        ("cnn", {"layers": 1}),
        ("cnn", {"channels": 4}),
        ("gap_linear", {}),
        ("pool_linear", {"dim": 20}),
        ("mlp_sr", {"convs": 1}),
        ("convs_fcs", {}),
        ("convs_fcs", {"convs": 2, "fcs": 3, "widen": 1.5, "limit": 6}),
        ("convs_fcs", {"convs": 0, "fcs": 1, "features": 7}),
        ("simclr_mlp", {"out": 7}),
        ("simclr_mlp", {"out": 7, "hidden": 3, "convs": 2}),
        ("token", {}),
        ("token", {"pool": "mean"}),
    ]
    for feature in FEATURES
    if (feature == "tokens" if name == "token" else feature != "tokens" or not needs_a_map(name, arguments))
]
MISFITS = [
    ("cnn", "tokens", {}, "a map"), ("mlp_sr", "tokens", {}, "a map"), ("convs_fcs", "tokens", {}, "a map"),
    ("simclr_mlp", "tokens", {"convs": 1}, "a map"), ("conv3x3_map", "flat", {}, "a map"),
    ("nce_maps", "flat", {}, "a map"), ("linear", "flat", {"pool": "patches"}, "reads .patches"),
    ("token", "map", {}, "tokens"), ("class_channels", "map", {}, "6 channels"), ("decoder", "map", {}, "an image"),
]  # fmt: skip


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


@pytest.mark.parametrize("feature", [(5, 8), (5, 2, 4)])
def test_linear_pools_over_patches(feature: Any) -> None:
    """Normalised in each group, then averaged over patches, then groups side by side."""
    head, x = make("linear", feature, pool="patches", norm="last", out=3), sample(feature)
    centred = x - x.mean(-1, keepdim=True)
    normed = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    wanted = sum(normed[:, p].flatten(1) for p in range(5)) / 5 @ head.weight.T + head.bias
    assert wanted.shape == (3, 3)
    torch.testing.assert_close(head(x), wanted, rtol=1e-12, atol=1e-13)


def test_a_linear_head_with_outputs_of_its_own_serves_any_loss() -> None:
    head = HEADS["linear"](Setting((12,)), SIGNATURES["linear"].bind(Term("linear", (), {"out": 5})))
    assert head is not None
    assert head(torch.zeros(2, 12)).shape == (2, 5)


def test_linear_works_at_every_position_where_every_position_has_a_label() -> None:
    head, x = make("linear", (5, 8), (5,)), sample((5, 8))
    assert head.weight.shape == (7, 8)
    assert head(x).shape == (3, 5, 7)
    torch.testing.assert_close(head(x)[:, 2], F.linear(x[:, 2], head.weight, head.bias), rtol=1e-12, atol=1e-14)


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


@pytest.mark.parametrize(("name", "feature", "arguments", "says"), MISFITS)
def test_a_head_refuses_what_it_cannot_read(name: str, feature: str, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make(name, FEATURES[feature], **arguments)


def test_a_head_of_class_scores_needs_a_loss_that_reads_them() -> None:
    with pytest.raises(ValueError, match="does not read"):
        HEADS["linear"](Setting((3,)), SIGNATURES["linear"].bind(Term("linear")))


def test_every_head_of_the_language_has_one_builder() -> None:
    assert set(HEADS) == set(SIGNATURES)


@pytest.mark.parametrize(
    ("feature", "dim", "kernel", "left"),
    [
        ((5, 8, 8), 64, (4, 2), 40),
        ((5, 8, 8), 320, None, 320),
        ((4, 6, 4), 20, (4, 2), 16),
        ((2, 7, 7), 40, (2, 2), 32),
        ((2, 1, 4), 2, (1, 4), 2),
        ((3, 2, 2), 1, (2, 2), 3),
    ],
)
def test_pooling_doubles_height_and_width_in_turn(feature: Any, dim: int, kernel: Any, left: int) -> None:
    head = make("pool_linear", feature, dim=dim)
    pools = [m for m in head.modules() if isinstance(m, nn.AvgPool2d)]
    assert [m.kernel_size for m in pools] == ([kernel] if kernel else [])
    assert head[-1].in_features == left
    assert head(sample(feature)).shape == (3, 7)
    assert not head[-1].weight.any()


@pytest.mark.parametrize("feature", ["flat", "map", "tokens"])
def test_square_maps_keep_the_shape(feature: str) -> None:
    head, x = make("square_map", FEATURES[feature]), sample(FEATURES[feature])
    (weight,) = head.parameters()
    wanted = F.conv2d(x, weight, padding=1) if feature == "map" else x @ weight.T
    torch.testing.assert_close(head(x), wanted, rtol=1e-13, atol=1e-14)
    flat = make("linear_map", FEATURES["map"])
    assert flat(sample(FEATURES["map"])).shape == (3, 6 * 8 * 8)


@pytest.mark.parametrize("feature", [(12,), (12, 2, 3), (5, 12)])
def test_class_channels_are_mean_squares_of_groups(feature: Any) -> None:
    head, x = make("class_channels", feature, classes=4), sample(feature)
    channels = x.movedim(-1, 1) if len(feature) == 2 else x
    wanted = torch.stack([channels[:, 3 * c : 3 * c + 3].flatten(1).square().mean(1) for c in range(4)], 1)
    torch.testing.assert_close(head(x), wanted, rtol=1e-13, atol=1e-14)


def test_maps_of_steps_stand_beside_their_context() -> None:
    for feature in ((6, 3, 4), (5, 6)):
        head, x = make("nce_maps", feature, k=2), sample(feature)
        grid = x if len(feature) == 3 else x.movedim(2, 1)[..., None]
        found = head(x)
        assert found.shape == (3, 3, *grid.shape[1:])
        assert torch.equal(found[:, 0], grid)
        wanted = torch.einsum("oi,birc->borc", head.weight[1], grid)
        torch.testing.assert_close(found[:, 2], wanted, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("feature", [(6, 4, 4), (6,)])
def test_a_decoder_gives_an_image(feature: Any, mode: str) -> None:
    head = make("decoder", feature, (3, 8, 10), mode=mode)
    assert head(sample(feature)).shape == (3, 3, 8, 10)


def test_mlp_sr_and_mlp_never_pool_to_more_than_there_is() -> None:
    for name in ("mlp", "mlp_sr"):
        widths = [m.in_features for m in make(name, (6, 4, 9)).modules() if isinstance(m, nn.Linear)]
        assert widths == [6 * 1 * 2] * 4


def test_convolutions_halve_the_map_where_they_double_the_channels() -> None:
    grown = [m for m in make("convs_fcs", (6, 8, 8), convs=2, limit=7).modules() if isinstance(m, nn.Conv2d)]
    kept = [m for m in make("convs_fcs", (6, 8, 8), convs=2, limit=6).modules() if isinstance(m, nn.Conv2d)]
    assert [(m.out_channels, m.stride[0]) for m in grown] == [(12, 2), (12, 1)]
    assert [(m.out_channels, m.stride[0]) for m in kept] == [(6, 1), (6, 1)]


@pytest.mark.parametrize(
    ("feature", "target", "sizes"),
    [
        ((6, 4, 4), (3, 16, 16), [(3, 8, 8), (3, 16, 16)]),
        ((16, 2, 3), (2, 7, 9), [(8, 4, 5), (2, 7, 9)]),
        ((6, 5, 5), (4, 5, 5), [(4, 5, 5)]),
    ],
)
def test_transposed_convolutions_double_the_map(feature: Any, target: Any, sizes: Any) -> None:
    head, found = make("transposed_decoder", feature, target), []
    for module in head.modules():
        if isinstance(module, nn.ConvTranspose2d):
            module.register_forward_hook(lambda m, i, out: found.append(tuple(out.shape[1:])))
    assert head(sample(feature)).shape == (3, *target)
    assert found == sizes


def test_a_transposed_convolution_is_the_transpose_of_a_convolution() -> None:
    """<T y, x> = <y, C x> for the convolution C of the same kernel, stride and padding: for any x and y."""
    head, y, x = make("transposed_decoder", (6, 4, 4), (2, 8, 8)), sample((6, 4, 4)), sample((2, 8, 8))
    (layer,) = (m for m in head.modules() if isinstance(m, nn.ConvTranspose2d))
    assert layer.bias is not None
    mapped = head(y) - layer.bias[:, None, None]
    wanted = (F.conv2d(x, layer.weight, stride=2, padding=1) * y).sum()
    torch.testing.assert_close((mapped * x).sum(), wanted, rtol=1e-12, atol=0)


def test_without_positions_what_was_read_is_a_linear_map() -> None:
    for feature, target in (((12,), (2, 3, 3)), ((4, 2, 2), (7,)), ((12,), (5,))):
        head, x = make("transposed_decoder", feature, target), sample(feature)
        weight, bias = head.parameters()
        wanted = F.linear(x.flatten(1), weight, bias).reshape(3, *target)
        torch.testing.assert_close(head(x), wanted, rtol=1e-14, atol=1e-15)
    with pytest.raises(ValueError, match="3 x 3 does not become 8 x 8"):
        make("transposed_decoder", (4, 3, 3), (1, 8, 8))
    with pytest.raises(ValueError, match="odd"):
        make("transposed_decoder", (4, 4, 4), (1, 8, 8), kernel=4)
