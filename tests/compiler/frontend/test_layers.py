"""Does every layer of the language compute what the same torch code computes?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lpc.compiler.frontend.layers import BUILDERS
from lpc.compiler.frontend.network import build_network
from lpc.compiler.frontend.trace import trace
from lpc.specs.signatures import LAYERS

P = dict[str, Tensor]
Case = tuple[str, tuple[Any, ...], dict[str, Any], list[int], Callable[[Tensor, P], Tensor]]


def attention(x: Tensor, p: P, causal: bool = False) -> Tensor:
    """Written out: softmax(q k' / sqrt(d)) v, head by head."""
    q, k, v = F.linear(x, p["qkv.weight"], p["qkv.bias"]).chunk(3, -1)
    heads = []
    for h in range(2):
        part = slice(4 * h, 4 * h + 4)
        scores = q[..., part] @ k[..., part].transpose(1, 2) / 2.0
        if causal:
            scores = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), float("-inf"))
        heads.append(scores.softmax(-1) @ v[..., part])
    return F.linear(torch.cat(heads, -1), p["out.weight"], p["out.bias"])


def by_group(x: Tensor, weight: Tensor) -> Tensor:
    """Group by group on the last axis but one."""
    return torch.stack([x[..., g, :] @ w.T for g, w in enumerate(weight)], -2)


def cut(x: Tensor, height: int, width: int) -> Tensor:
    """Patch by patch, the channels of a pixel side by side."""
    corners = [(i, j) for i in range(0, x.shape[2], height) for j in range(0, x.shape[3], width)]
    return torch.stack([x[:, :, i : i + height, j : j + width].movedim(1, 3).flatten(1) for i, j in corners], 1)


