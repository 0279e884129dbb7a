"""Does tracing keep lengths free and graphs pure? Named lengths, mutation, custom backwards, origins."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lpc.compiler.capture.tracing import HeldLengthError, length_hints, origin, site_name

HELD = {
    "a_view_of_known_size": lambda x: x.view(13, 3, 2).sum(1),
    "a_comparison": lambda x: x * 2 if x.shape[0] == 13 else x,
    "an_int": lambda x: x * float(int(x.shape[0])),
}


@pytest.mark.parametrize("name", HELD)
def test_a_step_that_holds_a_length_fast_is_refused(tools: Any, name: str) -> None:
    """Thirteen is the number that the batch is traced with."""
    with pytest.raises(HeldLengthError, match="`B`"):
        tools.trace(HELD[name], ("B", 6))


@pytest.mark.parametrize("batch", [1, 2, 13, 40])
def test_every_batch_size_runs(tools: Any, batch: int) -> None:
    def function(x: Tensor) -> Tensor:
        return F.softmax(x.view(x.shape[0], 2, 3), 1).flatten(1) / x.shape[0] + x.mean(0)

    x = torch.randn(batch, 6, dtype=torch.float64)
    (found,) = tools.run(tools.trace(function, ("B", 6)).graph, x)
    assert torch.equal(found, function(x))


def test_in_place_operators_and_running_statistics_become_results(tools: Any) -> None:
    def function(x: Tensor, mean: Tensor, variance: Tensor) -> list[Tensor]:
        y = F.batch_norm(x.clone().relu_(), mean, variance, training=True)
        y += 1
        return [y, mean, variance]

    traced = tools.trace(function, ("B", 6), (6,), (6,))
    schemas = [n.target._schema for n in traced.graph.nodes if hasattr(n.target, "_schema")]
    assert not any(schema.is_mutable for schema in schemas)
    given = [torch.randn(5, 6).double(), torch.zeros(6).double(), torch.ones(6).double()]
    kept = [t.clone() for t in given]
    found = tools.run(traced.graph, *given)
    assert all(torch.equal(t, k) for t, k in zip(given, kept, strict=True))
    for value, wanted in zip(found, function(*kept), strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-14, atol=1e-15)


class Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 7 * gradient


def test_a_custom_backward_is_what_is_traced(tools: Any) -> None:
    def function(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        return torch.autograd.grad(Scaled.apply(x).sum(), x)[0]

    x = torch.randn(4, 6, dtype=torch.float64)
    (found,) = tools.run(tools.trace(function, ("B", 6)).graph, x)
    assert torch.equal(found, torch.full_like(x, 7.0))


def test_origins_name_the_innermost_module(tools: Any) -> None:
    def function(x: Tensor) -> Tensor:
        with origin("outer"):
            with origin("inner"):
                x = x.exp()
            x = x.sin()
        return x.cos()

    nodes = {str(n.target): n.meta.get("origin") for n in tools.trace(function, ("B", 6)).graph.nodes}
    assert nodes["aten.exp.default"] == "inner"
    assert nodes["aten.sin.default"] == "outer"
    assert nodes["aten.cos.default"] is None


def test_an_origin_outside_of_tracing_does_nothing() -> None:
    with origin("nowhere"):
        assert nn.Linear(2, 2)(torch.zeros(1, 2)).shape == (1, 2)


def test_site_names_count_further_calls() -> None:
    assert [site_name("fc", i) for i in range(3)] == ["fc", "fc#1", "fc#2"]


@pytest.mark.parametrize("name", ["T", "S", "N", "E", "I", "Q", "beta", "length"])
def test_hints_respect_expressions(name: str) -> None:
    """Also where sympy has a constant or a function of that name."""
    hints = length_hints(["B", name, f"B*{name}", "B*4", f"2*{name} + 1"])
    assert hints["B*4"] == 4 * hints["B"]
    assert hints[f"B*{name}"] == hints["B"] * hints[name]
    assert hints[f"2*{name} + 1"] == 2 * hints[name] + 1
    assert hints[name] != hints["B"]


@pytest.mark.parametrize("name", ["S", "N", "time"])
def test_a_length_of_any_name_is_traced(tools: Any, name: str) -> None:
    traced = tools.trace(lambda x: x.mean(1), ("B", name, 3))
    x = torch.randn(2, 7, 3, dtype=torch.float64)
    assert torch.equal(tools.run(traced.graph, x)[0], x.mean(1))
    assert set(traced.symbols.values()) == {"B", name}
