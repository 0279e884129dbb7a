"""How far does a loss's gradient travel? Ages of cotangents, and the links that let them pass.

A cotangent's age counts the boundaries that it has crossed since it left its loss. A link `gradient(reach=n)` lets it
pass if it has then crossed at most n. Ages from the largest finite reach of the network on (its *horizon*) are one:
only links without a limit let them pass. Without any limit the horizon is 0 and all cotangents are of age 0.
A cotangent passes a link `target` as well: what it makes of the block there is a target instead of gradients.

Sources: LoCo (Xiong, Ren, Urtasun 2020, arXiv 2008.01342) is reach 1; the look-ahead horizons of arXiv 2409.19561 are
`reach=h-1, only=furthest`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import networkx as nx

from lpc.specs import signatures
from lpc.specs.term import Term


@dataclass(frozen=True)
class Passage:
    """A boundary's link for gradients. `reach` is None without a limit; a closed one lets nothing pass."""

    open: bool
    reach: int | None
    furthest: bool

    def passes(self, age: int) -> bool:
        """Does a cotangent of this age cross the boundary?"""
        return self.open and (self.reach is None or age + 1 <= self.reach)


def passage(boundary: Mapping[str, Any]) -> Passage:
    """Read a boundary's link; where only masks or indices cross there is nothing to differentiate."""
    link: Term = boundary["link"]
    floating = any("float" in tensor["dtype"] for tensor in boundary["tensors"])
    if link.name == "target" and floating:
        return Passage(True, None, False)
    if link.name != "gradient" or not floating:
        return Passage(False, None, False)
    options: dict[str, Any] = signatures.LINKS["gradient"].bind(link)
    return Passage(True, options["reach"], options["only"] == "furthest")


def passages(graph: nx.DiGraph[str]) -> dict[tuple[str, str], Passage]:
    """Return the passage of every boundary."""
    return {(a, b): passage(data) for a, b, data in graph.edges(data=True)}


def horizon(graph: nx.DiGraph[str]) -> int:
    """Return the largest finite reach, 0 where no link has one."""
    return max((p.reach for p in passages(graph).values() if p.open and p.reach is not None), default=0)


def crossed(age: int, limit: int) -> int:
    """Return the age after one more boundary, under a horizon."""
    return min(age + 1, limit)


def furthest_only(ages: Iterable[int]) -> frozenset[int]:
    """Return the largest age alone: the loss that was read out furthest ahead."""
    known = list(ages)
    return frozenset({max(known)}) if known else frozenset()


def losses_by_age(graph: nx.DiGraph[str], sources: Iterable[str]) -> dict[str, dict[int, frozenset[str]]]:
    """Return {block: {age: the blocks in `sources` whose losses arrive there at that age}}."""
    limit, links = horizon(graph), passages(graph)
    found: dict[str, dict[int, set[str]]] = {block: {} for block in graph.nodes}
    stack = [(block, 0, block) for block in sources]
    fed = {a for a, _, data in graph.edges(data=True) if data["link"].name == "feedback"}
    stack += [(block, 0, graph.graph["output_block"]) for block in fed]
    while stack:
        block, age, source = stack.pop()
        known = found[block].setdefault(age, set())
        if source in known:
            continue
        known.add(source)
        stack += [
            (producer, crossed(age, limit), source)
            for producer in graph.predecessors(block)
            if links[producer, block].passes(age)
        ]
    return {b: {age: frozenset(names) for age, names in ages.items()} for b, ages in found.items()}
