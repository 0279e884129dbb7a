"""Which blocks are pieces of one problem between auxiliary variables? Those that gradient links join.

What a variable is solved for, and what weights minimise, are the terms of all pieces that depend on them: gradients
pass from piece to piece as in backpropagation, and end at variables.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import networkx as nx

from lpc.compiler.rules import stated, stated_at
from lpc.compiler.variables import Variable, Variables
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.model import Spec


@dataclass(frozen=True)
class Group:
    """Pieces in topological order, their gradient links with the values that cross them, and the variables around."""

    blocks: tuple[str, ...]
    links: tuple[tuple[str, str, tuple[str, ...]], ...]
    reads: tuple[Variable, ...]
    makes: tuple[Variable, ...]

    def after(self, block: str) -> tuple[str, ...]:
        """Return the pieces that a gradient link path leads to from a piece, in topological order."""
        return self._ordered(nx.descendants(self._graph, block))

    def before(self, block: str) -> tuple[str, ...]:
        """Return the pieces from which such a path leads to a piece, in topological order."""
        return self._ordered(nx.ancestors(self._graph, block))

    def crossing(self, consumer: str) -> tuple[str, ...]:
        """Return the values that a piece gets over gradient links."""
        return tuple(dict.fromkeys(v for _, b, values in self.links if b == consumer for v in values))

    def moves(self, block: str) -> bool:
        """Does what a piece computes depend on variables?"""
        around = {block, *self.before(block)}
        return any(not around.isdisjoint(variable.consumers) for variable in self.reads)

    def moving(self, block: str) -> tuple[str, ...]:
        """Return the pieces before a piece whose values depend on variables, in topological order."""
        return tuple(b for b in self.before(block) if self.moves(b))

    @cached_property
    def _graph(self) -> nx.DiGraph[str]:
        graph: nx.DiGraph[str] = nx.DiGraph()
        graph.add_edges_from((a, b) for a, b, _ in self.links)
        return graph

    def _ordered(self, found: Collection[str]) -> tuple[str, ...]:
        return tuple(b for b in self.blocks if b in found)


def groups(spec: Spec, graph: nx.DiGraph[str], variables: Variables) -> dict[str, Group]:
    """Return the group of each block that a gradient link joins to another one.

    Raises LpcError (0423) for pieces whose parts of the objective cannot be put together.
    """
    if not variables:
        return {}
    joined = [(a, b, _floating(data)) for a, b, data in graph.edges(data=True) if data["link"].name == "gradient"]
    together: nx.Graph[str] = nx.Graph()
    together.add_edges_from((a, b) for a, b, _ in joined)
    found: dict[str, Group] = {}
    for component in nx.connected_components(together):
        blocks = tuple(b for b in graph.nodes if b in component)
        every = variables.every.values()
        group = Group(
            blocks,
            tuple(link for link in joined if link[0] in component),
            tuple(v for v in every if not component.isdisjoint(v.consumers)),
            tuple(v for v in every if v.producer in component),
        )
        _ensure_sound(spec, group, variables)
        found |= dict.fromkeys(blocks, group)
    return found


def weighing(variable: Variable) -> tuple[object, ...]:
    """Return what tells how a variable's objective weighs a block's terms; a law is the variable's own."""
    weight = str(variable.penalty.weight) if variable.divides else None
    return (variable.penalty.reduction, str(variable.scale), weight, *variable.laws)


def _ensure_sound(spec: Spec, group: Group, variables: Variables) -> None:
    names = ", ".join(f"`{block}`" for block in group.blocks)
    if len({weighing(variable) for variable in group.reads}) > 1:
        solved = " and ".join(f"`{variable.name}`" for variable in group.reads)
        message = f"{solved} weigh the terms of {names}, which gradients join, in ways of their own"
        raise LpcError(_wrong(spec, message, "give them one `reduction`, `scale` and `divide_by_weight`, without laws"))
    if len({v.penalty.reduction == "mean" for v in (*group.reads, *group.makes)}) > 1:
        message = f"{names}, which gradients join, are between variables whose penalties are means, and others"
        raise LpcError(_wrong(spec, message, "give all penalties one `reduction`"))
    if variables.moving:
        message = f"`buffers=every` does not say how often buffers of {names} move, which gradients join"
        raise LpcError(_wrong(spec, message, "take `buffers=once`"))
    for block in group.blocks:
        given, steps = stated(spec, block, "solver"), stated(spec, block, "steps")
        wrong = f"solver: {given.name}" if given is not None and given.name != "gradient" else ""
        wrong = wrong or (f"steps: {steps}" if (steps or 1) > 1 else "")
        if wrong:
            key, message = wrong.partition(":")[0], f"`{wrong}` is for a block alone, and gradients join {names}"
            span = stated_at(spec, block, key)
            help = f"remove `{key}`, or let the links be variables"
            raise LpcError(Diagnostic("0423", message, span=span, help=help))


def _wrong(spec: Spec, message: str, help: str) -> Diagnostic:
    return Diagnostic("0423", message, span=spec.origin("decompose", "links"), help=help)


def _floating(boundary: dict[str, object]) -> tuple[str, ...]:
    tensors: list[dict[str, str]] = boundary["tensors"]  # type: ignore[assignment]
    return tuple(tensor["name"] for tensor in tensors if "float" in tensor["dtype"])
