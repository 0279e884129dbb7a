"""Is a local step cut without loss? Forward and backward together equal the whole, and little is saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import lpc
from lpc.compiler.capture.cut import forward_and_backward, slice_kernel
from lpc.runtime.link import link
from lpc.specs.plan.kernel import Kernel, Port

ALL = ("output", "loss", "gradients", "cotangent")


def call(kernel: Kernel, values: Mapping[tuple[str, str], Tensor]) -> dict[tuple[str, str], Tensor]:
    """Run a kernel on values by (role, source), and name its results so."""
    arguments = [values[b.role, p.source] for b in kernel.arguments for p in b.ports]
    results = link(kernel, "cpu")([t.clone() for t in arguments])
    return dict(zip(keys(kernel.results), results, strict=True))


def keys(bundles: Sequence[Any]) -> list[tuple[str, str]]:
    return [(b.role, p.source) for b in bundles for p in b.ports]


def ports_of(kernel: Kernel, role: str) -> list[Port]:
    return [p for b in (*kernel.arguments, *kernel.results) if b.role == role for p in b.ports]


def given(tools: Any, batch: int) -> dict[tuple[str, str], Tensor]:
    slots = tools.local_graph().arguments
    return {(s.role, s.source): t for s, t in zip(slots, tools.values(1, batch), strict=True)}


@pytest.mark.parametrize("batch", [1, 5])
def test_both_parts_give_what_the_whole_gives(tools: Any, batch: int) -> None:
    local, values = tools.local_graph(), given(tools, batch)
    forward, backward = forward_and_backward(local, ["h"])
    first = call(forward, values)
    second = call(backward, {**values, **{k: t for k, t in first.items() if k[0] == "residuals"}})
    whole = call(slice_kernel(local, "local", ["h"], ALL), values)
    wanted = dict(zip(whole, tools.step(*tools.values(1, batch)), strict=True))
    for key, value in {**first, **second}.items():
        if key[0] != "residuals":
            assert torch.equal(value, whole[key])
            torch.testing.assert_close(value, wanted[key], rtol=1e-14, atol=1e-16)
    assert {k for k in (*first, *second) if k[0] != "residuals"} == set(whole)


def test_the_forward_part_knows_no_cotangent(tools: Any) -> None:
    forward, backward = forward_and_backward(tools.local_graph(), ["h"])
    assert {b.role for b in forward.arguments} == {"state", "input"}
    assert {b.role for b in forward.results} == {"output", "loss", "residuals"}
    assert {b.role for b in backward.arguments} == {"state", "seed", "cotangent", "residuals"}
    assert {b.role for b in backward.results} == {"gradients", "cotangent"}


def test_residuals_are_what_must_be_saved_and_no_more(tools: Any) -> None:
    """The input for the weight's gradient, the output for tanh's; neither the weight nor a length."""
    forward, backward = forward_and_backward(tools.local_graph(), ["h"])
    saved = ports_of(forward, "residuals")
    assert sorted(str(p.type) for p in saved) == ["float64[B, 3]", "float64[B, 4]"]
    state = {p.value for b in forward.arguments if b.role == "state" for p in b.ports}
    assert not state & {p.value for p in saved}
    assert [p.source for p in ports_of(backward, "state")] == ["w"]
    assert [p.source for p in saved] == [p.source for p in ports_of(backward, "residuals")]


def test_an_output_that_nobody_reads_is_left_out(tools: Any) -> None:
    forward, _ = forward_and_backward(tools.local_graph(), [])
    assert "output" not in {b.role for b in forward.results}
    assert slice_kernel(tools.local_graph(), "eval", [], ("output", "loss")).results[0].role == "loss"


LAYERS = [
    {"c1": "conv(3, 3, padding=1)"},
    {"n1": "batch_norm"},
    "relu",
    {"drop": "dropout(0.5)"},
    {"r": {"residual": [{"c2": "conv(3, 1)"}, "gelu"]}},
    {"pool": "max_pool(2)"},
    {"flat": "flatten"},
    {"ln": "layer_norm"},
    {"fc": "linear(8)"},
    {"column": "reshape([4, 2])"},
    {"mix": "attention(1, dropout=0.1)"},
    {"mean": "mean(1)"},
    {"out": "linear(3)"},
]


def spec(links: str, **run: Any) -> dict[str, Any]:
    return {
        "network": {"inputs": {"x": [2, 4, 4]}, "layers": LAYERS},
        "data": None,
        "fields": {"label": {"shape": [], "dtype": "int64"}},
        "loss": "cross_entropy",
        "decompose": {
            "blocks": {"a": ["c1", "n1"], "b": ["r"], "c": ["ln", "fc"], "d": ["mix"], "e": ["out"]},
            "links": links,
        },
        "learn": [{"blocks": "*", "head": "linear", "loss": "cross_entropy", "optimizer": "sgd(lr=0.1)"}],
        "run": {"target": "cpu", **run},
    }


@pytest.fixture(scope="module")
def plan() -> lpc.Plan:
    return lpc.build(spec("gradient", memory="summed"))


def test_no_residual_of_a_network_is_state_or_a_length(plan: lpc.Plan) -> None:
    """Whatever the operators: a saved value is a tensor that the forward part computed or was given as a value."""
    state = {p.source for b in every(plan) for p in ports_of(b, "state")}
    for kernel in every(plan):
        if not kernel.name.endswith(".forward"):
            continue
        computed = {n.name: n for n in kernel.nodes}
        values = {p.value for b in kernel.arguments if b.role != "state" for p in b.ports}
        for port in ports_of(kernel, "residuals"):
            assert port.value in computed or port.value in values
            assert port.source not in state
            if port.value in computed:
                assert computed[port.value].op not in ("aten.sym_size.int", "add", "mul", "floordiv")


def every(plan: lpc.Plan) -> list[Kernel]:
    return [kernel for kernels in plan.data.kernels.values() for kernel in kernels.values()]


def test_both_parts_are_verified_on_such_a_network(plan: lpc.Plan) -> None:
    report = lpc.verify(plan)
    assert report.ok, report


def test_recomputing_saves_nothing() -> None:
    changed = spec("gradient")
    changed["learn"].append({"blocks": ["a", "b", "c", "d"], "memory": "recompute"})
    plan = lpc.build(changed)
    assert not any(ports_of(kernel, "residuals") for kernel in every(plan) if not kernel.name.startswith("e."))
    assert {"a.vjp", "b.vjp"} <= set(plan.data.kernels["native"])
    assert lpc.verify(plan).ok
