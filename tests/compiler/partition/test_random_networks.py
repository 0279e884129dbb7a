"""Do the laws of a partition hold for any network? Random fx graphs, random cuts."""

from __future__ import annotations

from itertools import combinations, pairwise, product
from typing import Any

import networkx as nx
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import fx, nn

from lpc.compiler.partition import partition
from lpc.compiler.partition.assignment import Assignment
from lpc.compiler.partition.balance import cut_points, segment_costs
from lpc.compiler.partition.chain import best_cuts
from lpc.compiler.partition.cycles import quotient
from lpc.compiler.partition.place import place
from lpc.compiler.partition.view import View, view
from lpc.specs.diagnostics import LpcError
from lpc.specs.model import Decompose, Network, Spec
from lpc.specs.term import Term

VALUE = torch.zeros(2, 3)


class Pair:
    """Stands for the traced network: both modes are the same graph."""

    rung, inputs = "modules", ("x",)

    def __init__(self, graph: fx.GraphModule) -> None:
        self.train = self.eval = graph


def build(reads: list[list[int]], layers: list[bool]) -> fx.GraphModule:
    """Node i reads the nodes `reads[i]` before it (none: the input); layers have a parameter, glue none."""
    root, graph = nn.Module(), fx.Graph()
    nodes = [graph.placeholder("x")]
    for number, (sources, is_layer) in enumerate(zip(reads, layers, strict=True)):
        inputs = tuple(nodes[s + 1] for s in sources) or (nodes[0],)
        name = f"m{number}"
        if is_layer:
            root.add_module(name, nn.Linear(1, number + 1, bias=False))
            node = graph.call_module(name, inputs)
        else:
            node = graph.create_node("call_function", torch.add, inputs, name=f"glue{number}")
        nodes.append(node)
        node.meta.update(
            val=VALUE, path=name if is_layer else "", key=name, flops=number % 5, bytes=1 + number % 3
        )
        node.meta.update(parameters=(f"{name}.weight",) if is_layer else (), buffers=())
    graph.output(nodes[-1])
    module = fx.GraphModule(root, graph)
    sizes = {name: p.numel() for name, p in module.named_parameters()}
    module.meta.update(symbols={}, hint_batch=1, parameters=sizes)
    return module


@st.composite
def networks(draw: st.DrawFn, largest: int = 12) -> fx.GraphModule:
    size = draw(st.integers(2, largest))
    reads = [
        sorted(draw(st.sets(st.integers(max(0, i - 4), i - 1), max_size=2))) if i else [] for i in range(size)
    ]
    layers = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    assume(any(layers))
    return build(reads, layers)


def spec_for(blocks: Any) -> Spec:
    return Spec(network=Network(), decompose=Decompose(blocks=blocks), learn=())


def layers_of(graph: fx.GraphModule) -> list[str]:
    return [str(n.target) for n in graph.graph.nodes if n.op == "call_module"]


def check_laws(graph: fx.GraphModule, result: nx.DiGraph[str]) -> None:
    computed = [n for n in graph.graph.nodes if n.op not in ("placeholder", "output")]
    for mode in ("train", "eval"):
        placed = [name for _, data in result.nodes(data=True) for name in data["nodes"][mode]]
        assert sorted(placed) == sorted(n.name for n in computed)
    owned = [name for _, data in result.nodes(data=True) for name in data["parameters"]]
    assert sorted(owned) == sorted(name for name, _ in graph.named_parameters())
    assert nx.is_directed_acyclic_graph(result)
    rank = {block: data["index"] for block, data in result.nodes(data=True)}
    assert list(rank.values()) == list(range(len(rank)))
    assert all(rank[one] < rank[other] for one, other in result.edges)
    block = {name: b for b, data in result.nodes(data=True) for name in data["nodes"]["train"]}
    crossing = {
        (block[source.name], block[node.name], source.name)
        for node in computed
        for source in node.all_input_nodes
        if source in computed and block[source.name] != block[node.name]
    }
    assert crossing == {(a, b, t["name"]) for a, b, data in result.edges(data=True) for t in data["tensors"]}


@given(networks(), st.data())
@settings(max_examples=150, deadline=None)
def test_any_explicit_cut_is_a_partition_or_is_named_cyclic(
    graph: fx.GraphModule, data: st.DataObject
) -> None:
    layers = layers_of(graph)
    names = data.draw(st.lists(st.sampled_from("abc"), min_size=len(layers), max_size=len(layers)))
    blocks: dict[str, tuple[str, ...]] = {}
    for layer, name in zip(layers, names, strict=True):
        blocks[name] = (*blocks.get(name, ()), layer)
    if not possible(graph, dict(zip(layers, names, strict=True))):
        with pytest.raises(LpcError, match="LPC0304"):
            partition(Pair(graph), spec_for(blocks))
        return
    result = partition(Pair(graph), spec_for(blocks))
    check_laws(graph, result)
    for block, selectors in blocks.items():
        assert set(selectors) <= set(result.nodes[block]["nodes"]["train"])