IMAGE, ROW, TOKENS = [4, 6, 6], [8], [5, 8]
CASES: list[Case] = [
    ("linear", (3,), {}, TOKENS, lambda x, p: F.linear(x, p["weight"], p["bias"])),
    ("linear", (3,), {"bias": False}, ROW, lambda x, p: x @ p["weight"].T),
    ("masked_linear", (4, 2), {}, TOKENS, lambda x, p: x @ p["weight"].mT + p["bias"]),
    ("grouped_linear", (3,), {}, TOKENS, lambda x, p: by_group(x, p["weight"]) + p["bias"]),
    ("grouped_linear", (8,), {"bias": False}, [2, 5, 8], lambda x, p: by_group(x, p["weight"])),
    (
        "conv",
        (6, 3),
        {"padding": "same", "groups": 2},
        IMAGE,
        lambda x, p: F.conv2d(x, p["weight"], p["bias"], 1, 1, 1, 2),
    ),
    (
        "conv",
        (6, [1, 3]),
        {"stride": [2, 1], "bias": False},
        IMAGE,
        lambda x, p: F.conv2d(x, p["weight"], None, (2, 1)),
    ),
    ("conv", (6, 3), {"dilation": 2}, [4, 9], lambda x, p: F.conv1d(x, p["weight"], p["bias"], dilation=2)),
    ("conv", (2, 2), {}, [1, 3, 3, 3], lambda x, p: F.conv3d(x, p["weight"], p["bias"])),
    (
        "conv_transpose",
        (6, 3),
        {"stride": 2, "output_padding": 1},
        IMAGE,
        lambda x, p: F.conv_transpose2d(x, p["weight"], p["bias"], 2, 0, 1),
    ),
    ("attention", (2,), {}, TOKENS, attention),
    ("attention", (2,), {"causal": True}, TOKENS, lambda x, p: attention(x, p, causal=True)),
    ("max_pool", (2,), {}, IMAGE, lambda x, p: F.max_pool2d(x, 2)),
    ("max_pool", (3,), {"stride": 2, "padding": 1}, IMAGE, lambda x, p: F.max_pool2d(x, 3, 2, 1)),
    ("avg_pool", (4,), {"ceil": True}, [4, 6], lambda x, p: F.avg_pool1d(x, 4, ceil_mode=True)),
    ("adaptive_avg_pool", ([2, 3],), {}, IMAGE, lambda x, p: F.adaptive_avg_pool2d(x, (2, 3))),
    ("global_avg_pool", (), {}, IMAGE, lambda x, p: x.mean((2, 3))),
    ("upsample", (2,), {}, IMAGE, lambda x, p: F.interpolate(x, scale_factor=2)),
    ("upsample", (2,), {"mode": "linear"}, IMAGE, lambda x, p: F.interpolate(x, scale_factor=2, mode="bilinear")),
    (
        "batch_norm",
        (),
        {"eps": 1e-3},
        IMAGE,
        lambda x, p: F.batch_norm(x, None, None, p["weight"], p["bias"], True, eps=1e-3),
    ),
    ("batch_norm", (), {"affine": False}, ROW, lambda x, p: F.batch_norm(x, None, None, training=True)),
    ("layer_norm", (2,), {}, TOKENS, lambda x, p: F.layer_norm(x, (5, 8), p["weight"], p["bias"])),
    ("group_norm", (2,), {}, IMAGE, lambda x, p: F.group_norm(x, 2, p["weight"], p["bias"])),
    ("instance_norm", (), {}, IMAGE, lambda x, p: F.instance_norm(x)),
    ("rms_norm", (1e-6,), {}, ROW, lambda x, p: x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * p["weight"]),
    (
        "rms_norm",
        (1e-2,),
        {"outside": True},
        ROW,
        lambda x, p: x / (x.square().mean(-1, keepdim=True).sqrt() + 1e-2) * p["weight"],
    ),
    (
        "rms_norm",
        (1e-2,),
        {"outside": True, "affine": False},
        TOKENS,
        lambda x, p: x / (x.square().mean(-1, keepdim=True).sqrt() + 1e-2),
    ),
    ("relu", (), {}, ROW, lambda x, p: x.clamp(min=0)),
    ("relu", (), {"backward": "identity"}, ROW, lambda x, p: x.clamp(min=0)),
    ("sign", (), {}, ROW, lambda x, p: torch.where(x > 0, torch.ones_like(x), -torch.ones_like(x))),
    ("sign", ("clip",), {}, ROW, lambda x, p: torch.where(x > 0, torch.ones_like(x), -torch.ones_like(x))),
    ("leaky_relu", (0.2,), {}, ROW, lambda x, p: torch.where(x > 0, x, 0.2 * x)),
    ("gelu", (), {}, ROW, lambda x, p: 0.5 * x * (1 + torch.erf(x / 2**0.5))),
    ("gelu", ("tanh",), {}, ROW, lambda x, p: F.gelu(x, approximate="tanh")),
    ("silu", (), {}, ROW, lambda x, p: x * x.sigmoid()),
    ("tanh", (), {}, ROW, lambda x, p: x.tanh()),
    ("sigmoid", (), {}, ROW, lambda x, p: 1 / (1 + (-x).exp())),
    ("elu", (0.5,), {}, ROW, lambda x, p: torch.where(x > 0, x, 0.5 * x.expm1())),
    ("softplus", (2.0,), {}, ROW, lambda x, p: (2 * x).exp().log1p() / 2),
    ("hardtanh", (-0.5, 0.25), {}, ROW, lambda x, p: x.clamp(-0.5, 0.25)),
    ("softmax", (1,), {}, TOKENS, lambda x, p: x.exp() / x.exp().sum(1, keepdim=True)),
    ("log_softmax", (), {}, ROW, lambda x, p: x - x.logsumexp(1, keepdim=True)),
    ("identity", (), {}, ROW, lambda x, p: x),
    ("dropout", (0.25,), {}, ROW, lambda x, p: F.dropout(x, 0.25)),
    ("flatten", (), {}, IMAGE, lambda x, p: x.reshape(3, -1)),
    ("flatten", (2,), {}, IMAGE, lambda x, p: x.reshape(3, 4, -1)),
    ("patches", (3,), {}, IMAGE, lambda x, p: cut(x, 3, 3)),
    ("patches", ([2, 3],), {}, [3, 8, 6], lambda x, p: cut(x, 2, 3)),
    ("reshape", ([2, -1],), {}, IMAGE, lambda x, p: x.reshape(3, 2, -1)),
    ("transpose", (), {}, TOKENS, lambda x, p: x.mT),
    ("permute", ([0, 2, 3, 1],), {}, IMAGE, lambda x, p: x.movedim(1, 3)),
    ("mean", ([1, -1],), {"keep": True}, IMAGE, lambda x, p: x.mean((1, 3), keepdim=True)),
    ("select", (1, -1), {}, TOKENS, lambda x, p: x[:, -1]),
    ("add", (), {"from_": ["x", "x"]}, ROW, lambda x, p: x + x),
    ("multiply", (), {"from_": ["x", "x", "x"]}, ROW, lambda x, p: x**3),
    ("concat", (2,), {"from_": ["x", "x"]}, TOKENS, lambda x, p: torch.cat([x, x], 2)),
]


