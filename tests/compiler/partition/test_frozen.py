"""Do blocks with nothing to train run as a part of the next, and only where that changes nothing?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import networkx as nx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lpc.compiler.partition import partition, to_data
from lpc.compiler.partition.frozen import frozen_notes, fuse_frozen
from lpc.specs.diagnostics import LpcError
from lpc.specs.model import Rule
from lpc.specs.term import Term

STOP, GRADIENT = Term("stop"), Term("gradient")


class Net(nn.Module):
    """Linear layers `f0`, `f1`, ...; each reads the sum of the earlier ones that `reads` lists, 0 being the input."""

    def __init__(self, reads: tuple[tuple[int, ...], ...]) -> None:
        super().__init__()
        self.reads = reads
        for index in range(len(reads)):
            self.add_module(f"f{index}", nn.Linear(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        made = [x]
        for index, sources in enumerate(self.reads):
            total = made[sources[0]]
            for source in sources[1:]:
                total = total + made[source]
            made.append(torch.relu(self.get_submodule(f"f{index}")(total)))
        return made[-1]


CHAIN = ((0,), (1,), (2,), (3,))
SKIP = ((0,), (1,), (1, 2))


def fused(
    trace: Any, spec: Any, reads: Any, frozen: str, links: Any = STOP, learn: Any = (), blocks: Any = None
) -> nx.DiGraph[str]:
    """Cut a net (per layer), freeze the layers of those numbers, and join what has nothing to train."""
    network = Net(reads)
    for index in frozen:
        network.get_submodule(f"f{index}").requires_grad_(False)
    written = spec(blocks or Term("per_layer"), links=links if isinstance(links, dict) else {"*": links})
    written = written.model_copy(update={"learn": tuple(learn)})
    traced = trace(network)
    return fuse_frozen(partition(traced, written), written, traced)


def test_a_frozen_block_joins_the_next(trace: Callable[..., Any], spec: Callable[..., Any]) -> None:
    whole = fused(trace, spec, CHAIN, "")
    graph = fused(trace, spec, CHAIN, "0")
    assert list(graph) == ["f1", "f2", "f3"]
    assert [graph.nodes[block]["index"] for block in graph] == [0, 1, 2]
    assert graph.nodes["f1"]["modules"] == ("f0", "f1")
    assert graph.nodes["f1"]["parameters"] == ("f0.weight", "f0.bias", "f1.weight", "f1.bias")
    assert graph.nodes["f1"]["nodes"]["train"] == ("f0", "relu", "f1", "relu_1")
    assert graph.nodes["f1"]["reads"] == ("x",)
    for key in ("num_parameters", "flops", "activation_bytes"):
        assert graph.nodes["f1"][key] == whole.nodes["f0"][key] + whole.nodes["f1"][key]
    assert frozen_notes(graph) == ["block `f0` has nothing to train: it runs as a part of `f1`"]
    assert "fused" not in whole.graph
    assert not frozen_notes(whole)
    to_data(graph)


def test_several_in_a_row_go_to_the_last(trace: Callable[..., Any], spec: Callable[..., Any]) -> None:
    graph = fused(trace, spec, CHAIN, "01")
    assert list(graph) == ["f2", "f3"]
    assert graph.graph["fused"] == {"f0": "f2", "f1": "f2"}
    assert graph.nodes["f2"]["nodes"]["train"] == ("f0", "relu", "f1", "relu_1", "f2", "relu_2")


def test_a_loss_that_trains_what_lies_behind_stays(trace: Callable[..., Any], spec: Callable[..., Any]) -> None:
    assert list(fused(trace, spec, CHAIN, "12", GRADIENT)) == ["f0", "f1", "f2", "f3"]
    assert list(fused(trace, spec, CHAIN, "012", GRADIENT)) == ["f3"]
    assert list(fused(trace, spec, CHAIN, "12", {"f0->f1": GRADIENT, "*": STOP})) == ["f0", "f1", "f3"]


def test_the_block_of_the_output_stays(trace: Callable[..., Any], spec: Callable[..., Any]) -> None:
    graph = fused(trace, spec, CHAIN, "23")
    assert list(graph) == ["f0", "f1", "f3"]
    assert graph.nodes["f3"]["frozen"]
    assert frozen_notes(graph)[1] == "block `f3` has nothing to train: it only runs forward"


def test_boundaries_of_different_links_are_not_joined(trace: Callable[..., Any], spec: Callable[..., Any]) -> None:
    blocks = {"f0": "f0", "f1": "f1", "f2": ["add", "f2"]}  # f2 reads f0 and f1
    graph = fused(trace, spec, SKIP, "1", blocks=blocks)
    assert list(graph.edges) == [("f0", "f2")]
    apart = fused(trace, spec, SKIP, "1", {"f0->f1": STOP, "*": GRADIENT}, blocks=blocks)
    assert list(apart) == ["f0", "f1", "f2"]
    assert frozen_notes(apart) == ["block `f1` has nothing to train: it only runs forward"]


@pytest.mark.parametrize("key", ["loss", "head"])
def test_a_loss_by_name_is_told(trace: Callable[..., Any], spec: Callable[..., Any], key: str) -> None:
    value: Any = (Term("mse"),) if key == "loss" else Term("linear")
    fused(trace, spec, CHAIN, "1", learn=[Rule(blocks=("*",), **{key: value}), Rule(blocks=("f2",), **{key: value})])
    with pytest.raises(LpcError) as caught:
        fused(trace, spec, CHAIN, "1", learn=[Rule(blocks=("*",)), Rule(blocks=("f1",), **{key: value})])
    assert caught.value.diagnostics[0].code == "0431"
    assert f"block `f1` has a {key} by name" in caught.value.diagnostics[0].message


@st.composite
def nets(draw: st.DrawFn) -> tuple[tuple[tuple[int, ...], ...], str, dict[str, Term]]:
    count = draw(st.integers(2, 5))
    reads = [
        tuple(sorted({number, *draw(st.sets(st.integers(0, number), max_size=2))})) for number in range(count)
    ]
    frozen = draw(st.sets(st.integers(0, count - 1)))
    links = {f"f{index}->*": draw(st.sampled_from([STOP, GRADIENT])) for index in range(count - 1)}
    return tuple(reads), "".join(map(str, sorted(frozen))), {**links, "*": STOP}


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(net=nets())
def test_any_result_is_a_partition(trace: Callable[..., Any], spec: Callable[..., Any], net: Any) -> None:
    reads, frozen, links = net
    whole, graph = fused(trace, spec, reads, "", links), fused(trace, spec, reads, frozen, links)
    assert nx.is_directed_acyclic_graph(graph)
    order = list(graph)
    assert all(order.index(one) < order.index(other) for one, other in graph.edges)
    for what in ("parameters", "nodes"):
        assert sorted(contents(graph, what)) == sorted(contents(whole, what))
    owner = {node: block for block, a in graph.nodes(data=True) for node in a["nodes"]["train"]}
    crossing = set(crossings(whole, owner))
    assert {(one, other, t["name"]) for one, other, d in graph.edges(data=True) for t in d["tensors"]} == crossing
    for block, attributes in graph.nodes(data=True):
        numbers = {name[1] for name in attributes["parameters"]}
        learns = not numbers <= set(frozen)
        behind = {one for one, _, d in graph.in_edges(block, data=True) if d["link"] == GRADIENT}
        assert learns or behind or attributes.get("frozen"), block


def contents(graph: nx.DiGraph[str], what: str) -> list[str]:
    found = [attributes[what] for _, attributes in graph.nodes(data=True)]
    return [name for group in found for name in (group["train"] if what == "nodes" else group)]


def crossings(fine: nx.DiGraph[str], owner: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    """What crosses between the blocks that `owner` gives the nodes of a finer partition."""
    for _, other, data in fine.edges(data=True):
        reader = owner[fine.nodes[other]["nodes"]["train"][-1]]
        for tensor in data["tensors"]:
            if owner[tensor["name"]] != reader:
                yield owner[tensor["name"]], reader, tensor["name"]