def possible(graph: fx.GraphModule, layers: dict[str, str]) -> bool:
    """Try every placement of the glue."""
    seen = view(graph)
    glue = [s.index for s in seen.sites if str(s.node.target) not in layers]
    assume(len(glue) <= 7)
    fixed = {s.index: layers[str(s.node.target)] for s in seen.sites if s.index not in glue}
    for choice in product(sorted(set(layers.values())), repeat=len(glue)):
        placed = fixed | dict(zip(glue, choice, strict=True))
        if nx.is_directed_acyclic_graph(quotient(seen, [placed[i] for i in range(len(seen.sites))])):
            return True
    return False


@given(networks(), st.sampled_from(["activation", "preactivation"]))
@settings(max_examples=100, deadline=None)
def test_a_block_for_each_layer_is_always_a_partition(graph: fx.GraphModule, at: Any) -> None:
    spec = Spec(network=Network(), decompose=Decompose(blocks=Term("per_layer"), at=at), learn=())
    result = partition(Pair(graph), spec)
    check_laws(graph, result)
    assert set(result) == set(layers_of(graph))


@given(networks())
@settings(max_examples=60, deadline=None)
def test_glue_joins_a_neighbour(graph: fx.GraphModule) -> None:
    """A producer's block where a layer flows into it, else a consumer's where it flows into a layer."""
    result = partition(Pair(graph), spec_for({"*": (Term("each", ("*",)),)}))
    block = {name: b for b, d in result.nodes(data=True) for name in d["nodes"]["train"]}
    flow = nx.DiGraph((a.name, b.name) for a in graph.graph.nodes for b in a.users)
    layers = set(layers_of(graph))
    for name in block.keys() - layers:
        if nx.ancestors(flow, name) & layers:
            assert block[name] in {block.get(n) for n in flow.predecessors(name)}
        elif name in flow and nx.descendants(flow, name) & layers:
            assert block[name] in {block.get(n) for n in flow.successors(name)}


@given(networks(10), st.integers(1, 4), st.sampled_from(["params", "flops", "memory"]))
@settings(max_examples=150, deadline=None)
def test_balanced_finds_what_trying_every_cut_finds(graph: fx.GraphModule, count: int, by: str) -> None:
    seen = view(graph)
    points = cut_points(seen)
    assert [p.after for p in points] == naive_cut_points(seen)
    spec = spec_for(Term("balanced", (), {"count": count, "by": by}))
    if len(points) < count - 1:
        with pytest.raises(LpcError, match="LPC0306"):
            partition(Pair(graph), spec)
        return
    result = partition(Pair(graph), spec)
    check_laws(graph, result)
    costs = segment_costs(seen, points, by)
    assert sum(costs) == total_cost(seen, by)
    bytes_at = [seen.sites[p.tensor].bytes for p in points]
    tries = [score(costs, bytes_at, cuts) for cuts in combinations(range(1, len(costs)), count - 1)]
    assert score(costs, bytes_at, tuple(best_cuts(costs, bytes_at, count))) == min(tries)


def naive_cut_points(seen: View) -> list[int]:
    """Positions with one live tensor that depends on a parameter, by looking at every pair of nodes."""
    learned: set[int] = set()
    for site in seen.sites:
        if site.parameters or learned & set(site.producers):
            learned.add(site.index)
    found = []
    for end in range(len(seen.sites) - 1):
        later = {p for site in seen.sites[end + 1 :] for p in site.producers} | {seen.output}
        if len([s for s in learned & later if s is not None and s <= end]) == 1:
            found.append(end)
    return found


def total_cost(seen: View, by: str) -> int:
    if by == "params":
        return sum(p.numel() for p in seen.module.parameters())
    return sum(s.flops if by == "flops" else s.bytes for s in seen.sites)


def score(costs: list[int], bytes_at: list[int], cuts: tuple[int, ...]) -> tuple[int, int]:
    borders = [0, *cuts, len(costs)]
    sizes = [sum(costs[a:b]) for a, b in pairwise(borders)]
    return max(sizes), sum(bytes_at[cut - 1] for cut in cuts)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4)), min_size=1, max_size=9), st.data())
@settings(max_examples=300, deadline=None)
def test_chain_cuts_are_exact(chain: list[tuple[int, int]], data: st.DataObject) -> None:
    costs, weights = [c for c, _ in chain], [w for _, w in chain[1:]]
    count = data.draw(st.integers(1, len(costs)))
    cuts = best_cuts(costs, weights, count)
    assert cuts == sorted(set(cuts))
    assert len(cuts) == count - 1
    tries = [score(costs, weights, c) for c in combinations(range(1, len(costs)), count - 1)]
    assert score(costs, weights, tuple(cuts)) == min(tries)


@given(networks())
@settings(max_examples=50, deadline=None)
def test_placement_fills_every_node(graph: fx.GraphModule) -> None:
    seen = view(graph)
    fixed = {site.index: "only" for site in seen.roots if site.parameters}
    assert place(seen, Assignment(("only",), fixed)) == ["only"] * len(seen.sites)
