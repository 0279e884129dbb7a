"""Are a plan's floating-point operations those that torch counts while its step runs?"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import lpc
from lpc.specs.flops import kernel_flops
from lpc.specs.plan.kernel import Bundle, Kernel, Node, Port, TensorType

CONVOLUTIONS: list[Any] = [{"c1": "conv(6, 3, stride=2)"}, "relu", {"c2": "conv(4, 3, padding=0)"}, "flatten"]
GREEDY = [{"blocks": "*", "head": "linear", "loss": "cross_entropy", "optimizer": "sgd(lr=0.1)"}]
SHARED = {"loss": "cross_entropy", "fields": {"label": {"shape": [], "dtype": "int64"}}, "learn": GREEDY}


def spec(layers: list[Any], links: str = "stop", **more: Any) -> dict[str, Any]:
    network = {"inputs": {"x": [3, 9, 9]}, "layers": [*layers, {"out": "linear(10)"}]}
    return {"network": network, **SHARED, "decompose": {"blocks": "per_layer", "links": links}, **more}


CASES: dict[str, dict[str, Any]] = {
    "products": spec(["flatten", {"fc1": "linear(16)"}, "tanh", {"fc2": "linear(12)"}]),
    "convolutions": spec(CONVOLUTIONS),
    "backprop": spec(CONVOLUTIONS, "gradient"),
    "accumulated": spec(CONVOLUTIONS, run={"accumulate": 3}),
    "offset": spec(CONVOLUTIONS, learn=[{**GREEDY[0], "correct": "bp_offset(period=1, batch=0.5, alpha=0.5)"}]),
    "forward_gradient": spec(
        ["flatten", {"fc1": "linear(16)"}, "tanh"], learn=[{**GREEDY[0], "estimator": "forward(perturb=activity)"}]
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_step_costs_what_torch_counts(name: str, built: Any) -> None:
    plan = built(CASES[name])
    batch = {"x": torch.randn(4, 3, 9, 9), "label": torch.zeros(4, dtype=torch.int64)}
    trainer = lpc.Trainer(plan, device="cpu")
    with FlopCounterMode(display=False) as counter:
        trainer.step([batch] * trainer.per_step)
    found = plan.cost(batch=4)
    assert found.flops == counter.get_total_flops() > 0
    assert sum(found.blocks.values()) == found.flops
    assert set(found.blocks) == set(plan.partition)


def test_what_runs_seldom_counts_less(built: Any) -> None:
    plans = {
        period: built(
            spec(CONVOLUTIONS, learn=[{**GREEDY[0], "correct": f"bp_offset(period={period}, alpha=0.5)"}])
        ).cost(batch=4)
        for period in (1, 10)
    }
    without = built(CASES["convolutions"]).cost(batch=4).flops
    assert plans[10].flops - without == pytest.approx((plans[1].flops - without) / 10, abs=1)  # rounded


def test_traffic_is_what_crosses(built: Any) -> None:
    plan = built(CASES["convolutions"])
    crossing = sum(t["bytes"] for _, _, edge in plan.partition.edges(data=True) for t in edge["tensors"])
    assert plan.cost(batch=4).traffic == 4 * crossing
    assert built(CASES["backprop"]).cost(batch=4).traffic == 8 * crossing


@pytest.mark.parametrize(("groups", "transposed"), [(1, False), (1, True), (2, False), (4, True)])
def test_convolutions_in_groups(groups: int, transposed: bool) -> None:
    """Forward as torch counts it; backward twice that, for torch forgets groups in a weight's gradient."""
    x, kind = torch.randn(2, 4, 7, 7), torch.nn.ConvTranspose2d if transposed else torch.nn.Conv2d
    layer = kind(4, 8, 3, groups=groups, bias=False)
    with FlopCounterMode(display=False) as counter:
        out = layer(x)
    tensors = {"grad": out, "x": x, "w": layer.weight}
    ports = tuple(Port(n, TensorType("float32", tuple(t.shape)), n) for n, t in tensors.items())
    plain = [{"ref": "x"}, {"ref": "w"}, None, [1, 1], [0, 0], [1, 1], transposed, [0, 0], groups]
    back = [{"ref": "grad"}, {"ref": "x"}, {"ref": "w"}, *plain[2:], [True, True, False]]
    nodes = (
        Node("f", "aten.convolution.default", tuple(plain), types=(ports[0].type,)),
        Node("b", "aten.convolution_backward.default", tuple(back), types=(ports[1].type, ports[2].type)),
    )
    found = kernel_flops(Kernel("k", "b", (Bundle("all", "input", ports),), nodes, ()), {})
    assert found == {"f": counter.get_total_flops(), "b": 2 * counter.get_total_flops()}


def test_attention_is_counted_as_torch_counts_its_fused_kinds() -> None:
    from torch.utils.flop_counter import sdpa_backward_flop_count, sdpa_flop_count

    query, other = (2, 3, 5, 8), (2, 3, 7, 8)
    shapes = {"grad": query, "q": query, "k": other, "v": other}
    ports = tuple(Port(n, TensorType("float32", s), n) for n, s in shapes.items())
    name = "aten._scaled_dot_product_flash_attention_for_cpu"
    refs = [{"ref": n} for n in ("q", "k", "v")]
    nodes = (
        Node("f", f"{name}.default", tuple(refs), types=(ports[0].type,)),
        Node("b", f"{name}_backward.default", ({"ref": "grad"}, *refs), types=(ports[0].type,)),
    )
    found = kernel_flops(Kernel("k", "b", (Bundle("all", "input", ports),), nodes, ()), {})
    wanted = sdpa_flop_count(query, other, other), sdpa_backward_flop_count(query, query, other, other)
    assert (found["f"], found["b"]) == wanted
