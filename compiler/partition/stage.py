"""How does a traced network become a PartitionGraph? Choose, place, check, describe."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import networkx as nx
from torch import fx

from lpc.compiler.partition.assignment import Assignment
from lpc.compiler.partition.balance import balanced
from lpc.compiler.partition.cycles import check_acyclic
from lpc.compiler.partition.describe import Placed, boundary_tensors, gather
from lpc.compiler.partition.explicit import each, explicit
from lpc.compiler.partition.layers import per_layer
from lpc.compiler.partition.links import resolve_links
from lpc.compiler.partition.place import place
from lpc.compiler.partition.sharing import check_cover, own_parameters
from lpc.compiler.partition.unroll import stands_apart, unroll
from lpc.compiler.partition.view import View, view
from lpc.specs.diagnostics import Diagnostic, LpcError, one_of
from lpc.specs.model import Spec
from lpc.specs.term import Term


class Traced(Protocol):
    """What partitioning reads of a traced network: one fx graph per mode, annotated as `view` says."""

    @property
    def train(self) -> fx.GraphModule: ...
    @property
    def eval(self) -> fx.GraphModule: ...
    @property
    def rung(self) -> object: ...
    @property
    def inputs(self) -> Sequence[str]: ...


Assign = Callable[[View, Spec], Assignment]

# The ways to name blocks by one term: each its own file or function of the same name.
ASSIGNMENTS: dict[str, Assign] = {"per_layer": per_layer, "each": each, "balanced": balanced, "unroll": unroll}


def partition(traced: Traced, spec: Spec) -> nx.DiGraph[str]:
    """Cut a traced network into the blocks that `spec.decompose` asks for.

    Returns the PartitionGraph. Graph attributes: `rung`, `inputs`, `output` (train node), `output_block`,
    `hint_batch`. A node is a block, in topological order, with `index`, `modules`, `nodes` (train and eval fx
    node names), `parameters`, `borrowed`, `num_parameters`, `buffers`, `reads` (network inputs), and per
    sample `flops` and `activation_bytes`. An edge is a boundary with its `link` (Term) and its `tensors`
    (`name`, per-sample `shape`, `dtype`, per-sample `bytes`). Linear in the number of fx nodes up to a
    logarithm. Raises LpcError (03xx).
    """
    with _collector_paused():
        return _partition(traced, spec)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Full collections would walk the traced network, millions of objects: half the time at 40,000 nodes."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def _partition(traced: Traced, spec: Spec) -> nx.DiGraph[str]:
    train, evaluation = view(traced.train), view(traced.eval)
    assignment = _assign(train, spec)
    train_blocks = place(train, assignment)
    flow = check_acyclic(train, train_blocks, spec, "train")
    if assignment.covers:
        check_cover(train, assignment, train_blocks, spec)
    eval_blocks = place(evaluation, _carry_over(train, train_blocks, evaluation, assignment))
    check_acyclic(evaluation, eval_blocks, spec, "eval")
    order = _topological(flow)
    return _graph(traced, spec, order, Placed(train, train_blocks), Placed(evaluation, eval_blocks))


def _assign(train: View, spec: Spec) -> Assignment:
    blocks = spec.decompose.blocks
    if isinstance(blocks, dict):
        return explicit(train, spec)
    if blocks.name in ASSIGNMENTS:
        return ASSIGNMENTS[blocks.name](train, spec)
    known = one_of(list(ASSIGNMENTS))
    raise LpcError(
        Diagnostic(
            "0307",
            f"`{blocks}` is no way to choose blocks; expected {known}, or a mapping of names to selectors",
            span=spec.origin("decompose", "blocks"),
        )
    )


def _carry_over(train: View, blocks: list[str], evaluation: View, assignment: Assignment) -> Assignment:
    """Give every evaluation node the block of the training node with the same key."""
    by_key = {_key(s.node): b for s, b in zip(train.sites, blocks, strict=True) if s.kind == "tensor"}
    fixed = {s.index: by_key[_key(s.node)] for s in evaluation.roots if _key(s.node) in by_key}
    return Assignment(tuple(dict.fromkeys(blocks)), fixed)


def _key(node: fx.Node) -> object:
    return node.meta.get("key", node.name)


def _topological(flow: nx.DiGraph[str]) -> list[str]:
    """Order the blocks along the flow; where it leaves a choice, by their first node."""
    first = {block: position for position, block in enumerate(flow)}
    return list(nx.lexicographical_topological_sort(flow, key=first.__getitem__))


def _graph(
    traced: Traced, spec: Spec, order: list[str], train: Placed, evaluation: Placed
) -> nx.DiGraph[str]:
    seen, blocks = train.view, train.blocks
    hint_batch = traced.train.meta["hint_batch"]
    owners = own_parameters(seen, blocks, order, spec)
    sizes = traced.train.meta.get("parameters", {})
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.graph.update(rung=traced.rung, inputs=tuple(traced.inputs), hint_batch=hint_batch)
    graph.graph.update(_output(seen, blocks))
    for index, (name, block) in enumerate(gather(order, train, evaluation).items()):
        owned = owners.owned[name]
        graph.add_node(
            name,
            index=index,
            parameters=owned,
            borrowed=owners.borrowed[name],
            num_parameters=sum(sizes.get(p, 0) for p in owned),
            **block.attributes(hint_batch, traced.inputs),
        )
    tensors = boundary_tensors(seen, blocks)
    rank = {name: index for index, name in enumerate(order)}
    links = resolve_links(sorted(tensors, key=lambda edge: (rank[edge[0]], rank[edge[1]])), spec)
    for (one, other), link in links.items():
        # what no parameter has made needs no gradient, target or variable
        link = Term("stop") if stands_apart(spec, one) else link
        graph.add_edge(one, other, link=link, tensors=tensors[one, other])
    return graph


def _output(train: View, blocks: list[str]) -> dict[str, str | None]:
    if train.output is None:
        return {"output": None, "output_block": None}
    return {"output": train.sites[train.output].node.name, "output_block": blocks[train.output]}
