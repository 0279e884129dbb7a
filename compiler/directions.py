"""Where do directions flow? Which blocks perturb, and how tangents and credit pass between them.

A gradient link between two blocks that perturb carries tangents forwards, and each sample's credit back: a block takes
the credit of every such block that a path of such links leads to. From a block behind that backpropagates it takes the
exact cotangent. The reverse is impossible: a block that backpropagates would need cotangents through one that has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import networkx as nx

from lpc.compiler.credit import Passage, passages
from lpc.compiler.estimator import Estimator, estimator
from lpc.compiler.rules import stated_at
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.model import Spec


def is_feedback(boundary: Mapping[str, Any]) -> bool:
    """Does a boundary send the output's error back, projected?"""
    return bool(boundary["link"].name == "feedback")


@dataclass
class Directions:
    """The estimators of all blocks, and what passes between those that perturb."""

    spec: Spec
    graph: nx.DiGraph[str]
    estimators: Mapping[str, Estimator] = field(init=False)

    def __post_init__(self) -> None:
        self.estimators = {block: estimator(self.spec, block) for block in self.graph.nodes}
        self.links = passages(self.graph)

    def moved(self, block: str) -> list[str]:
        """Return the blocks that read a block's tangents."""
        if not self.estimators[block].perturbs:
            return []
        after = self.graph.successors(block)
        return [b for b in after if self.estimators[b].perturbs and self.links[block, b].open]

    def movers(self, block: str) -> list[str]:
        """Return the blocks whose tangents a block reads."""
        return [b for b in self.graph.predecessors(block) if block in self.moved(b)]

    def ahead(self, block: str) -> tuple[str, ...]:
        """Return the blocks whose credit a block takes, in topological order."""
        found: set[str] = set()
        stack = self.moved(block)
        while stack:
            one = stack.pop()
            if one not in found:
                found.add(one)
                stack += self.moved(one)
        return tuple(b for b in self.graph.nodes if b in found)

    def passes(self, block: str) -> int:
        """Return how many directions are drawn."""
        return int(self.estimators[block].options.get("passes", 1))

    def ensure_sound(self) -> None:
        """Raise LpcError (0420) for blocks that cannot pass each other what they need."""
        for (before, after), link in self.links.items():
            message = self.clash(before, after, link) if link.open else None
            if message is not None:
                raise LpcError(Diagnostic("0420", message, span=stated_at(self.spec, after, "estimator")))

    def clash(self, before: str, after: str, link: Passage) -> str | None:
        first, second, limited = self.estimators[before], self.estimators[after], link.reach is not None
        if first.perturbs and link.furthest:
            return f"block `{before}` cannot tell the furthest loss from the others by its directions"
        if second.perturbs and not first.perturbs:
            return f"block `{before}` needs a gradient through block `{after}`, which has only forward derivatives"
        if second.perturbs and limited:
            return f"a gradient of limited reach cannot be estimated through block `{after}`"
        if second.perturbs and self.passes(before) != self.passes(after):
            return f"blocks `{before}` and `{after}` pass tangents on, but draw different numbers of directions"
        return None
