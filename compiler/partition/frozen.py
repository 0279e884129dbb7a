"""Which blocks have nothing to train? They run as a part of the block after them, without a loss of their own.

A block is frozen if no trained parameter lies in it, or behind it where a gradient could arrive. A loss on it would
train its own head and nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import networkx as nx

from lpc.compiler.partition.stage import Traced
from lpc.compiler.partition.unroll import stands_apart
from lpc.compiler.rules import stated, stated_at
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.model import Spec
from lpc.specs.term import Term

# Links that do no more than let a gradient through or not: between frozen blocks and others they are all the same.
PLAIN = ("gradient", "stop")

Rank = Mapping[str, int]


def fuse_frozen(graph: nx.DiGraph[str], spec: Spec, traced: Traced) -> nx.DiGraph[str]:
    """Return the partition with frozen blocks joined to the first block that reads them.

    A frozen block that owns the output, that a readout reads, or that cannot be joined without joining boundaries of
    different links, stays and has the attribute `frozen`. The graph's attribute `fused` maps each block that was joined
    to where it went.
    Raises LpcError for a frozen block that the spec gives a loss or head by name.
    """
    frozen = frozen_blocks(graph, _trained(traced), spec)
    for block in frozen:
        _ensure_no_loss(spec, block, block == graph.graph["output_block"])
    ranks = {"train": _rank(traced.train), "eval": _rank(traced.eval)}
    joined: dict[str, str] = {}
    whole = graph.copy()
    read = {block for readout in spec.readouts.values() for block in readout.from_}
    for block in frozen:
        alone = block in read or stands_apart(spec, block)
        host = None if alone else _host(whole, block, frozen)
        if host is None:
            whole.nodes[block]["frozen"] = True
        else:
            _join(whole, block, host, ranks)
            joined[block] = host
    return _renumbered(whole, joined) if joined else whole


def frozen_blocks(graph: nx.DiGraph[str], trained: Collection[str], spec: Spec) -> tuple[str, ...]:
    """Return the blocks that no loss on them could train anything of the network through, in topological order."""
    learning: set[str] = set()
    for block, attributes in graph.nodes(data=True):
        borrowed = attributes["borrowed"] if spec.decompose.shared == "sum" else ()
        own = any(name in trained for name in (*attributes["parameters"], *borrowed))
        behind = (one for one, _, data in graph.in_edges(block, data=True) if data["link"].name != "stop")
        if own or not learning.isdisjoint(behind):
            learning.add(block)
    return tuple(block for block in graph.nodes if block not in learning)


def frozen_notes(graph: nx.DiGraph[str]) -> list[str]:
    """Say of every frozen block what became of it."""
    joined = [
        f"block `{block}` has nothing to train: it runs as a part of `{host}`"
        for block, host in graph.graph.get("fused", {}).items()
    ]
    alone = [block for block, attributes in graph.nodes(data=True) if attributes.get("frozen")]
    return joined + [f"block `{block}` has nothing to train: it only runs forward" for block in alone]


def _trained(traced: Traced) -> set[str]:
    """Return every name of a parameter that is trained; partitions use the first one of tied parameters."""
    named = traced.train.named_parameters(remove_duplicate=False)
    return {name for name, parameter in named if parameter.requires_grad}


def _ensure_no_loss(spec: Spec, block: str, is_output: bool) -> None:
    """A loss by wildcard means the blocks that learn; one by name means this one, and would train nothing."""
    for key in ("head",) if is_output else ("loss", "head"):
        if stated(spec, block, key, by_name=True):
            message = f"block `{block}` has a {key} by name, but nothing in it or behind it is trained"
            raise LpcError(Diagnostic("0431", message, span=stated_at(spec, block, key)))


def _host(graph: nx.DiGraph[str], block: str, frozen: Collection[str]) -> str | None:
    """Return the first block that reads this one, or None where they cannot be one block.

    Any other path to the first reader would lead through an earlier one, so that joining makes no cycle.
    """
    order = list(graph.nodes)
    readers = sorted(graph.successors(block), key=order.index)
    plain = all(data["link"].name in PLAIN for *_, data in graph.out_edges(block, data=True))
    if block == graph.graph["output_block"] or not readers or not plain:
        return None
    shared = [one for one in graph.predecessors(block) if graph.has_edge(one, readers[0])]
    split = [one for one in shared if _link(graph, one, block) != _link(graph, one, readers[0]) and one not in frozen]
    return None if split else readers[0]


def _link(graph: nx.DiGraph[str], one: str, other: str) -> Any:
    return graph.edges[one, other]["link"]


def _join(graph: nx.DiGraph[str], block: str, host: str, ranks: Mapping[str, Rank]) -> None:
    """Move a block's content and boundaries to `host`, in place."""
    one, other = graph.nodes[block], graph.nodes[host]
    for one_block, _, data in list(graph.in_edges(block, data=True)):
        _connect(graph, one_block, host, data, ranks["train"])
    for _, other_block, data in list(graph.out_edges(block, data=True)):
        if other_block != host:
            _connect(graph, host, other_block, {**data, "link": Term("stop")}, ranks["train"])
    parameters = (*one["parameters"], *other["parameters"])
    other.update(
        modules=(*one["modules"], *other["modules"]),
        nodes={mode: _sorted({*one["nodes"][mode], *other["nodes"][mode]}, rank) for mode, rank in ranks.items()},
        parameters=parameters,
        borrowed=tuple(n for n in dict.fromkeys((*one["borrowed"], *other["borrowed"])) if n not in parameters),
        buffers=tuple(dict.fromkeys((*one["buffers"], *other["buffers"]))),
        reads=tuple(n for n in graph.graph["inputs"] if n in (*one["reads"], *other["reads"])),
        **{key: one[key] + other[key] for key in ("num_parameters", "flops", "activation_bytes")},
    )
    graph.remove_node(block)


def _connect(graph: nx.DiGraph[str], one: str, other: str, data: Mapping[str, Any], rank: Rank) -> None:
    """Let a boundary's tensors cross between other blocks; a boundary that is there keeps its link."""
    if not graph.has_edge(one, other):
        graph.add_edge(one, other, **data)
        return
    held = graph.edges[one, other]
    tensors = {tensor["name"]: tensor for tensor in (*data["tensors"], *held["tensors"])}
    held["tensors"] = tuple(tensors[name] for name in _sorted(tensors, rank))


def _renumbered(graph: nx.DiGraph[str], joined: Mapping[str, str]) -> nx.DiGraph[str]:
    for index, block in enumerate(graph.nodes):
        graph.nodes[block]["index"] = index
    graph.graph["fused"] = {block: _last(host, joined) for block, host in joined.items()}
    return graph


def _last(block: str, joined: Mapping[str, str]) -> str:
    return _last(joined[block], joined) if block in joined else block


def _rank(module: Any) -> Rank:
    return {node.name: index for index, node in enumerate(module.graph.nodes)}


def _sorted(names: Iterable[str], rank: Rank) -> tuple[str, ...]:
    return tuple(sorted(names, key=lambda name: rank.get(name.partition("[")[0], len(rank))))