def test_every_layer_of_the_language_has_one_builder() -> None:
    assert list(BUILDERS)
    assert set(BUILDERS) == set(LAYERS)


def test_every_layer_is_tested() -> None:
    assert {case[0] for case in CASES} | {"embedding"} == set(LAYERS)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}{case[2] or ''}")
def test_layer_equals_torch(tools: Any, case: Case) -> None:
    op, args, kwargs, shape, expected = case
    spec = tools.spec_of({"layers": (tools.layer(op, *args, name="it", **kwargs),), "shapes": {"x": shape}})
    built = build_network(spec)
    for name, parameter in built.module.named_parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(len(name)))
    x = torch.randn(3, *shape, dtype=torch.float64)
    parameters = {name.removeprefix("it."): p for name, p in built.module.named_parameters()}
    torch.manual_seed(1)
    found = trace(built, spec).train(x)
    torch.manual_seed(1)
    torch.testing.assert_close(found, expected(x, parameters), rtol=1e-12, atol=1e-12)


def test_embedding(tools: Any) -> None:
    spec = tools.spec_of({"layers": (tools.layer("embedding", 9, 4),), "shapes": {"ids": ["T"]}})
    built = build_network(spec)
    ids = torch.tensor([[1, 8], [0, 3]])
    assert torch.equal(trace(built, spec).eval(ids), built.module.embedding1.weight[ids])


def test_attention_drops_weights_in_training_only(tools: Any) -> None:
    spec = tools.spec_of({"layers": (tools.layer("attention", 2, dropout=0.5),), "shapes": {"x": [5, 8]}})
    built = build_network(spec)
    traced, x = trace(built, spec), torch.randn(2, 5, 8, dtype=torch.float64)
    assert torch.equal(traced.eval(x), traced.eval(x))
    assert not torch.equal(traced.train(x), traced.train(x))


def test_a_straight_through_relu_is_exact_and_passes_every_gradient() -> None:
    relu = BUILDERS["relu"]([torch.zeros(1)], {"backward": "identity"})
    x = torch.cat([torch.randn(1000), 10.0 ** torch.arange(-44, 38), -(10.0 ** torch.arange(-44, 38)), torch.zeros(1)])
    x = torch.cat([x, torch.tensor([torch.inf, torch.nan])]).requires_grad_()
    assert torch.equal(relu(x)[:-1], torch.relu(x)[:-1])
    assert relu(x)[-1].isnan()
    assert torch.equal(torch.autograd.grad(relu(x), x, 2.0 * torch.ones_like(x))[0][:-1], torch.full_like(x, 2.0)[:-1])
