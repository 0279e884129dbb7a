"""Which values flow where? The traced graph as plain records: all that partitioning reads of it.

Three kinds of node. A `tensor` node computes a tensor; only these constrain a partition and cross boundaries.
A `state` node fetches a parameter or buffer. A `value` node computes a size, a dtype or another plain value:
it may be recomputed anywhere, so it crosses freely.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import fx

Kind = Literal["tensor", "state", "value"]

# Reading one element of a tuple or of an output object: it belongs with the node that made the tuple.
ELEMENT_READERS = frozenset({operator.getitem, getattr})


@dataclass(slots=True)
class Site:
    """One compute node. `producers` are indices of the sites it reads, `reads` the network inputs it reads.

    `root` is the site it cannot be parted from: itself, or the maker of the tuple it takes an element of.
    `parameters` includes those fetched by the `state` nodes it reads. `flops` and `bytes` are per hint batch.
    """

    index: int
    node: fx.Node
    path: str
    kind: Kind
    root: int
    producers: tuple[int, ...]
    reads: tuple[str, ...]
    parameters: tuple[str, ...]
    buffers: tuple[str, ...]
    flops: int
    bytes: int

    def __str__(self) -> str:
        """Name the node for a message, with its module path where that says more."""
        where = f" ({self.path})" if self.path not in ("", self.node.name) else ""
        return f"`{self.node.name}`{where}"


@dataclass(frozen=True)
class View:
    """The compute nodes of one fx graph in graph order, and the flow of tensors between them.

    `roots` are the tensor sites that stand for themselves. `consumers[i]` are the sites that read site i.
    `sources[r]` and `targets[r]` are the tensor flow between roots, empty for sites that are no tensor roots.
    `output` is the site that is the network's output.
    """

    module: fx.GraphModule
    sites: list[Site]
    roots: list[Site]
    consumers: list[list[int]]
    sources: list[list[int]]
    targets: list[list[int]]
    output: int | None


def view(module: fx.GraphModule) -> View:
    """Read a traced graph whose nodes carry `path`, `val`, `flops`, `bytes`, `parameters` and `buffers`."""
    index: dict[fx.Node, int] = {}
    sites: list[Site] = []
    output: fx.Node | None = None
    for node in module.graph.nodes:
        if node.op == "output":
            output = next((n for n in node.all_input_nodes if n in index), None)
        elif node.op != "placeholder":
            index[node] = len(sites)
            sites.append(_site(node, index, sites))
    consumers: list[list[int]] = [[] for _ in sites]
    for site in sites:
        for producer in site.producers:
            consumers[producer].append(site.index)
    sources, targets = _flow(sites)
    roots = [site for site in sites if site.kind == "tensor" and site.root == site.index]
    return View(module, sites, roots, consumers, sources, targets, None if output is None else index[output])


def is_adapted(view: View, site: Site) -> bool:
    """Return whether a site is a part of a layer that carries an adapter, and so is not parted from it."""
    return site.path in view.module.meta.get("adapted", ())


def holds_tensor(value: Any) -> bool:
    """Return whether a fake value is a tensor, or a tuple, list or mapping with a tensor in it."""
    if isinstance(value, torch.Tensor):
        return True
    if isinstance(value, dict):
        return any(holds_tensor(v) for v in value.values())
    return isinstance(value, tuple | list) and any(holds_tensor(v) for v in value)


def _site(node: fx.Node, index: dict[fx.Node, int], sites: list[Site]) -> Site:
    meta = node.meta
    read = node.all_input_nodes
    producers = tuple(index[n] for n in read if n in index)
    kind: Kind = "state" if node.op == "get_attr" else "tensor" if holds_tensor(meta.get("val")) else "value"
    own = len(sites)
    states = [sites[p] for p in producers if sites[p].kind == "state"]
    return Site(
        index=own,
        node=node,
        path=meta.get("path", ""),
        kind=kind,
        root=_root(node, kind, producers, sites, own),
        producers=producers,
        reads=tuple(str(n.target) for n in read if n.op == "placeholder"),
        parameters=_merge(meta.get("parameters", ()), [s.parameters for s in states]),
        buffers=_merge(meta.get("buffers", ()), [s.buffers for s in states]),
        flops=int(meta.get("flops", 0)),
        bytes=int(meta.get("bytes", 0)),
    )


def _root(node: fx.Node, kind: Kind, producers: tuple[int, ...], sites: list[Site], own: int) -> int:
    if kind != "tensor" or node.target not in ELEMENT_READERS or len(producers) != 1:
        return own
    maker = sites[producers[0]]
    is_tensor = isinstance(maker.node.meta.get("val"), torch.Tensor)
    return own if is_tensor or maker.kind != "tensor" else maker.root


def _merge(own: Iterable[str], fetched: Iterable[Iterable[str]]) -> tuple[str, ...]:
    if not fetched:
        return tuple(own)
    return tuple(dict.fromkeys([*own, *(name for names in fetched for name in names)]))


def _flow(sites: list[Site]) -> tuple[list[list[int]], list[list[int]]]:
    """Collapse tuple elements onto their makers; leave out values and state, which constrain nothing."""
    sources: list[list[int]] = [[] for _ in sites]
    targets: list[list[int]] = [[] for _ in sites]
    for site in sites:
        if site.kind != "tensor":
            continue
        for producer in site.producers:
            maker = sites[producer]
            if maker.kind == "tensor" and maker.root != site.root:
                sources[site.root].append(maker.root)
                targets[maker.root].append(site.root)
    return sources, targets
