"""Which blocks learn by a target, and by which one? The layer it is for, the transfer after it, and its local loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import networkx as nx
from torch import Tensor, fx

from lpc.compiler.formulas import Formula, formula, weights_of
from lpc.compiler.frontend.trace import Traced
from lpc.compiler.losses.matching import TRANSFERS, Transfer
from lpc.compiler.moments import moments_pay
from lpc.compiler.partition.view import Site, View, view
from lpc.compiler.rules import stated, stated_at
from lpc.compiler.transfers import UnmatchedError, transfer_after, transfer_of_loss
from lpc.specs import signatures
from lpc.specs.diagnostics import Diagnostic, LpcError, one_of
from lpc.specs.model import Spec
from lpc.specs.signatures.targets import TARGET_LOSSES
from lpc.specs.term import Term

SQUARED, MATCHING, DISTANCE = "squared", "matching", "distance"
DIFFERENCE = "difference"  # the rule by which inverses carry targets


@dataclass(frozen=True)
class Carrying:
    """How targets pass a block back to the one that hands it the value `read`: by the head of the loss `inverse`."""

    read: str
    inverse: str


@dataclass(frozen=True)
class Target:
    """A block's local problem towards a target.

    `node` names the pre-activation A in the training graph: what the block's last layer computes, all parameters of
    the block before it, none behind. G is the loss's gradient there. With `squared` the target is A - step G, else
    f(A) - step G with the `transfer` f; `natural` takes G S^-1 for G, S = B G'G + damping; with `clips` the target of
    `matching` stays in f's range. `reduction` is that of the local loss; `solver` says how it is solved, and with a
    square in gradient steps `by_moments` of the layer's inputs where that costs less. The problem has the samples 0,
    `every`, 2 `every`, ... of a batch.

    Under the rule `difference` (`differs`) the node is what the block hands on, h: its target is h - step d of the d
    that comes back, its loss `distance`, and `carrying` says how targets go on from there, if they do.
    """

    node: str
    loss: str
    transfer: Transfer
    step: float
    natural: bool
    damping: float
    clips: bool
    reduction: str
    solver: Term
    formula: Formula = field(default_factory=Formula)
    by_moments: bool = False
    every: int = 1
    carrying: Carrying | None = None

    @property
    def differs(self) -> bool:
        """Does what comes back, times the step, lead from the target to what the block hands on?"""
        return self.loss == DISTANCE

    @property
    def f(self) -> Transfer:
        """What the local problem compares with the target: the transfer, or nothing but A itself."""
        return self.transfer if self.loss == MATCHING else TRANSFERS["linear"]()


def is_target(boundary: Mapping[str, Any]) -> bool:
    """Does a boundary make a target of what comes back?"""
    return bool(boundary["link"].name == "target")


def targeted(spec: Spec, graph: nx.DiGraph[str]) -> dict[str, Term]:
    """Return the blocks that learn by a target, each with its link.

    They are those that `target` links leave, and the output's block where `target` links alone lead to it and its own
    loss compares with targets; otherwise it learns by backpropagation. Raises LpcError (0434) for a block that other
    links leave as well, unless these are `stop`.
    """
    found: dict[str, Term] = {}
    for block in graph.nodes:
        output = block == graph.graph["output_block"]
        links = [data["link"] for *_, data in (graph.in_edges if output else graph.out_edges)(block, data=True)]
        links = links or ([spec.decompose.links["*"]] if output and "*" in spec.decompose.links else [])
        names = {link.name for link in links}
        if "target" not in names or (output and (names != {"target"} or not _aims(spec, block))):
            continue
        if output and any(map(differs, links)):  # it descends its loss, and gives the gradient
            continue
        others = sorted(names - {"target", "stop"})
        if others:
            message = f"a link `target` leaves block `{block}`, and so does `{others[0]}`: it would learn by both"
            raise LpcError(Diagnostic("0434", message, span=spec.origin("decompose", "links")))
        found[block] = next(link for link in links if link.name == "target")
    return found


def differs(link: Term) -> bool:
    """Is a link `target` of the rule by which inverses carry targets?"""
    return link.name == "target" and bool(signatures.LINKS["target"].bind(link)["rule"] == DIFFERENCE)


def carries(graph: nx.DiGraph[str], block: str) -> bool:
    """Do targets come back to a block by the rule `difference`, and go on over it?"""
    inside, outside = graph.in_edges(block, data=True), graph.out_edges(block, data=True)
    return all(any(differs(data["link"]) for *_, data in edges) for edges in (inside, outside))


def _aims(spec: Spec, block: str) -> bool:
    return any(term.name in TARGET_LOSSES for term in stated(spec, block, "loss") or ())


def targets(spec: Spec, traced: Traced, graph: nx.DiGraph[str]) -> dict[str, Target]:
    """Return the local problems of all blocks that learn by a target. Raises LpcError (0434, 0435) for an unfit one."""
    links = {block: link for block, link in targeted(spec, graph).items() if not differs(link)}
    if not links:
        return {}
    ensure_alone(spec, graph)
    seen = view(traced.train)
    learners = [b for b in links if graph.nodes[b]["parameters"]]
    idle = [b for b in links if b not in learners and not graph.nodes[b].get("frozen")]
    if idle:
        message = f"a link `target` leaves block `{idle[0]}`, which has no parameters"
        raise LpcError(Diagnostic("0434", message, span=spec.origin("decompose", "links")))
    named = traced.train.named_parameters(remove_duplicate=False)
    parameters = {traced.tied.get(name, name): parameter for name, parameter in named}
    return {block: _target(spec, graph, seen, block, links[block], parameters, traced) for block in learners}


def ensure_alone(spec: Spec, graph: nx.DiGraph[str]) -> None:
    """Refuse links that limit the reach of gradients beside those that make targets (0434)."""
    limited = [d["link"] for *_, d in graph.edges(data=True) if d["link"].name == "gradient" and d["link"].kwargs]
    if limited:
        message = f"`{limited[0]}` limits the reach of gradients, and targets are made of all that comes back"
        raise LpcError(Diagnostic("0434", message, span=spec.origin("decompose", "links")))


def _target(
    spec: Spec, graph: nx.DiGraph[str], seen: View, block: str, link: Term,
    parameters: Mapping[str, Any], traced: Traced,
) -> Target:  # fmt: skip
    options = signatures.LINKS["target"].bind(link)
    term = _loss(spec, graph, block)
    site = _preactivation(spec, graph, seen, block)
    transfer = TRANSFERS["linear"]()
    if term.name == MATCHING:
        transfer = _transfer(spec, graph, seen, block, site, TARGET_LOSSES[MATCHING].bind(term)["transfer"])
    linear = term.name == SQUARED or transfer.name == "linear"
    rows = -(-spec.batch_size // int(options["every"]))
    trained = [n for n in graph.nodes[block]["parameters"] if parameters[n].requires_grad]
    return Target(
        site.node.name,
        term.name,
        transfer,
        float(options["step"]),
        options["rule"] == "natural",
        float(options["damping"]),
        options["range"] == "clip",
        stated(spec, block, "reduction") or "mean",
        stated(spec, block, "solver") or Term("gradient"),
        formula(spec, block, linear, site.node.meta["val"], *weights_of(parameters, trained), rows),
        linear and moments_pay(spec, block, traced, site.node, trained, rows),
        int(options["every"]),
    )


def _loss(spec: Spec, graph: nx.DiGraph[str], block: str) -> Term:
    said: tuple[Term, ...] = stated(spec, block, "loss") or ()
    span = stated_at(spec, block, "loss")
    if block == graph.graph["output_block"] and not spec.loss:
        message = f"block `{block}` owns the output and learns by a target, which a top-level `loss` must make"
        raise LpcError(Diagnostic("0406", message, span=span))
    if len(said) == 1 and said[0].name in (SQUARED, MATCHING):
        return said[0]
    found = f"its loss is {one_of([str(term) for term in said])}" if said else "it has no loss"
    message = f"block `{block}` learns by a target, and {found}; expected {one_of([SQUARED, MATCHING])}"
    raise LpcError(Diagnostic("0434", message, span=span))


# The layer


def _preactivation(spec: Spec, graph: nx.DiGraph[str], seen: View, block: str) -> Site:
    """Return the last layer of a block: all other layers come before it, and lead nowhere else."""
    own = set(graph.nodes[block]["nodes"]["train"])
    sites = [s for s in seen.sites if s.node.name in own]
    layers = [s for s in sites if s.kind == "tensor" and s.parameters]
    last = layers[-1]
    if not isinstance(last.node.meta["val"], Tensor):
        message = f"the last layer of block `{block}`, {last}, hands on several tensors, and a target is one"
        help = "link this block by `gradient`: it then learns by backpropagation"
        raise LpcError(Diagnostic("0434", message, span=spec.origin("decompose", "blocks"), help=help))
    beside = _leading_out(seen, sites, {s.index for s in layers[:-1]}, last.index)
    if beside is None:
        return last
    message = (
        f"block `{block}` has no single last layer: {beside} reaches its output without {last},"
        " so that one target would not teach both"
    )
    help = "give each of the two layers a block of its own, or link this block by `gradient`"
    raise LpcError(Diagnostic("0434", message, span=spec.origin("decompose", "blocks"), help=help))


def _leading_out(seen: View, sites: Sequence[Site], layers: set[int], last: int) -> Site | None:
    """Return the first of `layers` from which a path leads out of the block that does not pass `last`."""
    inside = {s.index for s in sites}
    for start in sorted(layers):
        stack, known = [start], {start}
        while stack:
            index = stack.pop()
            read = [i for i in seen.consumers[index] if seen.sites[i].kind == "tensor"]
            if index == seen.output or any(i not in inside for i in read):
                return seen.sites[start]
            new = [i for i in read if i != last and i not in known]
            stack += new
            known.update(new)
    return None


# The transfer behind it


def _transfer(spec: Spec, graph: nx.DiGraph[str], seen: View, block: str, site: Site, named: str) -> Transfer:
    if named != "auto":
        return TRANSFERS[named]()
    reader = _reader(seen, site, set(graph.nodes[block]["nodes"]["train"]))
    try:
        if reader is not None:
            return transfer_after(reader, site.node)
        if block == graph.graph["output_block"] and site.index == seen.output:
            return transfer_of_loss(spec.loss, len(site.node.meta["val"].shape))
    except UnmatchedError as problem:
        message = f"no loss matches what follows {site} in block `{block}`: {problem}"
        help = "write `loss: squared`, or name a transfer to match instead, such as `matching(transfer=relu)`"
        raise LpcError(Diagnostic("0435", message, span=stated_at(spec, block, "loss"), help=help)) from problem
    return TRANSFERS["linear"]()


def _reader(seen: View, site: Site, own: set[str]) -> fx.Node | None:
    """Return the node of the block's own that alone reads a pre-activation."""
    readers = [seen.sites[i].node for i in seen.consumers[site.index] if seen.sites[i].kind == "tensor"]
    alone = len(readers) == 1 and readers[0].name in own and site.index != seen.output
    return readers[0] if alone else None
