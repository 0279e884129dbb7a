"""Is all randomness an argument? Each law, its sites, and the operators that have none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx

from lpc.compiler.capture.randomness import hides_its_mask, lift_randomness
from lpc.compiler.capture.tracing import origin
from lpc.specs.diagnostics import LpcError

Drawn = tuple[Callable[[Tensor], Tensor], str, tuple[float, ...], Callable[[Tensor, Tensor], Tensor]]

# name -> what draws, its law, the law's numbers, and the same as a function of (x, noise)
LAWS: dict[str, Drawn] = {
    "dropout": (lambda x: F.dropout(x, 0.25), "bernoulli", (0.75,), lambda x, r: x * r / 0.75),
    "native_dropout": (
        lambda x: torch.native_dropout(x, 0.25, True)[0], "bernoulli", (0.75,), lambda x, r: x * r / 0.75
    ),
    "native_dropout_mask": (
        lambda x: torch.native_dropout(x, 0.25, True)[1].to(x.dtype), "bernoulli", (0.75,), lambda x, r: r
    ),
    "bernoulli": (lambda x: x * torch.bernoulli(x, 0.3), "bernoulli", (0.3,), lambda x, r: x * r),
    "bernoulli_": (lambda x: x * torch.empty_like(x).bernoulli_(0.3), "bernoulli", (0.3,), lambda x, r: x * r),
    "rand_like": (lambda x: x + torch.rand_like(x), "uniform", (0.0, 1.0), lambda x, r: x + r),
    "rand": (
        lambda x: x + torch.rand(x.shape[0], 6, dtype=x.dtype), "uniform", (0.0, 1.0), lambda x, r: x + r
    ),
    "randn_like": (lambda x: x * torch.randn_like(x), "normal", (0.0, 1.0), lambda x, r: x * r),
    "randn": (
        lambda x: x + torch.randn(x.shape[0], 6, dtype=x.dtype), "normal", (0.0, 1.0), lambda x, r: x + r
    ),
    "uniform_": (lambda x: x * torch.empty_like(x).uniform_(-2, 3), "uniform", (-2.0, 3.0), lambda x, r: x * r),
    "normal_": (lambda x: x * torch.empty_like(x).normal_(1, 2), "normal", (1.0, 2.0), lambda x, r: x * r),
}


@pytest.mark.parametrize("name", LAWS)
def test_a_draw_becomes_an_argument(tools: Any, name: str) -> None:
    function, law, numbers, by_hand = LAWS[name]
    traced = tools.trace(function, ("B", 6))
    (lifted,) = lift_randomness(traced.graph, traced.symbols, "block")
    assert (lifted.noise.site, lifted.noise.law, lifted.noise.args) == ("block", law, numbers)
    assert str(lifted.noise.type) == "float64[B, 6]"
    assert not random_operators(traced.graph)
    x, noise = torch.randn(5, 6, dtype=torch.float64), torch.randint(0, 2, (5, 6)).double()
    names = [n.name for n in traced.graph.nodes if n.op == "placeholder"]
    given = {lifted.placeholder.name: noise}
    (found,) = tools.run(traced.graph, *[given.get(n, x) for n in names])
    torch.testing.assert_close(found, by_hand(x, noise), rtol=1e-15, atol=0)


def random_operators(graph: Any) -> list[Any]:
    calls = [n.target for n in graph.nodes if n.op == "call_function"]
    return [t for t in calls if torch.Tag.nondeterministic_seeded in getattr(t, "tags", ())]


# The documented replacement of each: none; they are refused with the operator's name.
UNSUPPORTED: dict[str, Callable[[Tensor], Tensor]] = {
    "tensor_probability": lambda x: torch.bernoulli(torch.sigmoid(x)),
    "multinomial": lambda x: torch.multinomial(torch.softmax(x, 1), 2).to(x.dtype),
    "randint_like": lambda x: x + torch.randint_like(x, 5),
    "poisson": lambda x: torch.poisson(x.exp()),
    "exponential": lambda x: x + torch.empty_like(x).exponential_(),
    "randperm": lambda x: x[:, torch.randperm(6)],
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_other_laws_are_refused(tools: Any, name: str) -> None:
    def labelled(x: Tensor) -> Tensor:
        with origin("encoder.noise"):
            return UNSUPPORTED[name](x)

    traced = tools.trace(labelled, ("B", 6))
    with pytest.raises(LpcError, match="LPC0410") as error:
        lift_randomness(traced.graph, traced.symbols, "block")
    assert "encoder.noise" in str(error.value)


def test_a_computed_probability_is_refused() -> None:
    graph = fx.Graph()
    x, p = graph.placeholder("x"), graph.placeholder("p")
    graph.output([graph.call_function(torch.ops.aten.bernoulli.p, (x, p))])
    with pytest.raises(LpcError, match="LPC0410"):
        lift_randomness(graph, {}, "block")


def test_sites_bear_the_module_and_the_number_of_the_draw(tools: Any) -> None:
    def twice(x: Tensor) -> Tensor:
        with origin("a"):
            x = F.dropout(F.dropout(x, 0.5), 0.25)
        with origin("b"):
            x = x + torch.rand_like(x)
        return x + torch.randn_like(x)

    traced = tools.trace(twice, ("B", 6))
    sites = [lifted.noise.site for lifted in lift_randomness(traced.graph, traced.symbols, "block")]
    assert sites == ["a", "a:1", "b", "block"]


def test_nothing_random_lifts_nothing(tools: Any) -> None:
    traced = tools.trace(lambda x: F.dropout(x, 0.5, training=False).exp(), ("B", 6))
    before = str(traced.graph)
    assert lift_randomness(traced.graph, traced.symbols, "block") == []
    assert str(traced.graph) == before


def attend(dropout: float) -> Callable[[Tensor], Tensor]:
    return lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=dropout)


def test_fused_attention_hides_its_mask_until_it_is_traced_as_mathematics(tools: Any) -> None:
    shape = ("B", 2, 5, 4)
    assert not hides_its_mask(tools.trace(attend(0.0), shape).graph)
    traced = tools.trace(attend(0.5), shape, portable=True)
    assert not hides_its_mask(traced.graph)
    (lifted,) = lift_randomness(traced.graph, traced.symbols, "mix")
    assert (lifted.noise.law, lifted.noise.args) == ("bernoulli", (0.5,))
    assert str(lifted.noise.type) == "float64[B, 2, 5, 5]"
