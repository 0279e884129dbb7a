"""Which blocks aim at targets that learned inverses carry down? Difference target propagation, block by block.

A block hands on h and gets back a difference d: its target is h - d, what it minimises |h - target|^2. Over the last
link of that kind comes a gradient, of which d is so many as `step` says; a block that gets d sends g(h) - g(h - d) to
the one before it. Its g is a head that learns to undo the block (Lee et al. 2015, arXiv 1412.7525).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

import networkx as nx

from lpc.compiler.blocks import outside_readers, outside_tensors
from lpc.compiler.frontend.trace import Traced
from lpc.compiler.losses.matching import TRANSFERS
from lpc.compiler.rules import stated, stated_at
from lpc.compiler.targets import DIFFERENCE, DISTANCE, Carrying, Target, carries, differs, ensure_alone, targeted
from lpc.specs import signatures
from lpc.specs.diagnostics import Diagnostic, LpcError, one_of
from lpc.specs.model import Spec
from lpc.specs.signatures.targets import INVERSE
from lpc.specs.source import Span
from lpc.specs.term import Term

# What a block may say of how it learns, where it says anything: it takes one plain gradient step on a batch.
PLAIN: Mapping[str, tuple[Any, ...]] = {
    "solver": ("gradient",), "estimator": ("backprop",), "correct": ("none",), "steps": (1,),
}  # fmt: skip


def differences(spec: Spec, traced: Traced, graph: nx.DiGraph[str]) -> dict[str, Target]:
    """Return the targets of all blocks that links `target(rule=difference)` leave.

    Raises LpcError (0434) for a block that they do not fit.
    """
    links = {block: link for block, link in targeted(spec, graph).items() if differs(link)}
    if not links:
        return {}
    ensure_alone(spec, graph)
    reader = _Reader(spec, traced, graph, frozenset(links))
    return {block: reader.target(block, link) for block, link in links.items() if reader.learns(block)}


class _Reader:
    def __init__(self, spec: Spec, traced: Traced, graph: nx.DiGraph[str], aiming: frozenset[str]) -> None:
        self.spec, self.traced, self.graph, self.aiming = spec, traced, graph, aiming

    def learns(self, block: str) -> bool:
        """Has a block parameters to learn? One without must not stand where targets pass."""
        if self.graph.nodes[block]["parameters"] and not self.graph.nodes[block].get("frozen"):
            return True
        if carries(self.graph, block) or not self.graph.nodes[block].get("frozen"):
            self.refuse(f"a link `target` leaves block `{block}`, which learns nothing")
        return False

    def target(self, block: str, link: Term) -> Target:
        self.ensure_plain(block, link)
        consumer, value = self.handed(block)
        carried = carries(self.graph, block)
        self.ensure_entered(block)
        self.ensure_losses(block, carried)
        gradient = not (consumer in self.aiming and carries(self.graph, consumer))
        return Target(
            node=value,
            loss=DISTANCE,
            transfer=TRANSFERS["linear"](),
            step=float(signatures.LINKS["target"].bind(link)["step"]) if gradient else 1.0,
            natural=False,
            damping=0.0,
            clips=False,
            reduction=stated(self.spec, block, "reduction") or "mean",
            solver=Term("gradient"),
            carrying=self.carrying(block) if carried else None,
        )

    def handed(self, block: str) -> tuple[str, str]:
        """Return the block that reads what this one hands on, and the name of that: both are one."""
        edges = [(b, data["link"]) for _, b, data in self.graph.out_edges(block, data=True)]
        readers = [b for b, link in edges if differs(link)]
        values = self.floating(outside_readers(self.traced.train, self.graph.nodes[block]["nodes"]["train"]))
        if len(readers) > 1:
            self.refuse(f"links `target(rule=difference)` lead from block `{block}` to {one_of(readers)}, not to one")
        if len(values) != 1:
            self.refuse(f"block `{block}` hands on {self.several(values)}, and a target is for one")
        return readers[0], values[0]

    def carrying(self, block: str) -> Carrying:
        """Return how targets pass a block: it reads one tensor, of a block that links of this kind leave."""
        found = outside_tensors(self.traced.train, self.graph.nodes[block]["nodes"]["train"])
        values = self.floating([node.name for node in found])
        if len(values) != 1:
            self.refuse(f"block `{block}` reads {self.several(values)}, and an inverse gives one back")
        place = next(i for i, term in enumerate(self.losses(block)) if term.name == INVERSE)
        return Carrying(values[0], f"{INVERSE}{place}")

    def ensure_entered(self, block: str) -> None:
        """What a block sends back is no gradient."""
        for before, _, data in self.graph.in_edges(block, data=True):
            link = data["link"]
            if link.name == "gradient" or (link.name == "target" and not differs(link)):
                message = f"the link `{before}->{block}` is `{link}`, and what `{block}` sends back is no gradient"
                self.refuse(message)

    def losses(self, block: str) -> Sequence[Term]:
        return stated(self.spec, block, "loss") or ()

    def ensure_losses(self, block: str, carried: bool) -> None:
        """A block compares with its target, and learns its inverse; nothing else."""
        said = [term.name for term in self.losses(block)]
        wanted = [DISTANCE, INVERSE] if carried else [DISTANCE]
        missing = [name for name in wanted if said.count(name) != 1]
        others = [name for name in said if name not in (DISTANCE, INVERSE)]
        if missing or others:
            found = one_of(said) if said else "none"
            message = f"block `{block}` aims at a target of `rule={DIFFERENCE}`, and its losses are {found}"
            help = f"write `loss: [{DISTANCE}, {INVERSE}]`"
            self.refuse(message, stated_at(self.spec, block, "loss"), help)

    def ensure_plain(self, block: str, link: Term) -> None:
        options = signatures.LINKS["target"].bind(link)
        for key, plain in (("range", None), ("every", 1)):
            if options[key] != plain:
                self.refuse(f"`{key}={options[key]}` of the link after block `{block}` is not for `rule={DIFFERENCE}`")
        for key, word in self.further(block):
            message = f"`{key}: {word}` of block `{block}` does not go with targets of `rule={DIFFERENCE}`"
            self.refuse(message, stated_at(self.spec, block, key), f"remove `{key}`")

    def further(self, block: str) -> Iterator[tuple[str, Any]]:
        """Yield what `learn` says of a block beside one plain step."""
        for key, plain in PLAIN.items():
            given = stated(self.spec, block, key)
            word = given.name if isinstance(given, Term) else given
            if word is not None and word not in plain:
                yield key, word

    def floating(self, names: Sequence[str]) -> list[str]:
        nodes = {n.name: n for n in self.traced.train.graph.nodes}
        return [name for name in names if nodes[name].meta["val"].is_floating_point()]

    def several(self, values: Sequence[str]) -> str:
        return f"{len(values)} tensors ({', '.join(values)})" if values else "no floating-point tensor"

    def refuse(self, message: str, span: Span | None = None, help: str | None = None) -> NoReturn:
        where = span or self.spec.origin("decompose", "links")
        raise LpcError(Diagnostic("0434", message, span=where, help=help))
