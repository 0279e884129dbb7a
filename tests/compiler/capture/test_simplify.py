"""Does simplification keep every bit, and does it simplify? Each rewrite on its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lpc.compiler.capture.simplify import simplify

aten = torch.ops.aten


def sizes_of(x: Tensor) -> Tensor:
    """Reads one length three times, from two tensors."""
    y = x.relu()
    return x.reshape(x.shape[0], 2, 3).sum(2) / x.shape[0] + y.view(y.shape[0], 2, 3).sum(2)


def contiguous_clone(x: Tensor) -> Tensor:
    return x.t().clone(memory_format=torch.contiguous_format).view(-1) * 2.0


# name -> function, the operators that must vanish, the operators that must stay
REWRITES: dict[str, tuple[Callable[[Tensor], Any], set[Any], set[Any]]] = {
    "alias": (lambda x: aten.alias(x).exp(), {aten.alias.default}, {aten.exp.default}),
    "clone": (lambda x: x.clone().exp().clone(), {aten.clone.default}, {aten.exp.default}),
    "same_view": (lambda x: x.exp().view(x.shape[0], 6) + 1, {aten.view.default}, {aten.exp.default}),
    "same_expand": (lambda x: x.exp().expand(x.shape[0], 6) + 1, {aten.expand.default}, {aten.exp.default}),
    "whole_slice": (lambda x: x.exp()[:, 0:6] + x[0 : x.shape[0]], {aten.slice.Tensor}, {aten.exp.default}),
    "transposed_twice": (lambda x: x.exp().t().t() + 1, {aten.t.default}, {aten.exp.default}),
    "dead": (lambda x: (x.sin(), x.cos())[1], {aten.sin.default}, {aten.cos.default}),
    "an_input_as_result": (lambda x: (aten.alias(x), x.exp()), {aten.alias.default}, {aten.exp.default}),
    "once_transposed": (lambda x: x.t().exp(), set(), {aten.t.default}),
    "other_view": (lambda x: x.exp().view(-1, 3), set(), {aten.view.default}),
    "other_expand": (lambda x: x.sum(1, keepdim=True).expand(x.shape[0], 6) * 2, set(), {aten.expand.default}),
    "other_slice": (lambda x: x.exp()[:, 1:] * 2, set(), {aten.slice.Tensor}),
    "every_other": (lambda x: x[:1, ::2].exp(), set(), {aten.slice.Tensor}),
    "layout": (contiguous_clone, set(), {aten.clone.default}),
    "lengths": (sizes_of, set(), {aten.relu.default}),
    "in_place": (lambda x: x.clone().add_(1.0).mul_(2.0), {aten.clone.default}, {aten.mul.Tensor}),
}


def operators(graph: Any) -> set[Any]:
    return {node.target for node in graph.nodes if node.op == "call_function"}


@pytest.mark.parametrize("name", REWRITES)
def test_a_rewrite_keeps_every_bit(tools: Any, name: str) -> None:
    function, gone, kept = REWRITES[name]
    traced = tools.trace(function, ("B", 6))
    assert gone <= operators(traced.graph)
    batches = [torch.randn(size, 6, dtype=torch.float64) for size in (1, 2, 7)]
    before = [tools.run(traced.graph, x) for x in batches]
    simplify(traced.graph)
    assert not gone & operators(traced.graph)
    assert kept <= operators(traced.graph)
    for x, wanted in zip(batches, before, strict=True):
        for found, value in zip(tools.run(traced.graph, x), wanted, strict=True):
            assert torch.equal(found, value)
            assert found.stride() == value.stride()
        eager = function(x.clone())
        assert torch.equal(wanted[0], eager[0] if isinstance(eager, tuple) else eager)


def test_a_length_is_read_once(tools: Any) -> None:
    traced = tools.trace(sizes_of, ("B", 6))
    simplify(traced.graph)
    reads = [node for node in traced.graph.nodes if node.target is aten.sym_size.int]
    assert len(reads) == 1


def test_two_lengths_stay_apart(tools: Any) -> None:
    traced = tools.trace(lambda x, y: x.sum() / x.shape[0] + y.sum() / y.shape[0], ("B", 6), ("T", 6))
    simplify(traced.graph)
    x, y = torch.randn(3, 6, dtype=torch.float64), torch.randn(7, 6, dtype=torch.float64)
    found = tools.run(traced.graph, x, y)[0]
    torch.testing.assert_close(found, x.sum() / 3 + y.sum() / 7, rtol=1e-14, atol=1e-14)


def test_an_unread_argument_stays(tools: Any) -> None:
    traced = tools.trace(lambda x, y: y.exp(), ("B", 6), ("B", 6))
    simplify(traced.graph)
    assert sum(node.op == "placeholder" for node in traced.graph.nodes) == 2


def test_simplifying_again_changes_nothing(tools: Any) -> None:
    traced = tools.trace(tools.step, (4, 3), (4,), ("B", 3), (), ("B", 4))
    simplify(traced.graph)
    once = str(traced.graph)
    simplify(traced.graph)
    assert str(traced.graph) == once
