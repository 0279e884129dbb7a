"""Is the shorter way to trace mutations away the same as torch's own? Graph by graph, and by numbers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx
from torch._subclasses.functional_tensor import FunctionalTensorMode

from lpc.compiler.capture import tracing
from lpc.compiler.capture.simplify import simplify

aten = torch.ops.aten


def norm(x: Tensor) -> list[Tensor]:
    """Writes running statistics, which are results."""
    mean, variance = x.new_zeros(6), x.new_ones(6)
    return [F.batch_norm(x, mean, variance, training=True), mean, variance]


def written_through(x: Tensor) -> Tensor:
    """What is written to a tensor cut from autograd is written to its source."""
    y = x * 2.0
    y.detach().view(-1, 3).add_(1.0)
    return y.exp()


def turned_in_place(x: Tensor) -> list[Tensor]:
    """A tensor cut from autograd has a shape of its own."""
    y = x.exp()
    turned = y.detach().t_()
    return [y * 2.0, turned + 1.0]


def lists(x: Tensor) -> Tensor:
    first, *rest = x.split([1, 2, 3], dim=1)
    return torch.cat([*rest, first], 1)[:, ::2]


def step(x: Tensor) -> list[Tensor]:
    """A gradient that is summed over two ways back."""
    leaf = x.detach().requires_grad_()
    hidden = torch.tanh(leaf)
    loss = (hidden * hidden + F.relu(hidden.clone(), inplace=True)).mean()
    (found,) = torch.autograd.grad(loss, leaf)
    return [loss.detach(), found]


FUNCTIONS: dict[str, Callable[[Tensor], Any]] = {
    "a norm": norm,
    "written through": written_through,
    "turned in place": turned_in_place,
    "lists": lists,
    "a step": step,
    "products": lambda x: torch.einsum("bi,bj->bij", x, x.detach()).reshape(x.shape[0] * 6, 6).softmax(1),
}


def lines(graph: fx.Graph) -> list[str]:
    """Return a simplified graph's nodes with numbers for their names; lengths stand where they are first needed.

    Torch 2.15 reads some of them later than before.
    """
    simplify(graph)
    place = {node: number for number, node in enumerate(graph.nodes)}
    for length in graph.find_nodes(op="call_function", target=aten.sym_size.int):
        min(length.users, key=place.__getitem__).prepend(length)
    numbers = {node: f"%{number}" for number, node in enumerate(graph.nodes)}
    read = [fx.node.map_arg((n.args, n.kwargs), numbers.__getitem__) for n in graph.nodes]
    return [f"{n.op} {n.target} {given}" for n, given in zip(graph.nodes, read, strict=True)]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_graphs_are_those_of_torch(tools: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    function = FUNCTIONS[name]
    graph = tools.trace(function, ("B", 6)).graph
    x = torch.randn(5, 6, dtype=torch.float64)
    with torch.enable_grad():
        wanted = function(x.clone())
    found, written = tools.run(graph, x), lines(graph)
    for value, right in zip(found, wanted if isinstance(wanted, list) else [wanted], strict=True):
        torch.testing.assert_close(value, right, rtol=1e-14, atol=1e-14)
    monkeypatch.setattr(tracing, "Functional", FunctionalTensorMode)
    assert written == lines(tools.trace(function, ("B", 6)).graph)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_graphs_are_the_same_with_what_is_not_written_down(
    tools: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = tools.trace(FUNCTIONS[name], ("B", 6)).graph
    assert not any(node.meta.get("tensor_meta") for node in graph.nodes)
    monkeypatch.setattr(tracing, "unread", nullcontext)
    noted = tools.trace(FUNCTIONS[name], ("B", 6)).graph
    assert any(node.meta.get("tensor_meta") for node in noted.nodes)
    assert lines(graph) == lines(noted)


def test_a_tensor_cut_from_autograd_has_no_node(tools: Any) -> None:
    graph = tools.trace(lambda x: (x.detach(), x.detach().exp()), ("B", 6)).graph
    assert [n.target for n in graph.nodes if n.op == "call_function"] == [aten.exp.default]
