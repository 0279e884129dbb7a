"""What is inside a block? Its operators in the modules that they come from, as nested graphs.

The operators are those of the block's forward pass in prediction. What only takes an item of a tuple, computes a length
or reads nothing but parameters is left out. A module around one module or one operator is not shown by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lpc.specs.plan.kernel import Kernel
from lpc.specs.plan.wellformed import references

Edge = tuple[int, int]


@dataclass(frozen=True)
class Item:
    """An operator, or what enters and leaves the block; `path` are the modules around it, `sources` what it reads."""

    name: str
    kind: str
    title: str
    detail: str
    flops: int = 0
    path: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


@dataclass
class Member:
    """A node of a graph: an item, or a module with a graph of its own."""

    kind: str
    title: str
    detail: str = ""
    flops: int = 0
    inner: Graph | None = None


@dataclass
class Graph:
    """Nodes in the order of the program, and edges between them by number; they may run in circles."""

    members: list[Member] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)


def inside(kernel: Kernel, flops: Mapping[str, int]) -> tuple[tuple[str, ...], Graph]:
    """Return the modules that all of a block's operators share, and the graph of what is in them."""
    items = items_of(kernel, flops)
    paths = [item.path for item in items if item.kind == "op" and item.path]
    shared = _shared(paths)
    near = {item.name: item.path[len(shared) :] if item.kind == "op" else () for item in items}
    return shared, _graph(items, near)


def items_of(kernel: Kernel, flops: Mapping[str, int]) -> list[Item]:
    """Return a kernel's operators, with what enters and leaves it, in the order of the program."""
    seen: dict[str, tuple[str, ...]] = {}
    items: list[Item] = []
    for bundle in kernel.arguments:
        if bundle.role == "input" and bundle.ports:
            items.append(Item(bundle.name, "in", bundle.name, str(bundle.ports[0].type)))
            seen.update((port.value, (bundle.name,)) for port in bundle.ports)
    for node in kernel.nodes:
        sources = _merged(seen.get(name, ()) for name in references([*node.args, *node.kwargs.values()]))
        if not node.types:
            continue  # a length: reading it is no flow of values
        if not sources or node.op == "getitem":  # of parameters alone, or an item
            seen[node.name] = sources
            continue
        title, path = node.op.split(".")[1], tuple(node.origin.split(".")) if node.origin else ()
        items.append(Item(node.name, "op", title, str(node.types[0]), flops.get(node.name, 0), path, sources))
        seen[node.name] = (node.name,)
    for bundle in kernel.results:
        if bundle.role == "output":
            found = _merged(seen.get(port.value, ()) for port in bundle.ports)
            items.append(Item(f"out {bundle.name}", "out", bundle.name, str(bundle.ports[0].type), sources=found))
    return _adopted(items)


def _adopted(items: Sequence[Item]) -> list[Item]:
    """Give operators that come from no module the modules of what they read first."""
    known: dict[str, tuple[str, ...]] = {}
    found = []
    for item in items:
        path = item.path or next((known[name] for name in item.sources if known.get(name)), ())
        known[item.name] = path if item.kind == "op" else ()
        found.append(Item(item.name, item.kind, item.title, item.detail, item.flops, known[item.name], item.sources))
    return found


def _merged(groups: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for group in groups for name in group))


def _shared(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    if not paths:
        return ()
    first, last = min(paths), max(paths)
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[:length]


def _graph(items: Sequence[Item], near: Mapping[str, tuple[str, ...]]) -> Graph:
    """Return the graph of items whose modules, as far as they still are to be told apart, are `near`."""
    groups: dict[Any, list[Item]] = {}
    for item in items:
        groups.setdefault(near[item.name][0] if near[item.name] else item, []).append(item)
    graph, place = Graph(), dict[str, int]()
    for key, held in groups.items():
        place.update((item.name, len(graph.members)) for item in held)
        graph.members.append(_module(key, held, near) if isinstance(key, str) else _single(key))
    edges = ((place[s], place[i.name]) for i in items for s in i.sources if s in place)
    graph.edges = [edge for edge in dict.fromkeys(edges) if edge[0] != edge[1]]
    return graph


def _single(item: Item) -> Member:
    return Member(item.kind, item.title, item.detail, item.flops)


def _module(name: str, items: Sequence[Item], near: Mapping[str, tuple[str, ...]]) -> Member:
    rest = {item.name: near[item.name][1:] for item in items}
    shared = _shared(list(rest.values()))
    title, flops = ".".join((name, *shared)), sum(item.flops for item in items)
    if len(items) == 1:
        return Member("layer", title, f"{items[0].title} {items[0].detail}", flops)
    inner = _graph(items, {one: path[len(shared) :] for one, path in rest.items()})
    return Member("layer", title, f"{len(items)} operators", flops, inner)
