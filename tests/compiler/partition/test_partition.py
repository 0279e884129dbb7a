"""What does a partition hold? Blocks, boundaries, links and shared parameters of small known networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import networkx as nx
import pytest
import torch
from torch import nn
from torch.nn import functional

from lpc.compiler.partition import from_data, partition, to_data
from lpc.specs.diagnostics import LpcError
from lpc.specs.term import Term

Make = Callable[..., Any]


class Skip(nn.Module):
    """Three layers; the first one's output skips the second."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6))
        self.two = nn.Linear(6, 6)
        self.out = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = functional.relu(self.one(x))
        second = functional.relu(self.two(first))
        flat = torch.cat([first, second], 1).view(x.size(0), 2, -1)
        return self.out(flat.sum(1))


BLOCKS = {"a": "one", "b": "two", "c": "out"}


def test_blocks_hold_their_layers_and_the_glue_after_them(trace: Make, spec: Make) -> None:
    graph = partition(trace(Skip()), spec(BLOCKS))
    assert list(graph) == ["a", "b", "c"]
    assert graph.nodes["a"]["nodes"]["train"] == ("one_0", "one_1", "relu")
    assert graph.nodes["b"]["modules"] == ("two",)
    assert set(graph.nodes["b"]["nodes"]["eval"]) > {"two", "relu_1", "cat", "view", "sum_1"}
    assert graph.nodes["a"]["parameters"] == ("one.0.weight", "one.0.bias", "one.1.weight", "one.1.bias")
    assert graph.nodes["a"]["num_parameters"] == 4 * 6 + 6 + 12
    assert graph.nodes["a"]["activation_bytes"] == 3 * 6 * 4
    assert [graph.nodes[b]["reads"] for b in graph] == [("x",), (), ()]
    assert graph.graph["output_block"] == "c"
    assert graph.graph["output"] == "out"
    assert graph.graph["hint_batch"] == 4


def test_boundaries_hold_the_tensors_that_cross_per_sample(trace: Make, spec: Make) -> None:
    graph = partition(trace(Skip()), spec({"a": "one", "b": "two", "c": ["out", "cat"]}))
    assert set(graph.edges) == {("a", "b"), ("a", "c"), ("b", "c")}
    tensor = {"name": "relu", "shape": [6], "dtype": "float32", "bytes": 24}
    assert graph.edges["a", "b"]["tensors"] == (tensor,)
    assert graph.edges["a", "c"]["tensors"] == (tensor,)


def test_sizes_cross_freely(trace: Make, spec: Make) -> None:
    class Sizes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first = self.one(x)
            return self.two(x).view(first.size(0), -1)

    graph = partition(trace(Sizes()), spec({"a": "one", "b": "two"}))
    assert not graph.edges
    assert "size" in graph.nodes["a"]["nodes"]["train"]


def test_elements_of_a_tuple_stay_with_its_maker(trace: Make, spec: Make) -> None:
    class Split(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 4), nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            left, right = torch.split(self.one(x), 2, 1)
            return self.two(left) + right

    graph = partition(trace(Split()), spec({"a": "one", "b": "two"}))
    assert "split" in graph.nodes["a"]["nodes"]["train"]
    assert [t["name"] for t in graph.edges["a", "b"]["tensors"]] == ["getitem", "getitem_1"]


