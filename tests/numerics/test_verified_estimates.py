"""Does `verify` know estimates from errors? Forward gradients, feedback alignment and projected errors, all eager."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import lpc
from lpc.specs.plan.kernel import Kernel, Node

Layers = Sequence[Mapping[str, Any]]
Entry = Mapping[str, Any]

MLP: Layers = [
    {"w1": "linear(5)"}, {"n1": "layer_norm"}, {"a1": "relu"}, {"w2": "linear(4)"}, {"a2": "relu"},
    {"w3": "linear(4)"}, {"a3": "tanh"}, {"out": "linear(3)"},
]  # fmt: skip
NORMED: Layers = [
    {"w1": "linear(5)"}, {"n1": "batch_norm"}, {"a1": "relu"}, {"w2": "linear(4)"}, {"n2": "batch_norm"},
    {"a2": "relu"}, {"d": "dropout(0.4)"}, {"out": "linear(3)"},
]  # fmt: skip
MAPS: Layers = [
    {"c1": "conv(4, 3, padding=1)"}, {"n1": "group_norm(2)"}, {"a1": "relu"}, {"c2": "conv(6, 3, padding=1)"},
    {"a2": "relu"}, {"p": "avg_pool(2)"}, {"f": "flatten"}, {"out": "linear(3)"},
]  # fmt: skip
TOKENS: Layers = [
    {"w1": "linear(8)"}, {"r": {"residual": [{"n": "layer_norm"}, {"att": "attention(2, dropout=0.3)"}]}},
    {"w2": "linear(4)"}, {"m": "mean(1)"}, {"out": "linear(3)"},
]  # fmt: skip
GRADIENT, STOP = {"*": "gradient"}, {"*": "stop"}
EXACT_READOUT: Entry = {"blocks": "out", "estimator": "backprop"}


def spec(layers: Layers, links: Mapping[str, str], *learn: Entry, units: Any = None, blocks: Any = None) -> Any:
    """A network of these layers, each with a loss and its block, unless `learn` and `blocks` say otherwise."""
    shape = {"c1": [2, 4, 4], "w1": [3, 4] if layers is TOKENS else [4]}[next(iter(layers[0]))]
    return {
        "network": {"inputs": {"x": shape}, "layers": layers},
        "data": None,
        "fields": {"label": {"shape": [], "dtype": "int64"}},
        "loss": "cross_entropy",
        "decompose": {"blocks": blocks or "per_layer", "links": links, **({"units": units} if units else {})},
        "learn": [{"blocks": "*", "head": "linear", "loss": "cross_entropy", "optimizer": "sgd(lr=0.1)"}, *learn],
        "run": {"dtype": "float64", "target": "cpu"},
    }


def forward(blocks: Any = "*", **options: Any) -> Entry:
    return {"blocks": blocks, "estimator": {"forward": options}}


def aligned(kind: str, blocks: Any = "*") -> Entry:
    return {"blocks": blocks, "estimator": f"feedback_alignment(kind={kind})"}


def silent(*blocks: str) -> Entry:
    return {"blocks": list(blocks), "loss": "none"}


def maps(links: Mapping[str, str], patches: str, **options: Any) -> Any:
    """A loss for each group of channels of a map, at each pixel with `patches: auto`."""
    replicated = {"blocks": ["c1", "c2"], "aggregate": "replicated"}
    return spec(MAPS, links, replicated, forward(["c1", "c2"], **options), units={"patches": patches, "groups": 2})


CASES: dict[str, Any] = {
    "own losses": spec(MLP, STOP, forward()),
    "losses ahead": spec(MLP, GRADIENT, forward(passes=2, law="rademacher"), EXACT_READOUT),
    "no losses but the output's": spec(MLP, GRADIENT, forward(), silent("w1", "w2", "w3"), EXACT_READOUT),
    "weights before activities before exact blocks": spec(
        MLP, GRADIENT, forward("w1", perturb="weight"), forward("w2"), silent("w1", "w3")
    ),
    "a limited reach behind": spec(MLP, {"*": "gradient(reach=1)"}, forward("w1")),
    "norms ignored": spec(MLP, STOP, forward(site="after_norm", norm_gradient="ignored")),
    "shared noise": spec(MLP, GRADIENT, forward(site="after_norm", noise="shared"), EXACT_READOUT),
    "batch norm and dropout": spec(NORMED, GRADIENT, forward(site="after_norm", passes=2), EXACT_READOUT),
    "batch norm, weights": spec(NORMED, STOP, forward(perturb="weight")),
    "patches and groups": maps(STOP, "auto"),
    "patches and groups reached": maps(GRADIENT, "auto", site="after_norm", credit="reach"),
    "groups of weights": maps(STOP, "auto", perturb="weight"),
    "groups": maps(GRADIENT, "none", passes=2),
    "attention with dropout": spec(TOKENS, GRADIENT, forward(["w1", "w2"], passes=2), EXACT_READOUT,
                                   blocks={"w1": ["w1", "r"], "w2": ["w2"], "out": ["out"]}),
    "aligned at random": spec(MLP, GRADIENT, aligned("random")),
    "aligned tokens": spec(TOKENS, GRADIENT, aligned("usf")),
    "aligned signs": spec(NORMED, GRADIENT, aligned("frsf", ["w1"]), aligned("brsf", ["w2"])),
    "projected errors": spec(MLP, {"*": "feedback"}, silent("w1", "w2", "w3")),
    "projected errors, and losses": spec(MAPS, {"*": "feedback(over=channels)"}),
    "projected errors, perturbed": spec(MLP, {"*": "feedback"}, forward(["w1", "w2"]), silent("w1", "w2", "w3")),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_estimates_are_verified(case: str, built: Any) -> None:
    plan = built(CASES[case])
    report = lpc.verify(plan)
    assert report.ok, report
    assert set(report.gradients) == {n for n, e in plan.data.program.state.items() if e.kind == "parameter"}


@pytest.mark.parametrize("entry", [forward("first"), aligned("random", "first")])
def test_a_module_that_hides_its_operators(entry: Entry) -> None:
    """torch's own encoder layer is one node: its fused attention and its linear maps are inside."""
    networks = Path(__file__).with_name("sample_networks.py")
    blocks = {"first": ["embed", "layer"], "out": ["out"]}
    said = {**spec(MLP, GRADIENT, silent("first"), entry, blocks=blocks),
            "network": {"module": "sample_networks:Encoder", "inputs": {"x": [6, 4]}}}  # fmt: skip
    report = lpc.verify(lpc.build(said, allow=[str(networks)]), allow=[str(networks)])
    assert report.ok, report
    assert "layer.self_attn.in_proj_weight" in report.gradients


