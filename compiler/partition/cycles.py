"""Do the blocks feed each other in a circle? The check on the quotient graph, and the way out of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import networkx as nx

from lpc.compiler.partition.view import View
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.model import Spec

SHOWN_NODES = 6


@dataclass(frozen=True)
class Move:
    """Tensor roots to move from one block to another."""

    sites: tuple[int, ...]
    source: str
    target: str


def quotient(view: View, blocks: list[str]) -> nx.DiGraph[str]:
    """Return the graph of blocks, in order of first appearance.

    An edge's `witness` is the first pair (producer, consumer) of tensor roots that makes it.
    """
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(dict.fromkeys(blocks))
    for site in view.roots:
        own = blocks[site.index]
        for producer in view.sources[site.index]:
            if blocks[producer] != own and not graph.has_edge(blocks[producer], own):
                graph.add_edge(blocks[producer], own, witness=(producer, site.index))
    return graph


def check_acyclic(view: View, blocks: list[str], spec: Spec, mode: str) -> nx.DiGraph[str]:
    """Return the quotient; raise LpcError, with a shortest cycle and the smallest move that opens it."""
    graph = quotient(view, blocks)
    if nx.is_directed_acyclic_graph(graph):
        return graph
    cycle = shortest_cycle(graph)
    raise LpcError(
        Diagnostic(
            "0304",
            f"blocks feed each other in a circle: {' -> '.join([*cycle, cycle[0]])}",
            span=spec.origin("decompose", "blocks"),
            notes=tuple(_notes(view, graph, cycle, mode)),
            help=_remedy(view, blocks, cycle),
        )
    )


def shortest_cycle(graph: nx.DiGraph[str]) -> list[str]:
    """Return the blocks of a shortest cycle, from the block that comes first."""
    order = {block: position for position, block in enumerate(graph)}
    cyclic = [c for c in nx.strongly_connected_components(graph) if len(c) > 1]
    component = min(cyclic, key=lambda c: (len(c), min(order[b] for b in c)))
    inner = graph.subgraph(component)
    best = min((_cycle_through(inner, block) for block in sorted(component, key=order.__getitem__)), key=len)
    start = min(range(len(best)), key=lambda i: order[best[i]])
    return best[start:] + best[:start]


def smallest_move(view: View, blocks: list[str], cycle: list[str]) -> Move | None:
    """Return the smallest move between neighbours of the cycle that leaves no cycle at all.

    To undo an edge a -> b of the quotient, either all of a's nodes that reach b go to b, or all of b's nodes
    that a reaches go to a. Each candidate is tried; None where none is enough (several cycles at once).
    """
    for move in sorted(_moves(view, blocks, cycle), key=lambda m: len(m.sites)):
        if nx.is_directed_acyclic_graph(quotient(view, moved(view, blocks, move))):
            return move
    return None


def moved(view: View, blocks: list[str], move: Move) -> list[str]:
    """Return the blocks after a move; tuple elements go with their makers."""
    going = set(move.sites)
    return [move.target if site.root in going else blocks[site.index] for site in view.sites]


def _cycle_through(component: nx.DiGraph[str], block: str) -> list[str]:
    paths = nx.single_source_shortest_path(component, block)
    return min((paths[before] for before in component.predecessors(block)), key=len)


def _moves(view: View, blocks: list[str], cycle: list[str]) -> Iterator[Move]:
    for one, other in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
        reaching = _members(view, blocks, one, _spread(view, blocks, other, view.targets, backward=True))
        reached = _members(view, blocks, other, _spread(view, blocks, one, view.sources, backward=False))
        yield Move(reaching, one, other)
        yield Move(reached, other, one)


def _spread(
    view: View, blocks: list[str], block: str, neighbours: list[list[int]], *, backward: bool
) -> Callable[[int], bool]:
    """Return a test for the roots from which (backward) or to which tensors flow from or to `block`."""
    touched = [False] * len(view.sites)
    for site in reversed(view.roots) if backward else view.roots:
        near = neighbours[site.index]
        touched[site.index] = any(touched[n] or blocks[n] == block for n in near)
    return touched.__getitem__


def _members(view: View, blocks: list[str], block: str, test: Callable[[int], bool]) -> tuple[int, ...]:
    return tuple(s.index for s in view.roots if blocks[s.index] == block and test(s.index))


def _notes(view: View, graph: nx.DiGraph[str], cycle: list[str], mode: str) -> Iterator[str]:
    if mode == "eval":
        yield "so it is in the network's evaluation graph; its training graph has no such circle"
    for one, other in ((cycle[0], cycle[1]), (cycle[-1], cycle[0])):
        producer, consumer = (view.sites[i] for i in graph.edges[one, other]["witness"])
        yield f"{one} -> {other}: {producer} -> {consumer}"


def _remedy(view: View, blocks: list[str], cycle: list[str]) -> str:
    move = smallest_move(view, blocks, cycle)
    if move is None:
        return f"join the blocks {', '.join(f'`{b}`' for b in cycle)} into one"
    names = [str(view.sites[i]) for i in move.sites[:SHOWN_NODES]]
    more = len(move.sites) - len(names)
    what = ", ".join(names) + (f" and {more} more" if more else "")
    return f"move {what} from `{move.source}` to `{move.target}`: that opens the circle"