def test_naming_a_parameter_takes_what_reads_it(trace: Make, spec: Make) -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.scale = nn.Linear(4, 4), nn.Linear(4, 4), nn.Parameter(torch.ones(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.two(self.one(x) * self.scale)

    graph = partition(trace(Scale()), spec({"a": "one", "b": ["two", "scale"]}))
    assert graph.nodes["b"]["nodes"]["train"] == ("scale", "mul", "two")
    assert graph.nodes["b"]["parameters"] == ("scale", "two.weight", "two.bias")


@pytest.mark.parametrize(
    ("term", "at", "expected"),
    [
        ("per_layer", "activation", {"one.0": {"one_0", "one_1", "relu"}, "two": {"two", "relu_1"}}),
        (
            "per_layer",
            "preactivation",
            {"one.0": {"one_0", "one_1"}, "two": {"relu", "two"}, "out": {"relu_1"}},
        ),
        ("each", "activation", {"one": {"one_0", "one_1", "relu"}, "two": {"two", "relu_1"}, "out": {"out"}}),
    ],
)
def test_blocks_named_by_paths(
    trace: Make, spec: Make, term: str, at: str, expected: dict[str, set[str]]
) -> None:
    choice = Term(term, ("*",) if term == "each" else ())
    graph = partition(trace(Skip()), spec(choice, at=at))
    for block, nodes in expected.items():
        assert nodes <= set(graph.nodes[block]["nodes"]["train"])


def test_each_mixes_with_named_blocks(trace: Make, spec: Make) -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    graph = partition(
        trace(nn.Sequential(network, nn.Linear(4, 2)), input=torch.zeros(4)),
        spec({"*": Term("each", ("0.[0-1]",)), "rest": ["0.2", "1"]}),
    )
    assert list(graph) == ["0.0", "0.1", "rest"]
    assert graph.nodes["rest"]["modules"] == ("0.2", "1")


def test_parameters_stand_in_network_order(trace: Make, spec: Make) -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.first = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.first(x))

    graph = partition(trace(Backwards()), spec({"all": ["first", "last"]}))
    assert graph.nodes["all"]["parameters"] == ("last.weight", "first.weight")


def test_the_evaluation_graph_follows_the_training_graph(trace: Make, spec: Make) -> None:
    traced = trace(Skip())
    relu = next(n for n in traced.eval.graph.nodes if n.name == "relu_1")
    relu.meta["key"] = "only in evaluation"
    graph = partition(traced, spec(BLOCKS))
    assert "relu_1" in graph.nodes["b"]["nodes"]["eval"]


def test_the_most_exact_link_wins_then_the_last(trace: Make, spec: Make) -> None:
    links = {
        "a->b": Term("gradient", (), {"reach": 1}),
        "a->*": Term("gradient"),
        "*->c": Term("gradient", (), {"reach": 2}),
        "*": Term("stop"),
    }
    graph = partition(trace(Skip()), spec({"a": "one", "b": "two", "c": ["out", "cat"]}, links=links))
    found = {edge: str(link) for *edge, link in graph.edges(data="link") for edge in [tuple(edge)]}
    assert found == {
        ("a", "b"): "gradient(reach=1)",
        ("a", "c"): "gradient(reach=2)",
        ("b", "c"): "gradient(reach=2)",
    }
    graph = partition(trace(Skip()), spec(BLOCKS, links={}))
    assert {str(link) for _, _, link in graph.edges(data="link")} == {"stop"}


class Tied(nn.Module):
    """The same layer twice, with another between."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(self.out(self.cell(x)), self.cell.weight)


@pytest.mark.parametrize("policy", ["owner", "sum"])
def test_a_shared_parameter_has_one_owner(trace: Make, spec: Make, policy: str) -> None:
    graph = partition(trace(Tied()), spec({"a": "cell", "b": ["out", "linear"]}, shared=policy))
    assert graph.nodes["a"]["parameters"] == ("cell.weight", "cell.bias")
    assert graph.nodes["b"]["borrowed"] == ("cell.weight",)
    assert graph.nodes["b"]["parameters"] == ("out.weight", "out.bias")
    assert [t["name"] for t in graph.edges["a", "b"]["tensors"]] == ["cell"]


def test_a_shared_parameter_is_forbidden_by_default(trace: Make, spec: Make) -> None:
    with pytest.raises(LpcError, match=r"`cell\.weight` is used by two blocks, `a` and `b`"):
        partition(trace(Tied()), spec({"a": "cell", "b": ["out", "linear"]}))


def test_masks_do_not_hinder_balance(trace: Make, spec: Make) -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))

        def forward(self, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
            mask = (1 - keep) * -1e9
            for layer in self.layers:
                x = layer(x) + mask
            return x

    traced = trace(Masked(), x=torch.zeros(4), keep=torch.zeros(4))
    graph = partition(traced, spec(Term("balanced", (), {"count": 4, "by": "params"})))
    assert [data["modules"] for _, data in graph.nodes(data=True)] == [(f"layers.{i}",) for i in range(4)]
    assert graph.nodes["b1"]["reads"] == ("x", "keep")


def test_plain_data_comes_back(trace: Make, spec: Make) -> None:
    graph = partition(trace(Skip()), spec(BLOCKS, links={"*": Term("gradient", (), {"reach": 1})}))
    data = to_data(graph)
    again = from_data(data)
    assert to_data(again) == data
    assert isinstance(again, nx.DiGraph)
    assert list(again) == list(graph)
    assert again.edges["a", "b"]["link"] == "gradient(reach=1)"
    assert (
        to_data(partition(trace(Skip()), spec(BLOCKS, links={"*": Term("gradient", (), {"reach": 1})})))
        == data
    )
