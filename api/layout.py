"""Where does each box of a layered drawing stand? Ranks by longest path, order by Sugiyama's method, exact spacing.

The order in a rank is igraph's where that is installed (`pip install 'lpc[view]'`), else by barycentres here.

Every edge is a chain of cells, one in each rank between its ends, and carries its label in the first of them;
so boxes, labels and passing lines never overlap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import networkx as nx

GAP_X, GAP_Y = 28.0, 22.0
SORTING_SWEEPS, SWEEPS = 6, 60
BOX_WEIGHT = 6.0  # how much more than a passing line a box insists on its place


@dataclass
class Cell:
    """One place in a rank: a box, a label or (without height) a line.

    `x` is where lines meet it, `left` and `right` how far it reaches from there; `y` is its top.
    """

    left: float
    right: float
    height: float = 0.0
    weight: float = 1.0
    rank: int = 0
    x: float = 0.0
    y: float = 0.0
    near: list[Cell] = field(default_factory=list, repr=False)


@dataclass(frozen=True)
class Layout:
    """Boxes by node, the chain of cells of each edge without its two ends, and the size of the whole."""

    boxes: dict[str, Cell]
    chains: dict[tuple[str, str], list[Cell]]
    width: float
    height: float


Size = tuple[float, float]


def layered(
    graph: nx.DiGraph[str], boxes: Mapping[str, Size], labels: Mapping[tuple[str, str], Size]
) -> Layout:
    """Lay out an acyclic graph from top to bottom. `boxes` and `labels` give widths and heights."""
    cells: dict[str, Cell] = {n: _box(*boxes[n]) for n in graph}
    for node in nx.topological_sort(graph):
        cells[node].rank = max((cells[p].rank + 2 for p in graph.predecessors(node)), default=0)
    for node in reversed(list(nx.topological_sort(graph))):  # a source stands right above its first reader
        if graph.in_degree(node) == 0 and graph.out_degree(node):
            cells[node].rank = min(cells[s].rank - 2 for s in graph.successors(node))
    chains = {edge: _chain(cells[edge[0]], cells[edge[1]], labels[edge]) for edge in graph.edges}
    ranks = _ranks([*cells.values(), *(cell for chain in chains.values() for cell in chain)])
    _arrange(ranks)
    return Layout(cells, chains, *_place(ranks))


def _box(width: float, height: float) -> Cell:
    return Cell(width / 2, width / 2, height, BOX_WEIGHT)


def _label(width: float, height: float, rank: int) -> Cell:
    """A label stands right of its line."""
    return Cell(2.0, width, height, rank=rank)


def _chain(start: Cell, end: Cell, label: Size) -> list[Cell]:
    between = range(start.rank + 1, end.rank)
    chain = [_label(*label, r) if r == start.rank + 1 else Cell(1.0, 1.0, rank=r) for r in between]
    for one, other in zip([start, *chain], [*chain, end], strict=True):
        one.near.append(other)
        other.near.append(one)
    return chain


def _ranks(cells: Iterable[Cell]) -> list[list[Cell]]:
    """Sort cells into ranks from the top; the least rank may be negative."""
    by_rank: dict[int, list[Cell]] = {}
    for cell in cells:
        by_rank.setdefault(cell.rank, []).append(cell)
    return [by_rank[rank] for rank in sorted(by_rank)]


def _arrange(ranks: list[list[Cell]]) -> None:
    """Sweep down and up: order each rank by the middle of its neighbours above (below), then space it."""
    sorting = 0 if ordered(ranks) else SORTING_SWEEPS
    for rank in ranks:
        _space(rank, [0.0] * len(rank))
    for sweep in range(SWEEPS):
        for rank in ranks if sweep % 2 == 0 else reversed(ranks):
            if sweep < sorting:
                side = -1 if sweep % 2 == 0 else 1
                rank.sort(key=lambda cell: _middle(cell, side))
            _space(rank, [_middle(cell, 0) for cell in rank])


def ordered(ranks: list[list[Cell]]) -> bool:
    """Sort each rank with few crossings, by igraph's layered layout; return False where igraph is not installed."""
    try:
        import igraph
    except ImportError:
        return False
    cells = [cell for rank in ranks for cell in rank]
    index = {id(cell): number for number, cell in enumerate(cells)}
    levels = [level for level, rank in enumerate(ranks) for _ in rank]
    edges = [(index[id(c)], index[id(n)]) for c in cells for n in c.near if n.rank > c.rank]
    drawing = igraph.Graph(len(cells), edges, directed=True)
    places = [place[0] for place in drawing.layout_sugiyama(layers=levels, maxiter=100).coords]
    for rank in ranks:
        rank.sort(key=lambda cell: places[index[id(cell)]])
    return True


def _middle(cell: Cell, side: int) -> float:
    """Return the mean place of the neighbours above (-1), below (1) or on both sides (0)."""
    places = [n.x for n in cell.near if not side or (n.rank - cell.rank) * side > 0]
    return sum(places) / len(places) if places else cell.x


def _space(rank: list[Cell], wanted: list[float]) -> None:
    """Put cells as near as can be to where they want to be, without overlap: weighted isotonic regression."""
    offsets = [0.0]
    for one, other in pairwise(rank):
        offsets.append(offsets[-1] + one.right + other.left + GAP_X)
    pools: list[tuple[float, float, int]] = []  # mean, weight, how many
    for cell, want, offset in zip(rank, wanted, offsets, strict=True):
        pool = (want - offset, cell.weight, 1)
        while pools and pools[-1][0] > pool[0]:
            mean, weight, many = pools.pop()
            total = weight + pool[1]
            pool = ((mean * weight + pool[0] * pool[1]) / total, total, many + pool[2])
        pools.append(pool)
    means = [mean for mean, _, many in pools for _ in range(many)]
    for cell, mean, offset in zip(rank, means, offsets, strict=True):
        cell.x = mean + offset


def _place(ranks: list[list[Cell]]) -> Size:
    """Shift everything right of 0, stack the ranks, and return width and height."""
    left = min((c.x - c.left for rank in ranks for c in rank), default=0.0)
    top = 0.0
    for rank in ranks:
        height = max(cell.height for cell in rank)
        for cell in rank:
            cell.x -= left
            cell.y = top + (height - cell.height) / 2
        top += height + GAP_Y
    width = max((c.x + c.right for rank in ranks for c in rank), default=0.0)
    return width, max(top - GAP_Y, 0.0)
