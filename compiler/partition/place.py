"""Where does everything else go? Undecided nodes join a neighbouring block, without ever making a cycle.

Take the graph whose vertices are the blocks and the undecided nodes. Undecided nodes between two parts of one
block (a strongly connected component with one block in it) join that block. Of what is left, number the
components in topological order and give a node to the highest of its producers' blocks; then every edge goes
from a lower to a higher block or stays, so the quotient is acyclic. It is cyclic if and only if a component
holds two blocks, whatever is done with the undecided nodes. Nodes before any block go to the lowest of their
consumers'.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import networkx as nx

from lpc.compiler.partition.assignment import Assignment
from lpc.compiler.partition.view import View

Pick = Callable[[Iterable[str]], str]


def place(view: View, assignment: Assignment) -> list[str]:
    """Return the block of every site, in linear time up to a logarithm. Needs at least one block."""
    return _Placement(view, assignment).run()


@dataclass
class _Placement:
    view: View
    assignment: Assignment
    blocks: list[str] = field(init=False)
    rank: dict[str, int] = field(init=False)

    def run(self) -> list[str]:
        fixed = self.assignment.fixed
        self.blocks = [fixed.get(site.index, "") for site in self.view.sites]
        self.rank = dict.fromkeys(self.assignment.blocks, 0)
        self.absorb_and_rank()
        if self.assignment.toward == "producer":
            self.toward_producers()
        self.toward_consumers()
        self.toward_producers()
        self.join_roots()
        self.place_rest()
        return self.blocks

    def absorb_and_rank(self) -> None:
        """Order the blocks by where they stand in the flow; fix undecided nodes inside a block's span."""
        vertex = self.vertices()
        order = self.topological(vertex)
        cyclic = {v for site in self.view.roots if (v := vertex[site.index]) not in order}
        if cyclic:
            self.absorb(vertex, cyclic)
            vertex = self.vertices()
            order = self.topological(vertex)
        for site in self.view.roots:
            block = self.blocks[site.index]
            if block:  # blocks on a cycle come last, in graph order; the check of the result names them
                self.rank[block] = order.get(vertex[site.index], len(order) + vertex[site.index])

    def vertices(self) -> list[int]:
        """Return each site's vertex in the mixed graph: the first site of its block, or itself."""
        first: dict[str, int] = {}
        return [first.setdefault(block, i) if block else i for i, block in enumerate(self.blocks)]

    def topological(self, vertex: list[int]) -> dict[int, int]:
        """Return the position of each vertex, earliest first; those on or behind a cycle are missing."""
        waiting: Counter[int] = Counter()
        after: dict[int, list[int]] = {}
        for one, other in self.edges(vertex):
            waiting[other] += 1
            after.setdefault(one, []).append(other)
        ready = sorted({vertex[s.index] for s in self.view.roots} - waiting.keys())
        order: dict[int, int] = {}
        while ready:
            done = heapq.heappop(ready)
            order[done] = len(order)
            for other in after.get(done, ()):
                waiting[other] -= 1
                if not waiting[other]:
                    heapq.heappush(ready, other)
        return order

    def edges(self, vertex: list[int]) -> Iterator[tuple[int, int]]:
        """Yield the mixed graph's edges, several times where several tensors flow."""
        for site in self.view.roots:
            own = vertex[site.index]
            for source in self.view.sources[site.index]:
                if vertex[source] != own:
                    yield vertex[source], own

    def absorb(self, vertex: list[int], cyclic: set[int]) -> None:
        """Fix the undecided nodes of every strongly connected component that holds one block."""
        inner = (edge for edge in self.edges(vertex) if cyclic.issuperset(edge))
        for members in nx.strongly_connected_components(nx.DiGraph(inner)):
            own = {self.blocks[member] for member in members} - {""}
            if len(own) == 1:
                for member in members:
                    (self.blocks[member],) = own

    def toward_producers(self) -> None:
        for site in self.view.roots:
            self.settle(site.index, self.view.sources[site.index], self.latest)

    def toward_consumers(self) -> None:
        for site in reversed(self.view.roots):
            self.settle(site.index, self.view.targets[site.index], self.earliest)

    def join_roots(self) -> None:
        """What no block reaches or is reached by can be read but reads nothing placed: it goes first."""
        start = min(self.rank, key=self.rank.__getitem__)
        for site in self.view.roots:
            self.blocks[site.index] = self.blocks[site.index] or start
        for site in self.view.sites:
            if site.kind == "tensor":
                self.blocks[site.index] = self.blocks[site.root]

    def place_rest(self) -> None:
        """State goes where it is read first, values where they are made; the rest, first."""
        for site in self.view.sites:
            if site.kind == "value":
                self.settle(site.index, site.producers, self.latest)
        for site in reversed(self.view.sites):
            self.settle(site.index, self.view.consumers[site.index], self.earliest)
        start = min(self.rank, key=self.rank.__getitem__)
        self.blocks = [block or start for block in self.blocks]

    def settle(self, site: int, neighbours: Iterable[int], pick: Pick) -> None:
        if not self.blocks[site]:
            known = [self.blocks[n] for n in neighbours if self.blocks[n]]
            self.blocks[site] = pick(known) if known else ""

    def latest(self, blocks: Iterable[str]) -> str:
        return max(blocks, key=self.rank.__getitem__)

    def earliest(self, blocks: Iterable[str]) -> str:
        return min(blocks, key=self.rank.__getitem__)