def test_each_estimate_is_another_than_the_gradient() -> None:
    """The reference of the wrong method is far off: what agrees above agrees for a reason."""
    gradients: dict[str, Any] = {}
    layers = MLP[:3] + MLP[7:]
    exact = lpc.build(spec(layers, GRADIENT)).data.spec
    for case, entry in {"ahead": forward("w1"), "aligned": aligned("random")}.items():
        report = lpc.verify(lpc.Plan(replace(lpc.build(spec(layers, GRADIENT, entry)).data, spec=exact)))
        assert not report.ok
        gradients[case] = report.gradients
    assert gradients["ahead"]["w1.weight"] > 0.1
    assert gradients["aligned"]["w1.weight"] > 0.1
    assert gradients["aligned"]["out.weight"] < 1e-12


# What a broken kernel does


@pytest.fixture(scope="module")
def plans() -> dict[str, lpc.Plan]:
    layers = [{"w1": "linear(5)"}, {"a1": "relu"}, {"out": "linear(3)"}]
    return {
        "forward": lpc.build(spec(layers, STOP, forward("w1"))),
        "aligned": lpc.build(spec(layers, STOP, aligned("random"))),
    }


def argument(kernel: Kernel, name: str) -> Any:
    """The reference to a kernel's argument by its name outside."""
    return {"ref": next(p.value for bundle in kernel.arguments for p in bundle.ports if p.source == name)}


def last(kernel: Kernel, op: str, read: Any) -> int:
    return max(i for i, node in enumerate(kernel.nodes) if node.op == op and read in node.args)


def added_noise(kernel: Kernel) -> tuple[int, Node]:
    """Credit and noise are added."""
    index = last(kernel, "aten.mul.Tensor", argument(kernel, "w1"))
    node = kernel.nodes[index]
    return index, replace(node, op="aten.add.Tensor")


def other_sign(kernel: Kernel) -> tuple[int, Node]:
    index = last(kernel, "aten.mul.Tensor", argument(kernel, "w1"))
    return index + 1, replace(kernel.nodes[index + 1], op="aten.neg.default", args=({"ref": kernel.nodes[index].name},))


def through_the_rectifier(kernel: Kernel) -> tuple[int, Node]:
    """Noise that the rectifier stops is still given credit."""
    index = last(kernel, "aten.mul.Tensor", argument(kernel, "w1"))
    node = kernel.nodes[index]
    return index + 1, replace(kernel.nodes[index + 1], args=({"ref": node.name}, argument(kernel, "loss")))


def exact_way_back(kernel: Kernel) -> tuple[int, Node]:
    """A head's own weights take the place of its backward weights."""
    index = last(kernel, "aten.mm.default", argument(kernel, "feedback.heads.w1.weight"))
    node = kernel.nodes[index]
    return index, replace(node, args=(node.args[0], argument(kernel, "heads.w1.weight")))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("forward", added_noise),
        ("forward", other_sign),
        ("forward", through_the_rectifier),
        ("aligned", exact_way_back),
    ],
)
def test_a_changed_kernel_is_found(plans: dict[str, lpc.Plan], name: str, change: Any) -> None:
    plan = plans[name]
    assert lpc.verify(plan).ok
    kernel = plan.data.kernels["native"]["w1.local"]
    index, node = change(kernel)
    broken = replace(kernel, nodes=(*kernel.nodes[:index], node, *kernel.nodes[index + 1 :]))
    native = {**plan.data.kernels["native"], "w1.local": broken}
    report = lpc.verify(lpc.Plan(replace(plan.data, kernels={"native": native})))
    assert not report.ok
    assert {n for n, error in report.gradients.items() if error > 1e-3} == {"w1.weight", "w1.bias"}


def test_the_report_tells_what_is_biased(plans: dict[str, lpc.Plan], built: Any) -> None:
    assert lpc.verify(plans["forward"]).estimators["w1"].startswith("unbiased; ")
    assert "out" not in lpc.verify(plans["forward"]).estimators
    within = lpc.verify(built(spec(NORMED, STOP, forward("w1")))).estimators
    assert "biased because `n1` couples the samples" in within["w1"]
    ahead = lpc.verify(built(CASES["batch norm and dropout"])).estimators
    assert "biased because `n2` couples the samples" in ahead["w1"]
    assert ahead["w2"].startswith("unbiased; ")
